"""How a ranking was measured, in words and hashes that are the same in every process."""

__all__ = ["describe", "hash_parameters", "hash_tensors"]

import hashlib
from dataclasses import fields, is_dataclass

import torch
from torch import Tensor, nn

LISTED = 16
"""Numbers of a tensor that provenance lists; longer ones are told by a hash."""


def describe(value: object) -> str:
    """A setting in words that are the same in every process: functions by name, tensors by their values.

    Example:
        >>> describe(torch.ones(2)), describe(0.5), describe(describe)
        ('[1.0, 1.0]', '0.5', 'macattr.methods.provenance.describe')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, Tensor):
        return str(value.tolist()) if value.numel() <= LISTED else f"{tuple(value.shape)}, sha256 {hash_tensors(value)}"
    if is_dataclass(value) and not isinstance(value, type):
        inner = ", ".join(f"{field.name}={describe(getattr(value, field.name))}" for field in fields(value))
        return f"{type(value).__name__}({inner})"
    name = getattr(value, "__qualname__", None)
    if name is None and callable(value):
        return f"{type(value).__module__}.{type(value).__qualname__}"
    return repr(value) if name is None else f"{getattr(value, '__module__', '')}.{name}"


def hash_tensors(*values: object) -> str:
    """SHA-256 of some values, tensors by their bytes, first 16 digits."""
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(describe(value).encode())
    return digest.hexdigest()[:16]


def hash_parameters(model: nn.Module) -> str:
    """SHA-256 of the names and bytes of all parameters, first 16 digits."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
