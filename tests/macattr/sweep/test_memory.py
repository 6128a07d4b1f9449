"""Plans of sweeps within a memory budget, from sizes alone."""

import pytest
import torch
from torch import nn

from macattr.paths.sums import EveryNth, GradientSum, StieltjesSum
from macattr.sweep.memory import plan_sweeps
from macattr.sweep.probes import Site
from macattr.sweep.recompute import Blocks
from macattr.sweep.survey import ProbedTensor, Survey

N_NODES = 31

LAYER = 400
"""Bytes of a layer's output: 100 numbers of float32."""


def surveyed(layers=10, saved=2000):
    """Ten layers of 400 bytes; autograd saves 2000, so that a plain node takes 4000 and the outputs of all layers."""
    tensors = tuple(
        ProbedTensor(
            site=Site(f"layer{number}", 0, 0),
            shape=(1, 100),
            nbytes=LAYER,
            dtype=torch.float32,
            alias_of=Site(f"layer{number}", 0, 0),
            overwritten=False,
            fingerprint=None,
        )
        for number in range(layers)
    )
    return Survey(tensors, saved, (torch.zeros(1, 1),), None, False)


SMALL = Blocks({"block": nn.Identity()}, 500)
NONE = Blocks({}, 0, "block 'x': its output is another when it runs again")


def plan(budget, blocks=SMALL, rows=None, sums=None):
    sums = [StieltjesSum("trapezoid")] if sums is None else sums
    return plan_sweeps(surveyed(), sums, N_NODES, rows, budget, lambda: blocks)


@pytest.mark.parametrize("budget", [None, 100_000.0], ids=["none", "ample"])
def test_a_sweep_that_fits_is_plain(budget):
    found = plan(budget)
    assert (len(found.groups), found.blocks, found.overlaps, found.nodes_per_batch) == (1, {}, False, 4)


# The sums of all layers take 4000, what they keep between chunks 12000; a plain node 8000, one with blocks 500.
@pytest.mark.parametrize(
    ("budget", "overlaps", "count", "cost"),
    [(24_000.0, False, 1, 1.0), (16_500.0, False, 1, 1.5), (16_499.0, True, 9, 1.5 * 9 / 8), (5_500.0, True, 3, 2.25)],
    ids=["plain", "blocks", "overlap", "three_nodes"],
)
def test_the_cheapest_plan_that_fits_is_taken(budget, overlaps, count, cost):
    found = plan(budget)
    assert (found.overlaps, found.nodes_per_batch) == (overlaps, count)
    assert found.cost(N_NODES) == pytest.approx(cost)
    assert found.estimated_bytes <= budget


@pytest.mark.parametrize(("stride", "counts"), [(2, {5, 7}), (4, {5}), (5, {6})], ids="stride_{}".format)
def test_chunks_that_overlap_end_where_every_sum_has_a_node(stride, counts):
    sums = [EveryNth(StieltjesSum("trapezoid"), stride)]
    assert {plan(budget, sums=sums).nodes_per_batch for budget in (7_000.0, 7_500.0)} == counts


def test_a_plan_without_blocks_splits_the_layers_and_says_why():
    with pytest.warns(UserWarning, match=r"splits the layers over 5 sweeps, which take 5.0 times .* 'x': its output"):
        found = plan(11_200.0, NONE)  # 3200 beyond the sums and a node: two layers of 1600
    assert [len(group) for group in found.groups] == [2] * 5
    assert not found.blocks


def test_one_node_a_pass_leaves_blocks_and_parts():
    with pytest.warns(UserWarning, match="fewer than 3 nodes share a forward pass"):
        found = plan(10_500.0, rows=1)  # 6000 beyond the sums and a node: five layers of 1200
    assert (len(found.groups), bool(found.blocks), found.nodes_per_batch) == (2, True, 1)


def test_a_budget_below_the_sums_is_refused_with_sizes():
    with pytest.raises(ValueError, match=r"one node keeps 0.000477 MiB, all sums take 0.00381 MiB, the largest layer"):
        plan(4_000.0)


def test_sums_without_borders_need_no_overlap():
    found = plan(5_500.0, sums=[GradientSum(torch.ones(N_NODES))])
    assert (found.overlaps, found.nodes_per_batch, found.cost(N_NODES)) == (False, 3, 1.5)
