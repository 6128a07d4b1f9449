"""Restore Anything with Masks: the networks, degradations, data and recipes of RAM."""

__all__ = [
    "build",
    "load_weights",
    "ram_denoise_tiny",
    "ram_promptir",
    "ram_promptir_tiny",
    "ram_swinir",
    "ram_swinir_tiny",
    "sample",
]

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ram_models.data.crops import sample
    from ram_models.networks.checkpoints import (
        build,
        load_weights,
        ram_denoise_tiny,
        ram_promptir,
        ram_promptir_tiny,
        ram_swinir,
        ram_swinir_tiny,
    )


def __getattr__(name: str) -> object:
    """A public name, imported when it is first asked for: ``ram --help`` should not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "ram_models.data.crops" if name == "sample" else "ram_models.networks.checkpoints"
    return getattr(importlib.import_module(module), name)
