"""Warnings that point at the user's own line."""

__all__ = ["warn_user"]

import sys
import warnings
from pathlib import Path

PACKAGE = Path(__file__).parent


def warn_user(message: str) -> None:
    """Issue a UserWarning at the innermost line outside of this package, however deep inside the package it arises.

    Args:
        message: Text of the warning.
    """
    level = 1
    frame = sys._getframe()
    while frame.f_back is not None and Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
