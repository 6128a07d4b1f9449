import csv
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ram_models.archs.rgb import RGBSwinIR
from ram_models.recipes import pretrain
from ram_models.recipes.pretrain import Config, learning_rate, main, masked_l1

NETWORK = {"img_size": 16, "embed_dim": 4, "depths": [1], "num_heads": [1]}


@pytest.fixture
def config(tmp_path):
    """Six steps of a network with one block on four pictures."""
    folder = tmp_path / "data"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(4):
        pixels = generator.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((24, 20), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    before = signal.getsignal(signal.SIGTERM)
    yield Config(
        folder, tmp_path / "run", NETWORK, steps=6, batch_size=2, crop=16, warmup=2, held_out=2, validate_every=2
    )
    signal.signal(signal.SIGTERM, before)


def weights(config):
    return load_file(config.out / "weights.safetensors")


def watch_steps(monkeypatch, number=0, stop=None):
    """The masks of all steps; calls ``stop`` in the step of the given number."""
    masks = []

    def loss(restored, clean, mask):
        masks.append(mask)
        if len(masks) == number:
            stop()
        return masked_l1(restored, clean, mask)

    monkeypatch.setattr(pretrain, "masked_l1", loss)
    return masks


def crash():
    raise RuntimeError("power cut")


def test_masked_l1_is_the_mean_error_of_the_hidden_pixels():
    clean, mask = torch.zeros(1, 3, 2, 2), torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    restored = torch.tensor([[0.1, 9.0], [0.3, 9.0]]).expand(1, 3, 2, 2)
    assert float(masked_l1(restored, clean, mask)) == pytest.approx(0.2)


def test_masked_l1_ignores_visible_pixels():
    restored, clean = torch.rand(2, 2, 3, 8, 8)
    restored.requires_grad_()
    mask = (torch.rand(2, 8, 8) < 0.5).float()
    (gradient,) = torch.autograd.grad(masked_l1(restored, clean, mask), restored)
    visible = (mask == 0)[:, None].expand_as(gradient)
    assert gradient[visible].abs().max() == 0
    assert gradient[~visible].abs().min() > 0


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0.25), (3, 1.0), (4, 1.0), (8, 0.55), (12, 0.1)],
    ids=["first", "end_of_warmup", "peak", "half_way", "final"],
)
def test_the_learning_rate_rises_linearly_and_falls_as_a_cosine(tmp_path, step, rate):
    config = Config(tmp_path, tmp_path, steps=12, warmup=4, lr=1.0, lr_final=0.1)
    assert learning_rate(step, config) == pytest.approx(rate)


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])
def test_a_run_that_is_terminated_and_resumed_ends_with_the_same_weights(config, tmp_path, monkeypatch, bf16):
    whole = Config(**(vars(config) | {"out": tmp_path / "whole", "bf16": bf16}))
    halved = Config(**(vars(config) | {"out": tmp_path / "halved", "bf16": bf16}))
    main(whole)
    with monkeypatch.context() as patched:
        watch_steps(patched, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        main(halved)
    assert not (halved.out / "weights.safetensors").exists()
    main(halved)
    torch.testing.assert_close(weights(halved), weights(whole), rtol=0, atol=0)


def test_a_run_that_crashes_and_is_resumed_ends_with_the_same_weights(config, tmp_path, monkeypatch):
    whole = Config(**(vars(config) | {"out": tmp_path / "whole"}))
    crashed = Config(**(vars(config) | {"out": tmp_path / "crashed"}))
    main(whole)
    with monkeypatch.context() as patched:
        watch_steps(patched, 6, crash)
        with pytest.raises(RuntimeError, match="power cut"):
            main(crashed)
    main(crashed)
    torch.testing.assert_close(weights(crashed), weights(whole), rtol=0, atol=0)


def test_every_step_hides_other_pixels(config, monkeypatch):
    masks = watch_steps(monkeypatch)
    main(config)
    assert len({tuple(mask.flatten().tolist()) for batch in masks for mask in batch}) == 12
    assert {float(mask.mean()) for mask in masks} == {0.5}


def test_the_seed_decides_the_weights(config, tmp_path):
    runs = [Config(**(vars(config) | {"out": tmp_path / f"{i}", "seed": i, "steps": 1})) for i in range(2)]
    for run in runs:
        main(run)
    assert not weights(runs[0])["conv_first.weight"].equal(weights(runs[1])["conv_first.weight"])


def test_training_lowers_the_error_on_held_out_images(config):
    main(Config(**(vars(config) | {"steps": 60, "lr": 1e-2, "validate_every": 20})))
    with (config.out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["20", "40", "60"]
    assert float(rows[-1]["loss"]) < 0.8 * float(rows[0]["loss"])
    assert float(rows[-1]["psnr_twins"]) > float(rows[0]["psnr_twins"]) + 1


def test_a_finished_run_is_left_alone(config):
    main(config)
    before, rows = weights(config), (config.out / "metrics.csv").read_text()
    main(config)
    torch.testing.assert_close(weights(config), before, rtol=0, atol=0)
    assert (config.out / "metrics.csv").read_text() == rows


def test_the_weights_load_into_the_network(config):
    main(config)
    missing, unexpected = RGBSwinIR(**NETWORK).load_state_dict(weights(config), strict=False)
    assert not unexpected
    assert all(name.endswith(("relative_position_index", "attn_mask")) for name in missing)


def test_an_interrupted_write_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    pretrain.save_atomically({"step": 1}, path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: crash())
        with pytest.raises(RuntimeError, match="power cut"):
            pretrain.save_atomically({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}


@pytest.mark.parametrize("held_out", [0, 4, 9])
def test_images_must_remain_for_training_and_validation(config, held_out):
    with pytest.raises(ValueError, match=f"`held_out` must leave .* of the 4 images, got {held_out}"):
        main(Config(**(vars(config) | {"held_out": held_out})))


def test_a_run_does_not_continue_with_other_settings(config):
    main(Config(**(vars(config) | {"steps": 1})))
    with pytest.raises(ValueError, match=r"was made with lr = 0\.\d+, got 1\.0: continue with the same settings"):
        main(Config(**(vars(config) | {"steps": 1, "lr": 1.0})))
