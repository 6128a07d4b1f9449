"""Which learning rate suits which budget: half of the steps, on a block that is not used otherwise."""

__all__ = ["ARMS", "FACTORS", "main"]

from functools import partial

import pandas as pd

from ram_models.experiments.study.blocks import plan_arms, prepare
from ram_models.experiments.study.config import Block, Study
from ram_models.experiments.study.parallel import in_parallel
from ram_models.experiments.study.runs import FULL, Job, validate

ARMS = ("ends", "MAC", FULL)
"""One arm of every class of budgets."""

FACTORS = (1 / 3, 1.0, 3.0)
"""What the learning rate of the class is multiplied with; as many values for every class."""

LENGTH = 0.5
"""Factor of the steps and of the warm-up."""

SEED = 99
"""Seed of the block's crops."""


def main(study: Study) -> None:
    """Write rates.csv: by arm and learning rate the PSNR on held-out training images; nothing of the tests is seen."""
    block = Block(study.masked()[0], SEED)
    prepare(study, [block.pretrained], study.results)
    layers = plan_arms(study, [block]).layers[block]
    jobs = [Job(block, arm, layers[arm], factor, LENGTH) for arm in ARMS for factor in FACTORS]
    found = [(job.arm, *values) for job, values in in_parallel(partial(validate, study), jobs, study.processes, "run")]
    table = pd.DataFrame(found, columns=["arm", "lr", "psnr_db"]).sort_values(["arm", "lr"], ignore_index=True)
    by_rate = table.groupby("arm")
    table["best"] = table["psnr_db"] == by_rate["psnr_db"].transform("max")
    table["edge"] = table["lr"].isin(by_rate["lr"].transform("min")) | table["lr"].isin(by_rate["lr"].transform("max"))
    study.results.mkdir(parents=True, exist_ok=True)
    table.to_csv(study.results / "rates.csv", index=False, float_format="%.6g")
    print(table.to_string(index=False))
    if edges := table.loc[table["best"] & table["edge"], "arm"].tolist():
        print(f"the best rate of {', '.join(edges)} is at an edge: move `rates` there and compare again")
