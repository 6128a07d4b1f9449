"""Masked pre-training: a run is a function of its configuration, whatever interrupts it and however it is divided."""

import csv
import errno
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from macattr import atomic_files as files
from ram_models import build
from ram_models.recipes import pretrain
from ram_models.recipes.pretrain import Config, Masks, Network, main
from ram_models.training.config import Compute, Data, Log, Optim
from ram_models.training.crops import training_crops
from ram_models.training.losses import masked_l1
from ram_models.training.run_folder import latest_checkpoint

NETWORK = {"img_size": 16, "embed_dim": 4, "depths": [1], "num_heads": [1]}
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])}
YAML = """
data: {{clean: {folder}, crop: 16}}
out: {out}
network: {{arguments: {{img_size: 16, embed_dim: 4, depths: [1], num_heads: [1]}}}}
optim: {{steps: {steps}, batch_size: 4, warmup: 2, ema: 0.9, lr: 1.0e-2, muon: 1.0e-2}}
log: {{every: 1, validate_every: 7, save_every: 5, tensorboard: false}}
"""


@pytest.fixture(autouse=True)
def one_thread():
    """In this process as in those that the tests start: sums over other numbers of threads differ in their last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def config(pictures, tmp_path):
    """Six steps of a network with one block on four pictures."""
    return Config(
        Data(clean=pictures, crop=16),
        tmp_path / "run",
        Network(arguments=NETWORK),
        optim=Optim(steps=6, batch_size=2, warmup=2, ema=0.9),
        log=Log(every=1, validate_every=2, save_every=2, tensorboard=False),
    )


def weights(config):
    return load_file(config.out / "weights.safetensors")


def rows(config):
    with (config.out / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def losses(out):
    with (out / "metrics.csv").open() as file:
        return torch.tensor([float(row["loss"]) for row in csv.DictReader(file)], dtype=torch.float64)


def differences(a, b, name=""):
    """Where two nested states differ in any bit."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [found for key in a for found in differences(a[key], b[key], f"{name}/{key}")]
    if isinstance(a, list | tuple) and len(a) == len(b):
        return [found for key in range(len(a)) for found in differences(a[key], b[key], f"{name}/{key}")]
    return [] if (torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b) else [name]


def assert_same_end(one, other):
    """Weights, moving average, optimiser, random states, settings and metrics of two finished runs are equal."""
    found = differences(*(latest_checkpoint(out / "checkpoints") for out in (one, other)))
    # the type checks of these tests draw from Python's own generator
    assert not [name for name in found if not name.startswith("/random/0/python")]
    for name in ("weights.safetensors", "metrics.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def watch_passes(monkeypatch, number=0, stop=None):
    """The masks of all passes; calls ``stop`` in the pass of the given number."""
    masks = []

    def loss(restored, clean, mask):
        masks.append(mask)
        if len(masks) == number:
            stop()
        return masked_l1(restored, clean, mask)

    monkeypatch.setattr(pretrain, "masked_l1", loss)
    return masks


@contextmanager
def stopped(number):
    """Expects that a signal reaches this process, whatever pytest does with it."""

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(number, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        signal.signal(number, before)


def crash():
    raise RuntimeError("power cut")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["terminated", "ctrl_c"])
def test_a_run_that_is_stopped_saves_ends_cleanly_and_goes_on(config, tmp_path, monkeypatch, capsys, number):
    whole, halved = replace(config, out=tmp_path / "whole"), replace(config, out=tmp_path / "halved")
    main(whole)
    with monkeypatch.context() as patched, stopped(number):
        watch_passes(patched, 3, lambda: os.kill(os.getpid(), number))
        main(halved)
    assert "stopped after step 3 of 6; the same command continues there" in capsys.readouterr().out
    assert not (halved.out / "weights.safetensors").exists()
    main(halved)
    assert_same_end(whole.out, halved.out)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"compute": Compute("bf16")}, id="bf16"),
        pytest.param({"optim": Optim(steps=6, batch_size=2, ema=None, clip=None)}, id="no_average_no_clip"),
        pytest.param({"compute": Compute(accumulate=2)}, id="accumulated"),
        pytest.param({"log": Log(every=4, validate_every=6, save_every=3, tensorboard=False)}, id="save_between_rows"),
    ],
)
def test_a_run_that_crashes_goes_on_from_its_last_checkpoint(config, tmp_path, monkeypatch, changes):
    whole, crashed = (replace(config, out=tmp_path / name, **changes) for name in ("whole", "crashed"))
    main(whole)
    with monkeypatch.context() as patched:
        watch_passes(patched, 6 * whole.compute.accumulate, crash)
        with pytest.raises(RuntimeError, match="power cut"):
            main(crashed)
    main(crashed)
    assert_same_end(whole.out, crashed.out)


def test_a_truncated_checkpoint_costs_a_warning_and_nothing_else(config, tmp_path):
    whole, damaged = replace(config, out=tmp_path / "whole"), replace(config, out=tmp_path / "damaged")
    main(whole)
    main(damaged)
    newest = max((damaged.out / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="is damaged .* going back to the one before"):
        main(damaged)
    newest.unlink(missing_ok=True)
    assert (damaged.out / "metrics.csv").read_bytes() == (whole.out / "metrics.csv").read_bytes()
    assert not differences(weights(damaged), weights(whole))


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_as_if_it_had_not_been(pictures, tmp_path):
    """SIGKILL, from outside, while steps of some ten milliseconds and writes of checkpoints follow each other."""
    file = tmp_path / "config.yaml"
    file.write_text(YAML.format(folder=pictures, out=tmp_path / "killed", steps=60))
    command = [sys.executable, "-c", SCRIPT.format(file=file)]
    metrics = tmp_path / "killed" / "metrics.csv"
    with subprocess.Popen(command, env=ENVIRONMENT) as process:
        while process.poll() is None and not (metrics.exists() and len(metrics.read_text().splitlines()) > 8):
            time.sleep(0.005)
        process.kill()
    assert 5 <= latest_checkpoint(tmp_path / "killed" / "checkpoints")["step"] < 60
    main(from_yaml(file))
    file.write_text(YAML.format(folder=pictures, out=tmp_path / "whole", steps=60))
    main(from_yaml(file))
    assert_same_end(tmp_path / "whole", tmp_path / "killed")


SCRIPT = """
from jsonargparse import auto_cli
from ram_models.recipes.pretrain import Config, main
import torch
torch.set_num_threads(1)
main(auto_cli(Config, as_positional=False, args=["--config", "{file}"]))
"""


def from_yaml(file, *options):
    from jsonargparse import auto_cli

    return auto_cli(Config, as_positional=False, args=["--config", str(file), *options])


@pytest.mark.slow
def test_a_run_killed_at_random_times_ends_as_if_it_had_not_been(pictures, tmp_path):
    """SIGKILL five times, also at the start; ``RAM_KILLS`` sets another number of times."""
    generator, killed, kills = random.Random(0), 0, int(os.environ.get("RAM_KILLS", "5"))
    file = tmp_path / "config.yaml"
    file.write_text(YAML.format(folder=pictures, out=tmp_path / "killed", steps=40 * kills))
    command = [sys.executable, "-c", SCRIPT.format(file=file)]
    for _ in range(kills):
        with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL) as process:
            wait_for(tmp_path / "killed" / "starts.yaml", process)
            time.sleep(generator.uniform(0, 1.5))
            process.kill()
            killed += process.wait() == -signal.SIGKILL
    print(f"killed {killed} times at step {latest_checkpoint(tmp_path / 'killed' / 'checkpoints')['step']} at most")
    assert killed > kills // 2  # on a fast machine the last starts find the run complete
    main(from_yaml(file))
    file.write_text(YAML.format(folder=pictures, out=tmp_path / "whole", steps=40 * kills))
    main(from_yaml(file))
    assert_same_end(tmp_path / "whole", tmp_path / "killed")


def wait_for(file, process):
    """Wait until a file grows, or the process ends."""
    before = file.stat().st_size if file.exists() else 0
    while process.poll() is None and (file.stat().st_size if file.exists() else 0) == before:
        time.sleep(0.02)


def command_line(file, *options):
    return [sys.executable, "-m", "ram_models.cli", "pretrain", "--config", str(file), *options]


def ctrl_c():
    """Let Ctrl-C interrupt a job in the background, which ignores it otherwise."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["terminated", "ctrl_c"]
)
def test_a_signal_ends_the_command_with_its_exit_code_and_a_checkpoint(pictures, tmp_path, number, code):
    file, out = tmp_path / "config.yaml", tmp_path / "run"
    file.write_text(YAML.format(folder=pictures, out=out, steps=100_000))
    command = [*command_line(file), "--log.save-every", "100000"]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, preexec_fn=ctrl_c) as process:
        while process.poll() is None and not ((out / "metrics.csv").exists() and rows_in(out) > 2):
            time.sleep(0.02)
        process.send_signal(number)
        error = process.communicate()[1]
    assert process.returncode == code
    assert "Traceback" not in error
    assert latest_checkpoint(out / "checkpoints")["step"] > 2
    assert not (out / "weights.safetensors").exists()


def rows_in(out):
    return len((out / "metrics.csv").read_text().splitlines())


def test_a_second_run_in_the_same_folder_is_refused(config, monkeypatch):
    """By the second itself, while the first is in its third pass: no row is doubled."""
    refusals = []

    def start_again():
        try:
            main(config)
        except ValueError as error:
            refusals.append(str(error))

    watch_passes(monkeypatch, 3, start_again)
    main(config)
    assert len(refusals) == 1
    assert re.search(r"run' is in use by process \d+ on .+: wait until it ends, or choose another folder", refusals[0])
    assert [row["step"] for row in rows(config)] == ["1", "2", "3", "4", "5", "6"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "`seed` must be a whole number from 0 to"),
        ({"seed": 2**70}, "`seed` must be a whole number from 0 to"),
        ({"seed": 2**32}, "`seed` must be a whole number from 0 to"),
        ({"masks": Masks(patch_size=3)}, "`masks.patch_size` 3 must divide `data.crop`, which is 16"),
        ({"compute": Compute(accumulate=4)}, "`compute.accumulate` 4 must divide `optim.batch_size` 2"),
    ],
    ids=["negative", "huge", "too_large", "patches", "passes"],
)
def test_settings_that_contradict_each_other_are_refused_at_once(config, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(config, **changes)


@pytest.mark.parametrize("settings", [{"patch_size": 0}, {"patch_size": -1}, {"ratio": 1.0}, {"ratio": 0.0}])
def test_impossible_masks_are_refused(settings):
    with pytest.raises(ValueError, match=r"`masks\.(patch_size|ratio)` must"):
        Masks(**settings)


def test_two_processes_have_the_losses_of_one_with_the_doubled_batch(pictures, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(YAML.format(folder=pictures, out=tmp_path / "two", steps=12))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(file=file))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(launcher, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    file.write_text(YAML.format(folder=pictures, out=tmp_path / "one", steps=12))
    main(from_yaml(file))
    stored = latest_checkpoint(tmp_path / "two" / "checkpoints")
    assert len(stored["random"]) == 2
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == 12
    # Gradients are added up in another order: float32 rounding, which twelve steps of Adam amplify.
    torch.testing.assert_close(two, one, rtol=0, atol=1e-5)
    assert one.std() > 1e-2


def test_accumulated_passes_have_the_losses_of_one_pass(config, tmp_path):
    optim = replace(config.optim, batch_size=4, lr=1e-2)
    for count in (1, 4):
        main(replace(config, out=tmp_path / str(count), optim=optim, compute=Compute(accumulate=count)))
    # as for two processes
    torch.testing.assert_close(losses(tmp_path / "4"), losses(tmp_path / "1"), rtol=0, atol=1e-5)


def test_loading_processes_change_no_bit(config, tmp_path):
    for workers in (0, 2):
        main(replace(config, out=tmp_path / str(workers), compute=Compute(workers=workers)))
    assert not differences(*(load_file(tmp_path / workers / "weights.safetensors") for workers in ("0", "2")))


def test_every_crop_has_a_mask_of_its_own(config, monkeypatch):
    masks = watch_passes(monkeypatch)
    main(config)
    assert len({tuple(mask.flatten().tolist()) for batch in masks for mask in batch}) == 12
    assert {float(mask.mean()) for mask in masks} == {0.5}


def test_the_seed_decides_the_weights(config, tmp_path):
    seeded = [replace(config, out=tmp_path / f"{i}", seed=i, optim=Optim(steps=1)) for i in range(2)]
    for run in seeded:
        main(run)
    assert not weights(seeded[0])["conv_first.weight"].equal(weights(seeded[1])["conv_first.weight"])


@pytest.mark.slow
def test_training_lowers_the_error_on_held_out_images(config):
    optim = Optim(steps=60, batch_size=2, lr=1e-2, ema=0.5)
    main(replace(config, optim=optim, log=Log(20, 20, 60, tensorboard=False)))
    assert [row["step"] for row in rows(config)] == ["20", "40", "60"]
    assert float(rows(config)[-1]["loss"]) < 0.8 * float(rows(config)[0]["loss"])
    assert float(rows(config)[-1]["psnr_twins"]) > float(rows(config)[0]["psnr_twins"]) + 1


def test_the_moving_average_is_what_is_written(config):
    main(config)
    state = latest_checkpoint(config.out / "checkpoints")
    average = {name.removeprefix("module."): value for name, value in state["average"].items()}
    assert all(torch.equal(average[name], value) for name, value in weights(config).items())
    assert not torch.equal(state["network"]["conv_first.weight"], average["conv_first.weight"])


def test_the_moving_average_forgets_at_its_rate(config, tmp_path):
    """By its definition, from the weights of two steps: E_2 = d E_1 + (1 - d) W_2, with E_1 = W_1."""
    averaged = replace(config, optim=Optim(steps=2, batch_size=2, ema=0.9), log=Log(1, 2, 1, tensorboard=False))
    plain = replace(averaged, out=tmp_path / "plain", optim=Optim(steps=2, batch_size=2))
    main(averaged)
    main(plain)
    files = sorted((plain.out / "checkpoints").iterdir())
    first, second = (torch.load(file)["network"]["conv_first.weight"] for file in files)
    # float32 rounding
    torch.testing.assert_close(weights(averaged)["conv_first.weight"], 0.9 * first + 0.1 * second, rtol=1e-5, atol=1e-7)


def test_without_masks_the_baseline_learns_from_all_pixels(config, monkeypatch):
    masks = watch_passes(monkeypatch)
    main(replace(config, masks=Masks(ratio=None)))
    assert not masks
    assert set(rows(config)[0]) == {"step", "loss", "lr", "psnr_input", "psnr_whole"}


@pytest.mark.parametrize("name", ["ram-promptir-tiny", "ram-swinir-tiny"])
def test_the_weights_and_the_checkpoints_of_a_run_load_by_name(config, name):
    main(replace(config, network=Network(name), optim=Optim(steps=1, batch_size=1, ema=0.9)))
    written = weights(config)
    (checkpoint,) = (config.out / "checkpoints").iterdir()
    for file in (config.out / "weights.safetensors", checkpoint):
        loaded = dict(build(name, file).named_parameters())
        assert loaded.keys() == written.keys()
        assert all(torch.equal(value, written[key]) for key, value in loaded.items())


def test_a_finished_run_is_left_alone(config):
    main(config)
    before, metrics = weights(config), (config.out / "metrics.csv").read_text()
    main(config)
    assert not differences(weights(config), before)
    assert (config.out / "metrics.csv").read_text() == metrics


def test_a_full_disk_ends_the_run_with_the_checkpoint_before_intact(config, monkeypatch):
    def full_disk(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        watch_passes(patched, 4, lambda: patched.setattr(files.os, "fsync", full_disk))
        with pytest.raises(OSError, match=r"could not be written: No space left on device\. What was saved before"):
            main(config)
    assert latest_checkpoint(config.out / "checkpoints")["step"] == 2
    main(config)
    assert len(rows(config)) == 6


@pytest.mark.parametrize(("broken", "last_row"), [("[012].png", 4), ("3.png", 3)], ids=["training", "held_out"])
def test_a_broken_image_loses_no_finished_step(config, pictures, monkeypatch, broken, last_row):
    log = replace(config.log, validate_every=4, save_every=6)
    run = replace(config, compute=Compute(cache_megabytes=0.0), log=log)
    whole = {file: file.read_bytes() for file in pictures.glob(broken)}
    with monkeypatch.context() as patched:
        watch_passes(patched, 4, lambda: [file.write_bytes(content[:60]) for file, content in whole.items()])
        with pytest.raises(ValueError, match=r"^'.*/\d\.png' cannot be read as an image: .*\.$"):
            main(run)
    assert latest_checkpoint(run.out / "checkpoints")["step"] == 4
    assert int(rows(run)[-1]["step"]) == last_row
    for file, content in whole.items():
        file.write_bytes(content)
    main(run)
    assert [int(row["step"]) for row in rows(run)] == [*range(1, last_row + 1), 5, 6]


def test_a_diverging_run_stops_before_it_saves_what_is_not_finite(config):
    with pytest.raises(ValueError, match=r"the loss is nan within .* lower `optim.lr`"):
        main(replace(config, optim=Optim(steps=6, batch_size=2, lr=1e30, warmup=0, clip=None)))
    stored = latest_checkpoint(config.out / "checkpoints")
    assert stored is None or torch.isfinite(torch.tensor(stored["losses"])).all()


def test_a_run_does_not_continue_with_other_settings(config):
    main(replace(config, optim=Optim(steps=1)))
    with pytest.raises(
        ValueError, match=r"was made with optim\.lr = 0\.\d+, got 1\.0: continue with the same settings"
    ):
        main(replace(config, optim=Optim(steps=1, lr=1.0)))


def test_a_run_that_continues_on_other_images_says_so(config, pictures):
    main(config)
    (pictures / "0.png").rename(pictures / "0a.png")
    with pytest.warns(UserWarning, match="the run began with other images"):
        main(config)


def test_a_held_out_image_of_one_folder_is_not_trained_on_through_another(tmp_path):
    for part in ("a", "z"):
        (tmp_path / part).mkdir()
        for number in range(8):
            Image.new("RGB", (24, 20), (30 * number, 0, 0)).save(tmp_path / part / f"{number}.png")
    data = Data(clean=[tmp_path, tmp_path / "a"], crop=16, held_out=4, tasks=["noise"])
    training, held_out = training_crops(data, Optim(steps=1, batch_size=1), Compute(), 0)
    last = {pair.clean.resolve() for pair in held_out.clean}
    assert last
    assert not last & {pair.clean.resolve() for pair in training.clean}
