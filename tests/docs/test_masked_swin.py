"""The small masked Swin of notebook 06: its weights, its training script, and how complete its rankings are."""

import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

import macattr

transformers = pytest.importorskip("transformers")

FOLDER = Path(__file__).parents[2] / "notebooks" / "masked_swin"

_spec = importlib.util.spec_from_file_location("train", FOLDER / "train.py")
train = importlib.util.module_from_spec(_spec)
sys.modules["train"] = train  # where dataclasses look up their annotations
_spec.loader.exec_module(train)


@pytest.fixture(scope="module")
def network():
    return transformers.SwinForMaskedImageModeling.from_pretrained(FOLDER).eval()


@pytest.fixture(scope="module")
def drawn():
    photographs = [torch.tensor(getattr(data, name)()).permute(2, 0, 1) for name in ("astronaut", "coffee", "rocket")]
    images, hidden = zip(*(train.Crops([photograph], 0).batch(0, 1) for photograph in photographs), strict=True)
    return torch.cat(images), torch.cat(hidden)


@pytest.fixture
def photographs(tmp_path):
    random = np.random.default_rng(0)
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(26):
        Image.fromarray(random.integers(0, 256, (128, 130, 3), np.uint8)).save(folder / f"{number:02}.png")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(folder / "small.png")
    return folder


def test_the_network_is_built_as_the_script_says(network):
    assert {name: getattr(network.config, name) for name in train.CONFIG} == train.CONFIG


def test_the_network_guesses_hidden_patches_better_than_their_neighbourhood(network, drawn):
    images, hidden = drawn
    with torch.no_grad():
        output = network(images, bool_masked_pos=hidden)
    error = train.hidden_error(output.reconstruction, images, hidden)
    guesses = {name: train.hidden_error(guess, images, hidden) for name, guess in train.simple_guesses(*drawn).items()}
    assert error == pytest.approx(output.loss.item(), rel=1e-4)  # the same mean, over half a million terms
    assert error < 0.85 * guesses["mean colour nearby"] < 0.85 * guesses["mean colour"]


@pytest.mark.slow
def test_rankings_of_the_network_are_complete_within_two_percent(network, drawn):
    path = macattr.TokenMaskPath(r=0.5, groups=1)
    found = macattr.rank_layers(
        network, drawn[0][:1], layers="decoder.0", path=path, objective="masked_loss", n_steps=60
    )
    change = found.dataset["objective_end"] - found.dataset["objective_start"]
    assert abs(change.item()) > 0.1 * found.dataset["objective_start"].item()  # else "of the change" says little
    assert abs(found.dataset["input_residual"].item()) < 0.02


def test_simple_guesses_are_exact_for_one_colour():
    images, hidden = torch.full((1, 3, 64, 64), 0.25), torch.arange(256)[None] % 2 == 0
    for guess in train.simple_guesses(images, hidden).values():
        torch.testing.assert_close(guess, images, rtol=1e-5, atol=0)  # sums of 4096 terms in float32


def test_a_batch_depends_on_seed_and_number_alone():
    photographs = [torch.randint(256, (3, 150, 140), dtype=torch.uint8)]
    first, again = train.Crops(photographs, 3), train.Crops(photographs, 3)
    again.batch(0, 2)
    images, hidden = first.batch(1, 2)
    torch.testing.assert_close(again.batch(1, 2), (images, hidden), rtol=0, atol=0)
    assert hidden.sum(1).tolist() == [128, 128]
    assert not torch.equal(first.batch(2, 2)[0], images)


@pytest.mark.slow
def test_a_stopped_run_continues_to_the_same_weights(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "REPORT", 2)
    monkeypatch.setattr(train, "HELD_OUT", 2)

    def go(folder):
        given = [str(photographs), "--out", str(folder), "--steps", "4", "--batch", "2", "--float32"]
        monkeypatch.setattr(sys, "argv", ["train.py", *given])
        train.main()
        return (folder / "model.safetensors").read_bytes()

    whole = go(tmp_path / "whole")
    stop = train.Run.save

    def save_and_stop(run, file):
        stop(run, file)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train.Run, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "stopped")
    assert go(tmp_path / "stopped") == whole
    with (tmp_path / "stopped" / "training.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "4"]
    assert not (tmp_path / "stopped" / "state.pt").exists()


def test_too_few_photographs_are_refused(photographs, monkeypatch):
    monkeypatch.setattr(train, "HELD_OUT", 26)
    with pytest.raises(ValueError, match="has 26 images of at least 128 pixels a side: 26 are held out"):
        train.read_photographs(photographs)


@pytest.mark.parametrize("script", ["train", "measure"])
def test_a_script_explains_itself(script, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location(script, FOLDER / f"{script}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, script, module)
    monkeypatch.setitem(sys.modules, "train", train)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit, match="0"):
        module.main()
    assert "python notebooks/masked_swin" in capsys.readouterr().out
