"""Checks of what callers pass in: tuples, whole counts, positive numbers, seeds, budgets of memory, names."""

__all__ = ["as_names", "as_tuple", "checked_budget", "checked_seed", "positive_number", "real_number", "whole_number"]

import math
from collections.abc import Iterable
from typing import Any

import numpy as np


def whole_number(name: str, value: object, least: int = 1, most: int | None = None) -> int:
    """The value as an integer; 30.0 and NumPy's integers are meant as such.

    Args:
        name: Argument that the value was given for.
        value: Number.
        least: Smallest allowed value.
        most: Largest allowed value; None for no limit.

    Raises:
        ValueError: If it is not a whole number in that range.

    Example:
        >>> whole_number("n_steps", 30.0)
        30
    """
    number = _number(value)
    if number is None or not math.isfinite(number) or number != int(number):
        raise ValueError(f"`{name}` must be a whole number, got {value!r}.")
    whole = int(number)
    if whole < least:
        raise ValueError(f"`{name}` must be at least {least}, got {whole}.")
    if most is not None and whole > most:
        raise ValueError(f"`{name}` must be at most {most}, got {whole}.")
    return whole


def as_tuple(value: Any) -> tuple[Any, ...]:
    """One or several values as a tuple; None is an empty one.

    Args:
        value: A tuple or list of values, or one value.

    Example:
        >>> as_tuple([1, 2]), as_tuple(1), as_tuple(None)
        ((1, 2), (1,), ())
    """
    if value is None:
        return ()
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def positive_number(name: str, value: object) -> float:
    """The value as a float.

    Args:
        name: Argument that the value was given for.
        value: Number.

    Raises:
        ValueError: If it is not a positive, finite number.
    """
    number = _number(value)
    if number is None or not 0 < number < math.inf:
        raise ValueError(f"`{name}` must be positive and finite, got {value!r}.")
    return float(number)


def real_number(name: str, value: object) -> float:
    """The value as a float.

    Args:
        name: Argument that the value was given for.
        value: Number.

    Raises:
        ValueError: If it is not a finite number.
    """
    number = _number(value)
    if number is None or not math.isfinite(number):
        raise ValueError(f"`{name}` must be a finite number, got {value!r}.")
    return float(number)


def as_names(name: str, value: object) -> tuple[str, ...]:
    """Names as a tuple; one alone may be given as it is.

    Args:
        name: Argument that they were given for.
        value: A text, or several.

    Raises:
        ValueError: If it is anything else.

    Example:
        >>> as_names("exclude", "*.norm")
        ('*.norm',)
    """
    names = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else (value,)
    if wrong := [each for each in names if not isinstance(each, str)]:
        raise ValueError(f"`{name}` must be a name or several, got {wrong[0]!r} of type {type(wrong[0]).__name__}.")
    return names


def checked_seed(seed: object) -> int:
    """The seed as an integer that every generator takes, and every file format.

    Args:
        seed: Whole number from 0 to 2**63 - 1.

    Raises:
        ValueError: If it is anything else.
    """
    return whole_number("seed", seed, least=0, most=2**63 - 1)


def checked_budget(memory_budget: object) -> float | None:
    """Bytes that may be taken; None for no limit, which infinity means as well.

    Args:
        memory_budget: Number of bytes, or None.

    Raises:
        ValueError: If it is not a positive number.
    """
    if memory_budget is None:
        return None
    number = _number(memory_budget)
    if number is None or not number > 0:
        raise ValueError(f"`memory_budget` must be a positive number of bytes, got {memory_budget!r}.")
    return None if number == math.inf else float(number)


def _number(value: object) -> int | float | None:
    """A number of Python or NumPy; None for everything else, truth values included."""
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, np.floating):
        return float(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
