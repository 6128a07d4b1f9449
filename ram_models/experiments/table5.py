"""Table 5: does it matter which 10 % of the layers are fine-tuned, and does attribution choose them?"""

__all__ = ["ARMS", "CLAIMS", "FLOORS", "main", "write"]

import pandas as pd

from ram_models.experiments.study.blocks import Plan, plan_arms, prepare, run_blocks
from ram_models.experiments.study.config import Study
from ram_models.experiments.study.runs import FULL
from ram_models.experiments.study.store import Store
from ram_models.experiments.verdicts.claims import ID, Claim, by_arm, by_network, check_claims

FLOORS = ("input", "whole", "colours", "twins", "ends", FULL)
"""Between what the arms lie: the degraded input, the network before fine-tuning (alone, after one map of colours, with
twin masks), fine-tuning of the layers outside of blocks alone, and of everything."""

ARMS = (
    "MAC", "MAC (authors' script)", "IG", "random", "IG, equal parameters", "random, equal parameters",
    "3x3 convolutions and ends", "MAC shuffled",
)  # fmt: skip
"""By number of layers as in the paper, by number of parameters, and controls that ask no image."""

CLAIMS = (
    Claim("MAC is better than random layers, as many", "MAC (authors' script)", "random", ID, 0.42),
    Claim("MAC is better than IG, as many layers", "MAC (authors' script)", "IG", ID, 0.36),
    Claim("IG is better than random layers, as many", "IG", "random", ID, 0.06),
    Claim("MAC is better than random layers, as many parameters", "MAC", "random, equal parameters", family=True),
    Claim("MAC is better than IG, as many parameters", "MAC", "IG, equal parameters", family=True),
    Claim("our MAC is better than that of the authors' script", "MAC", "MAC (authors' script)"),
    Claim("MAC is better than all 3x3 convolutions and the ends, which asks no image", "MAC",
          "3x3 convolutions and ends", family=True),
    Claim("MAC is better than itself shuffled within role and stage", "MAC", "MAC shuffled", family=True),
    Claim("MAC is better than the ends alone, which asks no image", "MAC", "ends"),
)  # fmt: skip
"""What is claimed; those of the family were chosen before anything was run, the last one was added afterwards."""


def main(study: Study) -> None:
    """Run what is missing and write table5.csv and table5-claims.csv."""
    store = prepare(study, study.masked(), study.results)
    plan = plan_arms(study, study.all_blocks())
    run_blocks(study, store, plan, (*ARMS, "ends", FULL))
    write(study, store, plan)


def write(study: Study, store: Store, plan: Plan) -> None:
    """Write the tables of what is finished.

    Args:
        study: Where, and which differences would not matter.
        store: Finished runs.
        plan: Blocks and arms.
    """
    networks, runs = by_network(store.scores()), store.runs()
    table = by_arm(networks, [*FLOORS, *ARMS], plan.stands, plan.keys)
    sizes = runs.groupby("arm")[["parameters", "share", "lr", "steps"]].mean()
    table = table.merge(sizes, how="left", left_on="run_as", right_index=True)
    whole, twins = table.set_index("arm")[ID][["whole", "twins"]]
    table["closed"] = (table[ID] - whole) / (twins - whole)
    table.to_csv(study.results / "table5.csv", index=False, float_format="%.4f")
    claims = check_claims(networks, CLAIMS, plan.stands, {ID: study.margin}, plan.keys, plan.same_blocks)
    claims.to_csv(study.results / "table5-claims.csv", index=False, float_format="%.4f")
    columns = ["arm", "parameters", "blocks", ID, "closed", "sd", "ssim"]
    with pd.option_context("display.width", 200):
        print(table[columns].round(3).to_string(index=False))
        print(claims[["claim", "blocks", "mean_db", "low_db", "high_db", "verdict"]].round(3).to_string(index=False))
