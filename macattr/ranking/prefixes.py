"""Beginnings that a wrapper gives to the names of all layers."""

__all__ = ["leading_parts", "strip_prefix"]

from collections.abc import Sequence
from itertools import accumulate, takewhile


def strip_prefix(names: Sequence[str], prefix: str) -> list[str]:
    """The names without their common beginning.

    Raises:
        ValueError: If one of them begins otherwise, or is nothing else.
    """
    if not prefix:
        return list(names)
    prefix = f"{prefix.removesuffix('.')}."
    if other := [name for name in names if not name.startswith(prefix) or name == prefix]:
        raise ValueError(
            f"{len(other)} of {len(names)} layers do not begin with `prefix` = {prefix!r}, such as {other[0]!r}."
        )
    return [name.removeprefix(prefix) for name in names]


def leading_parts(names: Sequence[str]) -> list[str]:
    """The beginnings that all names share, each up to a dot, shortest first.

    Example:
        >>> leading_parts(["net.body.0", "net.body.1"])
        ['net.', 'net.body.']
    """
    levels = takewhile(lambda parts: len(set(parts)) == 1, zip(*(name.split(".")[:-1] for name in names), strict=False))
    return list(accumulate(f"{parts[0]}." for parts in levels))
