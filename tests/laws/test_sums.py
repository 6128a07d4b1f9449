"""The streamed sums against the formulas, for any memory layout and any chunks of nodes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from macattr.paths.sums import BLOCK, ActivationGradientSum, ActivationSum, EveryNth, GradientSum, StieltjesSum

TAGS = ["left", "right", "trapezoid"]


def stieltjes(y, g, tag):
    tau = {"left": g[:-1], "right": g[1:], "trapezoid": (g[:-1] + g[1:]) / 2}[tag]
    return (tau * y.diff(dim=0)).sum(0)


def feed(layer_sum, y, g, chunks, layout=None, gradient_layout=None):
    """Hand over (nodes, m, ...) tensors a chunk at a time, stored in the given orders of dimensions."""
    first = 0
    for count in chunks:
        feed_from(layer_sum, y, g, first, count, layout, gradient_layout)
        first += count
    return layer_sum.value("layer")


def feed_from(layer_sum, y, g, first, count, layout=None, gradient_layout=None):
    """Hand over one chunk."""
    part, gradient = y[first : first + count].flatten(0, 1), g[first : first + count].flatten(0, 1)
    layer_sum.update("layer", stored(part, layout), stored(gradient, gradient_layout), first, count)


def stored(tensor, layout):
    """The same values, laid out in memory with the dimensions in the order ``layout``."""
    if layout is None:
        return tensor
    return tensor.permute(layout).contiguous().permute(sorted(range(tensor.dim()), key=lambda d: layout[d]))


@st.composite
def sweeps(draw):
    """Outputs and gradients (nodes, m, ...) in float64, chunk sizes, and two memory layouts."""
    chunks = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    y, g = torch.randn(2, sum(chunks), *shape, generator=generator, dtype=torch.float64)
    layouts = [draw(st.none() | st.permutations(range(len(shape)))) for _ in range(2)]
    return y, g, chunks, *layouts


@pytest.mark.parametrize("tag", TAGS)
@given(sweep=sweeps())
def test_stieltjes_sum_equals_the_formula_in_any_layout_and_chunks(tag, sweep):
    y, g, chunks, layout, gradient_layout = sweep
    got = feed(StieltjesSum(tag), y, g, chunks, layout, gradient_layout)
    # At most 16 terms of order one: rounding only.
    torch.testing.assert_close(got, stieltjes(y, g, tag), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("layout", [None, (0, 2, 3, 1), (3, 0, 2, 1)], ids=["contiguous", "channels_last", "permuted"])
@pytest.mark.parametrize("chunks", [[7], [1] * 7, [3, 4], [4, 1, 2]], ids=str)
def test_stieltjes_sum_is_right_for_outputs_larger_than_a_cache_block(tag, layout, chunks):
    y, g = torch.randn(2, 7, 2, 3, 2 * BLOCK // 1000, 190, dtype=torch.float64)  # 2.3 blocks for each node
    got = feed(StieltjesSum(tag), y, g, chunks, layout)
    torch.testing.assert_close(got, stieltjes(y, g, tag), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_stieltjes_sum_of_low_precision_layers_accumulates_in_float32(dtype, tag):
    y, g = torch.randn(2, 300, 2, 5).to(dtype)
    got = feed(StieltjesSum(tag), y, g, [100] * 3)
    assert got.dtype == torch.float32
    # 300 random terms in float32: 300 * 6e-8 of the largest partial sum, far below one bfloat16 rounding (4e-3).
    torch.testing.assert_close(got, stieltjes(y.double(), g.double(), tag).float(), rtol=1e-4, atol=1e-4)


def test_stieltjes_sum_does_not_change_what_it_is_given():
    y, g = torch.randn(2, 4, 2, 3, dtype=torch.float64)
    before = y.clone(), g.clone()
    feed(StieltjesSum("trapezoid"), y, g, [2, 2])
    torch.testing.assert_close((y, g), before, rtol=0, atol=0)


def test_stieltjes_sum_survives_that_its_inputs_are_overwritten_later():
    y, g = torch.randn(2, 4, 2, 3, dtype=torch.float64)
    layer_sum, want = StieltjesSum("trapezoid"), stieltjes(y, g, "trapezoid")
    buffer_y, buffer_g = torch.empty(2, 2, 2, 3, dtype=torch.float64)
    for first in (0, 2):
        buffer_y.copy_(y[first : first + 2]), buffer_g.copy_(g[first : first + 2])
        layer_sum.update("layer", buffer_y.flatten(0, 1), buffer_g.flatten(0, 1), first, 2)
    torch.testing.assert_close(layer_sum.value("layer"), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tag", TAGS)
@given(sweep=sweeps())
def test_a_sum_read_between_chunks_is_that_of_the_nodes_so_far_and_goes_on(tag, sweep):
    y, g, chunks, *_ = sweep
    layer_sum, first = StieltjesSum(tag), 0
    for count in chunks:
        feed_from(layer_sum, y, g, first, count)
        first += count
        want = stieltjes(y[:first], g[:first], tag)
        torch.testing.assert_close(layer_sum.value("layer"), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tag", TAGS)
@given(sweep=sweeps())
def test_a_released_sum_goes_on_from_the_last_node_again(tag, sweep):
    y, g, chunks, *_ = sweep
    layer_sum, first = StieltjesSum(tag), 0
    for count in chunks:
        begin = max(0, first - 1)
        feed_from(layer_sum, y, g, begin, first + count - begin)
        layer_sum.release("layer")
        first += count
    torch.testing.assert_close(layer_sum.value("layer"), stieltjes(y, g, tag), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tag", TAGS)
def test_sums_share_chunks_that_grow_and_leave_them_as_they_were(tag):
    # A first node that owns its storage is kept by reference: neither sum may use it as a buffer later.
    y, g = torch.randn(2, 5, 2, 3, dtype=torch.float64)
    borders = [(0, 1), (1, 3), (3, 5)]
    chunks = [(y[low:high].flatten(0, 1).clone(), g[low:high].flatten(0, 1).clone()) for low, high in borders]
    whole, half = StieltjesSum(tag), EveryNth(StieltjesSum(tag))
    for (low, high), (outputs, gradients) in zip(borders, chunks, strict=True):
        whole.update("layer", outputs, gradients, low, high - low)
        half.update("layer", outputs, gradients, low, high - low)
    torch.testing.assert_close(whole.value("layer"), stieltjes(y, g, tag), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(half.value("layer"), stieltjes(y[::2], g[::2], tag), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.cat([outputs for outputs, _ in chunks]), y.flatten(0, 1), rtol=0, atol=0)
    torch.testing.assert_close(torch.cat([gradients for _, gradients in chunks]), g.flatten(0, 1), rtol=0, atol=0)


@given(sweep=sweeps())
def test_gradient_sum_is_the_weighted_mean_in_any_layout_and_chunks(sweep):
    y, g, chunks, layout, gradient_layout = sweep
    weights = torch.rand(len(y), dtype=torch.float64)
    got = feed(GradientSum(weights), y, g, chunks, layout, gradient_layout)
    torch.testing.assert_close(got, torch.tensordot(weights, g, 1), rtol=1e-12, atol=1e-12)


@given(sweep=sweeps())
def test_activation_gradient_sum_weighs_the_product(sweep):
    y, g, chunks, layout, gradient_layout = sweep
    weights = torch.rand(len(y), dtype=torch.float64)
    got = feed(ActivationGradientSum(weights), y, g, chunks, layout, gradient_layout)
    torch.testing.assert_close(got, torch.tensordot(weights, y * g, 1), rtol=1e-12, atol=1e-12)


@given(sweep=sweeps())
def test_activation_sum_is_the_weighted_mean_of_the_outputs_whatever_the_gradients(sweep):
    y, g, chunks, layout, gradient_layout = sweep
    weights = torch.rand(len(y), dtype=torch.float64)
    got = feed(ActivationSum(weights), y, g, chunks, layout, gradient_layout)
    torch.testing.assert_close(got, torch.tensordot(weights, y, 1), rtol=1e-12, atol=1e-12)


@st.composite
def odd_sweeps(draw):
    """A sweep with an odd number of nodes, so that the last is among every second."""
    y, g, chunks, layout, gradient_layout = draw(sweeps())
    if len(y) % 2 == 0:
        chunks[-1] -= 1
        y, g, chunks = y[:-1], g[:-1], [count for count in chunks if count]
    return y, g, chunks, layout, gradient_layout


@pytest.mark.parametrize("tag", TAGS)
@given(sweep=odd_sweeps())
def test_every_second_is_the_sum_over_every_second_node_in_any_layout_and_chunks(tag, sweep):
    y, g, chunks, layout, gradient_layout = sweep
    got = feed(EveryNth(StieltjesSum(tag)), y, g, chunks, layout, gradient_layout)
    torch.testing.assert_close(got, stieltjes(y[::2], g[::2], tag), rtol=1e-12, atol=1e-12)


@given(sweep=odd_sweeps())
def test_every_second_wraps_sums_with_weights_too(sweep):
    y, g, chunks, layout, gradient_layout = sweep
    weights = torch.rand(len(y[::2]), dtype=torch.float64)
    got = feed(EveryNth(GradientSum(weights)), y, g, chunks, layout, gradient_layout)
    torch.testing.assert_close(got, torch.tensordot(weights, g[::2], 1), rtol=1e-12, atol=1e-12)


def test_every_second_copies_no_nodes_but_the_last():
    storages = []

    class Spy(GradientSum):
        def update(self, key, outputs, gradients, first, count):
            storages.extend([outputs.untyped_storage().data_ptr(), gradients.untyped_storage().data_ptr()])

    y, g = torch.randn(2, 4, 3)
    EveryNth(Spy(torch.ones(2))).update("layer", y, g, 0, 4)
    assert set(storages) == {y.untyped_storage().data_ptr(), g.untyped_storage().data_ptr()}


@pytest.mark.parametrize("chunks", [[2], [1, 1], [3, 1], [2, 4]], ids=str)
def test_every_second_refuses_an_odd_number_of_increments(chunks):
    y, g = torch.randn(2, sum(chunks), 2, dtype=torch.float64)
    with pytest.raises(
        ValueError,
        match=f"^{sum(chunks) - 1} increments taken 2 at a time miss the end: choose `n_steps` as a multiple",
    ):
        feed(EveryNth(StieltjesSum("trapezoid")), y, g, chunks)
