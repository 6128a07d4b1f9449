"""The folder of a run: what is on disk is whole or known not to be, and nothing saved is lost."""

import csv
import errno
import os
import random
import resource
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from torch import nn

from macattr.atomic_files import write_atomically
from ram_models.training.metrics_log import MetricsLog
from ram_models.training.random_state import random_state, restore_random_state
from ram_models.training.run_folder import (
    flat_settings,
    latest_checkpoint,
    record_start,
    refuse_other_settings,
    save_checkpoint,
    save_weights,
)


@contextmanager
def small_disk(limit):
    """Real failing writes: no file may grow beyond ``limit`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def full_disk(_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def steps(folder):
    return [torch.load(file, weights_only=True)["step"] for file in sorted(folder.glob("*.pt"))]


def test_the_newest_checkpoint_is_read_and_the_last_few_are_kept(tmp_path):
    for step in (5, 9, 10, 100):
        save_checkpoint({"step": step}, tmp_path, step, keep=2)
    assert steps(tmp_path) == [10, 100]
    assert latest_checkpoint(tmp_path) == {"step": 100}


def test_a_run_without_checkpoints_begins_anew(tmp_path):
    assert latest_checkpoint(tmp_path / "none") is None


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:-1], id="truncated"),
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:], id="one_bit_flipped"),
    ],
)
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_used(tmp_path, damage):
    save_checkpoint({"step": 1}, tmp_path, 1, keep=3)
    newest = save_checkpoint({"step": 2}, tmp_path, 2, keep=3)
    newest.write_bytes(damage(newest.read_bytes()))
    with pytest.warns(UserWarning, match="step-00000002-.* is damaged .* going back to the one before"):
        assert latest_checkpoint(tmp_path) == {"step": 1}


def test_only_damaged_checkpoints_are_no_new_beginning(tmp_path):
    save_checkpoint({"step": 1}, tmp_path, 1, keep=3).write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="is damaged"),
        pytest.raises(ValueError, match=r"all 1 checkpoints in .* are damaged: restore one"),
    ):
        latest_checkpoint(tmp_path)


def test_a_full_disk_leaves_the_checkpoint_before_and_says_so(tmp_path, monkeypatch):
    save_checkpoint({"step": 1}, tmp_path, 1, keep=1)
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(
        OSError, match=r"could not be written: No space left on device\. What was saved before is intact"
    ):
        save_checkpoint({"step": 2}, tmp_path, 2, keep=1)
    assert steps(tmp_path) == [1]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_write_that_fails_half_way_leaves_the_checkpoint_before(tmp_path):
    """Not simulated: the system refuses the bytes, in the middle of torch.save."""
    save_checkpoint({"step": 1}, tmp_path, 1, keep=1)
    with small_disk(4096), pytest.raises(OSError, match=r"could not be written: .+ What was saved before is intact"):
        save_checkpoint({"step": 2, "weights": torch.zeros(10_000)}, tmp_path, 2, keep=1)
    assert steps(tmp_path) == [1]
    assert len(list(tmp_path.iterdir())) == 1


def test_an_atomic_write_replaces_the_old_file_whole(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old and long")
    write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"


def test_weights_carry_the_settings_of_their_run(tmp_path):
    save_weights(nn.Linear(2, 3), tmp_path / "a.safetensors", {"optim.lr": "0.1"})
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == {"settings": '{"optim.lr": "0.1"}'}
        assert set(file.keys()) == {"weight", "bias"}


def test_restored_random_states_give_the_same_numbers_again():
    def draw():
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), np.random.randn(), random.random()

    draw()
    state = random_state()
    expected = draw()
    restore_random_state(state)
    assert draw() == expected


def test_random_states_survive_a_checkpoint(tmp_path):
    np.random.randn()  # leaves a second normal number behind, which is part of the state
    save_checkpoint({"random": random_state()}, tmp_path, 1, keep=1)
    expected = np.random.randn(), torch.rand(()).item()
    restore_random_state(latest_checkpoint(tmp_path)["random"])
    assert (np.random.randn(), torch.rand(()).item()) == expected


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5


@dataclass(frozen=True)
class Outer:
    inner: Inner
    name: str


def test_settings_are_named_by_their_path():
    assert flat_settings(Outer(Inner(), "a")) == {"inner.rate": "0.5", "name": "a"}


@pytest.mark.parametrize(
    ("stored", "message"),
    [({"a": "1"}, "with a = 1, got 2"), ({"a": "2", "b": "3"}, "with b = 3, got None"), ({}, "with a = None, got 2")],
    ids=["other_value", "gone", "new"],
)
def test_other_settings_are_refused_by_name(tmp_path, stored, message):
    with pytest.raises(ValueError, match=f"was made {message}: continue with the same settings"):
        refuse_other_settings(stored, {"a": "2"}, tmp_path)


def test_bundled_weights_are_the_same_in_a_checkout_that_was_moved(tmp_path):
    here, there = ({"network.weights": f"{root}/ram_models/weights/tiny.safetensors"} for root in ("/a", "/b/lib"))
    refuse_other_settings(here, there, tmp_path)


@pytest.mark.parametrize(("name", "is_same"), [("pretrain/one", True), ("pretrain/other", False)])
def test_a_study_that_was_moved_with_its_networks_continues(tmp_path, name, is_same):
    run, old = tmp_path / "finetune" / "mac", Path("/old/study")
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump({"out": str(old / "finetune" / "mac")}))
    stored = {"network.weights": str(old / "pretrain/one/weights.safetensors"), "optim.lr": "0.1"}
    settings = {"network.weights": str(tmp_path / name / "weights.safetensors"), "optim.lr": "0.1"}
    with nullcontext() if is_same else pytest.raises(ValueError, match=r"was made with network.weights = /old/study"):
        refuse_other_settings(stored, settings, run)
    with pytest.raises(ValueError, match=r"was made with optim.lr = 0.1, got 0.2"):
        refuse_other_settings(stored, settings | {"network.weights": stored["network.weights"], "optim.lr": "0.2"}, run)


@pytest.mark.parametrize("other", ["/a/ram_models/weights/other.safetensors", "/a/weights/tiny.safetensors"])
def test_other_weights_are_refused(tmp_path, other):
    stored = {"network.weights": "/a/ram_models/weights/tiny.safetensors"}
    with pytest.raises(ValueError, match=r"was made with network.weights = /a/ram_models/weights/tiny.safetensors"):
        refuse_other_settings(stored, {"network.weights": other}, tmp_path)


def test_every_start_is_recorded_beside_the_configuration(tmp_path):
    for step in (0, 7):
        record_start(tmp_path, Outer(Inner(), "a"), step, {"seed": 3})
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == {"inner": {"rate": 0.5}, "name": "a"}
    starts = yaml.safe_load((tmp_path / "starts.yaml").read_text())
    assert [(start["step"], start["seed"]) for start in starts] == [(0, 3), (7, 3)]
    assert starts[0]["versions"]["torch"] == torch.__version__


def test_metrics_go_on_where_the_checkpoint_was_and_times_stand_apart(tmp_path):
    with MetricsLog(tmp_path, ["psnr"], None, 0, 4, 2) as log:
        for step in (1, 2):
            log.step()
            log.row(step, {"loss": 1 / 3, "lr": 0.1} | ({"psnr": 20.5} if step == 2 else {}))
    saved = (tmp_path / "metrics.csv").read_text()
    assert saved == f"step,loss,lr,psnr\n1,{1 / 3},0.1,\n2,{1 / 3},0.1,20.5\n"
    MetricsLog(tmp_path, ["psnr"], None, 2, 4, 2).row(3, {"loss": 0.0, "lr": 0.0})
    MetricsLog(tmp_path, ["psnr"], saved, 2, 4, 2)
    assert (tmp_path / "metrics.csv").read_text() == saved
    with (tmp_path / "timing.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3"]


def test_an_inactive_log_writes_nothing(tmp_path):
    with MetricsLog(tmp_path, [], None, 0, 4, 2, tensorboard=True, active=False) as log:
        log.step()
        log.row(1, {"loss": 1.0})
    assert not list(tmp_path.iterdir())


def test_tensorboard_gets_scalars_and_the_picture(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with MetricsLog(tmp_path, ["psnr"], None, 0, 4, 2, tensorboard=True) as log:
        log.step()
        log.row(1, {"loss": 0.25, "lr": 0.1, "psnr": 20.0}, torch.rand(3, 4, 6))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "lr", "psnr", "images_per_second"}
    assert events.Scalars("loss")[0].value == 0.25
    assert (events.Images("held-out crops")[0].width, events.Images("held-out crops")[0].height) == (6, 4)
