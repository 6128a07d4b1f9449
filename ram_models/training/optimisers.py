"""Which optimiser trains which parameters: Adam all of them, or Muon the matrices and Adam the rest."""

__all__ = ["MuonAndAdam", "optimiser"]

from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import nn


def optimiser(network: nn.Module, lr: float, betas: tuple[float, float], muon: float | None) -> torch.optim.Optimizer:
    """Adam, or Muon and Adam, on the parameters that require a gradient.

    Args:
        network: What is trained.
        lr: Peak learning rate of Adam.
        betas: Adam's decay rates of the gradient's mean and square.
        muon: Peak learning rate of Muon; None has Adam train everything.

    Returns:
        The optimiser; ``relative_lr`` of its groups is their learning rate over ``lr``, so that one schedule, times
        this, serves all.

    Raises:
        ValueError: As :class:`MuonAndAdam`.
    """
    if muon is None:
        made: torch.optim.Optimizer = torch.optim.Adam((p for p in network.parameters() if p.requires_grad), lr, betas)
    else:
        made = MuonAndAdam(network, lr, betas, muon)
    for group in made.param_groups:
        group["relative_lr"] = group["lr"] / lr
    return made


class MuonAndAdam(torch.optim.Optimizer):
    """Muon on the weights of linear layers, whose updates it makes orthogonal, and Adam on everything else.

    One optimiser to its users: groups, steps and states of both. The weights of convolutions stay with Adam, because
    :class:`torch.optim.Muon` takes matrices alone; so do tables, as those of relative positions, which are no maps.

    Args:
        network: What is trained: its parameters that require a gradient.
        lr: Learning rate of Adam.
        betas: Adam's decay rates of the gradient's mean and square.
        muon: Learning rate of Muon, the size of an update in units of the spectral norm.

    Raises:
        ValueError: If no linear layer is trained, or nothing else, or this version of torch has no Muon.

    Source:
        Jordan et al. 2024 (Muon); Kingma & Ba 2015 (Adam).
    """

    def __init__(self, network: nn.Module, lr: float, betas: tuple[float, float], muon: float) -> None:
        matrices = {id(module.weight) for module in network.modules() if isinstance(module, nn.Linear)}
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        own, rest = (
            [parameter for parameter in trained if (id(parameter) in matrices) == wanted] for wanted in (True, False)
        )
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(f"`optim.muon` needs torch 2.9 or later, this is {torch.__version__}: set it to null.")
        if not own or not rest:
            raise ValueError("`optim.muon` needs linear layers and other parameters to train: set it to null.")
        self.parts = (torch.optim.Muon(own, muon, weight_decay=0.0), torch.optim.Adam(rest, lr, betas))
        super().__init__(trained, {})
        self._share()

    def _share(self) -> None:
        """Make the groups and states of the parts those of the whole."""
        self.param_groups = list(chain.from_iterable(part.param_groups for part in self.parts))

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of both.

        Raises:
            ValueError: If there is a closure, which each of them would evaluate anew.
        """
        if closure is not None:
            raise ValueError("Muon and Adam together take no closure: compute the gradients before `step()`.")
        for part in self.parts:
            part.step()  # type: ignore[no-untyped-call]  # torch.optim.Muon has no annotations

    def state_dict(self) -> dict[str, Any]:
        """The states of both."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Undo everything since :meth:`state_dict`."""
        for part, stored in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(stored)
        self._share()
