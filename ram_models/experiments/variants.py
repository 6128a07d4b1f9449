"""Pre-trainings that differ in one thing, each followed by the same fine-tuning: Tables 3 and 4 and Fig. 3."""

__all__ = ["BEFORE", "STORE", "by_variant", "compare", "plan_variants", "write"]

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import pandas as pd
import yaml

from macattr.layers.table import LayerTable
from ram_models.experiments.paper_arms import MAC
from ram_models.experiments.study.arms import FRACTION, top
from ram_models.experiments.study.blocks import Plan, prepare, run_blocks
from ram_models.experiments.study.config import SEED_STEP, Block, Pretraining, Study
from ram_models.experiments.study.networks import load, rank, run_folder, weights_file
from ram_models.experiments.study.parallel import in_parallel
from ram_models.experiments.study.runs import Job
from ram_models.experiments.study.store import UNTUNED_SEED, BlockKey
from ram_models.experiments.verdicts.claims import Claim, Evidence, check_claims
from ram_models.experiments.verdicts.means import ID, by_arm, by_network
from ram_models.networks.checkpoints import create, load_weights

ARM = MAC
"""What is fine-tuned: the layers at the top of each network's own ranking."""

STORE = "short"
"""Folder in the results, of the scores and runs of all short pre-trainings."""

BEFORE = {"whole": "whole, before", "twins": "twin masks, before"}
"""Columns in distribution before the fine-tuning, by how the network was asked; twin masks hide half for all."""


def compare(study: Study, variants: Mapping[str, Pretraining], claims: Sequence[Claim]) -> None:
    """Pre-train every variant with every seed, fine-tune each, and write what came out.

    Args:
        study: How.
        variants: By label; their seeds are replaced.
        claims: About the labels.

    Raises:
        ValueError: If no network is there, and none is to be trained.
    """
    seeds = study.seeds[: study.blocks]
    networks = {replace(variant, seed=seed): label for seed in seeds for label, variant in variants.items()}
    if not study.pretrain_missing:
        networks = _trained(study, networks)
    store = prepare(study, list(networks), study.results / STORE)
    made = pd.DataFrame([_made(study, network, label) for network, label in networks.items()])
    made.to_csv(study.results / f"{study.what}-pretrainings.csv", index=False)
    jobs = plan_variants(study, list(networks))
    run_blocks(study, store, jobs)
    scores = by_variant(store.scores_of([job.key for job in jobs]), networks)
    write(study, scores, list(variants), claims)


def plan_variants(study: Study, networks: Sequence[Pretraining]) -> list[Job]:
    """The fine-tuning of every network, in a block of its own.

    Args:
        study: How.
        networks: What is fine-tuned.
    """
    blocks = [Block(network, study.finetune_seeds[0] + SEED_STEP * network.seed) for network in networks]
    ranked = dict(in_parallel(partial(rank, study, name="mac"), networks, study.processes, "ranking"))
    tops = {network: top(ranking, FRACTION, load(study, network)).layers for network, ranking in ranked.items()}
    network = load(study, networks[0])
    layers = {block: {ARM.name: tops[block.pretrained]} for block in blocks}
    return Plan(layers, {}, LayerTable.of(network), {ARM.name: ARM}).jobs(study, [ARM], {})


def write(study: Study, scores: pd.DataFrame, labels: Sequence[str], claims: Sequence[Claim]) -> None:
    """Write the tables of what is finished.

    Args:
        study: Where, and which difference would not matter.
        scores: Of every network before and after its fine-tuning, with its label as the arm.
        labels: Of all variants, also of those that were not trained.
        claims: About the labels.
    """
    stages = {stage: by_network(part.drop(columns="stage")) for stage, part in scores.groupby("stage")}
    keys = [BlockKey(f"seed {seed}", 0) for seed in study.seeds[: study.blocks]]
    table = _table(stages, labels, keys)
    table.to_csv(study.results / f"{study.what}.csv", index=False, float_format="%.6g")
    evidence = Evidence(stages["fine-tuned"], keys, untuned=labels)
    checked = check_claims(evidence, claims, {ID: study.margin})
    checked.to_csv(study.results / f"{study.what}-claims.csv", index=False, float_format="%.12g")
    print(table[["arm", "blocks", ID, *BEFORE.values()]].round(3).to_string(index=False))
    print(checked[["claim", "blocks", "mean_db", "low_db", "high_db", "verdict"]].round(3).to_string(index=False))


def _trained(study: Study, networks: Mapping[Pretraining, str]) -> dict[Pretraining, str]:
    """Those of the networks that are there.

    Raises:
        ValueError: If none is.
    """
    trained = {network: label for network, label in networks.items() if weights_file(study, network).is_file()}
    if not trained:
        raise ValueError(
            f"`pretrain_missing` is false, and {str(study.out / 'pretrain')!r} has no network of {study.what}: leave "
            "it out, or choose another `out`."
        )
    return trained


def _table(stages: Mapping[str, pd.DataFrame], variants: Sequence[str], keys: Sequence[BlockKey]) -> pd.DataFrame:
    """The degraded input, and every variant after fine-tuning, with its quality before in columns of their own."""
    table = by_arm(stages["fine-tuned"], variants, {}, keys)
    for stage, column in BEFORE.items():
        table[column] = by_arm(stages[stage], variants, {}, keys)[ID]
    floor = stages["input"].mean().to_frame().T.assign(arm="input", run_as="input")
    return pd.concat([floor, table], ignore_index=True)[table.columns]


def _made(study: Study, pretrained: Pretraining, variant: str) -> dict[str, object]:
    """How a short pre-training was made; a run that was continued elsewhere has both devices."""
    weights, folder = weights_file(study, pretrained), run_folder(study, pretrained)
    config, starts = (yaml.safe_load((folder / name).read_text()) for name in ("config.yaml", "starts.yaml"))
    return {
        "variant": variant,
        "pretrained": pretrained.name,
        "seed": pretrained.seed,
        "steps": config["optim"]["steps"],
        "batch_size": config["optim"]["batch_size"],
        "device": " ".join(dict.fromkeys(start["device"] for start in starts)),
        "torch": " ".join(dict.fromkeys(start["versions"]["torch"] for start in starts)),
        "weights_sha256": load_weights(create(study.network), weights).sha256[:16],
    }


def by_variant(scores: pd.DataFrame, networks: Mapping[Pretraining, str]) -> pd.DataFrame:
    """Scores with the variant as the arm, and the seed alone as what was pre-trained.

    Args:
        scores: Of every network before and after its fine-tuning.
        networks: With the label of each.
    """
    labels = {network.name: label for network, label in networks.items()}
    seeds = {network.name: f"seed {network.seed}" for network in networks}
    rows = scores[scores["pretrained"].isin(labels)]
    stage = rows["arm"].where(rows["seed"] == UNTUNED_SEED, "fine-tuned")
    arm, pretrained = (rows["pretrained"].map(names) for names in (labels, seeds))
    return rows.assign(stage=stage, arm=arm, pretrained=pretrained, seed=0, progress=1.0)
