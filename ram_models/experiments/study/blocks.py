"""The fine-tuning experiments, block by block: everything measured once, kept, and continued after a stop."""

__all__ = ["Plan", "plan_arms", "prepare", "run_blocks"]

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from macattr.layers.table import LayerTable
from ram_models.experiments.study.arms import Arm, Arms, Choice, Layers, layers_of_arms, merge, overlap
from ram_models.experiments.study.config import Block, Pretraining, Study
from ram_models.experiments.study.judge import Judge
from ram_models.experiments.study.networks import load, pretrain, rank_all, score_untuned, weights_hash
from ram_models.experiments.study.parallel import in_parallel
from ram_models.experiments.study.runs import Job, made_with, tune
from ram_models.experiments.study.store import UNTUNED_SEED, BlockKey, Store
from ram_models.seeds import seeded


@dataclass(frozen=True)
class Plan:
    """What is run.

    Args:
        layers: By block and arm, the layers that are trained.
        stands: For every arm the one that is run for it, see :func:`ram_models.experiments.study.arms.merge`.
        table: Layers of the network.
        arms: Every arm by its name.
    """

    layers: Mapping[Block, Mapping[str, Layers]]
    stands: Mapping[str, str]
    table: LayerTable
    arms: Mapping[str, Arm]

    @property
    def keys(self) -> list[BlockKey]:
        """All blocks."""
        return [BlockKey(block.pretrained.name, block.seed) for block in self.layers]

    def overlaps(self, a: str, b: str) -> dict[BlockKey, float]:
        """Overlap of the parameters that two arms train, in every block that has both.

        Args:
            a: Name of one arm.
            b: Name of the other.
        """
        return {
            key: overlap(layers_of[a], layers_of[b], self.table)
            for key, layers_of in zip(self.keys, self.layers.values(), strict=True)
            if a in layers_of and b in layers_of
        }

    def jobs(self, study: Study, wanted: Iterable[Arm], tuned: Mapping[str, float]) -> list[Job]:
        """All runs: block after block, arms in random order within each.

        Args:
            study: Its rates by budget are those of arms without one of their own.
            wanted: Arms.
            tuned: Learning rates by arm.
        """
        stand = dict.fromkeys(self.stands.get(arm.name, arm.name) for arm in wanted)
        jobs = []
        for block, layers_of in self.layers.items():
            run = [self.arms[name] for name in stand if name in layers_of]
            generator = seeded(f"order of {block.pretrained.name} {block.seed}")
            for arm in (run[place] for place in torch.randperm(len(run), generator=generator)):
                share = self.table.count(layers_of[arm.name]) / self.table.total
                lr = tuned[arm.name] if arm.name in tuned else study.lr(share)
                jobs.append(
                    Job(block, arm, layers_of[arm.name], float(f"{lr:.6g}"))
                )  # six digits, as the store keeps them
        return jobs


def prepare(study: Study, networks: Sequence[Pretraining], folder: Path) -> Store:
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
    stored = {
        key: hashed for key, hashed in store.finished().items() if key.seed == UNTUNED_SEED and key.pretrained in wanted
    }
    store.refuse_others({key: wanted[key.pretrained] for key in stored})
    unscored = [network for network in networks if network.name not in {key.pretrained for key in stored}]
    for _, scores in in_parallel(partial(score_untuned, study), unscored, study.processes, "network"):
        store.add(scores)
    return store


def plan_arms(study: Study, arms: Arms, blocks: Sequence[Block]) -> Plan:
    """The layers of every arm of every block, from rankings that are made where they are missing.

    Args:
        study: How.
        arms: Which.
        blocks: Where.

    Raises:
        ValueError: If the study names an arm that there is not.
    """
    if unknown := [name for name in (*study.tuned, *study.compared) if name not in arms.by_name]:
        raise ValueError(f"there is no arm {unknown[0]!r} in `tuned` or `compared`; {', '.join(arms.by_name)} are.")
    networks = list(dict.fromkeys(block.pretrained for block in blocks))
    rankings = dict(in_parallel(partial(rank_all, study, arms.rankings), networks, study.processes, "ranking"))
    layers = {}
    for block in blocks:
        network = load(study, block.pretrained)
        choice = Choice(rankings[block.pretrained], network, f"{block.pretrained.name}-{block.seed}")
        layers[block] = layers_of_arms(arms, choice)
    table = LayerTable.of(network)
    own = [arm.name for arm in arms.arms if arm.own]
    return Plan(layers, merge(layers.values(), table, keep=own), table, arms.by_name)


def run_blocks(study: Study, store: Store, jobs: Sequence[Job]) -> None:
    """Run the jobs that are not finished.

    Args:
        study: How.
        store: What is finished; what is run is added.
        jobs: Of a plan.

    Raises:
        ValueError: If what stands in the store was made otherwise.
    """
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
                store.repeat(done.key, job.arm.name, made_with(study, job))


def _of_the_same_parameters(jobs: Sequence[Job]) -> list[list[Job]]:
    """The jobs, those together that would do the same: block, layers, rate, steps, masks, and what is scored."""
    alike: dict[object, list[Job]] = {}
    for job in jobs:
        what = (job.block, frozenset(job.layers), job.lr, job.arm.length, job.arm.masked, job.arm.whole)
        alike.setdefault(what, []).append(job)
    return list(alike.values())
