"""Networks by name, and weights: every variant of a file that fits is loaded whole, every other is refused whole."""

import argparse
import inspect
import pickle
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel

from macattr.weights.files import ENTRIES
from ram_models import build, ram_promptir_tiny, ram_swinir_tiny, sample
from ram_models.networks.checkpoints import BUNDLED, NETWORKS, create, load_weights
from ram_models.networks.promptir import PromptIR
from ram_models.networks.rgb import RGBPromptIR, RGBSwinIR
from ram_models.networks.swinir import SwinIR

SMALL = {"img_size": 16, "embed_dim": 8, "depths": (2,), "num_heads": (2,)}


@pytest.fixture
def network():
    return RGBSwinIR(**SMALL)


@pytest.fixture
def official():
    """A state dict as the authors' code gives it, with all buffers; not the values of ``network``."""
    return SwinIR(**SMALL).state_dict()


def values(network):
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def same(network, state):
    return all(parameter.equal(state[name]) for name, parameter in network.named_parameters())


def test_the_bundled_network_has_the_bundled_weights():
    network = ram_swinir_tiny()
    stored = load_file(BUNDLED / "ram-swinir-tiny.safetensors")
    assert all(torch.equal(parameter, stored[name]) for name, parameter in network.named_parameters())
    assert not network.training
    assert sum(parameter.numel() for parameter in network.parameters()) <= 1_500_000


@pytest.mark.slow
def test_the_bundled_network_shows_the_integrity_gap():
    """Pre-trained on hidden pixels, it restores hidden pixels far better than it restores whole images."""
    from ram_models.networks.masking import random_mask, restore_with_twins

    network = ram_swinir_tiny()
    images = torch.stack([item["image"] for item in sample()])[::4]
    mask = random_mask(len(images), 64, 64, torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, twins = network(images), restore_with_twins(network, images, mask)
    # The degraded inputs stand in for the clean images: the gap is several dB, their own error far less.
    assert (whole - images).square().mean() > 2 * (twins - images).square().mean()


def test_the_sample_is_the_same_every_time():
    first, second = sample(), sample()
    assert len(first) == 12
    assert {item["degradation"] for item in first} == {"noise", "blur", "jpeg"}
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(first, second, strict=True))
    assert all(float(item["image"].min()) >= 0 and float(item["image"].max()) <= 1 for item in first)


@pytest.mark.parametrize("name", ["ram-swinir-tiny", "ram-denoise-tiny", "ram-promptir-tiny"])
def test_networks_by_name_restore_images_of_any_size(name):
    with torch.no_grad():
        assert build(name)(torch.rand(1, 3, 18, 33)).shape == (1, 3, 18, 33)


def test_arguments_replace_those_of_the_name():
    network = create("ram-promptir-tiny", {"num_refinement_blocks": 2})
    assert (len(network.refinement), len(network.latent)) == (2, 1)
    assert network.training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 2}, "'ram-swinir' does not take these .* 'depth'"),
        ({"img_size": 20}, "`img_size` must be a multiple"),
    ],
    ids=["unknown", "contradicting"],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        create("ram-swinir", arguments)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="no network 'swin'; there are ram-swinir, ram-swinir-tiny, ram-denoise"):
        build("swin")


# Files that fit.


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".bin", ".PTH"])
@pytest.mark.parametrize("entry", [None, *ENTRIES], ids=str)
def test_checkpoints_are_loaded_from_every_entry(network, official, tmp_path, entry, suffix):
    file = tmp_path / f"a{suffix}"
    torch.save({entry: official, "iter": 5} if entry else official, file)
    report = load_weights(network, file)
    assert same(network, official)
    assert (report.entries, report.prefix, report.fitting) == ((entry,) if entry else (), "", len(values(network)))


def test_averaged_weights_are_preferred(network, official, tmp_path):
    other = {name: value + 1 for name, value in official.items()}
    torch.save({"params": other, "params_ema": official}, tmp_path / "a.pth")
    assert load_weights(network, tmp_path / "a.pth").entries == ("params_ema",)
    assert same(network, official)


def test_nested_entries_are_followed(network, official, tmp_path):
    torch.save({"model": {"state_dict": official, "epoch": 3}}, tmp_path / "a.pth")
    assert load_weights(network, tmp_path / "a.pth").entries == ("model", "state_dict")
    assert same(network, official)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "net.", "module._orig_mod.", "model.net."])
def test_prefixes_of_wrappers_are_removed(network, official, tmp_path, prefix):
    torch.save({f"{prefix}{name}": value for name, value in official.items()}, tmp_path / "a.pth")
    assert load_weights(network, tmp_path / "a.pth").prefix == prefix
    assert same(network, official)


def test_averages_of_torch_are_loaded(network, tmp_path):
    average = AveragedModel(SwinIR(**SMALL))
    torch.save({"average": average.state_dict(), "network": {}, "step": 3}, tmp_path / "a.pt")
    assert "n_averaged" in load_weights(network, tmp_path / "a.pt").passed_over
    assert same(network, dict(average.module.named_parameters()))


def test_an_empty_average_falls_back_to_the_weights_themselves(network, official, tmp_path):
    torch.save({"average": None, "network": official, "step": 3}, tmp_path / "a.pt")
    assert load_weights(network, tmp_path / "a.pt").entries == ("network",)


@pytest.mark.parametrize("buffers", [True, False], ids=["with_buffers", "without"])
def test_safetensors_are_loaded(network, official, tmp_path, buffers):
    parameters = values(network).keys()
    save_file({name: v for name, v in official.items() if buffers or name in parameters}, tmp_path / "a.safetensors")
    report = load_weights(network, tmp_path / "a.safetensors")
    assert same(network, official)
    assert set(report.passed_over) == (official.keys() - parameters if buffers else set())


def test_files_of_another_training_size_fit_but_for_the_token(network, tmp_path):
    larger = SwinIR(**(SMALL | {"img_size": 24})).state_dict()
    torch.save(larger, tmp_path / "a.pth")
    token = network.mask_token.detach().clone()
    with pytest.warns(UserWarning, match="'a.pth' has no mask_token of the network's size: the network keeps its own"):
        report = load_weights(network, tmp_path / "a.pth")
    assert report.kept == ("mask_token",)
    assert report.fits
    assert network.mask_token.equal(token)
    assert same(network, larger | {"mask_token": token})
    # The buffers are those of the network's own size.
    assert network.state_dict()["layers.0.residual_group.blocks.1.attn_mask"].shape == (4, 64, 64)


def test_files_without_the_token_fit(network, official, tmp_path):
    del official["mask_token"]
    torch.save(official, tmp_path / "a.pth")
    with pytest.warns(UserWarning, match="no mask_token"):
        report = load_weights(network, tmp_path / "a.pth")
    assert (report.kept, report.missing) == (("mask_token",), ())


def test_a_token_that_promptir_does_not_have_is_passed_over(tmp_path):
    network = ram_promptir_tiny()
    other = RGBPromptIR(**NETWORKS["ram-promptir-tiny"][1])
    torch.save(other.state_dict() | {"mask_token": torch.zeros(1, 3, 8, 8)}, tmp_path / "a.pth")
    assert load_weights(network, tmp_path / "a.pth").passed_over == ("mask_token",)
    assert same(network, dict(other.named_parameters()))


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("places", [[""], ["conv_first.", ""], ["layers.0."]], ids=["root", "both", "inside"])
def test_counters_of_profilers_are_passed_over(network, official, tmp_path, prefix, places):
    counters = {f"{place}{name}": torch.zeros(1) for place in places for name in ("total_ops", "total_params")}
    torch.save({f"{prefix}{name}": value for name, value in {**official, **counters}.items()}, tmp_path / "a.pth")
    assert set(counters) <= set(load_weights(network, tmp_path / "a.pth").passed_over)
    assert same(network, official)


@pytest.mark.parametrize(
    ("prefix", "other"),
    [("net.", "loss.vgg.0.weight"), ("generator.", "discriminator.conv.weight"), ("module.net.", "module.vgg.0.bias")],
)
def test_a_loss_network_in_the_same_file_is_passed_over(network, official, tmp_path, prefix, other):
    content = {f"{prefix}{name}": value for name, value in official.items()} | {other: torch.ones(2)}
    torch.save({"state_dict": content}, tmp_path / "a.ckpt")
    report = load_weights(network, tmp_path / "a.ckpt")
    assert (report.prefix, report.passed_over[-1]) == (prefix, other)
    assert same(network, official)


def test_half_of_a_network_beside_a_loss_network_is_refused(network, official, tmp_path):
    content = {f"net.{name}": value for name, value in official.items() if name != "norm.weight"}
    torch.save(content | {"loss.weight": torch.ones(2)}, tmp_path / "a.pth")
    refused(network, tmp_path / "a.pth", "does not fit RGBSwinIR")


@pytest.mark.parametrize(
    "surplus", [{"extra": torch.ones(2)}, {"head.weight": torch.ones(1, 1)}, {"x.y": torch.ones(3)}]
)
def test_weights_that_a_network_refuses_are_not_said_to_fit_it(tmp_path, surplus):
    network = create("ram-promptir-tiny")
    torch.save({**network.state_dict(), **surplus}, tmp_path / "a.pth")
    assert "It fits" not in str(refused(network, tmp_path / "a.pth", "does not fit RGBPromptIR"))


def test_half_precision_is_widened(network, official, tmp_path):
    halves = {name: value.bfloat16() if value.is_floating_point() else value for name, value in official.items()}
    torch.save(halves, tmp_path / "a.pth")
    load_weights(network, tmp_path / "a.pth")
    assert same(network, {name: value.float() for name, value in halves.items()})


def test_older_checkpoints_are_loaded(network, official, tmp_path):
    torch.save(official, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    load_weights(network, tmp_path / "a.pth")
    assert same(network, official)


def test_the_report_names_the_file_and_its_content(network, official, tmp_path):
    torch.save({"params": official}, tmp_path / "a.pth")
    report = load_weights(network, tmp_path / "a.pth")
    assert (report.source, len(report.sha256)) == (tmp_path / "a.pth", 64)
    assert str(report) == (
        f"{len(values(network))} parameters in params fit, 3 passed over "
        "(layers.0.residual_group.blocks.0.attn.relative_position_index, "
        "layers.0.residual_group.blocks.1.attn_mask, layers.0.residual_group.blocks.1.attn.relative_position_index)"
    )


# Files that do not.


def refused(network, file, message):
    """The weights are refused in one line, and nothing has changed."""
    before = values(network)
    with pytest.raises(ValueError, match=message) as caught:
        load_weights(network, file)
    assert "\n" not in str(caught.value)
    assert same(network, before)
    return caught.value


def test_half_fitting_weights_are_refused_and_named(network, official, tmp_path):
    official["surplus"] = official.pop("norm.weight")
    official["norm.bias"] = torch.zeros(3)
    official["conv_last.bias"] = torch.full((3,), torch.nan)
    official["conv_first.bias"] = torch.zeros(8, dtype=torch.int64)
    torch.save(official, tmp_path / "a.pth")
    message = (
        r"'a.pth' does not fit RGBSwinIR and was not loaded: 35 parameters fit, "
        r"1 missing \(norm.weight\), 1 unknown \(surplus\), 1 of another shape \(norm.bias 3 instead of 8\), "
        r"2 not finite numbers \(conv_first.bias, conv_last.bias\)\."
    )
    report = refused(network, tmp_path / "a.pth", message).report
    assert not report.fits
    assert (report.missing, report.unknown) == (("norm.weight",), ("surplus",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm.weight": None}, "38 parameters fit, 1 missing"),
        ({"surplus": torch.zeros(2)}, "39 parameters fit, 1 unknown"),
        ({"norm.weight": torch.zeros(8, 1)}, "38 parameters fit, 1 of another shape .norm.weight 8x1 instead of 8"),
        ({"norm.weight": torch.full((8,), torch.inf)}, "38 parameters fit, 1 not finite"),
    ],
    ids=["missing", "unknown", "of_another_shape", "not_finite"],
)
def test_one_difference_is_enough(network, official, tmp_path, change, message):
    torch.save({name: value for name, value in {**official, **change}.items() if value is not None}, tmp_path / "a.pth")
    refused(network, tmp_path / "a.pth", message)


def test_the_report_of_a_refusal_is_complete(network, official, tmp_path):
    kept = {name: value for name, value in official.items() if "attn" not in name}
    torch.save(kept, tmp_path / "a.pth")
    error = refused(network, tmp_path / "a.pth", r"10 missing \([^,]*, [^,]*, [^,]*, \.\.\.\)")
    assert set(error.report.missing) == {name for name in values(network) if "attn" in name}


def test_weights_of_another_network_are_recognised(network, tmp_path):
    torch.save({"params": PromptIR(**NETWORKS["ram-promptir-tiny"][1]).state_dict()}, tmp_path / "a.pth")
    refused(network, tmp_path / "a.pth", "does not fit RGBSwinIR .* It fits 'ram-promptir-tiny'")


def test_weights_of_no_network_are_refused(network, tmp_path):
    torch.save({"fc.weight": torch.zeros(3, 3)}, tmp_path / "a.pth")
    refused(
        network,
        tmp_path / "a.pth",
        r"0 parameters fit, 1 kept \(mask_token\), 38 missing .* 1 unknown \(fc.weight\)\.$",
    )


@pytest.mark.parametrize("keep", [0.5, 0.99], ids=["half", "end_missing"])
@pytest.mark.parametrize("kind", ["zip", "older", "safetensors"])
def test_truncated_files_are_refused(network, official, tmp_path, kind, keep):
    file = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pth")
    if kind == "safetensors":
        save_file(official, file)
    else:
        torch.save(official, file, _use_new_zipfile_serialization=kind == "zip")
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content))])
    refused(network, file, f"{file.name}' cannot be read as .* may be damaged or incomplete: ")


def test_a_flipped_bit_is_found(network, official, tmp_path):
    """torch.load itself passes over the checksums."""
    file = tmp_path / "a.pth"
    torch.save(official, file)
    token = official["mask_token"].numpy().tobytes()
    content = bytearray(file.read_bytes())
    content[content.index(token)] ^= 1
    file.write_bytes(content)
    refused(network, file, "the checksum of a/data/0 in it is wrong")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", b"", "a.pth' is empty"),
        ("a.safetensors", b"", "a.safetensors' is empty"),
        ("a.pth", b"<html>404</html>", "cannot be read as a torch checkpoint, it may be damaged"),
        ("a.pth", b"\x89PNG" + bytes(99), "cannot be read as a torch checkpoint, it may be damaged"),
        ("a.safetensors", b"broken", "cannot be read as safetensors, it may be damaged"),
        ("a.pth", pickle.dumps({"a": 1}, protocol=2), "cannot be read as a torch checkpoint"),
        ("a.png", b"x", "a.png' is not a weights file by its name, which should end in .safetensors, .pth"),
    ],
    ids=["empty", "empty_safetensors", "web_page", "picture", "text", "pickle", "suffix"],
)
def test_files_that_are_no_checkpoints_are_refused(network, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with warnings.catch_warnings(action="error"):
        refused(network, tmp_path / name, message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), "holds no weights by name but a Tensor"),
        ([1, 2], "holds no weights by name but a list"),
        ({}, "holds no weights by name but nothing"),
        ({"params": {}}, "holds no weights by name but nothing"),
        (
            {"optimizer": {"lr": 1.0}, "epoch": 3},
            r"2 entries \(optimizer, epoch\) are not tensors; expected names",
        ),
        ({3: torch.zeros(2)}, r"1 entries \(3\) are not tensors"),
        ({"a": argparse.Namespace(b=1)}, r"holds more than tensors \(argparse.Namespace\) and is not loaded"),
    ],
    ids=["tensor", "list", "nothing", "nothing_inside", "settings", "numbered", "objects"],
)
def test_checkpoints_without_weights_are_refused(network, tmp_path, content, message):
    torch.save(content, tmp_path / "a.pth")
    refused(network, tmp_path / "a.pth", message)


def test_a_missing_file_is_refused(network, tmp_path):
    refused(network, tmp_path / "none.safetensors", "there is no file .*none.safetensors'")
    refused(network, "runs/none.pth", "there is no file 'runs/none.pth': give one, or a Hugging Face repository")
    refused(network, Path("owner/name"), "there is no file 'owner/name': give one")


def test_a_folder_lists_its_weights(network, tmp_path):
    refused(network, tmp_path, r"is a folder: name a weights file \(it has none\)")
    for name in ("b.pth", "a.safetensors", "log.txt"):
        (tmp_path / name).touch()
    refused(network, tmp_path, r"is a folder: name a weights file \(a.safetensors, b.pth\)")


# Repositories.


@pytest.fixture
def hub(monkeypatch, tmp_path, official):
    """A hub with one repository, and what was asked of it."""
    asked = []
    torch.save({"params": official}, tmp_path / "a.pth")
    repository = SimpleNamespace(files=["README.md", "a.pth"])

    def list_repo_files(repo_id, *, revision=None):
        asked.append((repo_id, revision))
        if repo_id != "owner/name":
            raise RuntimeError(f"404 Client Error.\n\nRepository Not Found for {repo_id}.")
        return repository.files

    def hf_hub_download(repo_id, filename, *, revision=None):
        asked.append((repo_id, filename, revision))
        return str(tmp_path / filename)

    module = SimpleNamespace(list_repo_files=list_repo_files, hf_hub_download=hf_hub_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return SimpleNamespace(asked=asked, repository=repository)


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        ("owner/name", [("owner/name", None), ("owner/name", "a.pth", None)]),
        ("hf://owner/name", [("owner/name", None), ("owner/name", "a.pth", None)]),
        ("owner/name@v1", [("owner/name", "v1"), ("owner/name", "a.pth", "v1")]),
        ("hf://owner/name/a.pth", [("owner/name", "a.pth", None)]),
        ("hf://owner/name@v1/a.pth", [("owner/name", "a.pth", "v1")]),
    ],
    ids=str,
)
def test_weights_come_from_repositories(network, official, hub, source, asked):
    load_weights(network, source)
    assert same(network, official)
    assert hub.asked == asked


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a.pth", "b.pth"], r"has 2 weights files \(a.pth, b.pth\): name one, as in 'hf://owner/name/FILE'"),
        (["README.md"], r"'owner/name' has 0 weights files"),
    ],
    ids=["several", "none"],
)
def test_repositories_without_a_choice_are_refused(network, hub, files, message):
    hub.repository.files = files
    refused(network, "owner/name", message)


def test_an_unknown_repository_is_refused_in_one_line(network, hub):
    refused(network, "owner/other", "no file 'owner/other', and Hugging Face gives none of that name: .* 404 Client")


def test_local_files_go_before_repositories(network, hub, official, tmp_path, monkeypatch):
    (tmp_path / "owner/name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    refused(network, "owner/name", "is a folder")
    assert not hub.asked


def test_without_the_hub_extra_the_way_to_it_is_named(network, official, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if it were not installed
    refused(network, "owner/name", r"to take it from Hugging Face, run: pip install 'macattr\[hub\]'")
    torch.save(official, tmp_path / "a.pth")
    load_weights(network, tmp_path / "a.pth")


def test_the_hub_takes_what_it_is_asked():
    huggingface_hub = pytest.importorskip("huggingface_hub", reason="the extra [hub] is not installed")
    inspect.signature(huggingface_hub.list_repo_files).bind("owner/name", revision=None)
    inspect.signature(huggingface_hub.hf_hub_download).bind("owner/name", "a.pth", revision=None)
