"""Values of weights that are no plain tensors here: sharded over processes, offloaded, packed into 4 bits."""

__all__ = [
    "dense_parts",
    "device_of",
    "has_packed",
    "is_offloaded",
    "is_packed",
    "is_sharded",
    "loaded_class",
    "local_part",
    "missing_values",
    "named_values",
    "number_of_values",
    "present",
    "refuse_changes",
    "refuse_gradients",
    "refuse_hidden",
    "refuse_inference_only",
    "storages_of",
    "storages_of_weights",
    "values_of",
]

import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def loaded_class(module: str, name: str) -> type:
    """A class of a library that is loaded, else one without instances: who never loaded it has no such tensor.

    Args:
        module: Name of the module.
        name: Name of the class in it.
    """
    found: type = getattr(sys.modules.get(module), name, _Absent)
    return found


class _Absent:
    """Stands for a class of a library that is not loaded."""


def dense_parts(tensor: Tensor) -> tuple[Tensor, ...]:
    """The dense tensors that hold a tensor's values: itself, or indices and values of a sparse one.

    Args:
        tensor: Any tensor.

    Example:
        >>> [part.tolist() for part in dense_parts(torch.eye(2).to_sparse())]
        [[[0, 1], [0, 1]], [1.0, 1.0]]
    """
    if tensor.layout is torch.sparse_coo:
        return tensor._indices(), tensor._values()
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return tensor.ccol_indices(), tensor.row_indices(), tensor.values()
    return (tensor,)


def storages_of(tensor: Tensor) -> list[torch.UntypedStorage]:
    """Where this process keeps a tensor's values, and of a sparse one its indices.

    Args:
        tensor: Any tensor.
    """
    return [part.untyped_storage() for part in dense_parts(local_part(tensor))]


def storages_of_weights(modules: Iterable[nn.Module]) -> set[int]:
    """Identities of the storages that hold the modules' own parameters, where these have values.

    Args:
        modules: Modules, without those inside them.
    """
    weights = (weight for module in modules for weight in module.parameters(recurse=False) if not weight.is_meta)
    return {storage._cdata for weight in weights for storage in storages_of(weight)}


def has_packed(modules: Iterable[nn.Module]) -> bool:
    """Whether modules own weights that are packed into 4 bits.

    Args:
        modules: Modules, without those inside them.
    """
    return any(is_packed(weight) for module in modules for weight in module.parameters(recurse=False))


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor lies on several processes: a DTensor, as ``fully_shard`` and ``parallelize_module`` make them.

    Args:
        tensor: Parameter or buffer.
    """
    return isinstance(tensor, loaded_class("torch.distributed.tensor", "DTensor"))


def local_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor.

    Args:
        tensor: Any tensor.
    """
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def values_of(tensor: Tensor) -> Tensor:
    """The values that a network computes with: gathered from all processes, or unpacked from 4 bits.

    All processes that hold a part of it must call this.

    Args:
        tensor: Parameter or buffer.
    """
    if is_sharded(tensor):
        return tensor.detach().full_tensor()  # type: ignore[attr-defined,no-any-return]
    if is_packed(tensor):
        unpack = sys.modules["bitsandbytes"].functional.dequantize_4bit
        return unpack(tensor.detach(), tensor.quant_state)  # type: ignore[attr-defined,no-any-return]
    return tensor.detach()


def is_packed(tensor: Tensor) -> bool:
    """Whether a parameter holds packed 4-bit codes: bitsandbytes' ``Params4bit`` after its quantisation.

    Args:
        tensor: Parameter or buffer.
    """
    return getattr(tensor, "quant_state", None) is not None and not tensor.is_floating_point()


def refuse_inference_only(modules: Mapping[str, nn.Module]) -> None:
    """Raise for 4-bit weights that bitsandbytes has repacked for a kernel without a backward pass.

    It does so in the first pass without gradients on a CPU with AVX512-BF16; from then on gradients would be zero.

    Args:
        modules: Modules by name.

    Raises:
        ValueError: If there are any.
    """
    for name, module in modules.items():
        for parameter in module.parameters(recurse=False):
            if is_packed(parameter) and getattr(parameter.quant_state, "packing_format_for_cpu", False):  # type: ignore[attr-defined]
                raise ValueError(
                    f"bitsandbytes has repacked the 4-bit weights of {name!r} for inference on this CPU, where they "
                    "pass on no gradient: load the network anew and rank it before other passes, or use a GPU."
                )


def number_of_values(tensor: Tensor) -> int:
    """Number of values that a parameter stands for; two of them share a byte where it is packed into 4 bits.

    Args:
        tensor: Parameter, whole or sharded.

    Example:
        >>> number_of_values(nn.Parameter(torch.ones(2, 3)))
        6
    """
    return math.prod(tensor.quant_state.shape) if is_packed(tensor) else tensor.numel()  # type: ignore[attr-defined]


def is_offloaded(module: nn.Module) -> bool:
    """Whether accelerate keeps the module's weights elsewhere and loads them before each of its forward passes.

    Args:
        module: Any module.
    """
    return any(getattr(hook, "offload", False) for hook in _align_hooks(module))


def _align_hooks(module: nn.Module) -> list[Any]:
    """The hooks of accelerate that place weights and inputs of a module."""
    hook = getattr(module, "_hf_hook", None)
    hooks = getattr(hook, "hooks", (hook,))
    return [hook for hook in hooks if isinstance(hook, loaded_class("accelerate.hooks", "AlignDevicesHook"))]


@contextmanager
def present(module: nn.Module) -> Iterator[None]:
    """A module's own weights with their values, also where accelerate keeps them elsewhere; afterwards as before.

    Args:
        module: Any module.
    """
    if not is_offloaded(module):
        yield
        return
    tables: tuple[dict[str, Any], ...] = module._parameters, module._buffers
    entries = [(table, dict(table)) for table in tables]
    try:
        with sys.modules["accelerate"].utils.align_module_device(module):
            yield
    finally:
        for table, before in entries:
            table.update(before)


def named_values(model: nn.Module, *, buffers: bool = False) -> Iterator[tuple[str, Tensor]]:
    """Every parameter, or every buffer, by its name and with its values, one at a time.

    Weights that lie elsewhere are gathered, loaded or unpacked one after the other, so that the whole network is never
    in one place. All processes that hold a part of it must walk to the end.

    Args:
        model: Network.
        buffers: Buffers instead of parameters.
    """
    seen: set[int] = set()
    for path, module in model.named_modules():
        table = module._buffers if buffers else module._parameters
        new = [name for name, tensor in table.items() if tensor is not None and id(tensor) not in seen]
        seen |= {id(table[name]) for name in new}
        with present(module):
            for name in new:
                yield f"{path}.{name}" if path else name, values_of(table[name])


def missing_values(module: nn.Module) -> str:
    """Name of a module's own parameter or buffer that has no values anywhere; '' if all have some.

    Args:
        module: Any module.
    """
    every = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    return "" if is_offloaded(module) else next((name for name, tensor in every if tensor.is_meta), "")


def refuse_hidden(modules: Mapping[str, nn.Module]) -> None:
    """Raise where modules keep weights that are neither parameters nor buffers.

    Args:
        modules: All modules of a network, by name.

    Raises:
        ValueError: If a layer is one of torch.ao's quantised layers: it would count as a layer without weights, and
            networks of other weights would pass for this one. Or if torch.jit has compiled the network.
    """
    for name, module in modules.items():
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"{name or 'the network'!r} is compiled by torch.jit, which hides layers from hooks: pass the network "
                "as it was before, or one that `torch.compile` has compiled."
            )
        if type(module).__module__.startswith("torch.ao.nn.") and ".quantized." in type(module).__module__ + ".":
            raise ValueError(
                f"layer {name!r} is quantised ({type(module).__name__} of torch.ao) and hides its weights: pass the "
                "network as it was before, and quantise it afterwards."
            )


def device_of(model: nn.Module) -> torch.device:
    """Device on which a network takes its inputs: that of accelerate's first hook, else of the first real parameter.

    Args:
        model: Network.
    """
    for module in model.modules():
        for hook in _align_hooks(module):
            if hook.execution_device is not None:
                return torch.device(hook.execution_device)
    return next((p.device for p in model.parameters() if not p.is_meta), torch.device("cpu"))


def refuse_changes(name: str, module: nn.Module) -> None:
    """Raise where other values cannot be put in place of a layer's weights.

    Args:
        name: Name of the layer.
        module: The layer.

    Raises:
        ValueError: If weights are sharded, offloaded, on the meta device, or integers.
    """
    own = dict(module.named_parameters(recurse=False))
    reasons = {
        "kept elsewhere by accelerate": is_offloaded(module),
        "on the meta device": any(parameter.is_meta for parameter in own.values()),
        "sharded over processes": any(map(is_sharded, own.values())),
        "integers": any(not (p.is_floating_point() or p.is_complex()) for p in own.values() if p.dim() > 1),
    }
    if reason := next((words for words, holds in reasons.items() if holds), ""):
        raise ValueError(
            f"the weights of {name!r} are {reason}, so that no random ones can take their place: load the network "
            "whole on one device, without quantisation."
        )


def refuse_gradients(model: nn.Module, user: str) -> None:
    """Raise where the gradient of a loss with respect to weights would silently be zero or of a part.

    Args:
        model: Network.
        user: Name of what needs the gradient.

    Raises:
        ValueError: If weights are sharded or offloaded.
    """
    remedy = "rank the network whole on one device, or by a method of activations or of the weights alone"
    for name, module in model.named_modules():
        if is_offloaded(module):
            raise ValueError(
                f"{user} differentiates weights, but accelerate loads those of {name!r} anew in every forward pass: "
                f"{remedy}."
            )
    for name, parameter in model.named_parameters():
        if is_sharded(parameter):
            raise ValueError(f"{user} differentiates weights, but {name!r} is sharded over processes: {remedy}.")
