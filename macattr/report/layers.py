"""Layers of a report, most important first: rank, score, intervals, colour and place on the axis of scores."""

__all__ = ["Layer", "list_layers"]

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from macattr.selection.rules import Selection


@dataclass(frozen=True)
class Axis:
    """Axis from the lowest to the highest score, on a logarithmic or linear scale."""

    low: float
    high: float
    logarithmic: bool

    @classmethod
    def of(cls, scores: np.ndarray) -> "Axis":
        """Axis over all scores; logarithmic over the positive ones if none is negative."""
        logarithmic = bool((scores >= 0).all() and (scores > 0).any())
        usable = scores[scores > 0] if logarithmic else scores
        return cls(low=float(usable.min()), high=float(usable.max()), logarithmic=logarithmic)

    def widened(self, ends: Sequence[float]) -> "Axis":
        """Axis with room for the ends of intervals, within limits: few images can give intervals without an end."""
        span = self.high - self.low
        low, high = (self.low / 3, self.high * 3) if self.logarithmic else (self.low - span, self.high + span)
        return Axis(
            low=max(low, min([*ends, self.low])),
            high=min(high, max([*ends, self.high])),
            logarithmic=self.logarithmic,
        )

    def has_place_for(self, value: float) -> bool:
        """Whether the value has a place: 0 has none on a logarithmic axis."""
        return value > 0 or not self.logarithmic

    def place(self, value: float) -> float:
        """Place in [0, 1]; values beyond an end are at the end."""
        low, high, inside = self.low, self.high, min(max(value, self.low), self.high)
        if high <= low:
            return 1.0
        if self.logarithmic:
            return math.log(inside / low) / math.log(high / low)
        return (inside - low) / (high - low)

    def percent(self, value: float) -> float:
        """Place in percent, with one decimal."""
        return round(100 * self.place(value), 1)


@dataclass(frozen=True)
class Layer:
    """Layer in the order of a ranking.

    Args:
        name: Name of the layer.
        type: Class of the module.
        parameters: Number of its own parameters.
        shares: Another layer that returns the same tensor, '' for none.
        rank: Rank, from 1.
        ranks: Interval of the rank; None without several images.
        score: Score.
        scores: Interval of the score; None without several images.
        shade: Colour by rank, from 0 for the last layer to 1 for the first; None if the score is 0 and no other is
            negative.
        height: Place of the score on the axis, in [0, 1]; None where ``shade`` is None.
        bar: Left end of the interval, score and right end, in percent of the axis' width.
        beyond: Whether the interval continues beyond the left and the right end of the axis.
    """

    name: str
    type: str
    parameters: int
    shares: str
    rank: int
    ranks: tuple[int, int] | None
    score: float
    scores: tuple[float, float] | None
    shade: float | None
    height: float | None
    bar: tuple[float, float, float]
    beyond: tuple[bool, bool]


def list_layers(whole: Selection, intervals: pd.DataFrame | None) -> tuple[tuple[Layer, ...], str]:
    """The layers, most important first, and the scale of their scores (``log`` or ``linear``).

    Args:
        whole: Selection of all layers.
        intervals: Of :meth:`LayerImportance.intervals`, by layer; None without several images.
    """
    rows = {} if intervals is None else intervals.to_dict("index")
    axis = Axis.of(np.array(list(whole.scores.values())))
    bars = axis.widened([row[end] for row in rows.values() for end in ("score_low", "score_high")])
    last = max(1, len(whole.layers) - 1)
    layers = []
    for place, name in enumerate(whole.layers):
        score, row = whole.scores[name], rows.get(name)
        low, high = (score, score) if row is None else (float(row["score_low"]), float(row["score_high"]))
        visible = axis.has_place_for(score)
        layers.append(
            Layer(
                name=name,
                type=whole.table[name].type,
                parameters=whole.table.count([name]),
                shares=_partner(whole, name),
                rank=place + 1,
                ranks=None if row is None else (int(row["rank_low"]), int(row["rank_high"])),
                score=score,
                scores=None if row is None else (low, high),
                shade=1 - place / last if visible else None,
                height=axis.place(score) if visible else None,
                bar=(bars.percent(low), bars.percent(score), bars.percent(high)),
                beyond=(low < bars.low, high > bars.high),
            )
        )
    return tuple(layers), "log" if axis.logarithmic else "linear"


def _partner(whole: Selection, name: str) -> str:
    """Another layer that returns the same tensor, '' if there is none."""
    aliases = whole.table.alias_of or {}
    return next((other for other, source in aliases.items() if other != name and source == aliases[name]), "")
