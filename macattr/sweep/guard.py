"""The model stays as it was: weights, flags, buffers and random state survive whatever runs inside."""

__all__ = ["cuda_devices", "random_state", "refuse_stochastic", "undisturbed"]

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

STOCHASTIC = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)

BATCH_MIXING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@contextmanager
def undisturbed(model: Callable[..., Any]) -> Iterator[None]:
    """Gradients on, weights without gradients, and everything as before afterwards, random state included."""
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    required = [parameter.requires_grad for parameter in parameters]
    buffers = list(model.buffers()) if isinstance(model, nn.Module) else []
    stored = [(buffer, buffer._version, buffer.clone()) for buffer in buffers if not buffer.is_inference()]
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(cuda_devices(model)):
        try:
            for parameter in parameters:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter, flag in zip(parameters, required, strict=True):
                parameter.requires_grad_(flag)
            with torch.no_grad():
                for buffer, version, values in stored:
                    if buffer._version != version:
                        buffer.copy_(values)


def cuda_devices(model: Callable[..., Any]) -> list[int]:
    """GPUs that the model lives on."""
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    return sorted({parameter.device.index for parameter in parameters if parameter.device.type == "cuda"})


def random_state(devices: list[int]) -> list[Tensor]:
    """States of the default generators."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]


def refuse_stochastic(model: Callable[..., Any]) -> None:
    """Raise where training mode would make the path noise instead of a curve."""
    for name, module in model.named_modules() if isinstance(model, nn.Module) else []:
        random = isinstance(module, STOCHASTIC) and module.p > 0
        mixing = isinstance(module, BATCH_MIXING)
        if mixing and not module.training and module.running_mean is None:
            raise ValueError(f"{type(module).__name__} {name!r} has no running statistics: it mixes the batch.")
        if module.training and (random or mixing):
            effect = "draws random numbers" if random else "mixes the batch"
            raise ValueError(
                f"the model is in training mode and its {type(module).__name__} {name!r} {effect}: call `model.eval()`."
            )
