"""Integrated gradients in every layer's own space, one layer after the other."""

__all__ = ["layer_integrated_gradients", "options_of_path"]

from macattr.methods.objectives import objective_of
from macattr.methods.reductions import REDUCTIONS, reduce_neurons
from macattr.methods.samples import Sample
from macattr.methods.task import Task, Trial
from macattr.methods.walks import walk_of
from macattr.sweep.activations import sweep_activations
from macattr.sweep.calls import join_calls


def layer_integrated_gradients(task: Task, sample: Sample) -> list[float]:
    """Scores of all layers on one image: each walks a straight line between its values at the ends of the path.

    One sweep a layer: so many times the cost of the methods that share one. Where the path
    has a random pixel order, it is the same for all images of a size.

    Raises:
        ValueError: If the reduction needs the layer's output, or as
            :func:`macattr.sweep.activations.sweep_activations`.
    """
    reduction = task.options.reduction
    if REDUCTIONS[reduction].needs_output:
        raise ValueError(f"the reduction {reduction!r} is not available for the method 'layer_ig'.")
    walk, trial = walk_of(task.options.path or "line"), Trial(task, sample, seed=task.seed)
    path, place = walk.path(trial), walk.place(trial)
    partition = task.preset.partition(path)
    scores = []
    for name, module in task.layers.items():
        sums = sweep_activations(
            place.entry,
            {name: module},
            path,
            partition,
            objective_of(trial, place, path),
            forward_args=place.arguments,
            internal_batch_size=trial.rows,
        )
        parts = join_calls({site: g * change for site, (g, change) in sums.items()}, task.options.calls)
        scores.append(reduce_neurons(reduction, parts[0], module))
    return scores


def options_of_path(task: Task) -> set[str]:
    """Options that have an effect with the task's path and objective.

    Args:
        task: Network and options.
    """
    options = set(walk_of(task.options.path or "line").options - {"orders"})
    return options | {"loss"} if task.attributes_loss else options
