"""Completeness of MAC at all cut layers of transformers, with random and with pre-trained weights."""

import pytest
import torch
import torch.nn.functional as F
from skimage import data

from macattr import MaskAttributeConductance
from macattr.layers.resolve import resolve_layers
from macattr.paths.objectives import GradientMagnitude
from macattr.paths.partitions import tagged_partition
from macattr.paths.presets import DEFAULT
from macattr.sweep.trace import trace
from ram_models import ram_swinir_tiny, sample
from ram_models.networks.swinir import SwinIR


@pytest.fixture(scope="module")
def photograph():
    pixels = torch.from_numpy(data.astronaut()[100:196, 200:296]).permute(2, 0, 1)[None].float() / 255
    return F.interpolate(pixels, size=24, mode="area")


def small_swinir(seed):
    torch.manual_seed(seed)
    return SwinIR(img_size=24, embed_dim=12, depths=(2, 1), num_heads=(2, 2))


def test_the_cuts_of_swinir_are_the_layers_outside_all_skips(photograph):
    net = small_swinir(0)
    path = DEFAULT.path(photograph, torch.zeros_like(photograph), None)
    partition = tagged_partition(path.interval, 1, "left")
    result = trace(net, resolve_layers(net), path, partition, GradientMagnitude(), [])
    assert result.cuts == {"conv_first", "patch_embed.norm", "conv_last"}


@pytest.mark.parametrize("seed", [0, 1], ids="weights_{}".format)
def test_mac_with_200_steps_is_complete_at_every_cut_of_swinir(photograph, seed):
    # 2 % is what the design promises at 200 steps; the error is second order in the step, 0.1-0.7 % here. It is
    # relative to the objective's change: on white noise, where that nearly cancels, the network needs more steps.
    attribution = MaskAttributeConductance(small_swinir(seed), ["conv_first", "patch_embed.norm", "conv_last"])
    layers, deltas = attribution.attribute(photograph, n_steps=200, return_convergence_delta=True)
    ratios = torch.tensor([float(c.sum() / (c.sum() - d)) for c, d in zip(layers, deltas, strict=True)])
    assert (ratios - 1).abs().max() <= 0.02
    assert attribution.input_residual.abs().max() <= 0.02


def test_behind_a_skip_mac_is_not_complete_for_any_number_of_steps(photograph):
    attribution = MaskAttributeConductance(small_swinir(0), "layers.0.conv")
    ratios = [
        float(c.sum() / (c.sum() - d))
        for c, d in (
            attribution.attribute(photograph, n_steps=n, groups=5, return_convergence_delta=True) for n in (20, 80)
        )
    ]
    assert min(abs(ratio - 1) for ratio in ratios) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 4], ids=lambda place: sample(32)[place]["name"])
def test_mac_with_200_steps_is_complete_at_every_cut_of_the_bundled_network(place):
    net, cuts = ram_swinir_tiny(), ["conv_first", "patch_embed.norm", "conv_last"]
    attribution = MaskAttributeConductance(net, cuts)
    image = sample(32)[place]["image"][None]
    layers, deltas = attribution.attribute(image, n_steps=200, return_convergence_delta=True)
    ratios = torch.tensor([float(c.sum() / (c.sum() - d)) for c, d in zip(layers, deltas, strict=True)])
    # Noise makes many kinks of the objective: 0.052 was measured there, 0.008 with 400 steps. The other is what the
    # defaults promise.
    assert (ratios - 1).abs().max() <= (0.06 if place == 0 else 0.02)
