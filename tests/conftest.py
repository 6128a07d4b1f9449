"""Common to all tests: fixed randomness, a smooth small network, and conductance computed from its definition."""

from collections.abc import Callable, Iterator

import jaxtyping
import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

from macattr.paths.inputs import MaskAttributePath, random_order

settings.register_profile("suite", deadline=None, derandomize=True, database=None, max_examples=40)
settings.load_profile("suite")

torch.set_num_threads(1)  # sums are added up in one order, in this process as in those that tests start


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def as_users_run_it() -> Iterator[None]:
    """Without the type checks of the tests, so that wrong arguments meet the library's own messages."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def smooth_net() -> nn.Module:
    """Three convolutions with smooth activations between them, image to image; every layer is a cut."""
    convolutions = [nn.Conv2d(before, after, 3, padding=1) for before, after in ((1, 3), (3, 4), (4, 1))]
    return nn.Sequential(convolutions[0], nn.Tanh(), convolutions[1], nn.GELU(), convolutions[2]).double()


@pytest.fixture
def images() -> Tensor:
    """Two images of 6x8 pixels."""
    return torch.rand(2, 1, 6, 8, dtype=torch.float64)


@pytest.fixture
def mask_path(images: Tensor) -> MaskAttributePath:
    """The fading mask path to ``images`` from black, in four groups of six pixels."""
    return MaskAttributePath(images, random_order(48, seed=1), torch.zeros_like(images), groups=4)


@pytest.fixture
def by_definition() -> Callable[..., Tensor]:
    """Conductance by its definition: one layer, one forward pass a node, everything kept; calls are added up."""

    def conductance(model, layer, path, partition, objective, forward_args=()) -> Tensor:
        outputs, gradients = [], []
        for alpha in partition.nodes:
            calls: list[Tensor] = []
            handle = layer.register_forward_hook(lambda _, __, output, calls=calls: calls.append(output))
            value = objective(model(*(x.clone().requires_grad_() for x in path.at(alpha[None])), *forward_args)).sum()
            handle.remove()
            gradients.append(torch.stack(torch.autograd.grad(value, calls)))
            outputs.append(torch.stack(calls).detach())
        y, g = torch.stack(outputs), torch.stack(gradients)
        tau = {"left": g[:-1], "right": g[1:], "trapezoid": (g[:-1] + g[1:]) / 2}[partition.tag]
        return (tau * y.diff(dim=0)).sum((0, 1))

    return conductance
