"""Training recipes, each read top to bottom."""
