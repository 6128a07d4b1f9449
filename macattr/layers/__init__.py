"""Layers by name: the modules of a network that can be ranked, with their parameters, sizes and positions."""
