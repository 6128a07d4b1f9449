"""The layers of a RAM-SwinIR in groups: one for each type and stage, and what lies outside of the stages."""

__all__ = ["OUTSIDE", "SMALL", "Group", "groups_of"]

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import nn

from macattr.layers.table import LayerDescription, LayerTable

TYPES: Mapping[str, str] = MappingProxyType(
    {
        "norm1": "norms",
        "norm2": "norms",
        "attn": "attention in",
        "attn.qkv": "attention in",
        "attn.proj": "attention out",
        "mlp.fc1": "mlp",
        "mlp.fc2": "mlp",
        "conv": "convolution",
    }
)
"""Type of every role inside of blocks: what reads the residual stream is apart from what writes to it in attention; the
table of position biases goes with the queries, keys and values."""

OUTSIDE: Mapping[str, str] = MappingProxyType(
    {
        "conv_first": "thin ends",
        "patch_embed.norm": "thin ends",
        "norm": "thin ends",
        "conv_after_body": "convolution after the body",
        "conv_last": "thin ends",
    }
)
"""Type of every layer outside of blocks."""

SMALL = ("thin ends", "norms")
"""Types that are small in every network: what a small-first selection always takes."""


@dataclass(frozen=True)
class Group:
    """Layers that are trained together and alone.

    Args:
        type: Role of its layers.
        stage: Number of its stage from 1; 0 outside of the stages.
        layers: Their names.
        parameters: Number of their parameters.
    """

    type: str
    stage: int
    layers: tuple[str, ...]
    parameters: int

    @property
    def name(self) -> str:
        """Type and stage."""
        return f"{self.type} {self.stage}" if self.stage else self.type


def groups_of(network: nn.Module) -> list[Group]:
    """All groups of a network, in module order; every layer is in one.

    Args:
        network: A RAM-SwinIR of any size.

    Raises:
        ValueError: If it has a layer of another role.
    """
    table = LayerTable.of(network)
    members: dict[tuple[str, int], list[str]] = {}
    for layer in table.layers:
        members.setdefault(_place(layer), []).append(layer.name)
    return [Group(kind, stage, tuple(names), table.count(names)) for (kind, stage), names in members.items()]


def _place(layer: LayerDescription) -> tuple[str, int]:
    """Type and stage of a layer."""
    types = TYPES if layer.block else OUTSIDE
    if layer.role not in types:
        raise ValueError(f"{layer.name!r} has no group: the groups are those of a RAM-SwinIR.")
    number = re.search(r"\d+", layer.block)
    return types[layer.role], int(number[0]) + 1 if number else 0
