"""Commands that run again, are mistyped, or follow one another: nothing is taken for what it is not, or lost."""

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from macattr.cli import main
from macattr.ranking.importance import LayerImportance
from macattr.selection.score_files import read_scores

NETWORK = """
from pathlib import Path

import torch
from torch import nn

def network():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 3, 3, padding=1)
    return nn.Sequential(*layers)

def photos():
    return [torch.linspace(0, float(Path("level").read_text()), 432).reshape(3, 12, 12)]
"""


@pytest.fixture
def model(tmp_path, monkeypatch, request) -> str:
    name = f"cli_again_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    return f"{name}.py:network"


def paint(file: Path, seed: int, side: int = 14) -> None:
    file.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)).save(file)


@pytest.fixture
def images(tmp_path, model) -> str:
    for number in range(2):
        paint(tmp_path / "images" / f"{number}.png", number)
    return "images"


def rank(model, *more, images="images", steps=("--n-steps", "3")):
    main(["rank", "--model", model, "--images", images, *steps, *more])


def refused(capsys, *words: str) -> str:
    with pytest.raises(SystemExit, match="2"):
        main(list(words))
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return " ".join(error.split())


def refused_rank(capsys, model, *more):
    return refused(capsys, "rank", "--model", model, "--images", "images", *more)


@pytest.mark.parametrize("changed", ["images", "clean"])
def test_a_finished_folder_is_not_taken_for_one_of_changed_images(model, images, tmp_path, capsys, changed):
    words = ["--method", "fisher", "--clean", "clean", "--out", "out"]
    for number in range(2):
        paint(tmp_path / "clean" / f"{number}.png", 10 + number)
    rank(model, *words, steps=())
    before = LayerImportance.load("out/importance.nc").scores().values
    rank(model, *words, steps=())
    assert "already holds this ranking, complete" in capsys.readouterr().out
    paint(tmp_path / changed / "0.png", 99)
    assert "other settings (content = " in refused_rank(capsys, model, *words)
    rank(model, *words, "--overwrite", steps=())
    assert not np.array_equal(LayerImportance.load("out/importance.nc").scores().values, before)


def test_images_of_a_function_are_compared_too(model, capsys):
    Path("level").write_text("0.3")
    for _ in range(2):
        rank(model, "--out", "out", images="photos")
    assert "already holds this ranking, complete" in capsys.readouterr().out
    Path("level").write_text("0.6")
    words = ["rank", "--model", model, "--images", "photos", "--n-steps", "3", "--out", "out"]
    assert "other settings (content = " in refused(capsys, *words)


def test_a_residual_that_was_left_out_is_not_taken_for_measured(model, images, capsys):
    rank(model, "--with-input-residual", "false", "--out", "out")
    assert "with_input_residual = no" in refused_rank(capsys, model, "--n-steps", "3", "--out", "out")


def test_overwrite_replaces_an_unfinished_run_of_other_settings(model, images, tmp_path, capsys):
    paint(tmp_path / "images" / "2.png", 2, side=1)  # hides no pixel: the third image fails
    assert "What is finished is kept in out" in refused_rank(capsys, model, "--n-steps", "3", "--out", "out")
    (tmp_path / "images" / "2.png").unlink()
    assert "holds a run with" in refused_rank(capsys, model, "--n-steps", "5", "--out", "out")
    rank(model, "--out", "out", "--overwrite", steps=("--n-steps", "5"))
    assert LayerImportance.load("out/importance.nc").dataset.attrs["n_steps"] == 5


def test_an_unfinished_ranking_is_told_where_it_is_read(model, images, tmp_path, capsys):
    paint(tmp_path / "images" / "2.png", 2, side=1)
    refused_rank(capsys, model, "--n-steps", "3", "--out", "out")
    for words in (["select", "out", "--count", "1"], ["report", "out", "--out", "page.html"]):
        main(words)
        assert "'out/importance.nc' is of a run that is not finished" in capsys.readouterr().err
    (tmp_path / "images" / "2.png").unlink()
    rank(model, "--out", "fine")
    capsys.readouterr()
    main(["select", "fine", "--count", "1"])
    assert "not finished" not in capsys.readouterr().err


def test_images_that_were_cropped_since_are_named(model, images, tmp_path, capsys):
    paint(tmp_path / "images" / "2.png", 2, side=1)
    refused_rank(capsys, model, "--n-steps", "3", "--out", "out")
    error = refused_rank(capsys, model, "--n-steps", "3", "--out", "out", "--crop", "8")
    assert "holds other data of that name in its place: give the same samples, cropped alike" in error


@pytest.mark.parametrize("command", ["select", "report"])
@pytest.mark.parametrize("target", ["out/importance.nc", "mine.py", "weights.pth"])
def test_files_of_other_kinds_are_never_replaced(model, images, tmp_path, capsys, command, target):
    rank(model, "--out", "out")
    if not Path(target).exists():
        Path(target).write_text("mine")
    before = Path(target).read_bytes()
    more = ["--count", "1", "--export", "json"] if command == "select" else []
    assert "is there already and of another kind" in refused(capsys, command, "out", *more, "--out", target)
    assert Path(target).read_bytes() == before


def test_a_check_looks_at_its_options_before_it_measures(model, images, tmp_path, capsys):
    Path("taken").write_text("mine")
    words = ["check", "--model", model, "--images", "images", "--n-steps", "3"]
    assert "'taken' is a file: name a folder" in refused(capsys, *words, "--out", "taken")
    assert "`steps` must be at least 1, got 0" in refused(capsys, *words, "--steps", "0")


def test_what_needs_clean_images_says_so_before_anything_runs(model, images, capsys):
    error = refused_rank(capsys, model, "--method", "mac,fisher,snr", "--out", "out")
    assert "fisher, snr of `method` need the clean images: give --clean FOLDER" in error
    assert not Path("out").exists()


def test_options_without_effect_are_refused_in_short(model, images, capsys):
    assert "`confidence` = 0.9 has no effect without --until-stable" in refused_rank(
        capsys, model, "--confidence", "0.9"
    )
    torch.save({"0.weight": torch.ones(1)}, "w.pth")
    error = refused_rank(capsys, model, "--n-steps", "3", "--start-weights", "w.pth")
    assert "`start_weights` = dict has no effect on the ranking by 'mac'" in error


def test_faig_takes_a_whole_state(model, images, tmp_path, capsys):
    from macattr.cli.loading import load_network

    torch.save(load_network(model).state_dict(), "start.pth")
    for number in range(2):
        paint(tmp_path / "clean" / f"{number}.png", 10 + number)
    rank(model, "--method", "faig", "--clean", "clean", "--start-weights", "start.pth", "--out", "out")
    assert LayerImportance.load("out/importance.nc").scores().values.max() == pytest.approx(0, abs=1e-6)
    assert "macattr check" not in capsys.readouterr().out  # which cannot be asked this


def test_suggested_commands_run_as_they_are_pasted(model, tmp_path, capsys):
    for number in range(2):
        paint(tmp_path / "-my photos" / f"{number}.png", number)
    main(["rank", "--model", model, "--images=-my photos", "--n-steps", "3", "--out=-o ü", "--fraction", "0.5"])
    lines = capsys.readouterr().out.split("next:\n")[1].splitlines()
    page, *commands = map(shlex.split, lines)
    assert page == ["open", "-o ü/report.html"]
    assert Path(page[1]).is_file()
    for command in commands:
        assert command[0] == "macattr"
        main(command[1:])


def test_layers_that_were_named_are_not_checked_as_all(model, images, capsys):
    rank(model, "--layers", "0", "--out", "out")
    assert "macattr check" not in capsys.readouterr().out


def test_two_files_of_one_stem_are_two_rankings(model, images, capsys):
    rank(model, "--out", "out")
    for end in ("csv", "json"):
        main(["select", "out", "--fraction", "1", "--export", end, "--out", f"scores.{end}"])
    from macattr.cli.rankings import short_names

    assert short_names(["a/scores.csv", "a/scores.json"]) == ["scores.csv", "scores.json"]
    assert short_names(["a/importance.nc", "b/importance.nc"]) == ["a", "b"]


def test_a_mistyped_ranking_is_answered_with_a_few(model, images, tmp_path, capsys):
    rank(model, "--out", "out")
    for number in range(5):
        Path(f"other{number}").mkdir()
        Path(f"other{number}/importance.nc").write_bytes(Path("out/importance.nc").read_bytes())
    error = refused(capsys, "select", "nope", "--count", "1")
    assert error.count("importance.nc") == 3
    assert "or one of 3 more?" in error


def test_lightning_checkpoints_fit(model, images, capsys):
    from macattr.cli.loading import load_network

    state = load_network(model).state_dict()
    wrapped = {f"model.{name}": value for name, value in state.items()} | {"loss.weight": torch.ones(3)}
    torch.save({"state_dict": wrapped, "epoch": 3}, "pl.ckpt")
    loaded = load_network(model, weights=Path("pl.ckpt")).state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_the_image_that_stops_a_run_is_named(model, images, tmp_path, capsys):
    paint(tmp_path / "images" / "2.png", 2, side=1)
    assert "The sample is 'images/2.png'" in refused_rank(capsys, model, "--n-steps", "3", "--out", "out")


def test_a_ranking_of_another_network_is_told(model, images, tmp_path, capsys):
    rank(model, "--out", "out")
    Path("other.py").write_text(NETWORK.replace("return nn.Sequential(*layers)", "return nn.Sequential(*layers[:2])"))
    error = refused(capsys, "select", "out", "--count", "1", "--model", "other.py:network")
    assert "the ranking was made for another network than Sequential: no layer '3'" in error


def test_peft_writes_no_folder_in_the_place_of_a_file(model, images, tmp_path, capsys):
    rank(model, "--out", "out")
    Path("x.json").write_text("mine")
    words = ["select", "out", "--count", "1", "--export", "peft", "--out", "x.json", "--model", model]
    assert "'x.json' is a file: peft writes a folder" in refused(capsys, *words)
    assert Path("x.json").read_text() == "mine"


def test_a_check_is_not_replaced_by_another(model, images, tmp_path, capsys):
    check = ["check", "--model", model, "--images", "images", "--steps", "1", "--out", "c"]
    main([*check, "--method", "magnitude"])
    before = Path("c", "check.json").read_text()
    assert "holds a check with method = " in refused(capsys, *check, "--method", "depth")
    assert Path("c", "check.json").read_text() == before
    main([*check, "--method", "depth", "--overwrite"])
    assert "depth" in Path("c", "check.json").read_text()


def test_an_export_never_replaces_what_it_is_made_of(model, images, tmp_path, capsys):
    rank(model, "--out", "r")
    Path("mine.csv").write_text("layer,score\n0,1\n3,2\n")
    select = ["select", "mine.csv", "--model", model, "--count", "1", "--export", "csv", "--out"]
    assert "is what the command reads: name another" in refused(capsys, *select, "mine.csv")
    for name in ("run.json", "ranking.csv"):
        assert "is there already and of another kind" in refused(capsys, *select, f"r/{name}")
    assert read_scores("mine.csv") == {"0": 1.0, "3": 2.0}


def test_an_empty_value_in_a_file_is_refused(model, images, tmp_path, capsys):
    Path("n.yaml").write_text("n_steps: 3\nseed:\n")
    words = refused(capsys, "rank", "--model", model, "--images", "images", "--out", "r", "--config", "n.yaml")
    assert "`--seed` is empty, as of a line without a value" in words


def test_the_home_folder_is_meant_by_a_tilde(model, images, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    rank(model, "--out=~/r")
    assert {"importance.nc", "ranking.csv"} <= {file.name for file in (tmp_path / "home" / "r").iterdir()}
    assert not Path("~").exists()
