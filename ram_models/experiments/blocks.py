"""The fine-tuning experiments, block by block: everything measured once, kept, and continued after a stop."""

__all__ = ["Plan", "plan_arms", "prepare", "run_blocks"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from macattr.layers import LayerTable
from ram_models.experiments.arms import Layers, arms, merge
from ram_models.experiments.networks import load, pretrain, rank_all, score_untuned
from ram_models.experiments.parallel import in_parallel
from ram_models.experiments.store import UNTUNED, Store
from ram_models.experiments.study import Block, Pretrained, Study
from ram_models.experiments.tuning import FULL, MASKED, Job, tune
from ram_models.inference import seeded


@dataclass(frozen=True)
class Plan:
    """What is run.

    Args:
        layers: By block and arm, the layers that are trained.
        stands: For every arm the one that is run for it, see :func:`ram_models.experiments.arms.merge`.
    """

    layers: Mapping[Block, Mapping[str, Layers]]
    stands: Mapping[str, str]

    def jobs(self, wanted: Sequence[str], store: Store) -> list[Job]:
        """Runs that are not finished: block after block, arms in random order within each."""
        finished, jobs = store.finished(), []
        for block, of in self.layers.items():
            run = [arm for arm in dict.fromkeys(self.stands.get(arm, arm) for arm in wanted) if arm in of]
            generator = seeded(f"order of {block.pretrained.name} {block.seed}")
            order = torch.randperm(len(run), generator=generator).tolist()
            jobs += [Job(block, run[place], of[run[place]]) for place in order]
        return [job for job in jobs if job.key not in finished]


def prepare(study: Study, networks: Sequence[Pretrained], folder: Path) -> Store:
    """Pre-train what is missing, and score it before any fine-tuning.

    Args:
        study: How.
        networks: What is needed.
        folder: Where finished runs are kept.
    """
    for _ in in_parallel(partial(pretrain, study), networks, study.processes, "pre-training"):
        pass
    store = Store(folder)
    known = {(pretrained, seed) for pretrained, seed, _ in store.finished()}
    unscored = [network for network in networks if (network.name, UNTUNED) not in known]
    for _, scores in in_parallel(partial(score_untuned, study), unscored, study.processes, "network"):
        store.add(scores)
    return store


def plan_arms(study: Study, blocks: Sequence[Block]) -> Plan:
    """The layers of every arm of every block, from rankings that are made where they are missing."""
    networks = list(dict.fromkeys(block.pretrained for block in blocks))
    rankings = dict(in_parallel(partial(rank_all, study), networks, study.processes, "ranking"))
    found = {}
    for block in blocks:
        network = load(study, block.pretrained)
        found[block] = arms(rankings[block.pretrained], network, f"{block.pretrained.name}-{block.seed}")
    stands = merge(found.values(), LayerTable.of(network))
    return Plan({block: of | {MASKED: of[FULL]} for block, of in found.items()}, stands)


def run_blocks(study: Study, store: Store, plan: Plan, wanted: Sequence[str]) -> None:
    """Run the arms of every block that are not finished.

    Args:
        study: How.
        store: What is finished; what is run is added.
        plan: Layers of every arm.
        wanted: Names of the arms.
    """
    jobs = plan.jobs(wanted, store)
    print(f"{study.what}: {len(jobs)} runs to go; {len(store.finished())} scored networks stand in {store.folder}")
    for _, (scores, run) in in_parallel(partial(tune, study), jobs, study.processes, "run"):
        store.add(scores, run)
