"""State of a run: everything that a checkpoint must hold so that the run goes on bit by bit."""

__all__ = ["State"]

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ram_models.training.config import Optim
from ram_models.training.optimisers import optimiser
from ram_models.training.run_folder import (
    random_state,
    restore_random_state,
)


@dataclass
class State:
    """Everything that decides how a run goes on.

    Args:
        network: Bare network.
        trained: The same as prepared by ``accelerator``.
        average: Moving average of its weights, if there is one.
        optimiser: As prepared by ``accelerator``.
        accelerator: Devices and processes.
        step: Finished optimiser steps.
        losses: Loss of every step since the last row of metrics.csv.
    """

    network: nn.Module
    trained: nn.Module
    average: AveragedModel | None
    optimiser: torch.optim.Optimizer
    accelerator: Accelerator
    step: int = 0
    losses: list[Tensor] = field(default_factory=list)

    @classmethod
    def begin(cls, network: nn.Module, optim: Optim, accelerator: Accelerator) -> "State":
        """Before the first step; the optimiser takes the parameters that require a gradient.

        Args:
            network: What is trained, in training mode.
            optim: Optimiser and schedule.
            accelerator: From :func:`start`.
        """
        average = None
        if optim.ema is not None:
            average = AveragedModel(network, accelerator.device, multi_avg_fn=get_ema_multi_avg_fn(optim.ema))
        made = optimiser(network, optim.lr, optim.betas, optim.muon)
        trained, prepared = accelerator.prepare(network, made)
        return cls(network, trained, average, prepared, accelerator)

    @property
    def result(self) -> nn.Module:
        """The network that is validated and written."""
        return self.network if self.average is None else self.average.module

    def mean_loss(self) -> float:
        """Mean over the steps since the last row.

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
        """All of it, for :func:`ram_models.training.run_folder.save_checkpoint`; every process must call it."""
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
        """Undo everything since :meth:`to_dict`."""
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
