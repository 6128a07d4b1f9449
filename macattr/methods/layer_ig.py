"""Integrated gradients in every layer's own space, one layer after the other."""

__all__ = ["layer_integrated_gradients"]

from macattr.methods.reductions import REDUCTIONS, reduce_neurons
from macattr.methods.samples import Sample
from macattr.methods.task import Task, Trial
from macattr.methods.walks import walk_of
from macattr.sweep.activations import sweep_activations
from macattr.sweep.trace import add_calls


def layer_integrated_gradients(task: Task, sample: Sample) -> list[float]:
    """Scores of all layers on one image: each walks a straight line between its values at the ends of the path.

    One sweep a layer: so many times the cost of the methods that share one.

    Raises:
        ValueError: If the reduction needs the layer's output, or as
            :func:`macattr.sweep.activations.sweep_activations`.
    """
    reduction = task.options.reduction
    if REDUCTIONS[reduction].needs_output:
        raise ValueError(f"the reduction {reduction!r} is not available for the method 'layer_ig'.")
    path = walk_of(task.options.path or "line").path(Trial(task, sample, seed=task.seed))
    partition = task.preset.partition(path)
    scores = []
    for name, module in task.layers.items():
        sums = sweep_activations(
            task.model,
            {name: module},
            path,
            partition,
            task.preset.objective,
            forward_args=task.arguments(sample),
            internal_batch_size=task.options.internal_batch_size,
        )
        parts = add_calls({site: gradient * change for site, (gradient, change) in sums.items()})
        scores.append(reduce_neurons(reduction, parts[0], module))
    return scores
