"""Table 6: does fine-tuning fewer layers generalise better to unseen noise, or does it only denoise better?"""

__all__ = ["CLAIMS", "ROWS", "RUN", "main", "write"]

import pandas as pd

from ram_models.experiments.paper_arms import ALL, ENDS, LONGER, LONGER_MAC, MAC, MAC_20, MAC_50, MASKED, PAPER, RANDOM
from ram_models.experiments.study.blocks import Plan, plan_arms, prepare, run_blocks
from ram_models.experiments.study.config import Pretraining, Study
from ram_models.experiments.study.store import Store
from ram_models.experiments.verdicts.claims import Claim, check_claims, gather
from ram_models.experiments.verdicts.means import (
    BASELINE,
    ID,
    NOISE,
    PEPPER_EXTRA,
    TRAINED_NOISE,
    UNSEEN,
    UNSEEN_EXTRA,
    by_arm,
    with_runs,
)

RUN = (ENDS, RANDOM, MAC, MAC_20, MAC_50, ALL, MASKED, LONGER_MAC, LONGER)
"""Budgets of 10, 20, 50 and 100 % of the layers between controls, and longer runs of two."""

ROWS = (
    "input",
    "whole",
    "twins",
    MASKED.name,
    BASELINE,
    ENDS.name,
    RANDOM.name,
    MAC.name,
    MAC_20.name,
    MAC_50.name,
    ALL.name,
    LONGER_MAC.name,
    LONGER.name,
)
"""Rows of the table."""

CLAIMS = (
    Claim("10 % is better than all on Poisson noise", MAC.name, ALL.name, "poisson", 1.20),
    Claim("10 % is better than all on speckle noise", MAC.name, ALL.name, "speckle", 1.06),
    Claim("10 % is better than all on pepper noise, which resembles the masks", MAC.name, ALL.name, "pepper", 3.92),
    Claim("10 % is better than all on Poisson and speckle noise together", MAC.name, ALL.name, NOISE, 1.13),
    Claim("10 % is better than all on Gaussian noise, which is trained with", MAC.name, ALL.name, TRAINED_NOISE),
    Claim("10 % gains more on Poisson and speckle noise than on trained noise", MAC.name, ALL.name, UNSEEN_EXTRA),
    Claim("10 % gains more on pepper noise than on trained noise", MAC.name, ALL.name, PEPPER_EXTRA),
    Claim(
        "10 % is better than full fine-tuning on Poisson and speckle noise where both are as good on trained noise",
        MAC.name,
        ALL.name,
        NOISE,
        matched=TRAINED_NOISE,
    ),
    Claim(
        "10 % is better than full fine-tuning on pepper noise where both are as good on trained noise",
        MAC.name,
        ALL.name,
        "pepper",
        matched=TRAINED_NOISE,
    ),
    Claim("all is better than 10 % in distribution", ALL.name, MAC.name, ID, 0.26),
    Claim("10 % by MAC is better than 10 % at random on Poisson and speckle noise", MAC.name, RANDOM.name, NOISE),
    Claim(
        "10 % by MAC gains more over 10 % at random on Poisson and speckle noise than on trained noise",
        MAC.name,
        RANDOM.name,
        UNSEEN_EXTRA,
    ),
    Claim(
        "masked pre-training and 10 % are better than ordinary training in distribution", MAC.name, BASELINE, ID, 0.64
    ),
    Claim(
        "masked pre-training and 10 % are better than ordinary training on unseen noise",
        MAC.name,
        BASELINE,
        UNSEEN,
        3.43,
    ),
    Claim("all with 4 times the steps is better than 10 % in distribution", LONGER.name, MAC.name),
    Claim("10 % is better than all with 4 times the steps on Poisson and speckle noise", MAC.name, LONGER.name, NOISE),
    Claim("all is better than 10 % in distribution, both for 4 times as long", LONGER.name, LONGER_MAC.name),
    Claim(
        "10 % is better than all on Poisson and speckle noise, both for 4 times as long",
        LONGER_MAC.name,
        LONGER.name,
        NOISE,
    ),
    Claim("10 % is better than all on pepper noise, both for 4 times as long", LONGER_MAC.name, LONGER.name, "pepper"),
    Claim(
        "10 % gains more on Poisson and speckle noise than on trained noise, both for 4 times as long",
        LONGER_MAC.name,
        LONGER.name,
        UNSEEN_EXTRA,
    ),
    Claim(
        "10 % gains more on pepper noise than on trained noise, both for 4 times as long",
        LONGER_MAC.name,
        LONGER.name,
        PEPPER_EXTRA,
    ),
)
"""What is claimed."""

UNSEEN_COLUMNS = ("poisson", "pepper", "speckle", NOISE, UNSEEN, TRAINED_NOISE, UNSEEN_EXTRA, PEPPER_EXTRA)
"""Columns with the margin of unseen noise."""


def main(study: Study) -> None:
    """Run what is missing and write table6.csv, table6-claims.csv and table6-blocks.csv."""
    store = prepare(study, [*study.masked(), Pretraining(study.seeds[0], ratio=None)], study.results)
    plan = plan_arms(study, PAPER, study.all_blocks())
    run_blocks(study, store, plan.jobs(study, RUN, study.tuned))
    write(study, store, plan)


def write(study: Study, store: Store, plan: Plan) -> None:
    """Write the tables of what is finished.

    Args:
        study: Where, and which differences would not matter.
        store: Finished runs.
        plan: Blocks and arms.
    """
    jobs = plan.jobs(study, RUN, study.tuned)
    evidence = gather(store, plan, jobs, study.tuned)
    made = store.runs_of([job.key for job in jobs])
    networks = with_runs(evidence.networks, made)
    networks.to_csv(study.results / "table6-blocks.csv", index=False, float_format="%.6g")
    table = by_arm(evidence.networks, ROWS, plan.stands, plan.keys)
    table["lr"] = table["run_as"].map(made.groupby("arm")["lr"].mean())
    table.to_csv(study.results / "table6.csv", index=False, float_format="%.6g")
    margins = {ID: study.margin} | dict.fromkeys(UNSEEN_COLUMNS, study.margin_unseen)
    claims = check_claims(evidence, CLAIMS, margins)
    claims.to_csv(study.results / "table6-claims.csv", index=False, float_format="%.12g")
    with pd.option_context("display.width", 200):
        shown = ["arm", "blocks", "poisson", "pepper", "speckle", NOISE, TRAINED_NOISE, ID]
        print(table.reindex(columns=shown).round(2).to_string(index=False))
        print(claims[["claim", "blocks", "mean_db", "low_db", "high_db", "verdict"]].round(3).to_string(index=False))
