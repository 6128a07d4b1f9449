"""Processes that hold one network together: sharded by FSDP2, tensor parallel, or both along other dimensions."""

__all__ = [
    "keep_sharded",
    "model_groups",
    "own_class",
    "refuse_fully_sharded",
    "smallest_of_all",
    "split_groups",
]

from collections.abc import Iterable
from typing import Any

import torch.distributed as dist
from torch import nn

from macattr.weights.values import is_sharded, loaded_class


def own_class(module: nn.Module) -> type:
    """Class of a module as its author wrote it: ``fully_shard`` puts one of its own before it.

    Args:
        module: Any module.
    """
    is_wrapped = isinstance(module, loaded_class("torch.distributed.fsdp", "FSDPModule"))
    return type(module).__mro__[2] if is_wrapped else type(module)


def keep_sharded(modules: Iterable[nn.Module]) -> None:
    """Let the modules that ``fully_shard`` manages hold their shards alone, as before the first forward pass.

    Args:
        modules: All modules of a network.
    """
    for module in modules:
        if isinstance(module, loaded_class("torch.distributed.fsdp", "FSDPModule")):
            module.reshard()  # type: ignore[operator]


def refuse_fully_sharded(model: nn.Module, remedy: str) -> None:
    """Raise if ``fully_shard`` manages modules of a network.

    Args:
        model: Network.
        remedy: What needs it as it was, and what to do before.

    Raises:
        ValueError: If there is such a module.
    """
    fsdp = loaded_class("torch.distributed.fsdp", "FSDPModule")
    for name, module in model.named_modules():
        if isinstance(module, fsdp):
            raise ValueError(f"{name or 'the network'!r} is sharded by `fully_shard`. {remedy} before that.")


def model_groups(model: nn.Module) -> list[Any]:
    """Process groups along which a network's weights are split: all of their processes run it in step.

    Args:
        model: Network.

    Raises:
        ValueError: If it is wrapped by FullyShardedDataParallel.
    """
    keep_sharded(model.modules())
    flat = loaded_class("torch.distributed.fsdp", "FullyShardedDataParallel")
    if any(isinstance(module, flat) for module in model.modules()):
        raise ValueError(
            "the network is wrapped by FullyShardedDataParallel, which hides its weights: shard it with "
            "`torch.distributed.fsdp.fully_shard` instead."
        )
    return _groups([model])


def smallest_of_all(number: int, roots: Iterable[nn.Module]) -> int:
    """The smallest of the numbers that the processes of one network bring, which then run it equally often.

    Args:
        number: That of this process.
        roots: Networks or modules of one.
    """
    for group in _groups(roots):
        numbers = [0] * dist.get_world_size(group)
        dist.all_gather_object(numbers, number, group)
        number = min(numbers)
    return number


def split_groups(roots: Iterable[nn.Module]) -> list[Any]:
    """Process groups along which outputs may be split too: those of tensor parallel networks.

    Args:
        roots: Networks or modules of one.

    Raises:
        ValueError: If ``fully_shard`` is on top of that, so that the two cannot be told apart.
    """
    roots = list(roots)
    fsdp = loaded_class("torch.distributed.fsdp", "FSDPModule")
    if not any(isinstance(module, fsdp) for root in roots for module in root.modules()):
        return _groups(roots)
    for name, parameter in (entry for root in roots for entry in root.named_parameters()):
        if is_sharded(parameter) and sum(not place.is_replicate() for place in parameter.placements) > 1:  # type: ignore[attr-defined]
            raise ValueError(
                f"{name!r} is both tensor parallel and sharded by `fully_shard`, so that parts of outputs cannot be "
                "told from whole ones: use one of the two."
            )
    return []


def _groups(roots: Iterable[nn.Module]) -> list[Any]:
    """Distinct groups of the mesh dimensions along which at least one parameter is split."""
    groups: dict[str, Any] = {}
    for parameter in (parameter for root in roots for parameter in root.parameters()):
        if is_sharded(parameter):
            mesh = parameter.device_mesh  # type: ignore[attr-defined]
            for dimension, place in enumerate(parameter.placements):  # type: ignore[attr-defined]
                if not place.is_replicate():
                    group = mesh.get_group(dimension)
                    groups.setdefault(group.group_name, group)
    return [group for group in groups.values() if dist.get_world_size(group) > 1]
