"""Random generators by name: the same name gives the same numbers in every run and process."""

__all__ = ["check_seed", "seeded"]

import hashlib

import torch


def seeded(name: str, seed: int = 0) -> torch.Generator:
    """A generator whose numbers depend on a name and a seed alone: an image meets the same noise in every run."""
    digest = hashlib.sha256(f"{seed} {name}".encode(errors="surrogateescape")).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def check_seed(seed: int) -> None:
    """Refuse a seed that not every generator takes.

    Args:
        seed: Whole number in [0, 2**32 - 1024), so that every process of a run can add its number.

    Raises:
        ValueError: If it lies outside.
    """
    if not 0 <= seed < 2**32 - 1024:
        raise ValueError(f"`seed` must be a whole number from 0 to {2**32 - 1025}, got {seed}.")
