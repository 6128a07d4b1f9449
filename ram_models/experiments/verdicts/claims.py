"""From means to verdicts: what the blocks say of every claim."""

__all__ = ["CLAIM_COLUMNS", "Claim", "Evidence", "Measured", "check_claims", "gather", "measure"]

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ram_models.experiments.study.arms import MERGED
from ram_models.experiments.study.blocks import Plan
from ram_models.experiments.study.runs import Job
from ram_models.experiments.study.store import BlockKey, Store
from ram_models.experiments.verdicts.frontier import above_frontier
from ram_models.experiments.verdicts.means import ID, UNLIT, blocks_of, by_network
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
    """

    networks: pd.DataFrame
    blocks: Sequence[BlockKey]
    stands: Mapping[str, str] = field(default_factory=dict)
    overlaps: Callable[[str, str], Mapping[BlockKey, float]] = lambda a, b: {}
    untuned: Collection[str] = ()


@dataclass(frozen=True)
class Measured:
    """What was measured of a claim.

    Args:
        found: The contrast; None if there is none.
        unlit: The same without low light, of a claim in distribution.
        same_blocks: Number of blocks that were left out, because both arms train nearly the same parameters there.
        overlaps: Overlap of the parameters that both arms train, in the other blocks.
    """

    found: Contrast | None = None
    unlit: Contrast | None = None
    same_blocks: int = 0
    overlaps: Sequence[float] = ()


CLAIM_COLUMNS = (
    "claim", "a", "b", "column", "matched", "paper_db", "blocks", "same_blocks", "mean_db", "low_db", "high_db",
    "pretrainings", "low_pretrainings_db", "high_pretrainings_db", "unlit_db", "low_unlit_db", "high_unlit_db",
    "p", "p_holm", "p_sign_flip", "equivalent", "least_overlap", "most_overlap", "tuned", "verdict",
)  # fmt: skip
"""Columns of the tables of claims, see :func:`check_claims`."""


def gather(store: Store, plan: Plan, jobs: Sequence[Job], tuned: Collection[str]) -> Evidence:
    """What the finished runs of a plan say.

    Args:
        store: Finished runs.
        plan: Blocks and arms.
        jobs: The runs that count, one for every block and arm.
        tuned: Names of the arms that have a learning rate of their own.
    """
    networks = by_network(store.scores_of([job.key for job in jobs]))
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
    measured = [measure(evidence, claim, margins[claim.column]) for claim in claims]
    tested = [of.found.p for of in measured if of.found is not None and np.isfinite(of.found.p)]
    corrected = iter(holm(tested))
    rows = []
    for claim, of in zip(claims, measured, strict=True):
        p_holm = next(corrected) if of.found is not None and np.isfinite(of.found.p) else float("nan")
        verdict = verdict_of(of.found, margins[claim.column], p_holm)
        row = _described(claim) | _numbers(of) | {"p_holm": p_holm, "verdict": verdict}
        row["tuned"] = not {claim.a, claim.b} & set(evidence.untuned)
        rows.append(row | ({"verdict": "the same layers"} if of.found is None and of.same_blocks else {}))
    return pd.DataFrame(rows).reindex(columns=list(CLAIM_COLUMNS))


def measure(evidence: Evidence, claim: Claim, margin: float) -> Measured:
    """The difference that a claim is about, over the blocks in which it can be seen.

    Args:
        evidence: What was measured.
        claim: Of which arms, and where.
        margin: Largest difference in dB that would not matter.
    """
    a, b = (evidence.stands.get(name, name) for name in (claim.a, claim.b))
    overlaps = {} if claim.matched else evidence.overlaps(a, b)
    same = [key for key in evidence.blocks if a == b or overlaps.get(key, 0.0) >= MERGED]
    seen = [key for key in evidence.blocks if key not in same]
    found = _contrast(evidence.networks, claim, a, b, claim.column, seen, margin)
    unlit = _contrast(evidence.networks, claim, a, b, UNLIT, seen, margin) if claim.column == ID else None
    return Measured(found, unlit, len(same), [overlaps[key] for key in seen if key in overlaps])


def _contrast(
    networks: pd.DataFrame, claim: Claim, a: str, b: str, column: str, blocks: Sequence[BlockKey], margin: float
) -> Contrast | None:
    """The contrast of two arms over these blocks; None if no block has both."""
    if column not in networks or not blocks:
        return None
    if claim.matched:
        differences = above_frontier(networks, a, column, claim.matched, blocks).dropna()
    else:
        differences = (blocks_of(networks, a, blocks)[column] - blocks_of(networks, b, blocks)[column]).dropna()
    if not len(differences):
        return None
    return contrast(differences.to_numpy(float), differences.index.get_level_values(0).to_numpy(str), margin)


def _described(claim: Claim) -> dict[str, object]:
    """The columns that say what is claimed."""
    return {
        "claim": claim.text, "a": claim.a, "b": claim.b, "column": claim.column, "matched": claim.matched or "",
        "paper_db": claim.paper,
    }  # fmt: skip


def _numbers(measured: Measured) -> dict[str, object]:
    """The columns that hold what was measured."""
    row: dict[str, object] = {"same_blocks": measured.same_blocks}
    if measured.overlaps:
        row |= {"least_overlap": min(measured.overlaps), "most_overlap": max(measured.overlaps)}
    if (found := measured.found) is not None:
        row |= {
            "blocks": found.blocks,
            "mean_db": found.mean,
            "low_db": found.over_blocks.low,
            "high_db": found.over_blocks.high,
            "pretrainings": found.pretrainings,
            "low_pretrainings_db": found.over_pretrainings.low,
            "high_pretrainings_db": found.over_pretrainings.high,
            "p": found.p,
            "p_sign_flip": found.p_sign_flip,
            "equivalent": found.equivalent,
        }
    if (unlit := measured.unlit) is not None:
        row |= {"unlit_db": unlit.mean, "low_unlit_db": unlit.over_blocks.low, "high_unlit_db": unlit.over_blocks.high}
    return row
