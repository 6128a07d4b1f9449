"""Restore Anything with Masks: the networks, degradations, data and recipes of RAM."""

__all__ = ["build", "ram_swinir", "ram_swinir_tiny", "sample"]

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ram_models.checkpoints import build, ram_swinir, ram_swinir_tiny
    from ram_models.datasets import sample

ORIGIN = {name: "ram_models.checkpoints" for name in ("build", "ram_swinir", "ram_swinir_tiny")}
ORIGIN["sample"] = "ram_models.datasets"


def __getattr__(name: str) -> object:
    """A public name, imported when it is first asked for: ``ram --help`` should not wait for torch."""
    if name not in ORIGIN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(ORIGIN[name]), name)
