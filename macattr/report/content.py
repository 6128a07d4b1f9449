"""The content of a report: layers, choices for every k, exports and the heat map, ready to be shown."""

__all__ = ["Report", "collect"]

import importlib.metadata
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from torch import nn

from macattr.plots import block_grid
from macattr.ranking.importance import LayerImportance
from macattr.report.words import (
    describe_measurement,
    describe_question,
    format_percent,
    list_attributes,
    reasons_to_doubt,
    why_without_intervals,
)
from macattr.selection.exports import pattern_lines
from macattr.selection.rules import Selection, SelectionRule, select
from macattr.statistics import agreement as comparison
from macattr.statistics.certainty import ranks, stability_curve, top_probabilities

SURE = 0.95
"""Share of the resamples in which a layer must be in the top to be called sure."""

STABILITY_IMAGES = 4
"""Images from which on a curve over fewer of them tells something."""


@dataclass(frozen=True)
class Axis:
    """From the lowest to the highest score, on a logarithmic or linear scale."""

    low: float
    high: float
    logarithmic: bool

    @classmethod
    def of(cls, scores: np.ndarray) -> "Axis":
        """Over all scores; logarithmic over the positive ones if none is negative."""
        logarithmic = bool((scores >= 0).all() and (scores > 0).any())
        usable = scores[scores > 0] if logarithmic else scores
        return cls(float(usable.min()), float(usable.max()), logarithmic)

    def widened(self, ends: Sequence[float]) -> "Axis":
        """With room for the ends of intervals, within limits: those from few images may be wider than any page."""
        span = self.high - self.low
        low, high = (self.low / 3, self.high * 3) if self.logarithmic else (self.low - span, self.high + span)
        return Axis(max(low, min([*ends, self.low])), min(high, max([*ends, self.high])), self.logarithmic)

    def holds(self, value: float) -> bool:
        """Whether a value has a place: 0 has none on a logarithmic axis."""
        return value > 0 or not self.logarithmic

    def place(self, value: float) -> float:
        """Place in [0, 1]; what lies beyond is at the end."""
        low, high, inside = self.low, self.high, min(max(value, self.low), self.high)
        if high <= low:
            return 1.0
        if self.logarithmic:
            return math.log(inside / low) / math.log(high / low)
        return (inside - low) / (high - low)


@dataclass(frozen=True)
class Layer:
    """A layer in the order of a ranking.

    Args:
        name: Its name.
        type: Class of the module.
        parameters: Number of its own parameters.
        shares: Another layer that returns the same tensor, '' for none.
        rank: Its rank, from 1.
        ranks: The interval of the rank; None without several images.
        score: Its score.
        scores: The interval of the score.
        level: Place of the score on the colour scale, in [0, 1]; None if it is off the scale.
        bar: Left end of the interval, score and right end, in percent of the axis' width.
        beyond: Whether the interval goes on beyond the left and the right end of the axis.
    """

    name: str
    type: str
    parameters: int
    shares: str
    rank: int
    ranks: tuple[int, int] | None
    score: float
    scores: tuple[float, float] | None
    level: float | None
    bar: tuple[float, float, float]
    beyond: tuple[bool, bool]


@dataclass(frozen=True)
class Choice:
    """What the first k layers of a ranking are, ready to be shown.

    Args:
        share: Of the layers.
        parameters: That they train.
        parameter_share: Of all.
        outputs: Distinct tensors that they return.
        ratio: Their parameters over the mean of as many random layers.
        sure: How many are in the top k in 95 % of the resamples, '' if there are none.
        summary: The selection in words.
    """

    share: str
    parameters: str
    parameter_share: str
    outputs: str
    ratio: str
    sure: str
    summary: str


@dataclass(frozen=True)
class Export:
    """A text for another tool: a fixed frame around one piece for every chosen layer.

    Args:
        label: What it is.
        use: What to do with it.
        before: Its beginning.
        stated: What follows that depends on the number of layers.
        between: What stands between that and the pieces.
        pieces: Which pieces of the layers it is made of.
        separator: Stands between pieces.
        end: Its end.
    """

    label: str
    use: str
    before: str
    stated: Literal["", "count", "summary"] = ""
    between: str = ""
    pieces: Literal["", "names", "quoted", "patterns"] = ""
    separator: str = ""
    end: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of the heat map: a layer, or columns without one."""

    layer: Layer | None
    width: int


@dataclass(frozen=True)
class HeatMap:
    """Layers by role and block.

    Args:
        groups: Headings over the columns, with their widths; empty if there is one only.
        columns: Full and short name of every block.
        rows: Role and cells of every row.
        outside: Layers outside of any block.
    """

    groups: tuple[tuple[str, int], ...]
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    outside: tuple[Layer, ...]


@dataclass(frozen=True)
class Chart:
    """The stability curve: points (images, share of the top that is the same, probability of the same top)."""

    k: int
    points: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True)
class Ranked:
    """One ranking, ready to be shown.

    Args:
        name: How it is called on the page.
        asked: What was asked, in pairs of a term and its answer.
        doubts: What a reader must know before relying on it.
        unit: What the scores are.
        uncertain: Why there are no intervals; '' if there are.
        layers: All that can be trained, most important first.
        by_depth: The same in order of depth.
        scale: Of colours and axes, ``log`` or ``linear``.
        heat_map: Where they stand.
        choices: For every k.
        exports: Texts for other tools.
        pieces: What these are made of, by name, in the order of the layers.
        tops: For every layer the first k from which on it may be in the top, and its percentages from there.
        stability: The curve, where there are enough images.
        measured: Residuals and cost.
        attributes: How it was measured.
    """

    name: str
    asked: tuple[tuple[str, str], ...]
    doubts: tuple[str, ...]
    unit: str
    uncertain: str
    layers: tuple[Layer, ...]
    by_depth: tuple[Layer, ...]
    scale: str
    heat_map: HeatMap
    choices: tuple[Choice, ...]
    exports: tuple[Export, ...]
    pieces: Mapping[str, tuple[str, ...]]
    tops: tuple[tuple[int, tuple[int, ...]], ...] | None
    stability: Chart | None
    measured: Mapping[str, str]
    attributes: Mapping[str, str]

    def probability(self, position: int, k: int) -> int | None:
        """Percentage with which a layer is in the top k; None without resamples."""
        if self.tops is None:
            return None
        first, values = self.tops[position]
        return 0 if k < first else values[k - first] if k - first < len(values) else 100

    def text(self, export: Export, k: int) -> str:
        """An export of the first k layers."""
        stated = {"": "", "count": str(k), "summary": self.choices[k - 1].summary}[export.stated]
        chosen = self.pieces[export.pieces][:k] if export.pieces else ()
        return f"{export.before}{stated}{export.between}{export.separator.join(chosen)}{export.end}"


@dataclass(frozen=True)
class Agreement:
    """How far rankings agree.

    Args:
        spearman: Rank correlation of every pair.
        shared: For every pair (by its positions) the number of layers that both tops hold, for every k.
        common: The number that all tops hold, for every k.
        other_weights: Whether they are of networks with different parameters.
    """

    spearman: tuple[tuple[float, ...], ...]
    shared: Mapping[str, tuple[int, ...]]
    common: tuple[int, ...]
    other_weights: bool


@dataclass(frozen=True)
class Report:
    """The content of the page.

    Args:
        model: Name of the network.
        total: What shares of parameters are shares of.
        left_out: Number of ranked layers that hold no parameter.
        k: Layers that are chosen when the page opens.
        rankings: One or several over the same layers.
        agreement: How far these agree; None for one.
        version: Of this library.
        seed: Of the resamples.
    """

    model: str
    total: str
    left_out: int
    k: int
    rankings: tuple[Ranked, ...]
    agreement: Agreement | None
    version: str
    seed: int

    @property
    def attributes(self) -> dict[str, list[str]]:
        """How the rankings were measured, one text for each of them."""
        return _side_by_side([ranked.attributes for ranked in self.rankings])

    @property
    def measured(self) -> dict[str, list[str]]:
        """Their residuals and cost."""
        return _side_by_side([ranked.measured for ranked in self.rankings])


def _side_by_side(columns: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """What is known by any name, '' where one does not tell."""
    names = dict.fromkeys(name for column in columns for name in column)
    return {name: [column.get(name, "") for column in columns] for name in names}


def collect(
    rankings: Mapping[str, LayerImportance],
    fraction: float,
    model: nn.Module | None,
    files: Mapping[str, Path | str],
    seed: int,
) -> Report:
    """The content of the page."""
    if not rankings:
        raise ValueError("`rankings` is empty: give at least one.")
    if not 0 < fraction <= 1:
        raise ValueError(f"`fraction` must lie in (0, 1], got {fraction}.")
    if unknown := sorted(set(files) - set(rankings)):
        raise ValueError(f"`files` names {', '.join(unknown)}, which are not among `rankings`: {', '.join(rankings)}.")
    names = {name: importance.dataset["layer"].values.tolist() for name, importance in rankings.items()}
    common = comparison.common_layers(names)
    first = next(iter(rankings.values()))
    sizes = dict(zip(first.dataset["layer"].values.tolist(), first.dataset["parameters"].values.tolist(), strict=True))
    trainable = [name for name in common if sizes[name]]
    if not trainable:
        raise ValueError("no ranked layer holds a parameter, so there is nothing to choose for training.")
    kept = {name: LayerImportance(some.dataset.sel(layer=trainable)) for name, some in rankings.items()}
    for name, some in kept.items():
        if some.dataset["parameters"].values.tolist() != [sizes[layer] for layer in trainable]:
            raise ValueError(f"layers of {name!r} have other sizes than in the first ranking: report networks apart.")
    k = max(1, int(fraction * len(trainable) + 1e-9))
    return Report(
        str(first.dataset.attrs["model"]),
        "the parameters of the ranked layers" if model is None else "the network's parameters",
        len(common) - len(trainable),
        k,
        tuple(_ranked(name, some, k, model, files.get(name, "importance.nc"), seed) for name, some in kept.items()),
        _agreement(kept) if len(kept) > 1 else None,
        importlib.metadata.version("macattr"),
        seed,
    )


def _ranked(
    name: str, importance: LayerImportance, k: int, model: nn.Module | None, file: Path | str, seed: int
) -> Ranked:
    """One ranking."""
    scores = importance.scores()
    every = dict(zip(scores["layer"].values.tolist(), scores.values.tolist(), strict=True))
    rule = SelectionRule(count=len(every))
    whole = select(every, importance.layer_table(model), rule, importance.dataset.attrs)
    uncertain = why_without_intervals(importance)
    tops = None if uncertain else _tops(importance, whole.layers, seed)
    layers, scale = _layers(whole, None if uncertain else _intervals(importance, seed))
    by_name = {layer.name: layer for layer in layers}
    by_depth = tuple(by_name[name] for name in whole.table.names)
    images = importance.dataset.sizes["sample"]
    curve = None if uncertain or images < STABILITY_IMAGES else _stability(importance, k, seed)
    return Ranked(
        name, describe_question(importance), reasons_to_doubt(importance), str(importance.dataset.attrs["unit"]),
        uncertain, layers, by_depth, scale, _heat_map(importance, by_name), _choices(whole, tops), _exports(file),
        _pieces(whole), None if tops is None else _compact(tops), curve, describe_measurement(importance),
        list_attributes(importance),
    )  # fmt: skip


def _tops(importance: LayerImportance, order: Sequence[str], seed: int) -> np.ndarray:
    """P(layer in the top k), (layers in the order of the ranking, k)."""
    names = importance.dataset["layer"].values.tolist()
    places = {name: place for place, name in enumerate(names)}
    found = top_probabilities(importance.values, np.random.default_rng(seed))
    return np.asarray(found[[places[name] for name in order]])


def _compact(tops: np.ndarray) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Percentages of every layer between the last 0 and the first 100; others are 1 to 99."""
    percentages = np.where((tops > 0) & (tops < 1), np.clip(np.rint(100 * tops), 1, 99), 100 * tops).astype(int)
    rows = []
    for row in percentages:
        first, full = int(np.argmax(row > 0)), int(np.argmax(row == 100))
        rows.append((first + 1, tuple(row[first:full].tolist())))
    return tuple(rows)


def _intervals(importance: LayerImportance, seed: int) -> pd.DataFrame:
    """Intervals of scores and ranks by layer; scores that are summed over images, as the page shows them."""
    table = importance.intervals(seed=seed).set_index("layer")
    if importance.dataset.attrs["across_images"] == "sum":
        table[["score", "score_low", "score_high"]] *= importance.dataset.sizes["sample"]
    return table


def _layers(whole: Selection, intervals: pd.DataFrame | None) -> tuple[tuple[Layer, ...], str]:
    """The layers, most important first, and the scale of their scores."""
    rows = {} if intervals is None else intervals.to_dict("index")
    colours = Axis.of(np.array(list(whole.scores.values())))
    bars = colours.widened([row[end] for row in rows.values() for end in ("score_low", "score_high")])
    layers = []
    for rank, name in enumerate(whole.layers, start=1):
        score, row = whole.scores[name], rows.get(name)
        low, high = (score, score) if row is None else (float(row["score_low"]), float(row["score_high"]))
        layers.append(
            Layer(
                name, whole.table[name].type, whole.table.count([name]), _partner(whole, name), rank,
                None if row is None else (int(row["rank_low"]), int(row["rank_high"])),
                score, None if row is None else (low, high), colours.place(score) if colours.holds(score) else None,
                (_points(bars, low), _points(bars, score), _points(bars, high)), (low < bars.low, high > bars.high),
            )
        )  # fmt: skip
    return tuple(layers), "log" if colours.logarithmic else "linear"


def _points(axis: Axis, value: float) -> float:
    """Place on an axis in percent."""
    return round(100 * axis.place(value), 1)


def _partner(whole: Selection, name: str) -> str:
    """Another layer that returns the same tensor, '' if there is none."""
    aliases = whole.table.alias_of or {}
    return next((other for other, source in aliases.items() if other != name and source == aliases[name]), "")


def _choices(whole: Selection, tops: np.ndarray | None) -> tuple[Choice, ...]:
    """What the first k layers are, for every k."""
    number = len(whole.layers)
    choices = []
    for k in range(1, number + 1):
        chosen = replace(whole, layers=whole.layers[:k], how=str(SelectionRule(count=k)))
        aliases = whole.table.alias_of or {}
        outputs = len({aliases.get(name, name) for name in chosen.layers})
        sure = "" if tops is None else str(int((tops[:k, k - 1] >= SURE).sum()))
        choices.append(
            Choice(
                format_percent(k / number), f"{chosen.parameters:,}", format_percent(chosen.parameters /
                whole.table.total), str(outputs), f"{chosen.parameters / chosen.random_mean:.2g}", sure, str(chosen),
            )
        )  # fmt: skip
    return tuple(choices)


def _pieces(whole: Selection) -> dict[str, tuple[str, ...]]:
    """What exports are made of."""
    return {
        "names": whole.layers,
        "quoted": tuple(json.dumps(name, ensure_ascii=False) for name in whole.layers),
        "patterns": tuple(pattern_lines(whole)),
    }


def _exports(file: Path | str) -> tuple[Export, ...]:
    """Texts for other tools."""
    listed = "mask = TrainableMask(\n    (\n        "
    return (
        Export(
            "Python", "Trains these layers of your model and freezes all others.",
            f"from macattr import TrainableMask\n\n{listed}", "", "", "quoted", ",\n        ",
            ",\n    )\n)\nprint(mask.apply(model))\n",
        ),
        Export(
            "peft", "Low-rank adapters on these layers; norms and the like are trained in full. Needs macattr[peft].",
            "from macattr import TrainableMask\nfrom macattr.selection.lora import lora_config\n"
            f"from peft import get_peft_model\n\n{listed}", "", "", "quoted", ",\n        ",
            ",\n    )\n)\nmodel = get_peft_model(model, lora_config(mask, model, rank=8))\n",
        ),
        Export("JSON list", "The names, most important first.", "[\n  ", "", "", "quoted", ",\n  ", "\n]\n"),
        Export("Names", "One a line, most important first.", "", "", "", "names", "\n", "\n"),
        Export(
            "YAML", "unfrozen_parameters: regular expressions, as Spectrum writes and Axolotl reads.",
            "# ", "summary", "\nunfrozen_parameters:\n", "patterns",
        ),
        Export(
            "Command", "Selects the same layers from the ranking's file and writes them; --help shows other rules.",
            f"macattr select {shlex.quote(str(file))} --count ", "count", " --export json --out layers.json\n",
        ),
    )  # fmt: skip


def _heat_map(importance: LayerImportance, layers: Mapping[str, Layer]) -> HeatMap:
    """Layers by role and block."""
    data = importance.dataset
    table = pd.DataFrame({name: data[name].values for name in ("layer", "block", "role", "depth")})
    grid = block_grid(table.sort_values("depth"))
    rows: list[list[Cell]] = []
    for row in range(len(grid.roles)):
        placed = {column: (name, width) for name, (at, column, width) in grid.places.items() if at == row}
        cells, column = [], 0
        while column < len(grid.blocks):
            name, width = placed.get(column, ("", 1))
            cells.append(Cell(layers.get(name), width))
            column += width
        rows.append(cells)
    groups = [block.rpartition(".")[0] for block in grid.blocks]
    headings = [(_shortest(group, set(groups)), width) for group, width in _runs(groups)]
    return HeatMap(
        tuple(headings) if len(set(groups)) > 1 else (),
        tuple((block, block.rpartition(".")[2]) for block in grid.blocks),
        tuple((role, tuple(cells)) for role, cells in zip(grid.roles, rows, strict=True)),
        tuple(layer for name, layer in layers.items() if name not in grid.places),
    )


def _runs(values: Sequence[str]) -> list[tuple[str, int]]:
    """Equal neighbours, counted."""
    runs: list[tuple[str, int]] = []
    for value in values:
        count = runs.pop()[1] if runs and runs[-1][0] == value else 0
        runs.append((value, count + 1))
    return runs


def _shortest(name: str, others: set[str]) -> str:
    """A dotted name without the parts at its end that all share."""
    parts = [other.split(".")[::-1] for other in others]
    same = 0
    while all(len(own) > same + 1 and own[same] == parts[0][same] for own in parts):
        same += 1
    return ".".join(name.split(".")[: len(name.split(".")) - same])


def _stability(importance: LayerImportance, k: int, seed: int) -> Chart:
    """The stability curve of the top k."""
    curve = stability_curve(importance.values, k, np.random.default_rng(seed), n_resamples=500)
    points = ((int(row.images), float(row.overlap), float(row.same_set)) for row in curve.itertuples())
    return Chart(k, tuple(points))


def _agreement(rankings: Mapping[str, LayerImportance]) -> Agreement:
    """How far rankings agree."""
    means = [np.asarray(some.scores().values) for some in rankings.values()]
    ranked = [ranks(mean) for mean in means]
    pairs = combinations(range(len(ranked)), 2)
    hashes = {some.dataset.attrs.get("model_sha256") for some in rankings.values()}
    return Agreement(
        tuple(tuple(comparison.spearman(a, b) for b in means) for a in means),
        {f"{i} {j}": _shared([ranked[i], ranked[j]]) for i, j in pairs},
        _shared(ranked),
        len(hashes) > 1,
    )


def _shared(ranked: Sequence[np.ndarray]) -> tuple[int, ...]:
    """Layers that all tops of k hold, for every k: those whose worst rank is k or better."""
    worst = np.sort(np.max(ranked, axis=0))
    return tuple(np.searchsorted(worst, np.arange(1, len(worst) + 1), side="right").tolist())
