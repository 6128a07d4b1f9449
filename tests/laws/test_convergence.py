"""How fast the sums approach the integral: order 2 for the trapezoid, order 1 for one-sided tags."""

import numpy as np
import pytest
import torch
from torch import nn

from macattr.attribution import LayerConductance
from macattr.engine import trace
from macattr.objectives import OutputSum
from macattr.partitions import StieltjesSum, tagged_partition
from macattr.paths import BlurPath, LinearPath, MaskAttributePath

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
