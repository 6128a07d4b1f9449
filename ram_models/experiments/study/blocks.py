"""The fine-tuning experiments, block by block: everything measured once, kept, and continued after a stop."""

__all__ = ["Plan", "plan_arms", "prepare", "run_blocks"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from macattr.layers import LayerTable
from ram_models.experiments.study.arms import MERGED, Layers, arms, merge, overlap
from ram_models.experiments.study.config import Block, Pretrained, Study
from ram_models.experiments.study.judge import Judge
from ram_models.experiments.study.networks import load, pretrain, rank_all, score_untuned, weights_hash
from ram_models.experiments.study.parallel import in_parallel
from ram_models.experiments.study.runs import AGAIN, FULL, LENGTHS, MASKED, Job, made_with, tune
from ram_models.experiments.study.store import UNTUNED, Store
from ram_models.seeds import seeded


@dataclass(frozen=True)
class Plan:
    """What is run.

    Args:
        layers: By block and arm, the layers that are trained.
        stands: For every arm the one that is run for it, see :func:`ram_models.experiments.study.arms.merge`.
        table: Layers of the network.
    """

    layers: Mapping[Block, Mapping[str, Layers]]
    stands: Mapping[str, str]
    table: LayerTable

    @property
    def keys(self) -> list[tuple[str, int]]:
        """Pre-training and seed of every block."""
        return [(block.pretrained.name, block.seed) for block in self.layers]

    def same_blocks(self, a: str, b: str) -> set[tuple[str, int]]:
        """Blocks in which two arms train nearly the same parameters, so that no difference could be seen."""
        return {
            key
            for key, of in zip(self.keys, self.layers.values(), strict=True)
            if a in of and b in of and overlap(of[a], of[b], self.table) >= MERGED
        }

    def jobs(self, wanted: Sequence[str]) -> list[Job]:
        """All runs: block after block, arms in random order within each."""
        jobs = []
        for block, of in self.layers.items():
            run = [arm for arm in dict.fromkeys(self.stands.get(arm, arm) for arm in wanted) if arm in of]
            generator = seeded(f"order of {block.pretrained.name} {block.seed}")
            order = [run[place] for place in torch.randperm(len(run), generator=generator)]
            jobs += [Job(block, arm, of[arm], length=LENGTHS.get(arm, 1.0)) for arm in order]
        return jobs


def prepare(study: Study, networks: Sequence[Pretrained], folder: Path) -> Store:
    """Pre-train what is missing, and score it before any fine-tuning.

    Args:
        study: How.
        networks: What is needed.
        folder: Where finished runs are kept.

    Raises:
        ValueError: If the tests are not there, or what stands in the folder was made otherwise.
    """
    Judge(study)  # what is missing for the tests is told before anything is trained
    for _ in in_parallel(partial(pretrain, study), networks, study.processes, "pre-training"):
        pass
    store = Store(folder)
    wanted = {network.name: study.made_with(weights_hash(study, network)) for network in networks}
    known = {key: hashed for key, hashed in store.finished().items() if key[1] == UNTUNED and key[0] in wanted}
    store.refuse_others({key: wanted[key[0]] for key in known})
    unscored = [network for network in networks if network.name not in {key[0] for key in known}]
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
    table = LayerTable.of(network)
    stands = merge(found.values(), table, keep=(FULL, "ends"))
    layers = {block: of | {arm: of[other] for arm, other in AGAIN.items()} for block, of in found.items()}
    return Plan(layers, stands, table)


def run_blocks(study: Study, store: Store, plan: Plan, wanted: Sequence[str]) -> None:
    """Run the arms of every block that are not finished.

    Args:
        study: How.
        store: What is finished; what is run is added.
        plan: Layers of every arm.
        wanted: Names of the arms.

    Raises:
        ValueError: If what stands in the store was made otherwise.
    """
    jobs = plan.jobs(wanted)
    finished = store.finished()
    store.refuse_others({job.key: made_with(study, job) for job in jobs if job.key in finished})
    same = _of_the_same_parameters(jobs)
    waiting = [alike[0] for alike in same if not any(job.key in finished for job in alike)]
    print(f"{study.what}: {len(waiting)} of {len(same)} runs to go; what is finished stands in {store.folder}")
    for _, (scores, run) in in_parallel(partial(tune, study), waiting, study.processes, "run"):
        store.add(scores, run)
    finished = store.finished()
    for alike in same:
        done = next(job for job in alike if job.key in finished)
        for job in alike:
            if job.key not in finished:
                store.repeat(done.key, job.arm)


def _of_the_same_parameters(jobs: Sequence[Job]) -> list[list[Job]]:
    """The jobs, those together that would do the same: block, layers, steps, and masks or none."""
    alike: dict[object, list[Job]] = {}
    for job in jobs:
        alike.setdefault((job.block, frozenset(job.layers), job.length, job.arm == MASKED), []).append(job)
    return list(alike.values())
