"""Nodes and weights; tests/laws has the sums over them."""

import captum.attr
import pytest
import torch
from captum.attr._utils.approximation_methods import approximation_parameters
from hypothesis import given
from hypothesis import strategies as st

from macattr.paths.partitions import Partition, captum_nodes, every_nth_node, tagged_partition
from macattr.paths.sums import ActivationSum, EveryNth, LayerSum, StieltjesSum

TAGS = ["left", "right", "trapezoid"]
METHODS = ["gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid"]


@given(n_steps=st.integers(1, 60), groups=st.integers(1, 80), start=st.floats(0, 0.9))
def test_nodes_increase_and_include_both_ends(n_steps, groups, start):
    nodes = tagged_partition((start, 1.0), n_steps, "left", groups).nodes
    assert len(nodes) == n_steps + 1
    assert nodes[[0, -1]].tolist() == [start, 1.0]
    assert (nodes.diff() > 0).all()


def test_without_the_end_the_other_nodes_stay():
    whole, short = (tagged_partition((0.5, 1.0), 50, "right", include_end=end).nodes for end in (True, False))
    assert short.equal(whole[:-1])


@given(n_steps=st.integers(1, 240), groups=st.integers(1, 60))
def test_groups_have_equally_many_equal_increments_or_one_more(n_steps, groups):
    groups = min(groups, n_steps)
    nodes = tagged_partition((0.0, 1.0), n_steps, "left", groups).nodes
    group = ((nodes[:-1] + nodes[1:]) / 2 * groups).floor().long()
    counts = group.bincount(minlength=groups)
    assert counts.max() - counts.min() <= (n_steps % groups > 0)
    torch.testing.assert_close(nodes.diff(), 1 / (groups * counts[group].double()), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("tag", "weights"),
    [("left", [0.5, 0.5, 0.0]), ("right", [0.0, 0.5, 0.5]), ("trapezoid", [0.25, 0.5, 0.25])],
    ids=TAGS,
)
def test_weights_put_the_gradient_where_the_tag_says(tag, weights):
    assert tagged_partition((0.2, 0.8), 2, tag).weights.tolist() == pytest.approx(weights)


@pytest.mark.parametrize("tag", TAGS)
@given(n_steps=st.integers(1, 60), groups=st.integers(1, 80))
def test_weights_sum_to_one(tag, n_steps, groups):
    assert float(tagged_partition((0.5, 1.0), n_steps, tag, groups).weights.sum()) == pytest.approx(1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [2, 5, 20])
def test_captum_nodes_are_those_of_captum(method, count):
    step_sizes, alphas = approximation_parameters(method)
    ours = captum_nodes((0.0, 1.0), count, method)
    # Captum computes some of them in float32.
    assert ours.nodes.tolist() == pytest.approx(alphas(count), abs=1e-7)
    assert ours.weights.tolist() == pytest.approx(step_sizes(count), abs=1e-7)


def test_captum_nodes_stretch_over_any_interval():
    assert captum_nodes((0.5, 1.0), 4, "riemann_left").nodes.tolist() == pytest.approx([0.5, 0.625, 0.75, 0.875])


def test_captum_methods_are_all_covered():
    assert set(METHODS) == set(captum.attr._utils.approximation_methods.SUPPORTED_METHODS)


def test_stieltjes_sum_fits_the_protocol():
    assert isinstance(StieltjesSum("left"), LayerSum)


@pytest.mark.parametrize(("dtype", "size"), [(torch.float64, 24), (torch.float32, 12), (torch.bfloat16, 8)], ids=str)
def test_kept_memory_is_the_sum_in_32_bits_or_more_and_the_last_node(dtype, size):
    layer_sum, values = StieltjesSum("left"), torch.ones(1, 50, dtype=dtype)
    layer_sum.update("layer", values, values, 0, 1)
    state = layer_sum._state["layer"]
    assert state.total.nbytes + sum(kept.nbytes for kept in (*state.outputs, state.gradient)) == 50 * size
    assert layer_sum.state_bytes(values.nbytes, dtype) == 50 * size


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: tagged_partition((0.0, 1.0), 0, "left"), "`n_steps` must be at least 1, got 0"),
        (lambda: tagged_partition((0.0, 1.0), 1, "left", include_end=False), "`n_steps` must be at least 2, got 1"),
        (lambda: captum_nodes((0.0, 1.0), 1, "riemann_left"), "too small for riemann_left: it needs at least 2 nodes"),
        (lambda: captum_nodes((0.0, 1.0), 0, "gausslegendre"), "too small for gausslegendre"),
        (lambda: Partition(torch.tensor([0.0, 0.5, 0.5]), "left", torch.ones(3)), "`nodes` must increase"),
        (lambda: Partition(torch.tensor([0.0, 0.5]), "left", torch.ones(3)), "have as many weights"),
        (lambda: Partition(torch.tensor([0.0, 0.5]), "middle", torch.ones(2)), "`tag` must be one of left, right"),
        (lambda: captum_nodes((0.0, 1.0), 5, "simpson"), "`method` must be one of gausslegendre, .* got 'simpson'"),
        (lambda: tagged_partition((0.0, 1.0), 5, "middle"), "`tag` must be one of .*, got 'middle'"),
        (lambda: StieltjesSum("middle"), "`tag` must be one of left, right, trapezoid, got 'middle'"),
    ],
    ids=["no_step", "no_gap", "one_node", "no_node", "repeated", "weights", "tag", "method", "unknown_tag", "sum"],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_impossible_partitions_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("tag", TAGS)
@given(
    per_group=st.integers(1, 10), groups=st.integers(1, 20), start=st.floats(0, 0.9), stride=st.sampled_from([2, 3, 5])
)
def test_every_nth_node_is_the_partition_of_as_many_steps_less(tag, per_group, groups, start, stride):
    interval = (start, 1.0)
    whole = tagged_partition(interval, stride * per_group * groups, tag, groups)
    some = every_nth_node(whole, interval, groups, stride)
    want = tagged_partition(interval, per_group * groups, tag, groups)
    assert some.tag == tag
    torch.testing.assert_close(some.nodes, want.nodes, rtol=0, atol=1e-12)
    torch.testing.assert_close(some.weights, want.weights, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("n_steps", "groups"),
    [(5, 1), (10, 3), (9, 3), (10, 10), (4, 8)],
    ids=["odd", "uneven", "odd_groups", "one", "few"],
)
def test_nodes_that_cannot_be_halved_are_refused(n_steps, groups):
    partition = tagged_partition((0.5, 1.0), n_steps, "trapezoid", groups)
    message = f"{n_steps} increments in {groups} groups cannot be halved: .* a multiple of {2 * groups},"
    with pytest.raises(ValueError, match=message):
        every_nth_node(partition, (0.5, 1.0), groups)


def test_a_sum_over_every_second_node_keeps_what_its_own_sum_keeps():
    wrapped = EveryNth(StieltjesSum("left"))
    assert isinstance(wrapped, LayerSum)
    assert isinstance(ActivationSum(torch.ones(1)), LayerSum)
    assert wrapped.state_bytes(10, torch.half) == StieltjesSum("left").state_bytes(10, torch.half)
