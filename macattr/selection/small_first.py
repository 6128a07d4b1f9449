"""Small-first selections: ends and vectors are always trained, and matrices fill the rest of a budget."""

__all__ = ["ends", "small_first", "small_layers"]

from collections.abc import Collection
from dataclasses import replace

from torch import nn

from macattr.layers.table import LayerTable
from macattr.selection.rules import SelectionRule
from macattr.statistics.ranks import whole_part


def small_first(rule: SelectionRule, model: nn.Module, share: float = 0.5) -> SelectionRule:
    """The rule of a budget, with the small layers always in and the others taken by their score per parameter.

    Small layers cost next to nothing, and no matrix should displace them. The scores should be sums over parameters,
    such as those of ``adam_gain``, ``lca`` or ``kernel``.

    Args:
        rule: A budget of parameters of the whole network. What it excludes stays out.
        model: Network whose layers are ranked.
        share: Most of the budget that small layers take, in (0, 1]; those beyond it are ranked like all others.

    Raises:
        ValueError: If the rule is no such budget, or ``share`` is out of range.

    Source:
        Ours. Vectors alone can be strong: GainTuning (arXiv:2107.12815) adapts denoisers by one gain a channel, and
        tuning of norms adapts vision transformers (arXiv:2508.07577).

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 3, 3))
        >>> print(small_first(SelectionRule(0.6, by="parameters"), net))
        top 60 % of the parameters by score per parameter, with 1 3
    """
    if not 0 < share <= 1:
        raise ValueError(f"`share` must lie in (0, 1], got {share}: it is a part of the budget.")
    if rule.by != "parameters" or rule.per is not None:
        raise ValueError(
            f"small layers come first in a budget of the whole network, not in {str(rule)!r}: by='parameters'."
        )
    table = LayerTable.of(model)
    small = small_layers(model, whole_part(share, rule.amount(table.total)), without=table.match(rule.exclude))
    return replace(rule, include=tuple(dict.fromkeys([*rule.include, *small])), per_parameter=True)


def small_layers(model: nn.Module, most: int, without: Collection[str] = ()) -> tuple[str, ...]:
    """The ends and the layers that hold vectors only, such as norms: the smallest first, as long as they fit.

    Tables of positions are matrices and no ends; add their names to ``include`` where they are to be trained always.

    Args:
        model: Network.
        most: Number of parameters that they hold together at most.
        without: Names of layers that are left out.

    Returns:
        Their names in module order; none if the smallest is larger than that.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 3, 3))
        >>> small_layers(net, 250), small_layers(net, 500)
        (('1', '3'), ('0', '1', '3'))
    """
    table = LayerTable.of(model)
    vectors = {name for name in table.names if _holds_vectors(model, table, name)}
    chosen: list[str] = []
    for name in sorted(vectors.union(ends(table)).difference(without), key=lambda name: table.count([name])):
        if table.count([*chosen, name]) > most:
            break
        chosen.append(name)
    return tuple(name for name in table.names if name in chosen)


def ends(table: LayerTable) -> tuple[str, ...]:
    """The layers outside of any block; where that is all or none of them, the first and the last layer.

    Args:
        table: Layers of a network.

    Example:
        >>> ends(LayerTable.of(nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 4), nn.Linear(4, 1))))
        ('0', '2')
    """
    outside = tuple(layer.name for layer in table.layers if not layer.block)
    if 0 < len(outside) < len(table.layers):
        return outside
    return tuple(dict.fromkeys([table.layers[0].name, table.layers[-1].name]))


def _holds_vectors(model: nn.Module, table: LayerTable, name: str) -> bool:
    """Whether none of the parameters that a layer unlocks is a matrix."""
    unlocked = table.unlocks[name]
    return bool(unlocked) and all(model.get_parameter(parameter).dim() < 2 for parameter in unlocked)
