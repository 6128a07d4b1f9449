"""Networks by name: the bundled weights fit, others are refused whole."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from ram_models import build, ram_swinir_tiny, sample
from ram_models.checkpoints import BUNDLED


def test_the_bundled_network_has_the_bundled_weights():
    network = ram_swinir_tiny()
    stored = load_file(BUNDLED / "ram-swinir-tiny.safetensors")
    assert all(torch.equal(parameter, stored[name]) for name, parameter in network.named_parameters())
    assert not network.training
    assert sum(parameter.numel() for parameter in network.parameters()) <= 1_500_000


def test_the_bundled_network_shows_the_integrity_gap():
    """Pre-trained on hidden pixels, it restores hidden pixels far better than it restores whole images."""
    from ram_models.masking import random_mask, restore_with_twins

    network = ram_swinir_tiny()
    images = torch.stack([item["image"] for item in sample()])[::4]
    mask = random_mask(len(images), 64, 64, torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, twins = network(images), restore_with_twins(network, images, mask)
    # The degraded inputs stand in for the clean images: the gap is several dB, their own error far less.
    assert (whole - images).square().mean() > 2 * (twins - images).square().mean()


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="no network 'swin'; there are ram-swinir, ram-swinir-tiny"):
        build("swin")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        build("ram-swinir-tiny", tmp_path / "none.safetensors")


def test_half_fitting_weights_are_refused_and_named(tmp_path):
    stored = load_file(BUNDLED / "ram-swinir-tiny.safetensors")
    stored["surplus"] = stored.pop("norm.weight")
    stored["norm.bias"] = torch.zeros(3)
    save_file(stored, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"1 parameters missing \['norm.weight'\], 1 unknown \['surplus'\], 1 of"):
        build("ram-swinir-tiny", tmp_path / "a.safetensors")


def test_the_sample_is_the_same_every_time():
    first, second = sample(), sample()
    assert len(first) == 12
    assert {item["degradation"] for item in first} == {"noise", "blur", "jpeg"}
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(first, second, strict=True))
    assert all(float(item["image"].min()) >= 0 and float(item["image"].max()) <= 1 for item in first)


def test_buffers_in_a_file_are_passed_over(tmp_path):
    network = ram_swinir_tiny()
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    assert any(name.endswith("attn_mask") for name in load_file(tmp_path / "a.safetensors"))
    build("ram-swinir-tiny", tmp_path / "a.safetensors")


def test_a_broken_file_is_refused(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        build("ram-swinir-tiny", tmp_path / "a.safetensors")
