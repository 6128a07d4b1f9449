"""What is a choice of layers worth where noise alone is trained with? ``ram reproduce denoising --config denoising``.

Small networks beat their own input there, differences between arms are small and paired, and unseen noise can be told
from trained noise. Six pre-trainings, one fine-tuning of each, and as many networks that were trained without masks.
``contrasts.yaml``, beside this module, holds what was claimed before.
"""

__all__ = ["main", "write_tables"]

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from ram_models.experiments.denoising.arms import DENOISING
from ram_models.experiments.denoising.contrasts import Contrasts
from ram_models.experiments.denoising.page import write_page
from ram_models.experiments.study.blocks import Plan, plan_arms, prepare, run_blocks
from ram_models.experiments.study.config import Pretraining, Study
from ram_models.experiments.study.networks import weights_file
from ram_models.experiments.study.runs import Job
from ram_models.experiments.study.store import Store
from ram_models.experiments.verdicts.claims import check_claims, gather
from ram_models.experiments.verdicts.means import BASELINE, by_arm, with_runs

UNTUNED = ("input", "whole", "twins", BASELINE)
"""Rows that are not fine-tuned."""


def main(study: Study) -> None:
    """Run what is missing; after every block write the tables in ``results`` and docs/denoising.md.

    Raises:
        ValueError: If an arm has no learning rate of its own; the networks are pre-trained by then, and kept.
    """
    blocks = study.all_blocks()
    networks = list(dict.fromkeys(block.pretrained for block in blocks))
    store = prepare(study, [*networks, *_baselines(study, networks)], study.results)
    if missing := [name for name in DENOISING.by_name if name not in study.tuned]:
        raise ValueError(
            f"`tuned` has no learning rate for {missing[0]!r} ({len(missing)} arms have none): compare rates first, by "
            "`ram reproduce rates --config denoising`, and write the best into the configuration."
        )
    plan = plan_arms(study, DENOISING, blocks)
    jobs = plan.jobs(study, DENOISING.arms, study.tuned)
    for block in blocks:
        run_blocks(study, store, [job for job in jobs if job.block == block])
        write_tables(study, store, plan, jobs)
        written = write_page(study.results, study.docs)
    print(f"written: {', '.join(map(str, written))}")


def write_tables(study: Study, store: Store, plan: Plan, jobs: Sequence[Job]) -> None:
    """Write arms.csv, claims.csv, baseline-claims.csv and blocks.csv of what is finished.

    Args:
        study: Where.
        store: Finished runs.
        plan: Blocks and arms.
        jobs: The runs that count.
    """
    contrasts = Contrasts.read()
    evidence = replace(gather(store, plan, jobs, study.tuned, contrasts.noises), merged=math.inf)
    made = store.runs_of([job.key for job in jobs])
    networks = with_runs(evidence.networks, made)
    networks.to_csv(study.results / "blocks.csv", index=False, float_format="%.6g")
    table = by_arm(evidence.networks, [*UNTUNED, *DENOISING.by_name], plan.stands, plan.keys)
    sizes = made.groupby("arm")[["parameters", "share", "lr", "steps"]].mean()
    table = table.merge(sizes, how="left", left_on="run_as", right_index=True)
    table.to_csv(study.results / "arms.csv", index=False, float_format="%.6g")
    for name, claims in (("claims", contrasts.claims), ("baseline-claims", contrasts.baseline)):
        checked = check_claims(evidence, claims, {claim.column: contrasts.margin for claim in claims})
        checked.to_csv(study.results / f"{name}.csv", index=False, float_format="%.12g")
        with pd.option_context("display.width", 200):
            shown = ["claim", "blocks", "mean_db", "low_db", "high_db", "verdict"]
            print(checked[shown].round(3).to_string(index=False))


def _baselines(study: Study, networks: Sequence[Pretraining]) -> list[Pretraining]:
    """For every network the one that is trained without masks; where none is to be trained, those that are there."""
    wanted = [replace(network, ratio=None) for network in networks]
    return [network for network in wanted if study.pretrain_missing or weights_file(study, network).is_file()]
