"""Optimisers: Adam for all parameters, or Muon for the matrices and Adam for the rest."""

__all__ = ["MuonAndAdam", "optimiser"]

from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import nn


def optimiser(network: nn.Module, lr: float, betas: tuple[float, float], muon: float | None) -> torch.optim.Optimizer:
    """Adam, or Muon and Adam, on the parameters that require a gradient.

    Args:
        network: Network to train.
        lr: Peak learning rate of Adam.
        betas: Adam's decay rates of the gradient's mean and square.
        muon: Peak learning rate of Muon; with None, Adam trains everything.

    Returns:
        The optimiser. ``relative_lr`` of each of its groups is the group's learning rate divided by ``lr``, so that
        one schedule times this factor serves all groups.

    Raises:
        ValueError: See :class:`MuonAndAdam`.
    """
    if muon is None:
        plain: torch.optim.Optimizer = torch.optim.Adam((p for p in network.parameters() if p.requires_grad), lr, betas)
    else:
        plain = MuonAndAdam(network, lr, betas, muon)
    for group in plain.param_groups:
        group["relative_lr"] = group["lr"] / lr
    return plain


class MuonAndAdam(torch.optim.Optimizer):
    """Muon on the weights of linear layers, whose updates it makes orthogonal, and Adam on everything else.

    Users see one optimiser with the groups, steps and states of both. Adam keeps the weights of convolutions, because
    :class:`torch.optim.Muon` takes matrices only, and tables such as those of relative positions, which are not maps.

    Args:
        network: Network to train: its parameters that require a gradient.
        lr: Learning rate of Adam.
        betas: Adam's decay rates of the gradient's mean and square.
        muon: Learning rate of Muon, the size of an update in units of the spectral norm.

    Raises:
        ValueError: If only linear layers are trained, or none, or this version of torch has no Muon.

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
        """Take over the groups and states of the parts."""
        self.param_groups = list(chain.from_iterable(part.param_groups for part in self.parts))

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Make a step with both.

        Raises:
            ValueError: If there is a closure, which both would evaluate.
        """
        if closure is not None:
            raise ValueError("Muon and Adam together take no closure: compute the gradients before `step()`.")
        for part in self.parts:
            part.step()  # type: ignore[no-untyped-call]  # torch.optim.Muon has no annotations

    def state_dict(self) -> dict[str, Any]:
        """The states of both."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go back to the states from :meth:`state_dict`."""
        for part, stored in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(stored)
        self._share()
