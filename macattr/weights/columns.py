"""Column-parallel layers, of whose output every process computes other features."""

__all__ = ["Columns", "columns_of"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from macattr.weights.values import is_sharded

FEATURES = {nn.Linear: 0, nn.Embedding: 1}
"""Dimension of the weight that becomes the last one of the output, by kind of layer."""


@dataclass(frozen=True)
class Columns:
    """How the features of a layer's output are divided between processes.

    Args:
        weight: The layer's weight, a DTensor.
        features: Number of features of the whole output.
        group: Process group that holds them together.
    """

    weight: Any
    features: int
    group: Any

    def hold(self, shapes: Sequence[Sequence[int]]) -> bool:
        """Whether tensors of these shapes, one a process, are the whole output together.

        Args:
            shapes: Shapes on the processes of the group.
        """
        same = {tuple(shape[:-1]) for shape in shapes}
        return len(same) == 1 and len(shapes) > 1 and sum(shape[-1] for shape in shapes) == self.features

    def whole(self, tensor: Tensor) -> Tensor:
        """A tensor in the shape of the layer's whole output; all processes of the group must call this.

        Args:
            tensor: What this process has of it, such as the sum over a path, (..., features here).
        """
        from torch.distributed.tensor import DTensor, Replicate, Shard

        places = [Replicate() if place.is_replicate() else Shard(tensor.dim() - 1) for place in self.weight.placements]
        shape = torch.Size((*tensor.shape[:-1], self.features))
        stride = tensor.new_empty(shape, device="meta").stride()
        parts = DTensor.from_local(
            tensor.contiguous(), self.weight.device_mesh, places, run_check=False, shape=shape, stride=stride
        )
        return parts.full_tensor()


def columns_of(module: nn.Module) -> Columns | None:
    """The division of a linear layer's or embedding's weight by features, as ``ColwiseParallel`` makes it; else None.

    The weights of ``fully_shard`` look alike between forward passes, but outputs are whole: ask :meth:`Columns.hold`.

    Args:
        module: Any module.
    """
    features = next((dimension for kind, dimension in FEATURES.items() if isinstance(module, kind)), None)
    weight: Any = module._parameters.get("weight")
    if features is None or weight is None or not is_sharded(weight):
        return None
    divided = [(number, place) for number, place in enumerate(weight.placements) if not place.is_replicate()]
    if len(divided) != 1 or not divided[0][1].is_shard(features):
        return None
    return Columns(weight, weight.shape[features], weight.device_mesh.get_group(divided[0][0]))
