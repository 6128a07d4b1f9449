"""Denormal numbers, with which a CPU computes up to a hundred times slower than with all others."""

__all__ = ["NOTICEABLE", "denormal_share", "without_denormals"]

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

NOTICEABLE = 1e-4
"""Share of the weights from which on a pass takes noticeably longer."""


def denormal_share(model: nn.Module) -> float:
    """Share of the weights on CPUs that are denormal: not 0, and below the smallest normal number of their type.

    Args:
        model: Network.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> with torch.no_grad():
        ...     _ = layer.weight.fill_(1e-40)
        >>> denormal_share(layer)
        0.5
    """
    weights = _weights(model)
    total = sum(weight.numel() for weight in weights)
    return sum(int(_denormal(weight).sum()) for weight in weights) / total if total else 0.0


@contextmanager
def without_denormals(model: nn.Module, active: bool = True) -> Iterator[None]:
    """Inside, denormal weights are 0, and the calling thread takes denormal results for 0.

    The switch of the processor alone does not reach the other threads of PyTorch, so that the weights are changed too.
    Afterwards all of them have their values again.

    Args:
        model: Network.
        active: False does nothing.
    """
    if not active:
        yield
        return
    found = [(weight, _denormal(weight)) for weight in _weights(model)]
    changed = [(weight, places, weight[places].clone()) for weight, places in found if bool(places.any())]
    flushed_before = _flushes()
    try:
        torch.set_flush_denormal(True)
        with torch.inference_mode():
            for weight, places, _ in changed:
                weight[places] = 0
        yield
    finally:
        torch.set_flush_denormal(flushed_before)
        with torch.inference_mode():
            for weight, places, values in changed:
                weight[places] = values


def _weights(model: nn.Module) -> list[Tensor]:
    """Parameters of at least 32 bits on CPUs."""
    return [
        weight.detach()
        for weight in model.parameters()
        if weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.float64)
    ]


def _denormal(weight: Tensor) -> Tensor:
    """Where a tensor is denormal; compared as integers, because comparisons of numbers may be flushed as well."""
    exponent, bits = (0x7F800000, torch.int32) if weight.dtype == torch.float32 else (0x7FF0000000000000, torch.int64)
    words = weight.contiguous().view(bits)
    return ((words & exponent) == 0) & ((words << 1) != 0)


def _flushes() -> bool:
    """Whether the calling thread takes denormal results for 0 already."""
    return float(torch.tensor([1e-40], device="cpu") * torch.ones(1, device="cpu")) == 0
