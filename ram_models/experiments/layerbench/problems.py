"""A problem of the bench: a pre-trained network, a shift of its data, and the crops of one seed."""

__all__ = ["Problem", "Sample"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from macattr.layers import LayerTable
from ram_models.experiments.layerbench.choices import Choice
from ram_models.experiments.layerbench.training import Batch, Training, train
from ram_models.seeds import seeded

Sample = Mapping[str, Tensor | str]
"""A pair to rank on, with the keys ``image``, ``clean`` and ``name``."""


@dataclass(frozen=True)
class Problem:
    """The question that a method is asked: which layers of this network should be trained for this shift.

    Args:
        network: Name of the network.
        shift: Name of the shift.
        seed: Of crops and noise.
        build: Gives the pre-trained network, a fresh one every time, in eval mode.
        samples: Pairs to rank on, as :func:`macattr.rank_layers` takes them, with ``clean`` as the target; of the
            training split.
        batch: Training pairs (input, target) of a step, the same for everything that is trained on this problem.
        training: How networks are fine-tuned.
        enlarges: Whether the output is larger than the input, so that no pixel of the input hides one of the output.
        draw: Number of the draw, for methods with randomness.
    """

    network: str
    shift: str
    seed: int
    build: Callable[[], nn.Module]
    samples: Sequence[Sample]
    batch: Callable[[int], Batch]
    training: Training
    enlarges: bool = False
    draw: int = 0

    @cached_property
    def table(self) -> LayerTable:
        """The layers that own parameters, with their sizes and places."""
        return LayerTable.of(self.build())

    @property
    def total(self) -> int:
        """Number of the network's parameters."""
        return self.table.total

    def generator(self, name: str) -> torch.Generator:
        """Random numbers of a method's own, which depend on the network, the seed and the draw.

        Args:
            name: Of the method.
        """
        return seeded(f"{name} {self.draw} of {self.network}", self.seed)

    def drawn(self, draw: int) -> "Problem":
        """The same problem for another draw.

        Args:
            draw: Its number.
        """
        return replace(self, draw=draw)

    def tuned(self, choice: Choice, steps: int, lr: float) -> nn.Module:
        """The network after a short fine-tuning, for methods that probe, on crops that no run of the bench sees.

        Args:
            choice: What is trained.
            steps: Number of optimiser steps.
            lr: Peak learning rate.

        Returns:
            In eval mode; no parameter is frozen.
        """
        network = self.build()
        train(network, choice, self.probe_batch, replace(self.training, steps=steps), lr)
        return network.requires_grad_(True).eval()

    def probe_batch(self, step: int) -> Batch:
        """Training pairs behind those of the runs.

        Args:
            step: From 0.
        """
        return self.batch(self.training.steps + step)
