"""Few layers against full fine-tuning where both are equally good at something else."""

__all__ = ["above_frontier"]

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from ram_models.experiments.paper_arms import ALL, LONGER
from ram_models.experiments.study.store import UNTUNED_SEED, BlockKey
from ram_models.experiments.verdicts.means import blocks_of

FULL = (ALL, LONGER)
"""Arms whose ways are the frontier that fewer layers are held against."""


def above_frontier(table: pd.DataFrame, arm: str, column: str, matched: str, blocks: Sequence[BlockKey]) -> pd.Series:
    """How far an arm lies above full fine-tuning where both are equally good at something else, for every block.

    The frontier is the best of all lines from the pre-trained to a fully fine-tuned network, at the arm's quality: the
    ways that the trainings took, and the straight lines between the weights.

    Args:
        table: Of :func:`by_network`.
        arm: What is compared.
        column: Where, e.g. ``poisson and speckle``.
        matched: Column in which both are equally good, e.g. ``noise``.
        blocks: All blocks of the study.

    Returns:
        Difference in dB by (pretrained, seed); NaN where no line reaches the arm's quality in ``matched``.
    """
    differences = {}
    for (pretrained, seed), own in blocks_of(table, arm, blocks).iterrows():
        start = table.loc[(pretrained, UNTUNED_SEED, "whole", 0.0)]
        lines = _frontier(table.xs((pretrained, seed), level=("pretrained", "seed")), start)
        heights = [_highest(line[[matched, column]].to_numpy(float), float(own[matched])) for line in lines]
        differences[pretrained, seed] = own[column] - np.nanmax(heights) if np.isfinite(heights).any() else np.nan
    index = pd.MultiIndex.from_tuples(list(differences), names=["pretrained", "seed"]) if differences else None
    return pd.Series(list(differences.values()), index, dtype=float)


def _frontier(block: pd.DataFrame, start: pd.Series) -> Iterator[pd.DataFrame]:
    """Every line of a block from its start: on the way of full fine-tuning, and straight to its end."""
    arms = block.index.get_level_values("arm")
    first = start.to_frame().T
    for full in FULL:
        if full.name in arms:
            yield pd.concat([first, block.xs(full.name, level="arm").sort_index()])
        if full.interpolated in arms:
            end = block.loc[(full.name, 1.0)].to_frame().T
            yield pd.concat([first, block.xs(full.interpolated, level="arm").sort_index(), end])


def _highest(line: np.ndarray, at: float) -> float:
    """Largest second coordinate of a broken line where its first one is ``at``; NaN if it never is."""
    heights = []
    for (x0, y0), (x1, y1) in pairwise(line):
        if min(x0, x1) <= at <= max(x0, x1):
            heights.append(y0 + (y1 - y0) * ((at - x0) / (x1 - x0) if x1 != x0 else 1.0))
    return max(heights, default=float("nan"))
