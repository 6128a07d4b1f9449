"""The command line: results on disk, one-line errors with exit code 2."""

import numpy as np
import pytest
from PIL import Image

from macattr.cli import main
from macattr.ranking.importance import LayerImportance

NETWORK = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3, padding=1))

def photos():
    return [{"image": torch.rand(3, 12, 12), "name": str(i), "degradation": "none"} for i in range(2)]

not_a_network = 3
"""


@pytest.fixture
def model(tmp_path, request) -> str:
    name = f"cli_network_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(NETWORK)
    return f"{tmp_path / name}.py:network"


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 20, 3), np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    return images


def refused(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit, match="2"):
        main(["rank", *arguments])
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.splitlines()[-1]


@pytest.mark.parametrize(
    ("method", "passes"),
    [
        ("attribution_patching", "attribution_patching on 3 images: 6 forward and backward passes"),
        ("mac,drift", "2 methods on 3 images: 15 forward and backward passes"),
    ],
)
def test_the_passes_are_told_beforehand(model, folder, capsys, method, passes):
    steps = ["--n-steps", "4"] if method == "mac,drift" else []
    main(["rank", "--model", model, "--images", str(folder), "--method", method, "--dry-run", *steps])
    assert f"{passes}\n" in capsys.readouterr().out


def test_rank_writes_what_it_prints(model, folder, tmp_path, capsys):
    out = tmp_path / "out"
    main(["rank", "--model", model, "--images", str(folder), "--out", str(out), "--n-steps", "4", "--fraction", "0.5"])
    printed = capsys.readouterr().out
    ranking = LayerImportance.load(out / "importance.nc").ranking()
    names = ["heatmap.png", "importance.nc", "ranking.csv", "report.html", "run.json"]
    assert sorted(file.name for file in out.iterdir() if file.name != ".lock") == names
    assert ranking["layer"][0] in printed
    for part in (
        "3 images x 5 points along the path = 15 forward and backward passes",
        "input residual",
        "report.html\n",
        "next:",
    ):
        assert part in printed


def test_a_bare_name_is_looked_up_beside_the_model(model, tmp_path, capsys):
    main(["rank", "--model", model, "--images", "photos", "--out", str(tmp_path / "out"), "--n-steps", "2"])
    assert LayerImportance.load(tmp_path / "out" / "importance.nc").dataset.sizes["sample"] == 2


def test_crop_and_limit_bound_the_work(model, folder, tmp_path):
    options = ["--crop", "8", "--limit", "1", "--n_steps", "2"]
    main(["rank", "--model", model, "--images", str(folder), "--out", str(tmp_path / "o"), *options])
    data = LayerImportance.load(tmp_path / "o" / "importance.nc").dataset
    assert (data.sizes["sample"], int(data["height"][0]), int(data["width"][0])) == (1, 8, 8)


def test_a_dry_run_estimates_and_writes_nothing(model, folder, tmp_path, capsys):
    main(["rank", "--model", model, "--images", str(folder), "--out", str(tmp_path / "out"), "--dry-run"])
    assert "s for a pass" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_finished_images_are_kept_when_one_is_corrupt(model, folder, tmp_path, capsys):
    (folder / "2.png").write_bytes(b"broken")
    error = refused(capsys, "--model", model, "--images", str(folder), "--out", str(tmp_path / "o"), "--n_steps", "2")
    assert "It happened after 2 finished images" in error
    assert "cannot be read as an image" in error
    assert LayerImportance.load(tmp_path / "o" / "importance.nc").dataset.sizes["sample"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--r", "1.5"], "`r` must lie in (0, 1], got 1.5"),
        (["--n_steps", "0"], "`n_steps` must be at least 1, got 0"),
        (["--limit", "0"], "`limit` must be at least 1, got 0"),
        (["--crop", "-4"], "`crop` must be at least 1, got -4"),
        (["--fraction", "5"], "`fraction` must lie in (0, 1], got 5"),
        (["--layers", '["convlast"]'], "no layer 'convlast'"),
        (
            ["--preset", "official", "--gate", "fade", "--delta", "10"],
            "`delta` = 10.0 has no effect on the 'fade' gate",
        ),
    ],
    ids=["r", "steps", "limit", "crop", "fraction", "layer", "delta"],
)
def test_bad_options_end_with_one_line(model, folder, capsys, tmp_path, options, message):
    assert message in refused(capsys, "--model", model, "--images", str(folder), "--out", str(tmp_path / "o"), *options)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("network", "'network' is not an import string: write MODULE:NAME"),
        ("nowhere.py:network", "there is no file 'nowhere.py'"),
        ("macattr:nothing", "module 'macattr' has no 'nothing'"),
        ("no_such_module:network", "there is no module 'no_such_module'"),
        ("torch:pi", "gives a float: it must be a torch.nn.Module"),
    ],
    ids=["no colon", "no file", "no name", "no module", "no network"],
)
def test_a_bad_model_is_explained(capsys, folder, source, message):
    assert message in refused(capsys, "--model", source, "--images", str(folder))


def test_a_folder_without_images_is_explained(capsys, model, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no image" in refused(capsys, "--model", model, "--images", str(tmp_path / "empty"))


def test_missing_images_are_explained(capsys, model):
    error = refused(capsys, "--model", model, "--images", "nowhere")
    assert "there is no file or folder 'nowhere'" in error


def test_help_teaches(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["rank", "--help"])
    printed = capsys.readouterr().out
    assert "Masked fraction at the start of the path" in printed


def test_a_network_of_several_outputs_is_ranked_by_the_one_that_is_named(tmp_path):
    text = NETWORK.replace(
        "def photos",
        """class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = network()

    def forward(self, x):
        y = self.body(x)
        return {"image": y, "classes": y.mean((2, 3))}

def photos""",
    )
    (tmp_path / "cli_two_outputs.py").write_text(text)
    options = ["--output", "classes", "--objective", "class", "--at", "body.0", "--method", "conductance"]
    words = ["rank", "--model", f"{tmp_path / 'cli_two_outputs.py'}:Two", "--images", "photos", "--n-steps", "4"]
    main([*words, *options, "--out", str(tmp_path / "out")])
    attributes = LayerImportance.load(tmp_path / "out" / "importance.nc").dataset.attrs
    assert "body.0" in str(attributes["path"]) + str(attributes.get("at", ""))
