"""State of a run: everything that a checkpoint holds so that the run continues bit by bit."""

__all__ = ["State"]

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ram_models.training.config import Optim
from ram_models.training.optimisers import optimiser
from ram_models.training.random_state import random_state, restore_random_state


@dataclass
class State:
    """Everything that determines how a run continues.

    Args:
        network: Bare network.
        prepared: The network as ``accelerator`` prepared it.
        average: Moving average of its weights; None without one.
        optimiser: Optimiser as ``accelerator`` prepared it.
        accelerator: Devices and processes.
        train_mode: Sets the network to training mode.
        step: Number of finished optimiser steps.
        losses: Loss of every step since the last row of metrics.csv.
    """

    network: nn.Module
    prepared: nn.Module
    average: AveragedModel | None
    optimiser: torch.optim.Optimizer
    accelerator: Accelerator
    train_mode: Callable[[nn.Module], nn.Module] = nn.Module.train
    step: int = 0
    losses: list[Tensor] = field(default_factory=list)

    @classmethod
    def begin(
        cls,
        network: nn.Module,
        optim: Optim,
        accelerator: Accelerator,
        train_mode: Callable[[nn.Module], nn.Module] = nn.Module.train,
    ) -> "State":
        """State before the first step; the optimiser takes the parameters that require a gradient.

        Args:
            network: Network to train.
            optim: Optimiser and schedule.
            accelerator: Devices and processes, from :func:`ram_models.training.loop.start`.
            train_mode: Sets the network to training mode.
        """
        train_mode(network)
        average = None
        if optim.ema is not None:
            average = AveragedModel(network, accelerator.device, multi_avg_fn=get_ema_multi_avg_fn(optim.ema))
        plain = optimiser(network, lr=optim.lr, betas=optim.betas, muon=optim.muon)
        prepared, prepared_optimiser = accelerator.prepare(network, plain)
        return cls(
            network=network,
            prepared=prepared,
            average=average,
            optimiser=prepared_optimiser,
            accelerator=accelerator,
            train_mode=train_mode,
        )

    @property
    def result(self) -> nn.Module:
        """Network that is validated and written: the average, if there is one."""
        return self.network if self.average is None else self.average.module

    def mean_loss(self) -> float:
        """Mean loss over the steps since the last row.

        Raises:
            ValueError: If it is not finite.
        """
        mean = float(torch.stack(self.losses).double().mean()) if self.losses else 0.0
        if not math.isfinite(mean):
            raise ValueError(
                f"the loss is {mean} within the {len(self.losses)} steps up to {self.step}: lower `optim.lr`, or set "
                "`optim.clip`; the last checkpoint is from before."
            )
        return mean

    def to_dict(self) -> dict[str, Any]:
        """Content of a checkpoint; every process must call it."""
        self.mean_loss()
        return {
            "network": self.network.state_dict(),
            "average": self.average and self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.accelerator.scaler and self.accelerator.scaler.state_dict(),
            "step": self.step,
            "losses": [float(loss) for loss in self.losses],
            "random": gather_object([random_state()]),
        }

    def load(self, stored: Mapping[str, Any]) -> None:
        """Go back to the state of a checkpoint from :meth:`to_dict`."""
        self.network.load_state_dict(stored["network"])
        if self.average is not None:
            self.average.load_state_dict(stored["average"])
        self.optimiser.load_state_dict(stored["optimiser"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(stored["scaler"])
        self.step = stored["step"]
        self.losses = [torch.tensor(loss, device=self.accelerator.device) for loss in stored["losses"]]
        if self.accelerator.process_index < len(stored["random"]):
            restore_random_state(stored["random"][self.accelerator.process_index])
