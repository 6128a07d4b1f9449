"""From scores to statements: means of every arm, differences between arms over blocks, and what they say of a claim."""

__all__ = ["Claim", "above_frontier", "by_arm", "by_network", "check_claims"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from ram_models.experiments.statistics import Contrast, contrast, holm, judge, two_level_interval
from ram_models.experiments.store import KEY, UNTUNED
from ram_models.experiments.tuning import FULL

ID = "in distribution"
NOISE = "poisson and speckle"
"""The primary unseen noise: not like the masks of the pre-training, as pepper is."""


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, or a question to it: ``a`` is better than ``b``.

    Args:
        text: In words.
        a: Arm.
        b: Arm that it is better than.
        column: Where, see :func:`by_network`.
        paper: Difference in dB that the paper reports; None if it does not say.
    """

    text: str
    a: str
    b: str
    column: str = ID
    paper: float | None = None


def by_network(scores: pd.DataFrame) -> pd.DataFrame:
    """PSNR in dB of every scored network: by task and noise, and their means; SSIM in distribution.

    The mean over tasks is one of means over images, so that a task counts the same however many images test it.

    Args:
        scores: Of a :class:`ram_models.experiments.store.Store`.

    Returns:
        Index: the store's key. Columns: every task, every noise, ``in distribution``, ``poisson and speckle``,
        ``unseen``, ``ssim``, ``kept`` (see :data:`ram_models.experiments.judge.SCORES`).
    """
    key = list(KEY)
    means = scores.groupby([*key, "kind", "task"], sort=False)[["psnr_db", "ssim", "kept_db"]].mean()
    wide = means["psnr_db"].unstack(["kind", "task"])
    table = wide.droplevel("kind", axis=1)
    table[ID] = wide["trained"].mean(axis=1)
    if "unseen" in wide:
        table["unseen"] = wide["unseen"].mean(axis=1)
        table[NOISE] = wide["unseen"][["poisson", "speckle"]].mean(axis=1)
    trained = means.xs("trained", level="kind").groupby(level=key, sort=False).mean()
    return table.assign(ssim=trained["ssim"], kept=trained["kept_db"])


def blocks_of(table: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Rows of an arm at its end by (pretrained, seed); an arm without fine-tuning once for every seed there is."""
    of = table.xs(arm, level="arm") if arm in table.index.get_level_values("arm") else table.iloc[:0].droplevel("arm")
    of = of[of.index.get_level_values("progress").isin([0.0, 1.0])].droplevel("progress")
    if set(of.index.get_level_values("seed")) != {UNTUNED}:
        return of
    seeds = sorted({seed for seed in table.index.get_level_values("seed") if seed != UNTUNED})
    return pd.concat({seed: of.droplevel("seed") for seed in seeds}, names=["seed"]).swaplevel()


def by_arm(table: pd.DataFrame, arms: Sequence[str], stands: Mapping[str, str]) -> pd.DataFrame:
    """Mean of every arm over its blocks, and the standard deviation in distribution.

    Args:
        table: Of :func:`by_network`.
        arms: Names, in the order of the result.
        stands: For every arm the one that was run for it.
    """
    rows = {}
    for arm in arms:
        of = blocks_of(table, stands.get(arm, arm))
        rows[arm] = of.mean() if len(of) else pd.Series(np.nan, of.columns)
        rows[arm]["blocks"] = len(of)
        rows[arm]["sd"] = of[ID].std() if len(of) > 1 else np.nan
    result = pd.DataFrame(rows).T.rename_axis("arm").reset_index()
    return result.assign(blocks=result["blocks"].astype(int), run_as=[stands.get(arm, arm) for arm in arms])


def image_differences(scores: pd.DataFrame, a: str, b: str, column: str) -> list[np.ndarray]:
    """For every block the differences between two arms, image by image."""
    wanted = {ID: scores["kind"] == "trained", NOISE: scores["task"].isin(["poisson", "speckle"])}
    chosen = scores[wanted.get(column, scores["task"] == column) & (scores["progress"] == 1.0)]
    image = ["pretrained", "seed", "setting", "image"]
    values = chosen.set_index([*image, "arm"])["psnr_db"].unstack("arm")
    if a not in values or b not in values:
        return []
    differences = (values[a] - values[b]).dropna()
    return [of.to_numpy() for _, of in differences.groupby(level=["pretrained", "seed"], sort=False)]


def check_claims(
    scores: pd.DataFrame, claims: Sequence[Claim], stands: Mapping[str, str], margins: Mapping[str, float]
) -> pd.DataFrame:
    """What the blocks say of every claim.

    Args:
        scores: Of a :class:`ram_models.experiments.store.Store`.
        claims: One family, over which Holm's correction goes.
        stands: For every arm the one that was run for it.
        margins: Difference in dB that would not matter, by column.

    Returns:
        One row a claim: ``claim, a, b, column, paper_db, blocks, mean_db, low_db, high_db`` (95 %, over blocks),
        ``image_low_db, image_high_db`` (blocks and images drawn again), ``p_sign_flip, p_holm, equivalent, verdict``.
    """
    table = by_network(scores)
    rows: list[dict[str, object]] = []
    for claim in claims:
        a, b = stands.get(claim.a, claim.a), stands.get(claim.b, claim.b)
        row: dict[str, object] = {"claim": claim.text, "a": claim.a, "b": claim.b, "column": claim.column}
        row["paper_db"] = claim.paper
        difference = (blocks_of(table, a)[claim.column] - blocks_of(table, b)[claim.column]).dropna()
        found: Contrast | None = None
        if a != b and len(difference):
            found = contrast(difference.to_numpy(), margins[claim.column])
            row |= {"blocks": found.blocks, "mean_db": found.mean, "low_db": found.low, "high_db": found.high}
            row |= {"p_sign_flip": found.p_sign_flip, "equivalent": found.equivalent}
            if images := image_differences(scores, a, b, claim.column):
                low, high = two_level_interval(images, np.random.default_rng(0))
                row |= {"image_low_db": low, "image_high_db": high}
        same = "the same layers" if a == b else judge(found, margins[claim.column])
        rows.append(row | {"verdict": same})
    checked = pd.DataFrame(rows)
    if "p_sign_flip" in checked:
        tested = checked["p_sign_flip"].notna()
        checked.loc[tested, "p_holm"] = holm(checked.loc[tested, "p_sign_flip"].tolist())
    order = ["claim", "a", "b", "column", "paper_db", "blocks", "mean_db", "low_db", "high_db", "image_low_db"]
    return checked.reindex(columns=[*order, "image_high_db", "p_sign_flip", "p_holm", "equivalent", "verdict"])


def above_frontier(table: pd.DataFrame, arm: str, column: str) -> pd.Series:
    """How far an arm lies above full fine-tuning at equal quality in distribution, for every block.

    The frontier is the better of two lines from the pre-trained to the fully fine-tuned network, at the arm's quality
    in distribution: the way that training took, and the straight line between the weights.

    Args:
        table: Of :func:`by_network`.
        arm: What is compared.
        column: Where, e.g. ``poisson and speckle``.

    Returns:
        Difference in dB by (pretrained, seed); NaN where the arm is better in distribution than the whole frontier.
    """
    arms, found = table.index.get_level_values("arm"), {}
    for (pretrained, seed), own in blocks_of(table, arm).iterrows():
        start = table.loc[(pretrained, UNTUNED, "whole", 0.0)]
        block = table.xs((pretrained, seed), level=("pretrained", "seed"))
        lines = []
        for way in (FULL, f"{FULL}, interpolated"):
            if way in arms:
                points = block.xs(way, level="arm").sort_index()
                end = block.loc[(FULL, 1.0)].to_frame().T if way != FULL else points.iloc[:0]
                lines.append(pd.concat([start.to_frame().T, points, end])[[ID, column]].to_numpy(float))
        heights = [_highest(line, float(own[ID])) for line in lines]
        found[pretrained, seed] = own[column] - np.nanmax(heights) if np.isfinite(heights).any() else np.nan
    return pd.Series(found, dtype=float).rename_axis(["pretrained", "seed"])


def _highest(line: np.ndarray, at: float) -> float:
    """Largest second coordinate of a broken line where its first one is ``at``; NaN if it never is."""
    heights = []
    for (x0, y0), (x1, y1) in pairwise(line):
        if min(x0, x1) <= at <= max(x0, x1):
            heights.append(y0 + (y1 - y0) * ((at - x0) / (x1 - x0) if x1 != x0 else 1.0))
    return max(heights, default=float("nan"))
