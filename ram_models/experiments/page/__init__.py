"""What is shown of the results: figures and the page docs/reproduction.md."""
