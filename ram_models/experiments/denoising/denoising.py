"""What is a choice of layers worth where noise alone is trained with? ``ram reproduce denoising --config denoising``.

Small networks beat their own input there, differences between arms are small and paired, and unseen noise can be told
from trained noise. Six pre-trainings, one fine-tuning of each. ``contrasts.yaml``, beside this module, holds what was
claimed before.
"""

__all__ = ["main", "write_tables"]

import pandas as pd

from ram_models.experiments.denoising.arms import DENOISING
from ram_models.experiments.denoising.contrasts import Contrasts
from ram_models.experiments.denoising.page import write_page
from ram_models.experiments.study.blocks import Plan, plan_arms, prepare, run_blocks
from ram_models.experiments.study.config import Study
from ram_models.experiments.study.store import Store
from ram_models.experiments.verdicts.claims import check_claims, gather
from ram_models.experiments.verdicts.means import by_arm, with_runs

UNTUNED = ("input", "whole", "twins")
"""Rows that are not fine-tuned."""


def main(study: Study) -> None:
    """Run what is missing, then write the tables in ``results`` and docs/denoising.md."""
    store = prepare(study, study.masked(), study.results)
    plan = plan_arms(study, DENOISING, study.all_blocks())
    run_blocks(study, store, plan.jobs(study, DENOISING.arms, study.tuned))
    write_tables(study, store, plan)
    for file in write_page(study.results, study.docs):
        print(f"written: {file}")


def write_tables(study: Study, store: Store, plan: Plan) -> None:
    """Write arms.csv, claims.csv and blocks.csv of what is finished.

    Args:
        study: Where.
        store: Finished runs.
        plan: Blocks and arms.
    """
    contrasts = Contrasts.read()
    jobs = plan.jobs(study, DENOISING.arms, study.tuned)
    evidence = gather(store, plan, jobs, study.tuned, contrasts.noises)
    made = store.runs_of([job.key for job in jobs])
    networks = with_runs(evidence.networks, made)
    networks.to_csv(study.results / "blocks.csv", index=False, float_format="%.6g")
    table = by_arm(evidence.networks, [*UNTUNED, *DENOISING.by_name], plan.stands, plan.keys)
    sizes = made.groupby("arm")[["parameters", "share", "lr", "steps"]].mean()
    table = table.merge(sizes, how="left", left_on="run_as", right_index=True)
    table.to_csv(study.results / "arms.csv", index=False, float_format="%.6g")
    margins = {claim.column: contrasts.margin for claim in contrasts.claims}
    claims = check_claims(evidence, contrasts.claims, margins)
    claims.to_csv(study.results / "claims.csv", index=False, float_format="%.12g")
    with pd.option_context("display.width", 200):
        print(claims[["claim", "blocks", "mean_db", "low_db", "high_db", "verdict"]].round(3).to_string(index=False))
