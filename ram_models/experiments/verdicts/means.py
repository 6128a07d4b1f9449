"""From scores to means: quality of every network by task, and of every arm over blocks."""

__all__ = [
    "BASELINE",
    "ID",
    "NOISE",
    "PAPER_NOISES",
    "PEPPER_EXTRA",
    "TRAINED_NOISE",
    "UNLIT",
    "UNSEEN",
    "UNSEEN_EXTRA",
    "above_trained",
    "blocks_of",
    "by_arm",
    "by_network",
    "with_runs",
]

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd

from macattr.user_warnings import warn_user
from ram_models.experiments.study.store import UNTUNED_SEED, BlockKey
from ram_models.psnr_means import mean_of_means, mean_psnr

ID = "in distribution"
"""Column of the mean over the trained tasks."""

UNLIT = "in distribution, no low light"
"""Column of the mean over the trained tasks but low light, whose brightness moves by decibels between runs."""

NOISE = "poisson and speckle"
"""The primary unseen noise: not like the masks of the pre-training, as pepper is."""

TRAINED_NOISE = "noise"
"""Column of the Gaussian noise that is trained with."""

UNSEEN = "unseen"
"""Column of the mean over all unseen noises, the paper's "OOD average"."""


def above_trained(noise: str) -> str:
    """Column of a noise less trained noise: what an arm gains there beyond denoising better.

    Example:
        >>> above_trained("pepper")
        'pepper, above trained noise'
    """
    return f"{noise}, above trained noise"


UNSEEN_EXTRA = above_trained(NOISE)
"""Column of the primary unseen noise less trained noise."""

PEPPER_EXTRA = above_trained("pepper")
"""Column of pepper noise less trained noise."""

PAPER_NOISES: Mapping[str, Sequence[str]] = MappingProxyType({NOISE: ("poisson", "speckle"), "pepper": ("pepper",)})
"""The unseen noises that are held against trained noise in Table 6: means of these, by name."""

BASELINE = "pairwise"
"""The network that was trained from scratch without masks; that of a seed belongs to the blocks of that seed."""


def by_network(scores: pd.DataFrame, noises: Mapping[str, Sequence[str]] = PAPER_NOISES) -> pd.DataFrame:
    """PSNR in dB of every scored network: by task and noise, their means and differences; SSIM in distribution.

    The mean over tasks is one of means over images, so that a task counts the same however many images test it.
    Restorations that equal the clean image have no finite PSNR and are left out, with a warning; a task without any
    other has an infinite PSNR, and means over tasks with such a one among others are missing.

    Args:
        scores: Of :meth:`ram_models.experiments.study.store.Store.scores_of`.
        noises: Unseen noises that are held against trained noise, means over several, by name.

    Returns:
        Index: pre-training, seed, arm and progress. Columns: every task, every noise, the columns that are named above,
        the ``noises`` and what they are above trained noise, ``ssim``, ``kept`` (see
        :data:`ram_models.experiments.study.judge.SCORES`).
    """
    key = ["pretrained", "seed", "arm", "progress"]
    _warn_of_identical(scores)
    means = scores.groupby([*key, "kind", "task"], sort=False).agg(
        {"psnr_db": _mean_db, "ssim": "mean", "kept_db": _mean_db}
    )
    wide = means["psnr_db"].unstack(["kind", "task"])
    table = wide.droplevel("kind", axis=1)
    table[ID] = wide["trained"].agg(_mean_over_tasks, axis=1)
    table[UNLIT] = wide["trained"].drop(columns="lowlight", errors="ignore").agg(_mean_over_tasks, axis=1)
    if "unseen" in wide:
        table[UNSEEN] = wide["unseen"].agg(_mean_over_tasks, axis=1)
        trained_noise = table.get(TRAINED_NOISE, np.nan)
        means_of = {
            name: wide["unseen"].reindex(columns=list(kinds)).mean(axis=1, skipna=False)
            for name, kinds in noises.items()
        }
        table = table.assign(**{name: mean for name, mean in means_of.items() if name not in table})
        table = table.assign(**{above_trained(name): mean - trained_noise for name, mean in means_of.items()})
    trained = means.xs("trained", level="kind").groupby(level=key, sort=False)
    return table.assign(ssim=trained["ssim"].mean(), kept=trained["kept_db"].agg(_mean_over_tasks))


def _mean_db(values: pd.Series) -> float:
    """Mean in dB of the images whose PSNR is finite."""
    return mean_psnr(values.to_numpy()).db


def _mean_over_tasks(means: pd.Series) -> float:
    """Mean in dB over tasks, of theirs."""
    return mean_of_means(means.to_numpy())


def _warn_of_identical(scores: pd.DataFrame) -> None:
    """Say how many scores have no share in the means."""
    if count := int(np.isposinf(scores["psnr_db"]).sum()):
        warn_user(
            f"{count} of {len(scores)} restorations equal the clean image: their PSNR is infinite, and the means "
            "are those of the others."
        )


def blocks_of(table: pd.DataFrame, arm: str, blocks: Sequence[BlockKey]) -> pd.DataFrame:
    """Rows of an arm at its end, for the blocks where it was run.

    A network without fine-tuning stands once for every block of that network, the baseline for those of its seed.

    Args:
        table: Of :func:`by_network`.
        arm: Name of the arm, or of a network without fine-tuning.
        blocks: Pre-training and seed of the blocks.
    """
    at_end = table.index.get_level_values("progress").isin([0.0, 1.0])
    rows = table[at_end & (table.index.get_level_values("arm") == arm)].droplevel(["arm", "progress"])
    if set(rows.index.get_level_values("seed")) == {UNTUNED_SEED}:
        names = {key: key.pretrained if arm != BASELINE else _baseline_of(key) for key in blocks}
        keys = {key: BlockKey(name, UNTUNED_SEED) for key, name in names.items()}
    else:
        keys = {key: key for key in blocks}
    by_block = {key: rows.loc[stored] for key, stored in keys.items() if stored in rows.index}
    index = pd.MultiIndex.from_tuples(list(by_block), names=["pretrained", "seed"]) if by_block else rows.index[:0]
    return pd.DataFrame(list(by_block.values()), index=index, columns=rows.columns)


def _baseline_of(block: BlockKey) -> str:
    """Name of the baseline that has the seed of a block's pre-training."""
    return f"{BASELINE}-{block.pretrained.rpartition('-')[2]}"


def by_arm(
    table: pd.DataFrame, arms: Sequence[str], stands: Mapping[str, str], blocks: Sequence[BlockKey]
) -> pd.DataFrame:
    """Mean of every arm, and the standard deviation in distribution.

    Fine-tuned arms are averaged over the blocks that all of them have, so that they can be compared; networks without
    fine-tuning over the networks, and their number of blocks is missing.

    Args:
        table: Of :func:`by_network`.
        arms: Names, in the order of the result.
        stands: For every arm the one that was run for it.
        blocks: All blocks of the study.
    """
    ends = table[table.index.get_level_values("progress").isin([0.0, 1.0])]
    own = {arm: ends[ends.index.get_level_values("arm") == stands.get(arm, arm)] for arm in arms}
    tuned = {arm: blocks_of(table, stands.get(arm, arm), blocks) for arm, part in own.items() if _is_tuned(part)}
    common = [key for key in blocks if all(key in part.index for part in tuned.values() if len(part))]
    rows = {}
    for arm, part in own.items():
        shown = tuned[arm].loc[tuned[arm].index.isin(common)] if arm in tuned else part
        rows[arm] = shown.mean() if len(shown) else pd.Series(np.nan, table.columns)
        rows[arm]["blocks"] = len(shown) if arm in tuned else np.nan
        rows[arm]["sd"] = shown[ID].std() if len(shown) > 1 else np.nan
    result = pd.DataFrame(rows).T.rename_axis("arm").reset_index()
    return result.assign(run_as=[stands.get(arm, arm) for arm in arms])


def _is_tuned(rows: pd.DataFrame) -> bool:
    """Whether these rows are of fine-tuned networks; an arm that was never run counts as one."""
    return set(rows.index.get_level_values("seed")) != {UNTUNED_SEED}


def with_runs(table: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The quality of every network beside how its run was made.

    Args:
        table: Of :func:`by_network`.
        runs: Of :meth:`ram_models.experiments.study.store.Store.runs_of`.

    Returns:
        The index of the table as columns, ``lr, steps, parameters, device``, and the columns of the table; points on a
        straight line have those of the run at its end.
    """
    flat = table.reset_index()
    run = ["pretrained", "seed", "arm"]
    made = flat[run].assign(arm=flat["arm"].str.removesuffix(", interpolated"))
    made = made.merge(runs[[*run, "lr", "steps", "parameters", "device"]], how="left", on=run, validate="many_to_one")
    return pd.concat([flat[[*run, "progress"]], made.drop(columns=run), flat.drop(columns=[*run, "progress"])], axis=1)
