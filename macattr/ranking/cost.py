"""What a ranking will take: evaluations, and memory by part, from one forward pass on the first sample."""

__all__ = ["Cost", "estimate_cost"]

from collections.abc import Sequence
from dataclasses import dataclass

from macattr.methods.catalogue import find_methods
from macattr.methods.kinds import PathMethod
from macattr.methods.readings import SUMS, estimate_evaluations, plan_sweeps
from macattr.methods.samples import Inputs, count_samples, iterate_samples
from macattr.methods.task import Task
from macattr.sweep.memory import state_bytes
from macattr.sweep.survey import survey
from macattr.weights.values import local_part


@dataclass(frozen=True)
class Cost:
    """Evaluations of a ranking, and bytes on one device while one node is in a forward pass.

    Args:
        evaluations: Forward and backward passes over one node, for all samples; of one if their number is not known.
        weights: Bytes of the weights that this process holds.
        activations: Bytes that autograd keeps of one node, and as much for temporaries.
        outputs: Bytes of the outputs of all layers at one node.
        sums: Bytes that all sums keep, of the sweep that needs most.
    """

    evaluations: int
    weights: int
    activations: int
    outputs: int
    sums: int

    @property
    def memory(self) -> str:
        """The parts of the memory, one a line."""
        parts = {
            "weights": self.weights,
            "activations of a node": self.activations,
            "outputs of the layers": self.outputs,
            "sums": self.sums,
        }
        return "\n".join(f"{name:24}{size / 2**20:12,.1f} MiB" for name, size in parts.items())


def estimate_cost(task: Task, inputs: Inputs, methods: Sequence[str]) -> Cost:
    """Evaluations and memory of a ranking, from one forward pass on its first sample.

    Args:
        task: Network, layers and options.
        inputs: Samples; see :func:`macattr.ranking.rank.rank_layers`.
        methods: Names of methods. Those that walk no path count with their evaluations alone.

    Raises:
        ValueError: As :func:`macattr.ranking.rank.rank_layers`.
    """
    chosen = find_methods(methods)
    trial = task.trial(next(iterate_samples(inputs, task.model)), 0, 0)
    activations = outputs = sums = 0
    for sweep in plan_sweeps([method for method in chosen if isinstance(method, PathMethod)], task):
        path, place = sweep.path(trial), sweep.route.walk.place(trial)
        partition = sweep.partition(task, path)
        look = survey(place.entry, task.layers, path, partition, forward_args=place.arguments, surveys=task.surveys)
        kept = [SUMS[name](partition) for name in sweep.needs(task.options.reduction)]
        activations, outputs = max(activations, look.working_bytes), max(outputs, look.output_bytes)
        sums = max(sums, state_bytes(look.distinct, kept))
    return Cost(
        evaluations=estimate_evaluations(chosen, task, count_samples(inputs) or 1)[0],
        weights=sum(local_part(p).nbytes for p in task.model.parameters() if not p.is_meta),
        activations=activations,
        outputs=outputs,
        sums=sums,
    )
