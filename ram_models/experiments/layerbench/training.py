"""Short fine-tunings: one choice of what is trained, at one rate, on given batches."""

__all__ = ["LENGTH", "Batch", "Training", "train"]

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ram_models.experiments.layerbench.choices import Choice

Batch = tuple[Tensor, Tensor]
"""Inputs and targets."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""From output and target to a number."""

LENGTH = 100
"""Steps of every fine-tuning."""

BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class Training:
    """How everything on a problem is fine-tuned: Adam, the rate rising linearly and falling along a cosine to 0.

    Args:
        steps: Number of optimiser steps.
        warmup: Share of them in which the rate rises.
        precision: Of the forward pass, ``float32`` or ``bfloat16`` by autocast; weights and optimiser are float32.
        channels_last: Whether images lie in memory with their channels last.
        loss: What is minimised; the mean absolute error by default.
    """

    steps: int
    warmup: float = 0.1
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    channels_last: bool = True
    loss: Loss = F.l1_loss

    def rate(self, step: int) -> float:
        """Factor of the peak learning rate at a step from 0.

        Example:
            >>> [round(Training(10).rate(step), 2) for step in (0, 1, 5, 9)]
            [1.0, 0.98, 0.5, 0.02]
        """
        rising = max(1, round(self.warmup * self.steps))
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising + 1) / (self.steps - rising + 1)))


def train(network: nn.Module, choice: Choice, batch: Callable[[int], Batch], training: Training, lr: float) -> int:
    """Fine-tune a network.

    Args:
        network: Changed in place.
        choice: What is trained.
        batch: Pairs of every step.
        training: How.
        lr: Peak learning rate.

    Returns:
        Number of parameters that were trained.

    Raises:
        FloatingPointError: If a parameter is not finite at the end.
    """
    count = choice.apply(network)
    layout = torch.channels_last if training.channels_last else torch.contiguous_format
    network.train().to(memory_format=layout)  # type: ignore[call-overload]  # torch lacks this one
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(parameters, lr, BETAS)
    for step in range(training.steps):
        for group in optimiser.param_groups:
            group["lr"] = lr * training.rate(step)
        inputs, targets = batch(step)
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=training.precision == "bfloat16"):
            outputs = network(inputs.to(memory_format=layout) if inputs.dim() == 4 else inputs)
        loss = training.loss(outputs.float(), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    if not all(parameter.isfinite().all() for parameter in parameters):
        raise FloatingPointError(f"the fine-tuning diverged at lr = {lr:g}: lower it.")
    network.eval()
    return count
