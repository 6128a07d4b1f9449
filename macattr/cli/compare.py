"""``macattr compare``: agreement of rankings, as a table and figures."""

__all__ = ["compare", "write_comparison"]

import shlex
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd

from macattr.cli.rankings import load_ranking, ranking_files, short_names
from macattr.plots import plot_agreement, plot_overlap, plot_rank_flow
from macattr.ranking.importance import LayerImportance
from macattr.statistics.agreement import common_layers, measure_agreement, overlap_curve
from macattr.statistics.ranks import ranks, top_count

MOST_IN_FLOW = 6
"""Largest number of rankings whose flow of ranks and curves of overlap are readable; more give a matrix alone."""


def compare(
    rankings: list[str],
    out: Path = Path("comparison"),
    fraction: float = 0.1,
    only_common: bool = False,
    confidence: float = 0.95,
    seed: int = 0,
) -> None:
    """Compare rankings of this and other tools.

    Writes agreement.csv (every measure for every pair, with intervals over images where rankings hold several), and
    figures: agreement.png, and for up to six rankings rank_flow.png and overlap.png.

    Args:
        rankings: Two or more of: files or folders that "macattr rank" wrote; folders with the authors' filter_*.txt
            lists; JSON or CSV files of names and scores; Spectrum's JSON files, whose ratios become places within their
            types.
        out: Folder for the results.
        fraction: Top share of the layers that is compared.
        only_common: Compare the common layers alone if the rankings cover different layers.
        confidence: Coverage of the intervals over images, in (0, 1).
        seed: Seed of the resamples.
    """
    mpl.use("Agg")
    files = ranking_files(rankings)
    if len(files) < 2:
        raise ValueError(f"a comparison needs at least two rankings, got {len(files)}.")
    loaded = {name: load_ranking(file) for name, file in zip(short_names(files), files, strict=True)}
    text = write_comparison(loaded, out, fraction=fraction, only_common=only_common, confidence=confidence, seed=seed)
    print(text)
    if not only_common and all(isinstance(ranking, LayerImportance) for ranking in loaded.values()):
        print(f"next:\n  {shlex.join(['macattr', 'report', *files, '--out', str(out / 'report.html')])}")


def write_comparison(
    rankings: Mapping[str, LayerImportance | dict[str, float]],
    out: Path,
    *,
    fraction: float,
    only_common: bool = False,
    confidence: float = 0.95,
    seed: int = 0,
) -> str:
    """Write the agreement of every pair and its figures; the text that summarises them.

    Raises:
        ValueError: If rankings cover different layers and ``only_common`` is False, or no layer is common.
    """
    layers = common_layers({name: _layers(ranking) for name, ranking in rankings.items()}, only_common)
    values = {name: _values(ranking, layers) for name, ranking in rankings.items()}
    k = top_count(fraction, len(layers))
    tables = []
    for a, b in combinations(values, 2):
        paired = _same_images(rankings[a], rankings[b])
        agreement = measure_agreement(
            values[a], values[b], k, generator=np.random.default_rng(seed), confidence=confidence, paired=paired
        )
        tables.append(agreement.assign(a=a, b=b))
    table = pd.concat(tables, ignore_index=True)[["a", "b", "measure", "value", "low", "high", "chance"]]
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "agreement.csv", index=False)
    means = {name: scores.mean(axis=(0, 1)) if scores.ndim == 3 else scores for name, scores in values.items()}
    written = ["agreement.csv", *_draw(table, means, layers, k, out)]
    words = [f"{len(layers)} layers, top {k}"]
    if len(means) <= MOST_IN_FLOW:
        words.append(table.round(3).to_string(index=False))
    else:
        words += ["Spearman's correlation", _matrix(table, list(means), "spearman").round(2).to_string()]
    return "\n".join([*words, f"\nwritten: {', '.join(str(out / name) for name in written)}"])


def _draw(table: pd.DataFrame, means: Mapping[str, np.ndarray], layers: list[str], k: int, out: Path) -> list[str]:
    """Write the figures; their names."""
    title = f"{len(layers)} layers"
    matrix = _matrix(table, list(means), "spearman")
    figures = {"agreement.png": plot_agreement(matrix, f"agreement of rankings, {title}", "Spearman's correlation")}
    if len(means) <= MOST_IN_FLOW:
        flow = pd.DataFrame({name: ranks(mean) for name, mean in means.items()}, index=layers)
        first, *others = means
        curves = {
            f"{first}, {other}": overlap_curve(np.asarray(means[first]), np.asarray(means[other])) for other in others
        }
        figures["rank_flow.png"] = plot_rank_flow(flow, k, f"{title}, top {k}")
        figures["overlap.png"] = plot_overlap(curves, k, f"{title}: layers that both tops hold")
    for name, figure in figures.items():
        figure.savefig(out / name, dpi=150)
    return list(figures)


def _matrix(table: pd.DataFrame, names: list[str], measure: str) -> pd.DataFrame:
    """One measure of all pairs as a symmetric matrix."""
    matrix = pd.DataFrame(np.eye(len(names)), names, names)
    for row in table[table["measure"] == measure].itertuples():
        matrix.loc[row.a, row.b] = matrix.loc[row.b, row.a] = row.value
    return matrix


def _layers(ranking: LayerImportance | dict[str, float]) -> list[str]:
    """Names of the layers."""
    return list(ranking) if isinstance(ranking, dict) else ranking.dataset["layer"].values.tolist()


def _values(ranking: LayerImportance | dict[str, float], layers: list[str]) -> np.ndarray:
    """Scores of these layers: (images, orders, layers) of several images, else (layers)."""
    if isinstance(ranking, dict):
        return np.array([ranking[layer] for layer in layers])
    values = LayerImportance(ranking.dataset.sel(layer=layers)).values
    return values if len(values) > 1 else np.asarray(values.mean(axis=(0, 1)))


def _same_images(a: LayerImportance | dict[str, float], b: LayerImportance | dict[str, float]) -> bool:
    """Whether both hold several images, and the same ones."""
    if isinstance(a, dict) or isinstance(b, dict):
        return False
    names = [ranking.dataset["sample"].values.tolist() for ranking in (a, b)]
    return len(names[0]) > 1 and names[0] == names[1]
