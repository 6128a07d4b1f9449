"""What must not change a sum: how many nodes share a forward pass, and how layers are split over sweeps."""

import pytest
import torch

from macattr.layers.resolve import resolve_layers
from macattr.paths.objectives import GradientMagnitude
from macattr.paths.partitions import tagged_partition
from macattr.paths.sums import ActivationGradientSum, GradientSum, StieltjesSum
from macattr.sweep.trace import trace

TAGS = ["left", "right", "trapezoid"]


def sums_of(net, path, tag, **options):
    partition = tagged_partition(path.interval, 9, tag, path.groups)
    sums = [StieltjesSum(tag), GradientSum(partition.weights), ActivationGradientSum(partition.weights)]
    layers = resolve_layers(net)
    result = trace(net, layers, path, partition, GradientMagnitude(), sums, **options)
    return [result.values(layer_sum, name)[0] for layer_sum in sums for name in layers], result


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("rows", [2, 3, 4, 14, 1000], ids="{}_rows".format)
def test_nodes_per_forward_pass_never_change_a_sum(smooth_net, mask_path, tag, rows):
    one_at_a_time, _ = sums_of(smooth_net, mask_path, tag, internal_batch_size=1)
    together, result = sums_of(smooth_net, mask_path, tag, internal_batch_size=rows)
    assert result.nodes_per_batch == min(10, rows // 2)
    # Convolutions of another batch size round differently; ten nodes of order one.
    torch.testing.assert_close(together, one_at_a_time, rtol=1e-11, atol=1e-13)


@pytest.mark.filterwarnings("ignore:`memory_budget` splits the layers")
@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize(
    ("share", "saves"), [(0.5, True), (0.65, True), (100.0, False)], ids=["tight", "some_room", "ample"]
)
def test_memory_budget_never_changes_a_sum(smooth_net, mask_path, tag, share, saves):
    unlimited, one_sweep = sums_of(smooth_net, mask_path, tag)
    limited, result = sums_of(smooth_net, mask_path, tag, memory_budget=share * one_sweep.estimated_bytes)
    assert (bool(result.recomputed) or result.evaluations > one_sweep.evaluations) == saves
    torch.testing.assert_close(limited, unlimited, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(result.input_attribution, one_sweep.input_attribution, rtol=1e-11, atol=1e-13)
    assert result.cuts == one_sweep.cuts


@pytest.mark.parametrize("rows", [1, 6], ids="{}_rows".format)
def test_images_never_influence_each_other(smooth_net, mask_path, images, rows):
    both, _ = sums_of(smooth_net, mask_path, "trapezoid", internal_batch_size=rows)
    alone, _ = sums_of(
        smooth_net, type(mask_path)(images[1:], mask_path.order, mask_path.baselines[1:], groups=4), "trapezoid"
    )
    torch.testing.assert_close([value[1:] for value in both], alone, rtol=1e-11, atol=1e-13)
