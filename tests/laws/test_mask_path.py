"""The mask attribute path as a curve: its ends, its continuity, what is hidden when, and where nodes fall."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from macattr.paths.inputs import MaskAttributePath, random_order
from macattr.paths.partitions import tagged_partition

GATES = ["fade", "sigmoid"]
SHARES = [0.1, 0.3, 0.5, 0.9, 1.0]


def path_to(image, baselines, **options):
    count = math.prod(-(-side // options.get("patch_size", 1)) for side in image.shape[-2:])
    return MaskAttributePath(image, random_order(count, seed=5), baselines, **options)


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def image(request):
    return torch.rand(2, 3, 8, 10, dtype=request.param) ** 3  # values with all mantissa bits in use


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("r", SHARES, ids="r={}".format)
def test_the_path_ends_exactly_at_the_inputs(image, gate, r):
    path = path_to(image, torch.full_like(image, 0.485), r=r, gate=gate, groups=4)
    last = tagged_partition(path.interval, 20, "left", path.groups).nodes[-1:]
    torch.testing.assert_close(path.at(last)[0], image, rtol=0, atol=0)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("r", SHARES, ids="r={}".format)
def test_the_path_starts_exactly_at_the_masked_image(image, gate, r):
    path = path_to(image, torch.full_like(image, 0.485), r=r, gate=gate, groups=4)
    first = tagged_partition(path.interval, 20, "left", path.groups).nodes[:1]
    hidden = torch.zeros(80, dtype=torch.bool)
    hidden[path.order[80 - round(80 * r) :]] = True
    want = torch.where(hidden.reshape(8, 10), path.baselines, image)
    torch.testing.assert_close(path.at(first)[0], want, rtol=0, atol=0)


@pytest.mark.parametrize("gate", [*GATES, "one_sided"])
@given(r=st.floats(0.05, 1), height=st.integers(1, 12), width=st.integers(5, 12), patch_size=st.sampled_from([1, 2, 3]))
def test_the_hidden_share_at_the_start_is_r(gate, r, height, width, patch_size):
    blocks = -(-height // patch_size) * -(-width // patch_size)
    image = torch.ones(1, 1, blocks, 1)  # one pixel a block: blocks at the border are smaller
    path = MaskAttributePath(image, random_order(blocks, 0), 0 * image, r=max(r, 1 / blocks), gate=gate)
    hidden = float((path.at(torch.tensor(path.interval[:1], dtype=torch.float64))[0] == 0).sum()) / blocks
    # Half a pixel of rounding; the authors' gate rounds the number of visible pixels up.
    assert abs(hidden - path.r) <= (0.5 if gate != "one_sided" else 1.0) / blocks + 1e-9


@pytest.mark.parametrize("r", SHARES, ids="r={}".format)
def test_halving_the_step_halves_the_largest_change_on_the_fade_path(r):
    image = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    path = path_to(image, torch.zeros_like(image), r=r, groups=4)

    def largest_change(n_steps):
        return path.at(tagged_partition(path.interval, n_steps, "left", 4).nodes)[0].diff(dim=0).abs().max().item()

    assert largest_change(64) == pytest.approx(largest_change(32) / 2, rel=1e-9)
    hidden = path.inputs.flatten()[path.order[64 - round(64 * r) :]]
    assert largest_change(32) == pytest.approx(hidden.max().item() * 4 / 32, rel=1e-9)


def test_halving_the_step_does_not_shrink_the_jumps_of_a_sharp_gate():
    image = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    path = path_to(image, torch.zeros_like(image), gate="sigmoid")
    nodes = tagged_partition(path.interval, 512, "left").nodes
    # A node may fall on the middle of a pixel's jump, which then takes two steps.
    assert path.at(nodes)[0].diff(dim=0).abs().max() > 0.49 * image.max()


@given(groups=st.integers(1, 40), surplus=st.integers(0, 200), r=st.floats(0.05, 1))
def test_every_group_border_is_a_node(groups, surplus, r):
    nodes = tagged_partition((1 - r, 1.0), groups + surplus, "trapezoid", groups).nodes
    borders = torch.linspace(1 - r, 1, groups + 1, dtype=torch.float64)
    assert len(nodes) == groups + surplus + 1
    assert (nodes[:, None] - borders).abs().min(0).values.max() < 1e-12


def test_between_nodes_the_fade_path_is_straight():
    image = torch.rand(1, 1, 6, 6, dtype=torch.float64)
    path = path_to(image, torch.rand_like(image), groups=5)
    nodes = tagged_partition(path.interval, 11, "left", 5).nodes
    ends, middles = path.at(nodes)[0], path.at((nodes[:-1] + nodes[1:]) / 2)[0]
    torch.testing.assert_close(middles, (ends[:-1] + ends[1:]) / 2, rtol=0, atol=1e-12)


@pytest.mark.parametrize("gate", [*GATES, "one_sided"])
def test_pixels_are_revealed_in_order_and_never_hidden_again(gate):
    order = random_order(36, seed=2)
    path = MaskAttributePath(torch.ones(1, 1, 6, 6), order, torch.zeros(1, 1, 6, 6), gate=gate, r=0.8)
    seen = path.at(torch.linspace(0.2, 1, 50, dtype=torch.float64))[0].flatten(1)[:, order]
    assert (seen.diff(dim=0) >= 0).all()
    assert (seen.diff(dim=1) <= 0).all()


@pytest.mark.parametrize("gate", [*GATES, "one_sided"])
@pytest.mark.parametrize("size", [(8, 8), (7, 9)], ids=["whole_blocks", "cut_blocks"])
def test_the_pixels_of_a_block_are_revealed_together(gate, size):
    path = path_to(torch.ones(1, 1, *size), torch.zeros(1, 1, *size), gate=gate, patch_size=4, groups=3)
    gates = path.at(torch.linspace(0.5, 1, 30, dtype=torch.float64))[0]
    corners = gates[..., ::4, ::4].repeat_interleave(4, -2).repeat_interleave(4, -1)[..., : size[0], : size[1]]
    torch.testing.assert_close(gates, corners, rtol=0, atol=0)
    assert gates[..., ::4, ::4].flatten(1).unique(dim=1).shape[1] > 1


@pytest.mark.parametrize("r", SHARES, ids="r={}".format)
def test_the_straight_line_in_one_group_joins_the_masked_and_the_whole_image(r):
    image = torch.rand(1, 2, 5, 5, dtype=torch.float64)
    path = path_to(image, torch.zeros_like(image), r=r, groups=1)
    start, middle, end = path.at(torch.tensor([1 - r, 1 - r / 2, 1.0], dtype=torch.float64))[0]
    torch.testing.assert_close(middle, (start + end) / 2, rtol=0, atol=1e-12)
