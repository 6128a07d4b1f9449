"""A problem of the bench: a pre-trained network, a shift of its data, and the samples of one seed."""

__all__ = ["Judge", "Problem", "Sample", "Source"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from macattr.layers.table import LayerTable
from macattr.methods.task import Options
from ram_models.experiments.layerbench.choices import Choice
from ram_models.experiments.layerbench.networks import Pretrained
from ram_models.experiments.layerbench.training import Batch, Training, train
from ram_models.seeds import seeded

Sample = Mapping[str, Tensor | str]
"""A sample to rank on: ``image`` and ``clean``, or ``input_ids`` and ``target``, and its ``name``."""

Judge = Callable[[nn.Module], float]
"""Quality of a network in dB, -10 log10 of an error: of pixels (PSNR), or the cross-entropy of classes."""


@dataclass(frozen=True)
class Problem:
    """The question that a method is asked: which layers of this network should be trained for this shift.

    Args:
        network: Name of the network.
        shift: Name of the shift.
        seed: Of crops and noise, or of texts.
        build: Gives the pre-trained network, a fresh one every time, in eval mode.
        samples: What layers are ranked on, as :func:`macattr.rank_layers` takes it; of the training split.
        batch: Training pairs (input, target) of a step, the same for everything that is trained on this problem.
        training: How networks are fine-tuned.
        restores: Whether the output has the pixels of the input, so that an error on hidden ones can be measured.
        options: Of rankings, for networks that need any; each takes those that its method reads.
        draw: Number of the draw, for methods with randomness.
    """

    network: str
    shift: str
    seed: int
    build: Callable[[], nn.Module]
    samples: Sequence[Sample]
    batch: Callable[[int], Batch]
    training: Training
    restores: bool = True
    options: Options = field(default_factory=Options)
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


@runtime_checkable
class Source(Protocol):
    """Where samples come from, and how networks are judged by them; shifts are named."""

    def settings(self) -> tuple[object, ...]:
        """What all numbers depend on beside networks and shifts."""

    def words(self, shift: str) -> str:
        """A shift as the page describes it.

        Args:
            shift: Its name.
        """

    def problem(self, network: Pretrained, shift: str, seed: int) -> Problem:
        """A network before a shift.

        Args:
            network: Which.
            shift: Name of what is done to its data.
            seed: Of crops and noise, or of texts.
        """

    def test(self, shift: str) -> Judge:
        """Judge by the test split.

        Args:
            shift: Name of what is done to it.
        """

    def validation(self, shift: str) -> Judge:
        """Judge by what is never trained on, of the training split.

        Args:
            shift: Name of what is done to it.
        """
