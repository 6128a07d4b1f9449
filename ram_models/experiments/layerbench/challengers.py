"""Challengers of the field's rankings: ends, norms and biases always, matrices by what they gain for each parameter."""

__all__ = ["KERNEL_GREEDY", "SMALL_FIRST"]

import warnings
from functools import partial

from macattr.methods.kernel import greedy_order, layer_kernels, ridge_of
from macattr.methods.samples import iterate_samples
from macattr.methods.task import Options
from macattr.ranking.rank import task_of
from macattr.selection.rules import SelectionRule, select
from macattr.selection.small_first import small_layers
from macattr.selection.trainable import TrainableMask
from ram_models.experiments.layerbench.choices import Choice
from ram_models.experiments.layerbench.methods import Method, Scores, register
from ram_models.experiments.layerbench.problems import Problem
from ram_models.experiments.layerbench.rankings import rank

SHARE = 2 / 3
"""Most of a budget that goes to ends, norms and biases."""

FILLERS = {"small first, adam gain": "adam_gain_warm", "small first, lca": "lca"}
"""Methods of the library whose scores, sums over parameters, choose the matrices; by name in the bench."""


def _small_first(ranking: str, problem: Problem, budget: float) -> Choice | None:
    """Ends, norms and biases as far as they fit into their share, then layers by score per parameter."""
    network = problem.build()
    most = int(SHARE * budget * problem.total)
    small = small_layers(network, most)
    parts = dict.fromkeys(TrainableMask(small).parameter_names(network)) if small else {}
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    biases = {name for name, parameter in network.named_parameters() if parameter.dim() == 1 and name not in parts}
    used = sum(sizes[name] for name in parts)
    if used + (more := sum(sizes[name] for name in biases)) <= most:
        parts |= dict.fromkeys(biases)
        used += more
    rest = int(budget * problem.total) - used
    layers = _matrices(rank(ranking, problem), problem, rest, small) if rest > 0 else ()
    if layers:
        parts |= dict.fromkeys(TrainableMask(layers).parameter_names(network))
    is_affine = all(network.get_parameter(name).dim() == 1 for name in parts)  # ends hold matrices
    return Choice(tuple(parts), kind="affine" if is_affine else "layers") if parts else None


def _matrices(scores: Scores, problem: Problem, rest: int, small: tuple[str, ...]) -> tuple[str, ...]:
    """The layers that fill the rest of a budget; none if not even one fits."""
    rule = SelectionRule(count=rest, by="parameters", per_parameter=True, exclude=small, over=0.0)
    with warnings.catch_warnings(action="ignore"):  # small networks rarely fill a budget
        layers = select(scores, problem.table, rule).layers
    return layers if problem.table.count(layers) <= rest else ()


def _kernel_greedy(problem: Problem, budget: float) -> tuple[str, ...]:
    """Layers in the order in which the gain of the set grows most for each parameter, as long as they fit."""
    network = problem.build()
    task = task_of(network, None, Options(loss=problem.options.loss))
    kernels = layer_kernels(task, list(iterate_samples(list(problem.samples), network)))
    names = list(task.layers)
    sizes = [problem.table.count([name]) for name in names]
    order = greedy_order(kernels, sizes, ridge_of(kernels), budget=int(budget * problem.total))
    return tuple(names[layer] for layer, _ in order)


SMALL_FIRST = tuple(
    register(Method(name, choose=partial(_small_first, ranking))).name for name, ranking in FILLERS.items()
)
"""Ends, norms and biases, then matrices by score per parameter."""

KERNEL_GREEDY = register(Method("kernel greedy", choose=_kernel_greedy)).name
"""Layers by the gain that they have together."""
