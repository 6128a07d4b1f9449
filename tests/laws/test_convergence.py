"""How fast the sums approach the integral: order 2 for the trapezoid, order 1 for one-sided tags."""

import numpy as np
import pytest
import torch
from torch import nn

from macattr.attribution.conductance import LayerConductance
from macattr.paths.inputs import BlurPath, LinearPath, MaskAttributePath
from macattr.paths.objectives import OutputSum
from macattr.paths.partitions import every_nth_node, tagged_partition
from macattr.paths.sums import EveryNth, GradientSum, StieltjesSum
from macattr.sweep.trace import trace

STEPS = [16, 32, 64, 128]


def conductance(net, path, n_steps, tag):
    layer_sum = StieltjesSum(tag)
    partition = tagged_partition(path.interval, n_steps, tag, path.groups)
    result = trace(net, {"0": net[0]}, path, partition, OutputSum(), [layer_sum], internal_batch_size=32)
    return result.values(layer_sum, "0")[0], result


def order_of(errors):
    return -np.polyfit(np.log(STEPS), np.log(errors), 1)[0]


@pytest.fixture(params=["line", "fade", "blur"])
def path(request, images, mask_path):
    line = LinearPath((images,), (torch.zeros_like(images),))
    return {"line": line, "fade": mask_path, "blur": BlurPath(images, sigma=2.0)}[request.param]


@pytest.mark.parametrize(("tag", "order"), [("trapezoid", 2), ("left", 1), ("right", 1)])
def test_completeness_converges_with_the_order_of_the_tag(smooth_net, path, tag, order):
    errors = []
    for n_steps in STEPS:
        total, result = conductance(smooth_net, path, n_steps, tag)
        errors.append(float((total.flatten(1).sum(1) - (result.objective_end - result.objective_start)).abs().sum()))
    assert order_of(errors) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize(("tag", "order"), [("trapezoid", 2), ("left", 1)])
def test_every_neuron_converges_with_the_order_of_the_tag(smooth_net, path, tag, order):
    # Against four times the largest number of steps by the trapezoid: its own error is below 1 % of the smallest here.
    exact, _ = conductance(smooth_net, path, 4 * STEPS[-1], "trapezoid")
    errors = [float((conductance(smooth_net, path, n_steps, tag)[0] - exact).norm()) for n_steps in STEPS]
    assert order_of(errors) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("name", ["0", "2"])  # behind the last layer the sum is linear and has no error
def test_a_third_of_the_change_on_refinement_is_the_error_of_the_trapezoid(smooth_net, path, name):
    # Its error falls as 1/N^2, so S_N - S_{N/2} = 3 (S - S_N) + O(1/N^4).
    # Within 10 % at 32 steps (measured: 0.4 % to 6 %).
    fine, coarse = StieltjesSum("trapezoid"), EveryNth(StieltjesSum("trapezoid"))
    partition = tagged_partition(path.interval, 32, "trapezoid", path.groups)
    layers = {name: smooth_net.get_submodule(name)}
    result = trace(smooth_net, layers, path, partition, OutputSum(), [fine, coarse], internal_batch_size=14)
    estimate = (result.values(fine, name)[0] - result.values(coarse, name)[0]) / 3
    exact = StieltjesSum("trapezoid")
    partition = tagged_partition(path.interval, 512, "trapezoid", path.groups)
    truth = trace(smooth_net, layers, path, partition, OutputSum(), [exact], internal_batch_size=64).values(exact, name)
    error = truth[0] - result.values(fine, name)[0]
    assert float((estimate - error).norm()) < 0.1 * float(error.norm())


def test_the_sum_over_every_second_node_is_that_of_half_as_many_steps(smooth_net, path):
    partition = tagged_partition(path.interval, 16, "trapezoid", path.groups)
    half = tagged_partition(path.interval, 8, "trapezoid", path.groups)
    weights = every_nth_node(partition, path.interval, path.groups).weights
    sums = [EveryNth(StieltjesSum("trapezoid")), EveryNth(GradientSum(weights))]
    alone = [StieltjesSum("trapezoid"), GradientSum(half.weights)]
    together = trace(smooth_net, {"0": smooth_net[0]}, path, partition, OutputSum(), sums, internal_batch_size=6)
    apart = trace(smooth_net, {"0": smooth_net[0]}, path, half, OutputSum(), alone)
    for ours, theirs in zip(sums, alone, strict=True):
        torch.testing.assert_close(together.values(ours, "0")[0], apart.values(theirs, "0")[0], rtol=1e-12, atol=1e-12)


def test_a_sharp_gate_does_not_converge_where_the_fade_does(smooth_net, images, mask_path):
    sharp = MaskAttributePath(images, mask_path.order, mask_path.baselines, gate="sigmoid")
    net = nn.Sequential(smooth_net[0], nn.ReLU(), smooth_net[2])

    def residual(path):
        return float(conductance(net, path, 64, "trapezoid")[1].input_residual.abs().max())

    assert residual(mask_path) < 0.01 < residual(sharp)


def test_layer_conductance_is_complete_at_the_input_of_a_blur_path_with_order_two(smooth_net, images):
    attribute, errors = LayerConductance(smooth_net, smooth_net[0]), []
    for n_steps in STEPS:
        attribute.attribute(
            images, n_steps=n_steps, method="trapezoid", path=BlurPath(images, sigma=2.0), objective=OutputSum()
        )
        errors.append(float(attribute.input_residual.abs().sum()))
    assert order_of(errors) == pytest.approx(2, abs=0.2)
