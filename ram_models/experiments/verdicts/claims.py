"""From scores to statements: means of every arm, differences between arms over blocks, and what they say of a claim."""

__all__ = [
    "CLAIM_COLUMNS",
    "ID",
    "NOISE",
    "Claim",
    "above_frontier",
    "by_arm",
    "by_network",
    "check_claims",
    "describe_difference",
]

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from ram_models.experiments.study.runs import WHOLE
from ram_models.experiments.study.store import KEY, UNTUNED
from ram_models.experiments.verdicts.statistics import contrast, holm, verdict_of

Key = tuple[str, int]
"""Pre-training and seed of a block."""

CLAIM_COLUMNS = (
    "claim", "a", "b", "column", "paper_db", "family", "blocks", "same_blocks", "mean_db", "low_db", "high_db",
    "pretrainings", "positive_pretrainings", "p_t", "p_holm", "p_sign_flip", "equivalent", "verdict",
)  # fmt: skip
"""Columns of the tables of claims."""

ID = "in distribution"
"""Column of the mean over the trained tasks."""

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
        family: Whether it is one of those that were chosen beforehand and are corrected for their number; the others
            describe.
    """

    text: str
    a: str
    b: str
    column: str = ID
    paper: float | None = None
    family: bool = False


def by_network(scores: pd.DataFrame) -> pd.DataFrame:
    """PSNR in dB of every scored network: by task and noise, and their means; SSIM in distribution.

    The mean over tasks is one of means over images, so that a task counts the same however many images test it.

    Args:
        scores: Of a :class:`ram_models.experiments.study.store.Store`.

    Returns:
        Index: the store's key. Columns: every task, every noise, ``in distribution``, ``poisson and speckle``,
        ``unseen``, ``ssim``, ``kept`` (see :data:`ram_models.experiments.study.judge.SCORES`).
    """
    key = list(KEY)
    means = scores.groupby([*key, "kind", "task"], sort=False)[["psnr_db", "ssim", "kept_db"]].mean()
    wide = means["psnr_db"].unstack(["kind", "task"])
    table = wide.droplevel("kind", axis=1)
    table[ID] = wide["trained"].mean(axis=1)
    if "unseen" in wide:
        table["unseen"] = wide["unseen"].mean(axis=1)
        table[NOISE] = wide["unseen"].reindex(columns=["poisson", "speckle"]).mean(axis=1, skipna=False)
    trained = means.xs("trained", level="kind").groupby(level=key, sort=False).mean()
    return table.assign(ssim=trained["ssim"], kept=trained["kept_db"])


def blocks_of(table: pd.DataFrame, arm: str, blocks: Sequence[Key]) -> pd.DataFrame:
    """Rows of an arm at its end, for the blocks where it was run.

    A network without fine-tuning stands once for every block of that network.
    """
    of = table[(table.index.get_level_values("arm") == arm) & table.index.get_level_values("progress").isin([0.0, 1.0])]
    rows = of.droplevel(["arm", "progress"])
    untuned = set(rows.index.get_level_values("seed")) == {UNTUNED}
    keys = {key: (key[0], UNTUNED) if untuned else key for key in blocks}
    found = {key: rows.loc[stored] for key, stored in keys.items() if stored in rows.index}
    index = pd.MultiIndex.from_tuples(list(found), names=["pretrained", "seed"]) if found else rows.index[:0]
    return pd.DataFrame(list(found.values()), index=index, columns=rows.columns)


def by_arm(table: pd.DataFrame, arms: Sequence[str], stands: Mapping[str, str], blocks: Sequence[Key]) -> pd.DataFrame:
    """Mean of every arm, and the standard deviation in distribution.

    Fine-tuned arms are averaged over the blocks that all of them have, so that they can be compared; networks without
    fine-tuning over the networks, and their number of blocks is missing.

    Args:
        table: Of :func:`by_network`.
        arms: Names, in the order of the result.
        stands: For every arm the one that was run for it.
        blocks: Pre-training and seed of every block of the study.
    """
    ends = table[table.index.get_level_values("progress").isin([0.0, 1.0])]
    own = {arm: ends[ends.index.get_level_values("arm") == stands.get(arm, arm)] for arm in arms}
    tuned = {arm: blocks_of(table, stands.get(arm, arm), blocks) for arm, of in own.items() if _is_tuned(of)}
    common = [key for key in blocks if all(key in of.index for of in tuned.values() if len(of))]
    rows = {}
    for arm, of in own.items():
        shown = tuned[arm].loc[tuned[arm].index.isin(common)] if arm in tuned else of
        rows[arm] = shown.mean() if len(shown) else pd.Series(np.nan, table.columns)
        rows[arm]["blocks"] = len(shown) if arm in tuned else np.nan
        rows[arm]["sd"] = shown[ID].std() if len(shown) > 1 else np.nan
    result = pd.DataFrame(rows).T.rename_axis("arm").reset_index()
    return result.assign(run_as=[stands.get(arm, arm) for arm in arms])


def _is_tuned(of: pd.DataFrame) -> bool:
    """Whether these rows are of fine-tuned networks; an arm that was never run counts as one."""
    return set(of.index.get_level_values("seed")) != {UNTUNED}


def check_claims(
    table: pd.DataFrame,
    claims: Sequence[Claim],
    stands: Mapping[str, str],
    margins: Mapping[str, float],
    blocks: Sequence[Key],
    same: Callable[[str, str], Collection[Key]] = lambda a, b: (),
) -> pd.DataFrame:
    """What the blocks say of every claim.

    Args:
        table: Of :func:`by_network`.
        claims: What is claimed; Holm's correction goes over those of the family.
        stands: For every arm the one that was run for it.
        margins: Difference in dB that would not matter, by column.
        blocks: Pre-training and seed of every block of the study.
        same: For two arms, the blocks in which both train nearly the same parameters; these are left out.

    Returns:
        One row a claim: ``claim, a, b, column, paper_db, blocks, same_blocks, mean_db, low_db, high_db`` (95 %, over
        blocks), ``pretrainings, positive_pretrainings`` (how many there are, and how many have a positive mean),
        ``p_t, p_holm, p_sign_flip, equivalent, verdict``.
    """
    rows = []
    for claim in claims:
        a, b = stands.get(claim.a, claim.a), stands.get(claim.b, claim.b)
        row: dict[str, object] = {"claim": claim.text, "a": claim.a, "b": claim.b, "column": claim.column}
        left_out = blocks if a == b else same(a, b)
        row |= {"paper_db": claim.paper, "family": claim.family, "same_blocks": len(left_out)}
        rows.append(row | _measured(table, claim.column, a, b, [key for key in blocks if key not in left_out], margins))
    checked = pd.DataFrame(rows).reindex(columns=list(CLAIM_COLUMNS))
    tested = checked["family"] & checked["p_t"].notna()
    checked.loc[tested, "p_holm"] = holm(checked.loc[tested, "p_t"].tolist())
    return checked.drop(columns="family")


def _measured(
    table: pd.DataFrame, column: str, a: str, b: str, blocks: Sequence[Key], margins: Mapping[str, float]
) -> dict[str, object]:
    """The difference between two arms over these blocks, and its verdict."""
    if not blocks:
        return {"verdict": "the same layers"}
    if column not in table:
        return {"verdict": "not tested"}
    difference = (blocks_of(table, a, blocks)[column] - blocks_of(table, b, blocks)[column]).dropna()
    return describe_difference(difference, margins[column])


def describe_difference(difference: pd.Series, margin: float) -> dict[str, object]:
    """The columns of :func:`check_claims` that follow from a difference.

    Args:
        difference: In dB, by pre-training and seed.
        margin: What would not matter, in dB.
    """
    if not len(difference):
        return {"verdict": "not tested"}
    found = contrast(difference.to_numpy(dtype=float), margin)
    means = difference.groupby(level="pretrained").mean()
    verdict = verdict_of(found, margin)
    if verdict == "holds" and not (means > 0).all():
        verdict = "undecided"
    return {
        "blocks": found.blocks, "mean_db": found.mean, "low_db": found.low, "high_db": found.high,
        "pretrainings": len(means), "positive_pretrainings": int((means > 0).sum()), "p_t": found.p_t,
        "p_sign_flip": found.p_sign_flip, "equivalent": found.equivalent, "verdict": verdict,
    }  # fmt: skip


def above_frontier(table: pd.DataFrame, arm: str, column: str, blocks: Sequence[Key]) -> pd.Series:
    """How far an arm lies above full fine-tuning at equal quality in distribution, for every block.

    The frontier is the best of all lines from the pre-trained to a fully fine-tuned network, at the arm's quality in
    distribution: the ways that the trainings took, and the straight lines between the weights.

    Args:
        table: Of :func:`by_network`.
        arm: What is compared.
        column: Where, e.g. ``poisson and speckle``.
        blocks: Pre-training and seed of every block of the study.

    Returns:
        Difference in dB by (pretrained, seed); NaN where no line reaches the arm's quality in distribution.
    """
    found = {}
    for (pretrained, seed), own in blocks_of(table, arm, blocks).iterrows():
        start = table.loc[(pretrained, UNTUNED, "whole", 0.0)]
        block = table.xs((pretrained, seed), level=("pretrained", "seed"))
        lines = []
        for full in WHOLE:
            for way in (full, f"{full}, interpolated"):
                if way in block.index.get_level_values("arm"):
                    points = block.xs(way, level="arm").sort_index()
                    end = block.loc[(full, 1.0)].to_frame().T if way != full else points.iloc[:0]
                    lines.append(pd.concat([start.to_frame().T, points, end])[[ID, column]].to_numpy(float))
        heights = [_highest(line, float(own[ID])) for line in lines]
        found[pretrained, seed] = own[column] - np.nanmax(heights) if np.isfinite(heights).any() else np.nan
    index = pd.MultiIndex.from_tuples(list(found), names=["pretrained", "seed"]) if found else None
    return pd.Series(list(found.values()), index, dtype=float)


def _highest(line: np.ndarray, at: float) -> float:
    """Largest second coordinate of a broken line where its first one is ``at``; NaN if it never is."""
    heights = []
    for (x0, y0), (x1, y1) in pairwise(line):
        if min(x0, x1) <= at <= max(x0, x1):
            heights.append(y0 + (y1 - y0) * ((at - x0) / (x1 - x0) if x1 != x0 else 1.0))
    return max(heights, default=float("nan"))
