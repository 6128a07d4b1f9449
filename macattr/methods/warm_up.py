"""Scores after a warm-up: the ends of a copy of the network are trained for a while before layers are scored."""

__all__ = ["adam_gain_warm", "warmed_up"]

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any

import torch
from torch import Tensor

from macattr.layers.parameters import copy_network
from macattr.layers.table import LayerTable
from macattr.methods.parameter_scores import adam_gain, call_loss
from macattr.methods.samples import Sample
from macattr.methods.task import Task
from macattr.methods.weight_paths import adam_states
from macattr.selection.small_first import ends
from macattr.sweep.guard import undisturbed
from macattr.sweep.survey import Surveys
from macattr.weights.values import refuse_gradients

PASSES = 10
"""Passes over the images."""

BATCH = 4
"""Images a step: 30 to 60 steps for 12 to 24 images."""

RATE = 1e-3
"""Learning rate (Adam)."""


def adam_gain_warm(task: Task, samples: Sequence[Sample]) -> list[float]:
    """The score of :func:`macattr.methods.parameter_scores.adam_gain` after a warm-up.

    What every layer could mend, such as a shift of all colours, is gone by then; the scores tell what is left to do.

    Source:
        Ours; Kumar et al. 2022 (LP-FT) for the warm-up, there of the last layer.
    """
    return adam_gain(warmed_up(task, samples, "the method 'adam_gain_warm'"), samples)


def warmed_up(task: Task, samples: Sequence[Sample], user: str) -> Task:
    """The same task with a copy of the network whose :func:`macattr.selection.small_first.ends` were trained.

    :data:`PASSES` passes over the images, :data:`BATCH` images a step.

    Args:
        task: Network, layers and loss; the network stays as it is.
        samples: Images; a step takes every so many of them, which mixes a sorted list.
        user: Name of what needs the warm-up, for error messages.

    Raises:
        ValueError: If the loss cannot be computed or is not finite, or weights are sharded or offloaded.
    """
    refuse_gradients(task.model, user)
    count = math.ceil(len(samples) / BATCH)
    batches = cycle([samples[first::count] for first in range(count)])

    def loss(call: Callable[..., Any]) -> Tensor:
        return torch.stack([call_loss(task, sample, call, user) for sample in next(batches)]).mean()

    table = LayerTable.of(task.model)
    model = copy_network(task.model)
    with undisturbed(task.model):
        states = adam_states(task.model, loss, PASSES * count, RATE, table.unlocked(ends(table)))
        model.load_state_dict(deque(states, maxlen=1).pop(), strict=False)
    names = {id(module): name for name, module in task.model.named_modules()}
    layers = {name: model.get_submodule(names[id(module)]) for name, module in task.layers.items()}
    return replace(task, model=model, layers=layers, surveys=Surveys())
