"""From means to verdicts: what the blocks say of every claim."""

__all__ = ["CLAIM_COLUMNS", "SAME", "Claim", "Evidence", "Measurement", "check_claims", "gather", "measure"]

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from ram_models.experiments.study.arms import MERGED
from ram_models.experiments.study.blocks import Plan
from ram_models.experiments.study.runs import Job
from ram_models.experiments.study.store import BlockKey, Store
from ram_models.experiments.verdicts.frontier import above_frontier
from ram_models.experiments.verdicts.means import ID, PAPER_NOISES, UNLIT, blocks_of, by_network
from ram_models.experiments.verdicts.statistics import Contrast, contrast, holm, verdict_of


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, or a question to it: ``a`` is better than ``b``.

    Args:
        text: In words.
        a: Name of an arm, or of what is scored without fine-tuning.
        b: Likewise; what ``a`` is better than.
        column: Where, see :func:`ram_models.experiments.verdicts.means.by_network`.
        paper: Difference in dB that the paper reports; None if it does not say.
        matched: Column in which ``b``, full fine-tuning, is as good as ``a`` where it is read on its way; None compares
            the ends of both.
    """

    text: str
    a: str
    b: str
    column: str = ID
    paper: float | None = None
    matched: str | None = None


@dataclass(frozen=True)
class Evidence:
    """What claims are checked against.

    Args:
        networks: Of :func:`ram_models.experiments.verdicts.means.by_network`.
        blocks: All blocks of the study.
        stands: By arm, the one that was run for it, where that is another.
        overlaps: For two arms, by block, the overlap of the parameters that they train.
        untuned: Names of arms that have no learning rate of their own.
        merged: Overlap from which on a block is left out, because both arms train nearly the same there.
    """

    networks: pd.DataFrame
    blocks: Sequence[BlockKey]
    stands: Mapping[str, str] = field(default_factory=dict)
    overlaps: Callable[[str, str], Mapping[BlockKey, float]] = lambda a, b: {}
    untuned: Collection[str] = ()
    merged: float = MERGED


@dataclass(frozen=True)
class Measurement:
    """What was measured of a claim.

    Args:
        effect: The contrast; None if there is none.
        unlit: The same without low light, of a claim in distribution.
        same_blocks: Number of blocks that were left out, because both arms train nearly the same parameters there.
        overlaps: Overlap of the parameters that both arms train, in the other blocks.
    """

    effect: Contrast | None = None
    unlit: Contrast | None = None
    same_blocks: int = 0
    overlaps: Sequence[float] = ()


CLAIM_COLUMNS = (
    "claim",
    "a",
    "b",
    "column",
    "matched",
    "paper_db",
    "blocks",
    "same_blocks",
    "mean_db",
    "low_db",
    "high_db",
    "pretrainings",
    "low_pretrainings_db",
    "high_pretrainings_db",
    "unlit_db",
    "low_unlit_db",
    "high_unlit_db",
    "p",
    "p_holm",
    "p_sign_flip",
    "equivalent",
    "least_overlap",
    "most_overlap",
    "tuned",
    "verdict",
)
"""Columns of the tables of claims, see :func:`check_claims`."""

SAME = "the same layers"
"""Verdict on a claim both of whose arms train the same layers in every block."""


def gather(
    store: Store,
    plan: Plan,
    jobs: Sequence[Job],
    tuned: Collection[str],
    noises: Mapping[str, Sequence[str]] = PAPER_NOISES,
) -> Evidence:
    """What the finished runs of a plan say.

    Args:
        store: Finished runs.
        plan: Blocks and arms.
        jobs: The runs that count, one for every block and arm.
        tuned: Names of the arms that have a learning rate of their own.
        noises: Unseen noises that are held against trained noise, see
            :func:`ram_models.experiments.verdicts.means.by_network`.
    """
    networks = by_network(store.scores_of([job.key for job in jobs]), noises)
    untuned = {job.arm.name for job in jobs} - set(tuned)
    return Evidence(networks, plan.keys, plan.stands, plan.overlaps, untuned)


def check_claims(evidence: Evidence, claims: Sequence[Claim], margins: Mapping[str, float]) -> pd.DataFrame:
    """What the blocks say of every claim of a table.

    Args:
        evidence: What was measured.
        claims: What is claimed; p is corrected for their number.
        margins: Largest difference in dB that would not matter, by column.

    Returns:
        One row a claim, with the columns :data:`CLAIM_COLUMNS`: the mean difference with its 95 % intervals over blocks
        and over the means of pre-trainings, the same over blocks without low light, p-values, how much of what they
        train both arms have in common, whether all arms had learning rates of their own, and the verdict.
    """
    measurements = [measure(evidence, claim, margins[claim.column]) for claim in claims]
    corrected = _corrected([measurement.effect for measurement in measurements])
    rows = []
    for claim, measurement, p_holm in zip(claims, measurements, corrected, strict=True):
        row = _described(claim) | _numbers(measurement)
        row["p_holm"] = p_holm
        row["tuned"] = not {claim.a, claim.b} & set(evidence.untuned)
        row["verdict"] = verdict_of(measurement.effect, margins[claim.column], p_holm)
        if measurement.effect is None and measurement.same_blocks:
            row["verdict"] = SAME
        rows.append(row)
    return pd.DataFrame(rows).reindex(columns=list(CLAIM_COLUMNS))


def _corrected(effects: Sequence[Contrast | None]) -> list[float]:
    """P of every contrast, corrected for their number; NaN where there is none."""
    p_values = np.array([np.nan if effect is None else effect.p for effect in effects])
    tested = np.isfinite(p_values)
    p_values[tested] = holm(p_values[tested].tolist())
    return [float(p) for p in p_values]


def measure(evidence: Evidence, claim: Claim, margin: float) -> Measurement:
    """The difference that a claim is about, over the blocks in which it can be seen.

    Args:
        evidence: What was measured.
        claim: Of which arms, and where.
        margin: Largest difference in dB that would not matter.
    """
    run = replace(claim, a=evidence.stands.get(claim.a, claim.a), b=evidence.stands.get(claim.b, claim.b))
    overlaps = {} if claim.matched else evidence.overlaps(run.a, run.b)
    same = [key for key in evidence.blocks if run.a == run.b or overlaps.get(key, 0.0) >= evidence.merged]
    seen = [key for key in evidence.blocks if key not in same]
    unlit = replace(run, column=UNLIT) if claim.column == ID else None
    return Measurement(
        effect=_contrast(evidence.networks, run, seen, margin),
        unlit=_contrast(evidence.networks, unlit, seen, margin) if unlit else None,
        same_blocks=len(same),
        overlaps=[overlaps[key] for key in seen if key in overlaps],
    )


def _contrast(networks: pd.DataFrame, claim: Claim, blocks: Sequence[BlockKey], margin: float) -> Contrast | None:
    """The contrast that a claim is about, over these blocks; None if no block has both arms."""
    if claim.column not in networks or not blocks:
        return None
    if claim.matched:
        differences = above_frontier(networks, arm=claim.a, column=claim.column, matched=claim.matched, blocks=blocks)
    else:
        a, b = (blocks_of(networks, arm, blocks)[claim.column] for arm in (claim.a, claim.b))
        differences = a - b
    differences = differences.dropna()
    if not len(differences):
        return None
    return contrast(differences.to_numpy(float), differences.index.get_level_values(0).to_numpy(str), margin)


def _described(claim: Claim) -> dict[str, object]:
    """The columns that say what is claimed."""
    return {
        "claim": claim.text,
        "a": claim.a,
        "b": claim.b,
        "column": claim.column,
        "matched": claim.matched or "",
        "paper_db": claim.paper,
    }


def _numbers(measured: Measurement) -> dict[str, object]:
    """The columns that hold what was measured."""
    row: dict[str, object] = {"same_blocks": measured.same_blocks}
    if measured.overlaps:
        row |= {"least_overlap": min(measured.overlaps), "most_overlap": max(measured.overlaps)}
    if (effect := measured.effect) is not None:
        row |= {
            "blocks": effect.blocks,
            "mean_db": effect.mean,
            "low_db": effect.over_blocks.low,
            "high_db": effect.over_blocks.high,
            "pretrainings": effect.pretrainings,
            "low_pretrainings_db": effect.over_pretrainings.low,
            "high_pretrainings_db": effect.over_pretrainings.high,
            "p": effect.p,
            "p_sign_flip": effect.p_sign_flip,
            "equivalent": effect.equivalent,
        }
    if (unlit := measured.unlit) is not None:
        row |= {"unlit_db": unlit.mean, "low_unlit_db": unlit.over_blocks.low, "high_unlit_db": unlit.over_blocks.high}
    return row
