"""Choices of a report: the first k layers for every k, with their size and their certainty."""

__all__ = [
    "SURE",
    "Choice",
    "TopShares",
    "list_choices",
    "measure_top_shares",
    "pack_top_shares",
]

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from macattr.ranking.importance import LayerImportance
from macattr.report.words import format_percent
from macattr.selection.rules import Selection, SelectionRule
from macattr.statistics.bootstrap import top_probabilities

SURE = 0.95
"""Share of the resamples in which a layer must be in the top to count as sure."""

TopShares = tuple[tuple[int, tuple[int, ...]], ...]
"""For every layer the first k with a percentage above 0, and its percentages from there to the first 100."""


@dataclass(frozen=True)
class Choice:
    """The first k layers of a ranking, as texts.

    Args:
        share: Share of the layers.
        parameters: Number of trained parameters.
        parameter_share: Share of all parameters.
        outputs: Number of distinct tensors that the layers return.
        ratio: Their parameters divided by the mean of a random choice of as many layers.
        sure: Number of layers that are in the top k in 95 % of the resamples, '' without resamples.
        summary: The selection in words.
    """

    share: str
    parameters: str
    parameter_share: str
    outputs: str
    ratio: str
    sure: str
    summary: str


def list_choices(whole: Selection, tops: np.ndarray | None) -> tuple[Choice, ...]:
    """The first k layers for every k.

    Args:
        whole: Selection of all layers.
        tops: Array of :func:`measure_top_shares`; None without several images.
    """
    number = len(whole.layers)
    aliases = whole.table.alias_of or {}
    choices = []
    for k in range(1, number + 1):
        chosen = replace(whole, layers=whole.layers[:k], how=str(SelectionRule(count=k)))
        choices.append(
            Choice(
                share=format_percent(k / number),
                parameters=f"{chosen.parameters:,}",
                parameter_share=format_percent(chosen.parameters / whole.table.total),
                outputs=str(len({aliases.get(name, name) for name in chosen.layers})),
                ratio=f"{chosen.parameters / chosen.random_mean:.2g}",
                sure="" if tops is None else str(int((tops[:k, k - 1] >= SURE).sum())),
                summary=str(chosen),
            )
        )
    return tuple(choices)


def measure_top_shares(importance: LayerImportance, order: Sequence[str], seed: int) -> np.ndarray:
    """Share of the resamples in which a layer is in the top k, (layers in the given order, k).

    Args:
        importance: The ranking, of several images.
        order: Names of its layers, most important first.
        seed: Seed of the resamples.
    """
    places = {name: place for place, name in enumerate(importance.dataset["layer"].values.tolist())}
    shares = top_probabilities(importance.values, np.random.default_rng(seed))
    return np.asarray(shares[[places[name] for name in order]])


def pack_top_shares(tops: np.ndarray) -> TopShares:
    """The same in percent, without the zeros before and the hundreds after; other shares are 1 to 99."""
    percentages = np.where((tops > 0) & (tops < 1), np.clip(np.rint(100 * tops), 1, 99), 100 * tops).astype(int)
    rows = []
    for row in percentages:
        first, full = int(np.argmax(row > 0)), int(np.argmax(row == 100))
        rows.append((first + 1, tuple(row[first:full].tolist())))
    return tuple(rows)
