"""Which learning rate suits which arm: runs of full length, judged on held-out training images."""

__all__ = ["BLOCKS", "EXTENSIONS", "compare", "main"]

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from macattr.atomic_files import write_atomically
from ram_models.experiments.denoising.arms import DENOISING
from ram_models.experiments.paper_arms import PAPER
from ram_models.experiments.study.arms import Arm, Arms
from ram_models.experiments.study.blocks import Plan, plan_arms
from ram_models.experiments.study.config import RATES_SEED, SEED_STEP, Block, Study
from ram_models.experiments.study.networks import pretrain
from ram_models.experiments.study.parallel import in_parallel
from ram_models.experiments.study.runs import Job, validate

BLOCKS = 2
"""Number of blocks, of as many pre-trainings."""

EXTENSIONS = 2
"""Steps that the ladder of rates is extended by on either side, as long as its edge is the best."""

ARMS: Mapping[str, Arms] = MappingProxyType({"paper": PAPER, "denoising": DENOISING})
"""The arms of every experiment, by the name that ``arms`` has in a configuration."""

Means = Mapping[float, Sequence[float]]
"""PSNR in dB on held-out crops, by learning rate, one value a block."""


def main(study: Study) -> None:
    """Write rates.csv: by arm and rate the PSNR on held-out training images; nothing of the tests is seen.

    The file is written after every arm. Arms that are not compared now keep their rows.

    Raises:
        ValueError: If none of the arms that are asked for has rates to compare.
    """
    blocks = [Block(network, RATES_SEED + SEED_STEP * network.seed) for network in study.masked()[:BLOCKS]]
    for _ in in_parallel(partial(pretrain, study), [block.pretrained for block in blocks], study.processes, "network"):
        pass
    every = ARMS[study.arms]
    plan = plan_arms(study, every, blocks)
    arms = [arm for arm in every.arms if not arm.masked and (not study.compared or arm.name in study.compared)]
    shown = [arm for arm in arms if all(arm.name in layers for layers in plan.layers.values())]
    if not shown:
        raise ValueError(
            f"no rate is compared for {', '.join(study.compared)}: it goes on with masks, or has no layers."
        )
    for arm in shown:
        rows = _rows(arm, plan, compare(study, plan, arm))
        table = _replace_arm(study.results / "rates.csv", rows, list(every.by_name))
        print(table.loc[table["arm"] == arm.name].to_string(index=False))
    if edges := table.loc[table["best"] & table["edge"], "arm"].tolist():
        print(f"the best rate of {', '.join(edges)} is still at an edge: move `ladder` there and compare again")


def compare(study: Study, plan: Plan, arm: Arm) -> Means:
    """An arm at every rate of the ladder, and of its extensions while the best is at an edge.

    Args:
        study: How.
        plan: The blocks.
        arm: What is trained.
    """
    results: dict[float, list[float]] = {}
    wanted = list(study.ladder)
    while wanted:
        jobs = [Job(block, arm, layers[arm.name], lr) for lr in wanted for block, layers in plan.layers.items()]
        measured = dict(in_parallel(partial(validate, study), jobs, study.processes, "run"))
        results |= {lr: [measured[job] for job in jobs if job.lr == lr] for lr in wanted}
        wanted = list(_beyond(results, study.ladder))
    return dict(sorted(results.items()))


def _replace_arm(path: Path, rows: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    """Put the rows of one arm into the file, in the order of the arms; rows of other blocks go, being incomparable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = pd.read_csv(path) if path.is_file() else rows
    comparable = list(stored.columns) == list(rows.columns)
    others = stored[stored["arm"] != rows["arm"].iloc[0]] if comparable else rows.iloc[:0]
    table = pd.concat([others, rows]).sort_values("arm", key=lambda arm: arm.map(order.index), kind="stable")
    write_atomically(path, lambda file: table.to_csv(file, index=False, float_format="%.6g"))
    return table


def _beyond(results: Means, ladder: Sequence[float]) -> Iterator[float]:
    """The next rate beyond the best one, if that is at an edge; none if the ladder was extended often enough."""
    best = _best(results)
    factor = ladder[1] / ladder[0]
    if best == min(results) and best > ladder[0] / factor**EXTENSIONS * 1.01:
        yield float(f"{best / factor:.6g}")
    if best == max(results) and best < ladder[-1] * factor**EXTENSIONS / 1.01:
        yield float(f"{best * factor:.6g}")


def _best(results: Means) -> float:
    """The rate with the highest mean over blocks."""
    return max(results, key=lambda lr: sum(results[lr]))


def _rows(arm: Arm, plan: Plan, results: Means) -> pd.DataFrame:
    """One row a rate: every block's value, their mean, whether it is the best, and whether it is at an edge."""
    blocks = [f"{key.pretrained}/{key.seed}" for key in plan.keys]
    table = pd.DataFrame.from_dict(results, orient="index", columns=blocks)
    means = table.mean(axis=1)
    table["psnr_db"] = means
    table["best"] = means.index == _best(results)
    table["edge"] = means.index.isin([min(results), max(results)])
    table.insert(0, "arm", arm.name)
    return table.rename_axis("lr").reset_index()[["arm", "lr", *table.columns[1:]]]
