"""Arms of the fine-tuning experiments: which layers each trains, and where two could not be told apart."""

__all__ = ["FRACTION", "MERGED", "Arm", "Arms", "Choice", "Layers", "fill", "layers_of_arms", "merge", "overlap", "top"]

import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from torch import nn

from macattr.layers.table import LayerTable
from macattr.ranking.importance import LayerImportance
from macattr.selection.rules import Selection, SelectionRule

MERGED = 0.9
"""Overlap of the trained parameters from which on two arms are one: their difference could not be seen."""

FRACTION = 0.1
"""Share of the layers that the paper fine-tunes."""

Layers = tuple[str, ...]
"""Names of layers."""


@dataclass(frozen=True)
class Choice:
    """What an arm chooses its layers from.

    Args:
        rankings: Of this pre-trained network, by name (see :func:`ram_models.experiments.study.networks.rank`).
        network: For exact counts of parameters.
        block: Name of the block, the seed of its random draws.
    """

    rankings: Mapping[str, LayerImportance]
    network: nn.Module
    block: str

    @cached_property
    def mac(self) -> Selection:
        """The paper's share of the layers by MAC, which the controls are matched to."""
        return top(self.rankings["mac"], FRACTION, self.network)


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
        always: Whether it is run even where another arm trains nearly the same.
    """

    name: str
    layers: Callable[[Choice], Layers | None] = field(compare=False, repr=False)
    title: str = ""
    length: float = 1.0
    masked: bool = False
    whole: bool = False
    always: bool = False

    @property
    def every(self) -> bool:
        """Whether it trains every layer."""
        return self.whole or self.masked

    @property
    def interpolated(self) -> str:
        """Name in results of the points on the straight line from its start to its end."""
        return f"{self.name}, interpolated"

    @property
    def own(self) -> bool:
        """Whether another arm never stands for it: it trains every layer, or for longer, or is always run."""
        return self.always or self.every or self.length != 1


@dataclass(frozen=True)
class Arms:
    """The arms of an experiment.

    Args:
        arms: In the order of the tables; of two that train nearly the same, the earlier one is run.
        rankings: Names of the rankings that they choose from, see :func:`ram_models.experiments.study.networks.rank`.
    """

    arms: tuple[Arm, ...]
    rankings: tuple[str, ...]

    @cached_property
    def by_name(self) -> dict[str, Arm]:
        """Every arm by its name."""
        return {arm.name: arm for arm in self.arms}


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


def fill(choice: Choice, ranking: str, parameters: int) -> Selection:
    """The first layers of a ranking that fit into a number of parameters, and fill 90 % of it where they can.

    Args:
        choice: What is chosen from.
        ranking: Name of the ranking.
        parameters: The number.
    """
    budget = SelectionRule(count=parameters, by="parameters", skips=3, fill=0.9, over=0.0)
    with warnings.catch_warnings(action="ignore"):  # matrices of one size rarely fill a budget
        return choice.rankings[ranking].select(budget, choice.network)


def layers_of_arms(arms: Arms, choice: Choice) -> dict[str, Layers]:
    """Layers that every arm trains, by the arm's name.

    Args:
        arms: Which.
        choice: What they choose from.
    """
    layers_by_arm = {arm.name: arm.layers(choice) for arm in arms.arms}
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
