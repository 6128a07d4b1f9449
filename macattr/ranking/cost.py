"""What a ranking will take: evaluations, and memory by part, from one forward pass on the first sample."""

__all__ = ["Cost", "estimate_cost"]

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from macattr.methods.catalogue import find_methods
from macattr.methods.kinds import PathMethod
from macattr.methods.readings import SUMS, Sweep, estimate_evaluations, plan_sweeps
from macattr.methods.samples import Inputs, Sample, count_samples, iterate_samples
from macattr.methods.task import Task
from macattr.paths.inputs import LinearPath
from macattr.ranking.outline import has_no_values, outline
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

    A network on the meta device is followed by shapes alone, so that its cost is known before a machine holds it.

    Args:
        task: Network, layers and options.
        inputs: Samples; see :func:`macattr.ranking.rank.rank_layers`.
        methods: Names of methods. Those that walk no path count with their evaluations alone.

    Raises:
        ValueError: As :func:`macattr.ranking.rank.rank_layers`.
    """
    chosen = find_methods(methods)
    sample, is_outline = next(iterate_samples(inputs, task.model)), has_no_values(task.model)
    activations = outputs = sums = 0
    for sweep in plan_sweeps([method for method in chosen if isinstance(method, PathMethod)], task):
        parts = _by_shapes(task, sample, sweep) if is_outline else _by_values(task, sample, sweep)
        activations, outputs, sums = map(max, (activations, outputs, sums), parts)
    return Cost(
        evaluations=estimate_evaluations(chosen, task, count_samples(inputs) or 1)[0],
        weights=sum(local_part(p).nbytes for p in task.model.parameters() if is_outline or not p.is_meta),
        activations=activations,
        outputs=outputs,
        sums=sums,
    )


def _by_values(task: Task, sample: Sample, sweep: Sweep) -> tuple[int, int, int]:
    """Bytes of activations, outputs and sums of a sweep, from its survey."""
    trial = task.trial(sample, 0, 0)
    path, place = sweep.path(trial), sweep.route.walk.place(trial)
    partition = sweep.partition(task, path)
    look = survey(place.entry, task.layers, path, partition, forward_args=place.arguments, surveys=task.surveys)
    kept = [SUMS[name](partition) for name in sweep.needs(task.options.reduction)]
    return look.working_bytes, look.output_bytes, state_bytes(look.distinct, kept)


def _by_shapes(task: Task, sample: Sample, sweep: Sweep) -> tuple[int, int, int]:
    """The same of a network without values; where a path runs matters only to its ends."""
    nothing = (torch.zeros(1, 1, device="cpu"),)
    look, partition = outline(task, sample), sweep.partition(task, LinearPath(nothing, nothing))
    kept = [SUMS[name](partition) for name in sweep.needs(task.options.reduction)]
    tensors = look.outputs.values()
    sums = sum(layer_sum.state_bytes(tensor.nbytes, tensor.dtype) for layer_sum in kept for tensor in tensors)
    return 2 * sum(look.saved.values()), sum(tensor.nbytes for tensor in tensors), sums
