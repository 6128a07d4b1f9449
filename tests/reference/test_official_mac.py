"""preset=OFFICIAL against the numbers that the authors' scripts give."""

import pytest
import torch

from macattr import InternalInfluence, MaskAttributeConductance
from macattr.layers.resolve import resolve_layers
from macattr.paths.inputs import LinearPath, MaskAttributePath
from macattr.paths.objectives import GradientMagnitude
from macattr.paths.presets import OFFICIAL
from macattr.sweep.trace import trace

SAME_NUMBERS = 1e-5
"""Relative; float32 sums of 49 increments agree to about 1e-6, order of operations aside."""


@pytest.fixture(scope="module")
def conductance(official_swinir, swinir_io, official_path, official_scores):
    """Our conductance by tag and layer name."""
    names = list(official_scores["right"])
    attribution = MaskAttributeConductance(official_swinir, names)
    inputs, order = swinir_io["x"], official_path["order"]
    methods = {"right": None, "left": "riemann_left", "trapezoid": "riemann_trapezoid"}
    layers = {
        tag: attribution.attribute(inputs, order=order, n_steps=50, preset=OFFICIAL, method=method)
        for tag, method in methods.items()
    }
    return {tag: dict(zip(names, values, strict=True)) for tag, values in layers.items()}


@pytest.mark.parametrize("alpha", [0.5, 0.5025, 0.51, 0.75, 0.9975, 1.0])
def test_gate_equals_the_official_one(official_path, alpha):
    path = MaskAttributePath(
        torch.ones(1, 1, 32, 32), official_path["order"], torch.zeros(1, 1, 32, 32), gate="one_sided"
    )
    got = path.at(torch.tensor([alpha], dtype=torch.float64))[0][0, 0]
    torch.testing.assert_close(got, official_path[f"alpha_{alpha:.6f}"], rtol=0, atol=0)


@pytest.mark.parametrize("tag", ["right", "left", "trapezoid"])
def test_scores_of_all_layers_equal_the_official_ones(conductance, official_scores, tag):
    scores = {name: float(value.abs().mean()) for name, value in conductance[tag].items()}
    assert scores == pytest.approx(official_scores[tag], rel=SAME_NUMBERS)


@pytest.mark.parametrize("tag", ["right", "left", "trapezoid"])
@pytest.mark.parametrize("layer", ["conv_first", "layers.1.conv", "norm", "conv_last"])
def test_every_neuron_equals_the_official_one(conductance, official_neurons, tag, layer):
    stored = ["left", "right"] if tag == "trapezoid" else [tag]
    want = torch.stack([official_neurons[f"{one}|{layer}"] for one in stored]).mean(0)
    assert (conductance[tag][layer] - want).abs().max() < SAME_NUMBERS * want.abs().max()


def test_every_neuron_of_every_attention_window_equals_the_official_one(conductance, official_neurons):
    want = official_neurons["right|layers.0.residual_group.blocks.1.attn.qkv"]
    got = conductance["right"]["layers.0.residual_group.blocks.1.attn.qkv"]
    assert want.shape == (16, 64, 36)
    assert (got - want).abs().max() < SAME_NUMBERS * want.abs().max()


def test_objective_at_both_ends_equals_the_official_one(official_swinir, swinir_io, official_path, official_scores):
    inputs = swinir_io["x"]
    path = OFFICIAL.override(n_steps=50).path(inputs, torch.zeros_like(inputs), official_path["order"])
    partition = OFFICIAL.override(n_steps=50).partition(path)
    layers = resolve_layers(official_swinir, "conv_last")
    result = trace(official_swinir, layers, path, partition, GradientMagnitude(0.0), [])
    ends = {"start": float(result.objective_start), "end": float(result.objective_end)}
    assert ends == pytest.approx(official_scores["objective"], rel=1e-5)
    assert partition.nodes[[0, -1]].tolist() == pytest.approx([0.5, 0.99])


def test_internal_influence_times_the_nodes_is_what_the_paper_calls_ig(official_swinir, swinir_io, official_scores):
    inputs, names = swinir_io["x"], list(official_scores["ig"])
    path = LinearPath((inputs,), (torch.zeros_like(inputs),), (0.5, 1.0))
    layers = InternalInfluence(official_swinir, names).attribute(
        inputs, path=path, n_steps=50, method="riemann_left", objective=GradientMagnitude(0.0)
    )
    scores = {name: 50 * float(value.abs().mean()) for name, value in zip(names, layers, strict=True)}
    assert scores == pytest.approx(official_scores["ig"], rel=SAME_NUMBERS)
