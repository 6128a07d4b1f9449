"""Loss changes in weight space: exact for quadratic losses, complete with order two, whatever the skip connections."""

import numpy as np
import pytest
import torch
from torch import nn

from macattr.methods.weight_paths import adam_states, allocate_loss_change, by_layer, refine_states, straight_weights


class Residual(nn.Module):
    """A block with a skip connection, of which no layer is a cut."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 3)
        self.gain = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return x + self.gain * self.second(torch.tanh(self.first(x)))


@pytest.fixture
def net():
    return Residual().double()


@pytest.fixture
def loss():
    x, target = torch.randn(2, 5, 3, dtype=torch.float64)
    return lambda call: (call(x) - target).square().mean()


def elsewhere(model):
    """Random parameters for the model."""
    return {name: torch.randn_like(parameter) for name, parameter in model.named_parameters()}


def path_of(kind, net, loss):
    """Corners of a path and how often to refine them."""
    if kind == "adam":
        return list(adam_states(net, loss, n_steps=3, lr=0.1))
    return [dict(net.named_parameters()), elsewhere(net)] + [elsewhere(net)] * (kind == "polyline")


def order_of(steps, errors):
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


def test_a_quadratic_loss_is_allocated_exactly_by_one_step():
    x, target = torch.randn(3, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    net = nn.Linear(3, 2, bias=False).double()
    start, end = elsewhere(net), elsewhere(net)
    loss = lambda call: (call(x) - target).square().sum() / 2  # noqa: E731
    [change] = allocate_loss_change(net, straight_weights(start, end, 1), [loss])
    # The gradient (Wx - t) x' is linear in W: its mean over the segment is that at the middle.
    w0, w1 = start["weight"], end["weight"]
    want = torch.outer((w0 + w1) / 2 @ x - target, x) * (w1 - w0)
    torch.testing.assert_close(change.parts["weight"], want, rtol=1e-12, atol=1e-12)
    assert abs(change.residual) < 1e-12


def test_a_quadratic_loss_is_complete_along_any_polyline():
    x, target = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    net = nn.Linear(3, 2).double()
    states = [elsewhere(net) for _ in range(5)]
    [change] = allocate_loss_change(net, states, [lambda call: (call(x) - target).square().sum()])
    total = sum(float(part.sum()) for part in change.parts.values())
    assert total == pytest.approx(float(change.losses[-1] - change.losses[0]), rel=1e-12)  # rounding only


@pytest.mark.parametrize("kind", ["straight", "polyline", "adam"])
def test_the_change_of_the_loss_is_allocated_completely_with_order_two(kind, net, loss):
    corners, steps = path_of(kind, net, loss), [4, 8, 16, 32]
    changes = [allocate_loss_change(net, refine_states(corners, n), [loss])[0] for n in steps]
    totals = [sum(float(part.sum()) for part in change.parts.values()) for change in changes]
    truth = [
        float(loss(lambda x, s=s: torch.func.functional_call(net, s, x)).detach()) for s in (corners[0], corners[-1])
    ]
    errors = [total - (truth[1] - truth[0]) for total in totals]
    assert order_of(steps, np.abs(errors)) == pytest.approx(2, abs=0.2)
    assert [change.residual for change in changes] == pytest.approx(errors, abs=1e-12)


def test_every_parameters_part_converges_with_order_two(net, loss):
    corners, steps = path_of("straight", net, loss), [4, 8, 16, 32]

    def parts(n_steps):
        [change] = allocate_loss_change(net, refine_states(corners, n_steps), [loss])
        return torch.cat([part.flatten() for part in change.parts.values()])

    exact = parts(256)  # its own error is 1/64 of the smallest here
    assert order_of(steps, [float((parts(n) - exact).norm()) for n in steps]) == pytest.approx(2, abs=0.2)


def test_losses_in_one_sweep_and_reductions_at_every_state_change_nothing(net, loss):
    images = torch.randn(3, 4, 3, dtype=torch.float64)
    losses = [lambda call, x=x: call(x).square().mean() for x in images]
    states = list(straight_weights(dict(net.named_parameters()), elsewhere(net), 3))
    together = allocate_loss_change(net, states, losses, by_layer)
    for change, one in zip(together, losses, strict=True):
        [alone] = allocate_loss_change(net, states, [one])
        torch.testing.assert_close(change.parts, by_layer(alone.parts), rtol=1e-12, atol=1e-12)
        assert change.residual == pytest.approx(alone.residual, abs=1e-12)
