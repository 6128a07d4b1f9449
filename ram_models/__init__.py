"""Restore Anything with Masks: the networks, degradations, data and recipes of RAM."""

__all__ = [
    "build",
    "load_weights",
    "ram_promptir",
    "ram_promptir_tiny",
    "ram_swinir",
    "ram_swinir_tiny",
    "sample",
]

from ram_models.checkpoints import build, load_weights, ram_promptir, ram_promptir_tiny, ram_swinir, ram_swinir_tiny
from ram_models.datasets import sample
