"""Warnings that point at the user's own line."""

__all__ = ["warn_user"]

import sys
import warnings
from types import FrameType


def warn_user(message: str) -> None:
    """Issue a UserWarning at the line that called the package from which this is called, however deep inside it arises.

    Args:
        message: Text of the warning.
    """
    packages = [__package__]
    frame = sys._getframe().f_back
    while frame is not None:
        packages.append(_package(frame))
        frame = frame.f_back
    ours = packages[:2]
    outermost = max(level for level, package in enumerate(packages, start=1) if package in ours)
    warnings.warn(message, stacklevel=outermost + 1)


def _package(frame: FrameType) -> str:
    """Outermost package of the module that a frame runs."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
