"""Networks simple enough that conductance is known in closed form, on every path."""

import pytest
import torch
from torch import nn

from macattr import LayerConductance, MaskAttributeConductance
from macattr.paths.inputs import LinearPath, random_order
from macattr.paths.objectives import OutputSum
from macattr.paths.partitions import tagged_partition
from macattr.paths.sums import StieltjesSum
from macattr.sweep.trace import trace

ROUNDING = {"rtol": 0, "atol": 1e-12}
"""float64 sums of a few hundred terms of order one; the brief asks for 1e-6."""

TAGS = ["left", "right", "trapezoid"]


@pytest.fixture
def linear_net() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 1)).double()


@pytest.fixture
def ends() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(3, 6, dtype=torch.float64), torch.rand(3, 6, dtype=torch.float64)


class SumOfSquares:
    """Half the squared norm: its gradient is the output itself."""

    def __call__(self, output: torch.Tensor, /) -> torch.Tensor:
        return output.square().flatten(1).sum(1) / 2


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("n_steps", [1, 7], ids="{}_steps".format)
def test_conductance_of_a_linear_net_is_its_weight_times_the_change(linear_net, ends, tag, n_steps):
    inputs, baselines = ends
    got = LayerConductance(linear_net, "0").attribute(inputs, baselines, n_steps=n_steps, method=tag)
    want = linear_net[1].weight * ((inputs - baselines) @ linear_net[0].weight.T)
    torch.testing.assert_close(got, want, **ROUNDING)


@pytest.mark.parametrize("tag", TAGS)
def test_a_linear_net_is_complete_at_the_input_and_at_its_layers(linear_net, ends, tag):
    attribution = LayerConductance(linear_net, ["0", "1"])
    _, deltas = attribution.attribute(*ends, n_steps=5, method=tag, return_convergence_delta=True)
    torch.testing.assert_close(torch.stack(deltas), torch.zeros(2, 3, dtype=torch.float64), **ROUNDING)
    torch.testing.assert_close(attribution.input_residual, torch.zeros(3, dtype=torch.float64), **ROUNDING)


@pytest.mark.parametrize("method", ["riemann_left", "riemann_right", "riemann_trapezoid"])
@pytest.mark.parametrize("gate", ["fade", "sigmoid"])
def test_mac_of_pointwise_linear_layers_lives_on_the_hidden_pixels(gate, method):
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 1, 1)).double()
    image, order = torch.rand(1, 2, 4, 6, dtype=torch.float64), random_order(24, seed=3)
    got = MaskAttributeConductance(net, net[0]).attribute(
        image, baselines=0.3, order=order, r=0.25, n_steps=6, gate=gate, method=method, objective=OutputSum()
    )
    hidden = torch.zeros(24, dtype=torch.float64)
    hidden[order[18:]] = 1
    change = torch.einsum("ck,bkhw->bchw", net[0].weight[..., 0, 0], (image - 0.3) * hidden.reshape(4, 6))
    torch.testing.assert_close(got, net[1].weight[0, :, 0, 0][:, None, None] * change, **ROUNDING)


@pytest.mark.parametrize("n_steps", [1, 4], ids="{}_steps".format)
def test_trapezoid_is_exact_for_quadratic_objectives(linear_net, ends, n_steps):
    inputs, baselines = ends
    hidden = nn.Sequential(linear_net[0])
    got = LayerConductance(hidden, "0").attribute(
        inputs, baselines, n_steps=n_steps, method="trapezoid", objective=SumOfSquares()
    )
    torch.testing.assert_close(got, (hidden(inputs).square() - hidden(baselines).square()) / 2, **ROUNDING)


@pytest.mark.parametrize(("tag", "sign"), [("left", -1), ("right", 1)])
@pytest.mark.parametrize("n_steps", [1, 4], ids="{}_steps".format)
def test_one_sided_tags_miss_a_quadratic_objective_by_half_a_step(linear_net, ends, n_steps, tag, sign):
    inputs, baselines = ends
    hidden = nn.Sequential(linear_net[0])
    got = LayerConductance(hidden, "0").attribute(
        inputs, baselines, n_steps=n_steps, method=tag, objective=SumOfSquares()
    )
    exact = (hidden(inputs).square() - hidden(baselines).square()) / 2
    half_step = (hidden(inputs) - hidden(baselines)).square() / (2 * n_steps)
    torch.testing.assert_close(got, exact + sign * half_step, **ROUNDING)


@pytest.mark.parametrize("gate", ["fade", "sigmoid", "one_sided"])
def test_trapezoid_sums_to_the_change_of_a_quadratic_objective_on_every_path(gate):
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)).double()
    image = torch.rand(1, 1, 5, 5, dtype=torch.float64)
    _, delta = MaskAttributeConductance(net, ["0", "1"]).attribute(
        image, gate=gate, n_steps=3, objective=SumOfSquares(), return_convergence_delta=True
    )
    torch.testing.assert_close(torch.cat(delta), torch.zeros(2, dtype=torch.float64), **ROUNDING)


def test_input_attribution_of_a_linear_net_is_gradient_times_change(linear_net, ends):
    inputs, baselines = ends
    partition = tagged_partition((0.0, 1.0), 3, "left")
    path = LinearPath((inputs,), (baselines,))
    result = trace(linear_net, {"0": linear_net[0]}, path, partition, OutputSum(), [StieltjesSum("left")])
    weight = linear_net[1].weight @ linear_net[0].weight
    torch.testing.assert_close(result.input_attribution[0], weight * (inputs - baselines), **ROUNDING)
