"""Evaluations and memory of a ranking, before it runs."""

import copy

import torch
from torch import nn

from macattr.layers import resolve_layers
from macattr.methods.task import Options, Task
from macattr.ranking.cost import estimate_cost


def test_the_cost_counts_nodes_weights_outputs_and_sums():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)).eval()
    task = Task(net, resolve_layers(net), Options(n_steps=8))
    cost = estimate_cost(task, torch.rand(2, 3, 5, 5), ["mac"])
    assert cost.evaluations == 2 * 9
    assert cost.weights == 4 * (16 + 15)
    assert cost.outputs == 4 * 25 * (4 + 3)
    assert cost.sums >= cost.outputs
    assert [line.split()[0] for line in cost.memory.splitlines()] == ["weights", "activations", "outputs", "sums"]


def test_half_precision_halves_the_outputs_and_not_the_sums():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)).eval()
    whole, half = (
        estimate_cost(Task(model, resolve_layers(model), Options()), torch.rand(1, 3, 5, 5), ["mac"])
        for model in (net, copy.deepcopy(net).bfloat16())
    )
    assert half.outputs == whole.outputs / 2
    assert (whole.sums, half.sums) == (3 * whole.outputs, 4 * half.outputs)


def test_methods_without_a_path_keep_no_sums():
    net = nn.Sequential(nn.Conv2d(3, 3, 1)).eval()
    cost = estimate_cost(Task(net, resolve_layers(net), Options()), torch.rand(2, 3, 5, 5), ["fisher"])
    assert (cost.evaluations, cost.activations, cost.outputs, cost.sums) == (2, 0, 0, 0)
