"""Which score foresees what a group of layers can do: ``ram reproduce groups``.

Every group (type and stage) is trained alone; a score is good if it ranks the groups as their gains do, and if the groups
that it would choose for a budget gain most of what any choice could. ``contrasts.yaml``, beside this module, holds what
was claimed before anything was trained.
"""

__all__ = ["SEED", "main", "plan_probes"]

from ram_models.experiments.groups.partition import groups_of
from ram_models.experiments.groups.probes import Probe, gains, run_probes
from ram_models.experiments.study.config import SEED_STEP, Block, Study
from ram_models.experiments.study.networks import load, pretrain

SEED = 98
"""Seed of the crops, which no other experiment trains or is judged on."""


def main(study: Study) -> None:
    """Write groups/probes.csv, a row a probe; what is finished there is not run again."""
    probes = run_probes(study, plan_probes(study), study.results / "groups" / "probes.csv")
    print(gains(probes).round(4).to_string())


def plan_probes(study: Study) -> list[Probe]:
    """All probes of the first network: the untrained one, then rate after rate every group, so that a stop leaves whole
    rates."""
    network = study.masked()[0]
    pretrain(study, network)
    block = Block(network, SEED + SEED_STEP * network.seed)
    groups = groups_of(load(study, network))
    return [Probe(block, None, 0.0), *(Probe(block, group, lr) for lr in study.probed.rates for group in groups)]
