"""Controls: choices that ask no data, everything, and low-rank adapters of the same size."""

__all__ = [
    "ADAPTERS",
    "ALL",
    "DRAWS",
    "RANDOM",
    "random_order",
]

import warnings
from collections.abc import Iterable

import torch
from torch import nn

from macattr.selection.lora import adapted_layers, lora_config
from macattr.selection.trainable import TrainableMask
from ram_models.experiments.layerbench.choices import Choice
from ram_models.experiments.layerbench.methods import Method, Scores, register
from ram_models.experiments.layerbench.problems import Problem

DRAWS = 5
"""Random choices that are tried on every problem, budget and seed."""

ADAPTABLE = (nn.Linear, nn.Conv2d)
"""Layers that get adapters."""


def random_order(problem: Problem) -> Scores:
    """A random order of the layers."""
    order = torch.rand(len(problem.table.names), generator=problem.generator("random"))
    return dict(zip(problem.table.names, order.tolist(), strict=True))


def _first(problem: Problem) -> Scores:
    """The first layers first."""
    return {name: float(-place) for place, name in enumerate(problem.table.names)}


def _last(problem: Problem) -> Scores:
    """The last layers first."""
    return {name: float(place) for place, name in enumerate(problem.table.names)}


def _ends(problem: Problem, budget: float) -> Choice | None:
    """The first and the last layer, if they fit."""
    table = problem.table
    ends = (table.names[0], table.names[-1])
    names = TrainableMask(ends).parameter_names(problem.build())
    return Choice(tuple(names)) if table.count(ends) <= budget * problem.total else None


def _within(problem: Problem, budget: float, names: Iterable[str]) -> Choice | None:
    """These parameters, if they fit and there are any."""
    chosen, network = tuple(names), problem.build()
    size = sum(network.get_parameter(name).numel() for name in chosen)
    return Choice(chosen, kind="affine") if 0 < size <= budget * problem.total else None


def _biases(problem: Problem, budget: float) -> Choice | None:
    """Every bias."""
    return _within(problem, budget, (name for name in _vectors(problem) if name.endswith("bias")))


def _vectors_within(problem: Problem, budget: float) -> Choice | None:
    """Every parameter with one dimension: norms, slopes of activations, biases."""
    return _within(problem, budget, _vectors(problem))


def _vectors(problem: Problem) -> list[str]:
    """Names of the parameters with one dimension."""
    return [name for name, parameter in problem.build().named_parameters() if parameter.dim() == 1]


def _all(problem: Problem, budget: float) -> Choice | None:
    """Every parameter, where the budget is the whole network."""
    names = tuple(TrainableMask(tuple(problem.table.names)).parameter_names(problem.build()))
    return Choice(names) if budget == 1 else None


def _adapters(problem: Problem, budget: float) -> Choice | None:
    """Low-rank adapters on every convolution and linear layer, if rank 1 on all of them fits."""
    network = problem.build()
    layers = tuple(name for name, module in network.named_modules() if type(module) in ADAPTABLE)
    parameters = int(budget * problem.total)
    try:
        with warnings.catch_warnings(action="ignore"):
            config = lora_config(
                TrainableMask(layers), network, parameters=parameters, scores=dict.fromkeys(layers, 1.0)
            )
    except ValueError:
        return None
    fits = adapted_layers(config, network).trained <= budget * problem.total
    return Choice(adapted=layers, budget=parameters, kind="adapters") if fits else None


RANDOM = register(Method("random", score=random_order, draws=DRAWS, control=True)).name
"""Random layers."""

register(Method("first layers", score=_first, control=True))
register(Method("last layers", score=_last, control=True))
register(Method("ends", choose=_ends, control=True))
register(Method("norms and biases", choose=_vectors_within, control=True))
register(Method("biases", choose=_biases, control=True))
ALL = register(Method("all layers", choose=_all, control=True)).name
"""Full fine-tuning, the gain that all others are a share of."""

ADAPTERS = register(Method("LoRA", choose=_adapters, control=True)).name
"""Low-rank adapters with as many parameters as the budget has."""
