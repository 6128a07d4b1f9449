"""Content of a report: rankings of the same layers and their agreement, ready for the page."""

__all__ = ["Agreement", "Degradations", "RankingView", "ReportContent", "collect"]

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from torch import nn

from macattr.ranking.importance import LayerImportance
from macattr.report.choices import Choice, TopShares, list_choices, measure_top_shares, pack_top_shares
from macattr.report.exports import Export, list_exports, list_pieces
from macattr.report.heat_map import HeatMap, arrange_layers
from macattr.report.layers import Layer, list_layers
from macattr.report.stability import FEWEST_IMAGES, StabilityChart, chart_stability
from macattr.report.words import (
    describe_measurement,
    describe_question,
    list_attributes,
    reasons_to_doubt,
    why_without_intervals,
)
from macattr.selection.rules import SelectionRule
from macattr.statistics.agreement import common_layers, spearman
from macattr.statistics.ranks import ranks, top_count


@dataclass(frozen=True)
class Degradations:
    """Ranks of the layers for each degradation alone.

    Args:
        names: The degradations.
        ranks: For every layer, most important first, its rank for each of them.
        common: Number of layers in the top k of all, for every k.
    """

    names: tuple[str, ...]
    ranks: tuple[tuple[int, ...], ...]
    common: tuple[int, ...]


@dataclass(frozen=True)
class RankingView:
    """One ranking, ready for the page.

    Args:
        name: Name on the page.
        question: How the ranking was measured, in pairs of a term and its description.
        doubts: Warnings that a reader needs before relying on the ranking.
        unit: Unit of the scores.
        uncertain: Reason why there are no intervals; '' if there are.
        layers: All layers with parameters, most important first.
        by_depth: The same in order of depth.
        scale: Scale of the axes, ``log`` or ``linear``.
        heat_map: The layers by role and block.
        choices: The first k layers for every k.
        exports: Texts for other tools.
        pieces: Pieces of these texts by kind, in the order of the layers.
        tops: Percentages with which every layer is in the top k; None without several images.
        stability: Stability curve; None with few images.
        measured: Residuals and cost.
        attributes: All attributes of the file.
        degradations: Ranks of the layers for each degradation alone; None without several.
    """

    name: str
    question: tuple[tuple[str, str], ...]
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
    tops: TopShares | None
    stability: StabilityChart | None
    measured: Mapping[str, str]
    attributes: Mapping[str, str]
    degradations: Degradations | None

    def probability(self, position: int, k: int) -> int | None:
        """Percentage with which a layer is in the top k; None without resamples."""
        if self.tops is None:
            return None
        first, values = self.tops[position]
        return 0 if k < first else values[k - first] if k - first < len(values) else 100

    def text(self, export: Export, k: int) -> str:
        """Export of the first k layers."""
        stated = {"": "", "count": str(k), "summary": self.choices[k - 1].summary}[export.stated]
        chosen = self.pieces[export.pieces][:k] if export.pieces else ()
        return f"{export.before}{stated}{export.between}{export.separator.join(chosen)}{export.end}"


@dataclass(frozen=True)
class Agreement:
    """Agreement of several rankings.

    Args:
        spearman: Rank correlation of every pair.
        shared: For every pair (by its positions) the number of layers in both tops, for every k.
        common: Number of layers in all tops, for every k.
        other_weights: Whether the rankings are of networks with different parameters.
    """

    spearman: tuple[tuple[float, ...], ...]
    shared: Mapping[str, tuple[int, ...]]
    common: tuple[int, ...]
    other_weights: bool


@dataclass(frozen=True)
class ReportContent:
    """Content of the page.

    Args:
        model: Name of the network.
        total: Name of the whole that shares of parameters refer to.
        left_out: Number of ranked layers without parameters.
        k: Number of layers that are chosen when the page opens.
        rankings: One or several rankings of the same layers.
        agreement: Their agreement; None for a single ranking.
        version: Version of this library.
        seed: Seed of the resamples.
    """

    model: str
    total: str
    left_out: int
    k: int
    rankings: tuple[RankingView, ...]
    agreement: Agreement | None
    version: str
    seed: int

    @property
    def attributes(self) -> dict[str, list[str]]:
        """Attributes of the files by name, one text for each ranking."""
        return _side_by_side([ranking.attributes for ranking in self.rankings])

    @property
    def measured(self) -> dict[str, list[str]]:
        """Residuals and cost by name, one text for each ranking."""
        return _side_by_side([ranking.measured for ranking in self.rankings])


def _side_by_side(columns: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """Texts of all columns by name, '' where a column lacks the name."""
    names = dict.fromkeys(name for column in columns for name in column)
    return {name: [column.get(name, "") for column in columns] for name in names}


def collect(
    rankings: Mapping[str, LayerImportance],
    *,
    fraction: float,
    model: nn.Module | None,
    files: Mapping[str, Path | str],
    seed: int,
) -> ReportContent:
    """Content of the page; the arguments are those of :func:`macattr.write_report`.

    Args:
        rankings: One or several rankings of the same layers, by name.
        fraction: Share of the layers, in (0, 1], that is chosen when the page opens.
        model: The network; None: totals are of the ranked layers.
        files: Files of the rankings, by name.
        seed: Seed of the resamples.

    Raises:
        ValueError: If there is no ranking, an option is out of range, or the rankings are of different layers.
    """
    if not rankings:
        raise ValueError("`rankings` is empty: give at least one.")
    if not 0 < fraction <= 1:
        raise ValueError(f"`fraction` must lie in (0, 1], got {fraction}.")
    if unknown := sorted(set(files) - set(rankings)):
        raise ValueError(f"`files` names {', '.join(unknown)}, which are not among `rankings`: {', '.join(rankings)}.")
    common = common_layers({name: ranking.dataset["layer"].values.tolist() for name, ranking in rankings.items()})
    trainable = _with_parameters(rankings, common)
    layers = next(iter(trainable.values())).dataset.sizes["layer"]
    k = top_count(fraction, layers)
    views = tuple(
        _view(name, ranking, k=k, model=model, file=files.get(name, "importance.nc"), seed=seed)
        for name, ranking in trainable.items()
    )
    return ReportContent(
        model=str(next(iter(rankings.values())).dataset.attrs["model"]),
        total="the parameters of the ranked layers" if model is None else "the network's parameters",
        left_out=len(common) - layers,
        k=k,
        rankings=views,
        agreement=_agreement(trainable) if len(trainable) > 1 else None,
        version=importlib.metadata.version("macattr"),
        seed=seed,
    )


def _with_parameters(rankings: Mapping[str, LayerImportance], layers: Sequence[str]) -> dict[str, LayerImportance]:
    """The rankings of the layers that hold parameters, in the same order and of the same sizes."""
    first = next(iter(rankings.values())).dataset
    sizes = dict(zip(first["layer"].values.tolist(), first["parameters"].values.tolist(), strict=True))
    trainable = [name for name in layers if sizes[name]]
    if not trainable:
        raise ValueError("no ranked layer holds a parameter, so there is nothing to choose for training.")
    kept = {name: LayerImportance(ranking.dataset.sel(layer=trainable)) for name, ranking in rankings.items()}
    for name, ranking in kept.items():
        if ranking.dataset["parameters"].values.tolist() != [sizes[layer] for layer in trainable]:
            raise ValueError(f"layers of {name!r} have other sizes than in the first ranking: report networks apart.")
    return kept


def _view(
    name: str, importance: LayerImportance, *, k: int, model: nn.Module | None, file: Path | str, seed: int
) -> RankingView:
    """One ranking, ready for the page."""
    whole = importance.select(SelectionRule(count=importance.dataset.sizes["layer"]), model)
    uncertain = why_without_intervals(importance)
    tops = None if uncertain else measure_top_shares(importance, whole.layers, seed)
    layers, scale = list_layers(whole, None if uncertain else importance.intervals(seed=seed).set_index("layer"))
    by_name = {layer.name: layer for layer in layers}
    has_curve = not uncertain and importance.dataset.sizes["sample"] >= FEWEST_IMAGES
    return RankingView(
        name=name,
        question=describe_question(importance),
        doubts=reasons_to_doubt(importance),
        unit=str(importance.dataset.attrs["unit"]),
        uncertain=uncertain,
        layers=layers,
        by_depth=tuple(by_name[layer] for layer in whole.table.names),
        scale=scale,
        heat_map=arrange_layers(importance, by_name),
        choices=list_choices(whole, tops),
        exports=list_exports(file),
        pieces=list_pieces(whole),
        tops=None if tops is None else pack_top_shares(tops),
        stability=chart_stability(importance, k, seed) if has_curve else None,
        measured=describe_measurement(importance),
        attributes=list_attributes(importance),
        degradations=_degradations(importance, whole.layers) if len(importance.degradations) > 1 else None,
    )


def _degradations(importance: LayerImportance, order: Sequence[str]) -> Degradations:
    """Ranks for each degradation alone, of the layers in the given order."""
    table = importance.degradation_ranks().loc[list(order)]
    return Degradations(
        names=tuple(table.columns),
        ranks=tuple(tuple(row) for row in table.to_numpy().tolist()),
        common=_shared_by_k([table[name].to_numpy() for name in table.columns]),
    )


def _agreement(rankings: Mapping[str, LayerImportance]) -> Agreement:
    """Agreement of several rankings of the same layers."""
    means = [np.asarray(ranking.scores().values) for ranking in rankings.values()]
    ranked = [ranks(mean) for mean in means]
    pairs = combinations(range(len(ranked)), 2)
    hashes = {ranking.dataset.attrs.get("model_sha256") for ranking in rankings.values()}
    return Agreement(
        spearman=tuple(tuple(spearman(a, b) for b in means) for a in means),
        shared={f"{i} {j}": _shared_by_k([ranked[i], ranked[j]]) for i, j in pairs},
        common=_shared_by_k(ranked),
        other_weights=len(hashes) > 1,
    )


def _shared_by_k(ranked: Sequence[np.ndarray]) -> tuple[int, ...]:
    """Number of layers in all tops of k, for every k: the layers whose worst rank is k or better."""
    worst = np.sort(np.max(ranked, axis=0))
    return tuple(np.searchsorted(worst, np.arange(1, len(worst) + 1), side="right").tolist())
