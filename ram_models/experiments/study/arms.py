"""The arms of the fine-tuning experiments: which layers each trains, from rankings and from matched controls."""

__all__ = ["MERGED", "Rankings", "arms", "merge", "overlap", "top"]

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import nn

from macattr.layers import LayerTable
from macattr.ranking.importance import LayerImportance
from macattr.selection.controls import convolutions, random_layers, random_parameters, shuffled_layers
from macattr.selection.rules import Selection, SelectionRule
from ram_models.seeds import seeded

MERGED = 0.9
"""Overlap of the trained parameters from which on two arms are one: their difference could not be seen."""

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


def arms(rankings: Rankings, network: nn.Module, block: str, fraction: float = 0.1) -> dict[str, Layers]:
    """Layers that every arm trains, by the arm's name; random ones are drawn anew for every block.

    Args:
        rankings: Of this pre-trained network.
        network: For exact counts of parameters.
        block: Name of the block, the seed of its random draws.
        fraction: Share of the layers in the arms of Table 5.
    """
    mac = top(rankings.mac, fraction, network)
    budget = SelectionRule(count=mac.parameters, by="parameters", skips=3, fill=0.9)
    table = mac.table
    found = {
        "MAC": mac.layers,
        "MAC (authors' script)": top(rankings.official, fraction, network).layers,
        "IG": top(rankings.influence, fraction, network).layers,
        "random": random_layers(mac, seeded(f"random {block}")).layers,
        "IG, equal parameters": rankings.influence.select(budget, network).layers,
        "random, equal parameters": random_parameters(mac, seeded(f"parameters {block}")).layers,
        "3x3 convolutions and ends": convolutions(network).layers,
        "ends": tuple(layer.name for layer in table.layers if not layer.block),
        "MAC 20 %": top(rankings.mac, 2 * fraction, network).layers,
        "MAC 50 %": top(rankings.mac, 5 * fraction, network).layers,
        "all": table.names,
    }
    if (shuffled := _shuffled(mac, block)) is not None:
        found["MAC shuffled"] = shuffled
    return found


def _shuffled(selection: Selection, block: str) -> Layers | None:
    """The selection shuffled within role and stage; None if that would change nothing."""
    try:
        return shuffled_layers(selection, seeded(f"shuffled {block}")).layers
    except ValueError:
        return None


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


def merge(found: Collection[Mapping[str, Layers]], table: LayerTable, keep: Collection[str] = ()) -> dict[str, str]:
    """For every arm the one that stands for it: an earlier one that trains nearly the same everywhere, or itself.

    Args:
        found: For every block what :func:`arms` gives; an arm that some blocks do not have stands for itself.
        table: Layers of the network.
        keep: Arms that stand for themselves whatever they train.
    """
    stands: dict[str, str] = {}
    for arm in dict.fromkeys(arm for of in found for arm in of):
        known = [of for of in found if arm in of]
        earlier = dict.fromkeys(stands.values()) if len(known) == len(found) and arm not in keep else ()
        same = [other for other in earlier if all(overlap(of[arm], of[other], table) >= MERGED for of in known)]
        stands[arm] = same[0] if same else arm
    return stands
