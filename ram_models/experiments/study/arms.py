"""The arms of the fine-tuning experiments: which layers each trains, from rankings and from matched controls."""

__all__ = [
    "ALL",
    "ARMS",
    "CONVOLUTIONS",
    "ENDS",
    "FIRST_CONVOLUTIONS",
    "FRACTION",
    "IG",
    "IG_PARAMETERS",
    "LONGER",
    "LONGER_MAC",
    "MAC",
    "MAC_20",
    "MAC_50",
    "MASKED",
    "MERGED",
    "OFFICIAL",
    "RANDOM",
    "RANDOM_PARAMETERS",
    "SHUFFLED",
    "SHUFFLED_STAGES",
    "UNTUNED",
    "Arm",
    "Choice",
    "Rankings",
    "first_convolutions",
    "label_of",
    "layers_of_arms",
    "merge",
    "overlap",
    "top",
]

import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from types import MappingProxyType

from torch import nn

from macattr.layers import LayerTable
from macattr.ranking.importance import LayerImportance
from macattr.selection.controls import convolutions, random_layers, random_parameters, shuffled_layers
from macattr.selection.rules import Selection, SelectionRule
from ram_models.seeds import seeded

MERGED = 0.9
"""Overlap of the trained parameters from which on two arms are one: their difference could not be seen."""

FRACTION = 0.1
"""Share of the layers that the paper fine-tunes."""

Layers = tuple[str, ...]


@dataclass(frozen=True)
class Rankings:
    """Rankings of one pre-trained network.

    Args:
        mac: By MAC with the library's defaults.
        official: By MAC as the authors' scripts compute it.
        influence: By internal influence, the "IG" of the paper's Table 5.
    """

    mac: LayerImportance
    official: LayerImportance
    influence: LayerImportance


@dataclass(frozen=True)
class Choice:
    """What an arm chooses its layers from.

    Args:
        rankings: Of this pre-trained network.
        network: For exact counts of parameters.
        block: Name of the block, the seed of its random draws.
    """

    rankings: Rankings
    network: nn.Module
    block: str

    @cached_property
    def mac(self) -> Selection:
        """The paper's share of the layers by MAC, which the controls are matched to."""
        return top(self.rankings.mac, FRACTION, self.network)


@dataclass(frozen=True)
class Arm:
    """One choice of what is fine-tuned.

    Args:
        name: In results and tables.
        layers: Gives the layers that are trained; None where they cannot differ from those of another arm.
        title: On the page and in figures; the name if empty.
        length: Factor of the steps and of the warm-up.
        masked: Whether it goes on with the pre-training, pixels hidden, and is scored with twin masks.
        whole: Whether it trains every layer on whole images; such an arm is scored on its way too, and on the straight
            line to its end.
    """

    name: str
    layers: Callable[[Choice], Layers | None] = field(compare=False, repr=False)
    title: str = ""
    length: float = 1.0
    masked: bool = False
    whole: bool = False

    @property
    def every(self) -> bool:
        """Whether it trains every layer."""
        return self.whole or self.masked

    @property
    def interpolated(self) -> str:
        """Name in results of the points on the straight line from its start to its end."""
        return f"{self.name}, interpolated"


def top(ranking: LayerImportance, fraction: float, network: nn.Module) -> Selection:
    """The first layers of a ranking by the paper's rule, a share of their names.

    Without the warning that names are no fair budget: the experiments are about that.

    Args:
        ranking: Of the network.
        fraction: Share of the layers, in (0, 1].
        network: For exact counts of parameters.
    """
    with warnings.catch_warnings(action="ignore"):
        return ranking.select(SelectionRule(fraction), network)


def _by_mac(choice: Choice, fraction: float = FRACTION) -> Layers:
    """A share of the layers by MAC."""
    return top(choice.rankings.mac, fraction, choice.network).layers


def _by_official(choice: Choice) -> Layers:
    """As many layers as the paper takes, by the authors' MAC."""
    return top(choice.rankings.official, FRACTION, choice.network).layers


def _by_influence(choice: Choice) -> Layers:
    """As many layers as the paper takes, by internal influence."""
    return top(choice.rankings.influence, FRACTION, choice.network).layers


def _by_influence_parameters(choice: Choice) -> Layers:
    """As many parameters as MAC's selection has, by internal influence."""
    budget = SelectionRule(count=choice.mac.parameters, by="parameters", skips=3, fill=0.9, over=0.0)
    return choice.rankings.influence.select(budget, choice.network).layers


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

ENDS = Arm("ends", _ends)
"""The first and last layers alone."""

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


ARMS: Mapping[str, Arm] = MappingProxyType(
    {
        arm.name: arm
        for arm in (
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
        )
    }
)
"""Every arm by its name; of two that train nearly the same, the earlier one is run."""

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
    if name in ARMS:
        return ARMS[name].title or name
    return UNTUNED.get(name, name)


def layers_of_arms(choice: Choice) -> dict[str, Layers]:
    """Layers that every arm trains, by the arm's name.

    Args:
        choice: What they choose from.
    """
    layers_by_arm = {name: arm.layers(choice) for name, arm in ARMS.items()}
    return {name: layers for name, layers in layers_by_arm.items() if layers is not None}


def overlap(a: Layers, b: Layers, table: LayerTable) -> float:
    """Parameters that both train, over those that either trains.

    Args:
        a: Layers of one arm.
        b: Layers of the other.
        table: Layers of the network.

    Example:
        >>> from torch import nn
        >>> table = LayerTable.of(nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 2)))
        >>> round(overlap(("0",), ("0", "1"), table), 3)
        0.333
    """
    return table.count(set(a) & set(b)) / table.count(set(a) | set(b))


def merge(blocks: Collection[Mapping[str, Layers]], table: LayerTable, keep: Collection[str] = ()) -> dict[str, str]:
    """For every arm the one that stands for it: an earlier one that trains nearly the same everywhere, or itself.

    Args:
        blocks: For every block what :func:`layers_of_arms` gives; an arm that some blocks lack stands for itself.
        table: Layers of the network.
        keep: Arms that stand for themselves whatever they train.
    """
    stands: dict[str, str] = {}
    for arm in dict.fromkeys(arm for block in blocks for arm in block):
        present = [block for block in blocks if arm in block]
        earlier = dict.fromkeys(stands.values()) if len(present) == len(blocks) and arm not in keep else ()
        same = [
            other for other in earlier if all(overlap(block[arm], block[other], table) >= MERGED for block in present)
        ]
        stands[arm] = same[0] if same else arm
    return stands
