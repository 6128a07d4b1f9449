"""Weights that are no plain tensors here, and the processes that share them."""
