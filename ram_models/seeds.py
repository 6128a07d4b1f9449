"""Random generators by name: the same name gives the same numbers in every run and process."""

__all__ = ["seeded"]

import hashlib

import torch


def seeded(name: str, seed: int = 0) -> torch.Generator:
    """A generator whose numbers depend on a name and a seed alone: an image meets the same noise in every run."""
    digest = hashlib.sha256(f"{seed} {name}".encode(errors="surrogateescape")).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
