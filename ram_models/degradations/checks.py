"""Checks of the parameters of degradations."""

__all__ = ["require_between", "require_size"]

import math

from torch import Tensor


def require_between(name: str, value: float | int, low: float | int, high: float | int, meaning: str) -> None:
    """Raise unless ``value`` is finite and lies in [``low``, ``high``].

    Args:
        name: Name of the argument.
        value: Value of the argument.
        low: Least value.
        high: Largest value.
        meaning: Its meaning, for the message.

    Raises:
        ValueError: If it does not.

    Example:
        >>> require_between("share", 0.1, 0, 1, "the fraction of black values")
    """
    if not (math.isfinite(value) and low <= value <= high):
        expected = "a finite number" if low == -math.inf else f"at least {low:g}"
        expected = f"in [{low:g}, {high:g}]" if high < math.inf else expected
        raise ValueError(f"`{name}` must be {expected}, got {value}: it is {meaning}.")


def require_size(image: Tensor, border: int) -> None:
    """Raise unless the image can be mirrored by ``border`` pixels.

    Raises:
        ValueError: If a side has no more than ``border`` pixels.
    """
    height, width = image.shape[-2:]
    if min(height, width) <= border:
        raise ValueError(
            f"an image of {height}x{width} pixels is too small for a blur that reaches {border} pixels far: give at "
            f"least {border + 1} pixels a side, or a smaller blur."
        )
