"""Integrated gradients in every layer's own space, one layer after the other."""

__all__ = ["layer_integrated_gradients"]

from macattr.methods.reductions import REDUCTIONS, reduce_neurons
from macattr.methods.samples import Sample
from macattr.methods.task import Setup
from macattr.sweep.activations import sweep_activations
from macattr.sweep.trace import add_calls


def layer_integrated_gradients(setup: Setup, sample: Sample) -> list[float]:
    """Scores of all layers on one image: each walks a straight line between its values at the ends of the path.

    One sweep a layer: so many times the cost of the methods that share one.

    Raises:
        ValueError: If the reduction needs the layer's output, or as
            :func:`macattr.sweep.activations.sweep_activations`.
    """
    if REDUCTIONS[setup.reduction].needs_output:
        raise ValueError(f"the reduction {setup.reduction!r} is not available for the method 'layer_ig'.")
    path = setup.path("line" if setup.walk is None else setup.walk, sample, setup.order(sample, 0), setup.seed)
    partition = setup.options.partition(path)
    scores = []
    for name, module in setup.layers.items():
        sums = sweep_activations(
            setup.model, {name: module}, path, partition, setup.options.objective,
            forward_args=setup.arguments(sample), internal_batch_size=setup.internal_batch_size,
        )  # fmt: skip
        parts = add_calls({site: gradient * change for site, (gradient, change) in sums.items()})
        scores.append(reduce_neurons(setup.reduction, parts[0], module))
    return scores
