"""Table 5: does it matter which 10 % of the layers are fine-tuned, and does attribution choose them?"""

__all__ = ["CLAIMS", "ROWS", "RUN", "main", "write"]

import pandas as pd

from ram_models.experiments.paper_arms import (
    ALL,
    CONVOLUTIONS,
    ENDS,
    FIRST_CONVOLUTIONS,
    IG,
    IG_PARAMETERS,
    MAC,
    OFFICIAL,
    PAPER,
    RANDOM,
    RANDOM_PARAMETERS,
    SHUFFLED,
    SHUFFLED_STAGES,
)
from ram_models.experiments.study.blocks import Plan, plan_arms, prepare, run_blocks
from ram_models.experiments.study.config import Study
from ram_models.experiments.study.store import Store
from ram_models.experiments.verdicts.claims import Claim, check_claims, gather
from ram_models.experiments.verdicts.means import ID, by_arm, with_runs

RUN = (
    MAC,
    OFFICIAL,
    IG,
    RANDOM,
    IG_PARAMETERS,
    RANDOM_PARAMETERS,
    CONVOLUTIONS,
    FIRST_CONVOLUTIONS,
    SHUFFLED,
    SHUFFLED_STAGES,
    ENDS,
    ALL,
)
"""By number of layers as in the paper, by number of parameters, controls that ask no image, and everything."""

ROWS = ("input", "whole", "colours", "twins", "ends", "all", *(arm.name for arm in RUN if arm not in (ENDS, ALL)))
"""Between what the arms lie comes first: the degraded input, the network before fine-tuning (alone, after one map of
colours, with twin masks), fine-tuning of the layers outside of blocks alone, and of everything."""

CLAIMS = (
    Claim("MAC (authors' script) is better than random layers, as many", OFFICIAL.name, RANDOM.name, ID, 0.42),
    Claim("MAC (authors' script) is better than IG, as many layers", OFFICIAL.name, IG.name, ID, 0.36),
    Claim("MAC is better than IG, as many layers", MAC.name, IG.name, ID, 0.36),
    Claim("IG is better than random layers, as many", IG.name, RANDOM.name, ID, 0.06),
    Claim("MAC is better than random layers, as many parameters", MAC.name, RANDOM_PARAMETERS.name),
    Claim("MAC is better than IG, as many parameters", MAC.name, IG_PARAMETERS.name),
    Claim("MAC on 28 crops, our path, is better than on 7, the authors' path", MAC.name, OFFICIAL.name),
    Claim("MAC is better than all 3x3 convolutions and the ends, which asks no image", MAC.name, CONVOLUTIONS.name),
    Claim(
        "MAC is better than the first two convolutions and the thin ends, which asks no image",
        MAC.name,
        FIRST_CONVOLUTIONS.name,
    ),
    Claim("MAC is better than the ends alone, which asks no image", MAC.name, ENDS.name),
    Claim("MAC is better than itself shuffled within role and stage", MAC.name, SHUFFLED.name),
    Claim("MAC is better than itself shuffled within role, over all stages", MAC.name, SHUFFLED_STAGES.name),
)
"""What is claimed."""


def main(study: Study) -> None:
    """Run what is missing and write table5.csv, table5-claims.csv and table5-blocks.csv."""
    store = prepare(study, study.masked(), study.results)
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
    table = by_arm(evidence.networks, ROWS, plan.stands, plan.keys)
    made = store.runs_of([job.key for job in jobs])
    sizes = made.groupby("arm")[["parameters", "share", "lr", "steps"]].mean()
    table = table.merge(sizes, how="left", left_on="run_as", right_index=True)
    whole, twins = table.set_index("arm")[ID][["whole", "twins"]]
    table["closed"] = (table[ID] - whole) / (twins - whole)
    networks = with_runs(evidence.networks, made)
    networks.to_csv(study.results / "table5-blocks.csv", index=False, float_format="%.6g")
    table.to_csv(study.results / "table5.csv", index=False, float_format="%.6g")
    claims = check_claims(evidence, CLAIMS, {ID: study.margin})
    claims.to_csv(study.results / "table5-claims.csv", index=False, float_format="%.12g")
    columns = ["arm", "parameters", "blocks", ID, "closed", "sd", "ssim"]
    with pd.option_context("display.width", 200):
        print(table[columns].round(3).to_string(index=False))
        print(claims[["claim", "blocks", "mean_db", "low_db", "high_db", "verdict"]].round(3).to_string(index=False))
