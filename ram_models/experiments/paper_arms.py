"""The arms of Tables 5 and 6: layers by rankings, and matched controls."""

__all__ = [
    "ALL",
    "CONVOLUTIONS",
    "ENDS",
    "FIRST_CONVOLUTIONS",
    "IG",
    "IG_PARAMETERS",
    "LONGER",
    "LONGER_MAC",
    "MAC",
    "MAC_20",
    "MAC_50",
    "MASKED",
    "OFFICIAL",
    "PAPER",
    "RANDOM",
    "RANDOM_PARAMETERS",
    "SHUFFLED",
    "SHUFFLED_STAGES",
    "UNTUNED",
    "first_convolutions",
    "label_of",
]

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from torch import nn

from macattr.layers.table import LayerTable
from macattr.selection.controls import convolutions, random_layers, random_parameters, shuffled_layers
from ram_models.experiments.study.arms import FRACTION, Arm, Arms, Choice, Layers, fill, top
from ram_models.seeds import seeded


def _by_mac(choice: Choice, fraction: float = FRACTION) -> Layers:
    """A share of the layers by MAC."""
    return top(choice.rankings["mac"], fraction, choice.network).layers


def _by_official(choice: Choice) -> Layers:
    """As many layers as the paper takes, by the authors' MAC."""
    return top(choice.rankings["official"], FRACTION, choice.network).layers


def _by_influence(choice: Choice) -> Layers:
    """As many layers as the paper takes, by internal influence."""
    return top(choice.rankings["influence"], FRACTION, choice.network).layers


def _by_influence_parameters(choice: Choice) -> Layers:
    """As many parameters as MAC's selection has, by internal influence."""
    return fill(choice, "influence", choice.mac.parameters).layers


def _random(choice: Choice) -> Layers:
    """As many layers as MAC's selection has, drawn anew in every block."""
    return random_layers(choice.mac, seeded(f"random {choice.block}")).layers


def _random_parameters(choice: Choice) -> Layers:
    """As many parameters as MAC's selection has, drawn anew in every block."""
    return random_parameters(choice.mac, seeded(f"parameters {choice.block}")).layers


def _shuffled(choice: Choice, draw: str = "shuffled", stages: bool = True) -> Layers | None:
    """MAC's selection shuffled within role (and stage); None if that would change nothing."""
    try:
        return shuffled_layers(choice.mac, seeded(f"{draw} {choice.block}"), stages=stages).layers
    except ValueError:
        return None


def _convolutions(choice: Choice) -> Layers:
    """All 3x3 convolutions and the ends."""
    return convolutions(choice.network).layers


def _first_convolutions(choice: Choice) -> Layers:
    """The first two 3x3 convolutions of stages and the thin ends."""
    return first_convolutions(choice.network)


def _ends(choice: Choice) -> Layers:
    """The layers outside of all blocks."""
    return tuple(layer.name for layer in choice.mac.table.layers if not layer.block)


def _every(choice: Choice) -> Layers:
    """Every layer."""
    return choice.mac.table.names


def first_convolutions(network: nn.Module, count: int = 2) -> Layers:
    """The first 3x3 convolutions inside of blocks, and the layers outside of blocks that are smaller; no image asked.

    Args:
        network: Whose layers.
        count: Number of convolutions.
    """
    table = LayerTable.of(network)
    kernels = set(convolutions(network).layers)
    inside = [layer for layer in table.layers if layer.block and layer.name in kernels][:count]
    smallest = min((layer.parameters for layer in inside), default=0)
    thin = {layer.name for layer in table.layers if not layer.block and layer.parameters < smallest}
    chosen = thin | {layer.name for layer in inside}
    return tuple(name for name in table.names if name in chosen)


MAC = Arm("MAC", _by_mac, "MAC, 10 %")
"""MAC's top 10 % of the layers, ranked by this library on all ranking crops."""

OFFICIAL = Arm("MAC (authors' script)", _by_official)
"""MAC's top 10 % of the layers, ranked as the authors' script does."""

IG = Arm("IG", _by_influence)
"""Top 10 % of the layers by the paper's IG, internal influence."""

RANDOM = Arm("random", _random, "random, 10 %")
"""As many layers as MAC's, at random."""

IG_PARAMETERS = Arm("IG, equal parameters", _by_influence_parameters)
"""Top layers by IG, with as many parameters as MAC's."""

RANDOM_PARAMETERS = Arm("random, equal parameters", _random_parameters)
"""Random layers with as many parameters as MAC's."""

CONVOLUTIONS = Arm("3x3 convolutions and ends", _convolutions)
"""All 3x3 convolutions and the ends."""

FIRST_CONVOLUTIONS = Arm("first two convolutions and thin ends", _first_convolutions)
"""The first two stage convolutions and the thin ends."""

SHUFFLED = Arm("MAC shuffled", _shuffled, "MAC shuffled within role and stage")
"""MAC's layers, shuffled within role and stage."""

SHUFFLED_STAGES = Arm(
    "MAC shuffled over stages",
    partial(_shuffled, draw="shuffled over stages", stages=False),
    "MAC shuffled within role, over all stages",
)
"""MAC's layers, shuffled within role over all stages."""

ENDS = Arm("ends", _ends, always=True)
"""The layers outside of all blocks alone: first and last convolutions, outer norms, the convolution after the body."""

MAC_20 = Arm("MAC 20 %", partial(_by_mac, fraction=2 * FRACTION), "MAC, 20 %")
"""MAC's top 20 % of the layers."""

MAC_50 = Arm("MAC 50 %", partial(_by_mac, fraction=5 * FRACTION), "MAC, 50 %")
"""MAC's top 50 % of the layers."""

ALL = Arm("all", _every, "all layers", whole=True)
"""Every layer."""

MASKED = Arm("masked, all", _every, "all layers, masked pre-training continued, twin masks", masked=True)
"""Tells what more training does from what closing the gap does."""
LONGER = Arm("all, 4 times the steps", _every, "all layers, 4 times the steps", length=4.0, whole=True)
"""On its way it passes the quality that few layers have, so that both can be compared there."""
LONGER_MAC = Arm("MAC, 4 times the steps", _by_mac, "MAC, 10 %, 4 times the steps", length=4.0)
"""MAC's layers for four times the steps."""

PAPER = Arms(
    (
        MAC,
        OFFICIAL,
        IG,
        RANDOM,
        IG_PARAMETERS,
        RANDOM_PARAMETERS,
        CONVOLUTIONS,
        FIRST_CONVOLUTIONS,
        ENDS,
        MAC_20,
        MAC_50,
        ALL,
        SHUFFLED,
        SHUFFLED_STAGES,
        MASKED,
        LONGER,
        LONGER_MAC,
    ),
    rankings=("mac", "official", "influence"),
)
"""All of them."""

UNTUNED: Mapping[str, str] = MappingProxyType(
    {
        "input": "(degraded input)",
        "whole": "nothing",
        "colours": "nothing, one map of colours (12 numbers)",
        "twins": "nothing, twin masks",
        "pairwise": "all layers, from scratch without masks (baseline)",
    }
)
"""What is scored without fine-tuning, by name in results, with its title."""


def label_of(name: str) -> str:
    """Title of an arm, or of what is scored without fine-tuning; other names stand for themselves.

    Example:
        >>> label_of("all"), label_of("whole"), label_of("50% hidden")
        ('all layers', 'nothing', '50% hidden')
    """
    if name in PAPER.by_name:
        return PAPER.by_name[name].title or name
    return UNTUNED.get(name, name)
