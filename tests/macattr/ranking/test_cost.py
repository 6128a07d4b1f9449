"""Evaluations and memory of a ranking, before it runs."""

import copy

import pytest
import torch
from torch import nn

from macattr.layers.resolve import resolve_layers
from macattr.methods.task import Options, Task
from macattr.ranking.cost import estimate_cost


def test_the_cost_counts_nodes_weights_outputs_and_sums():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)).eval()
    task = Task(net, resolve_layers(net), Options(n_steps=8))
    cost = estimate_cost(task, torch.rand(2, 3, 5, 5), ["mac"])
    assert cost.evaluations == 2 * 9
    assert cost.weights == 4 * (16 + 15)
    assert cost.outputs == 4 * 25 * (4 + 3)
    assert cost.sums == 4 * cost.outputs  # sum, output and gradient of the node before, and of this one
    assert [line.split()[0] for line in cost.memory.splitlines()] == ["weights", "activations", "outputs", "sums"]


def test_half_precision_halves_the_outputs_and_not_the_sums():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)).eval()
    whole, half = (
        estimate_cost(Task(model, resolve_layers(model), Options()), torch.rand(1, 3, 5, 5), ["mac"])
        for model in (net, copy.deepcopy(net).bfloat16())
    )
    assert half.outputs == whole.outputs / 2
    assert (whole.sums, half.sums) == (4 * whole.outputs, 5 * half.outputs)


def test_methods_without_a_path_keep_no_sums():
    net = nn.Sequential(nn.Conv2d(3, 3, 1)).eval()
    cost = estimate_cost(Task(net, resolve_layers(net), Options()), torch.rand(2, 3, 5, 5), ["fisher"])
    assert (cost.evaluations, cost.activations, cost.outputs, cost.sums) == (2, 0, 0, 0)


def cost_of(model, inputs, method, **options):
    return estimate_cost(Task(model, resolve_layers(model), Options(**options)), inputs, [method])


def test_a_network_without_values_costs_what_the_same_one_with_values_does():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Sigmoid(), nn.Conv2d(4, 3, 1)).eval()
    inputs = torch.rand(2, 3, 9, 9)
    want, found = (cost_of(model, inputs, "mac", n_steps=8) for model in (net, copy.deepcopy(net).to("meta")))
    assert found == want
    assert want.activations > 0


def test_a_language_model_without_values_costs_what_the_same_one_with_values_does():
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = transformers.LlamaConfig(vocab_size=40, num_hidden_layers=2, **sizes)
    net = transformers.LlamaForCausalLM(config).eval()
    text = {"input_ids": torch.arange(7)[None]}
    want = cost_of(net, text, "conductance", objective="norm")
    found = cost_of(copy.deepcopy(net).to("meta"), text, "conductance", objective="norm")
    assert (found.evaluations, found.weights, found.outputs, found.sums) == (
        want.evaluations, want.weights, want.outputs, want.sums,
    )  # fmt: skip
    assert found.activations == pytest.approx(want.activations, rel=0.1)  # kernels of both devices keep other tensors
    assert all(parameter.requires_grad for parameter in net.parameters())
