"""The commands that rank by several methods, compare and check."""

import json
import math
import os
import shlex
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from macattr.cli import main
from macattr.cli.check import _verdict
from macattr.methods.catalogue import METHODS
from macattr.methods.kinds import needs_images
from macattr.ranking.importance import LayerImportance

NETWORK = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    first, middle, last = (nn.Conv2d(*channels, 3, padding=1) for channels in ((3, 4), (4, 4), (4, 3)))
    return nn.Sequential(first, nn.Tanh(), middle, nn.Tanh(), last)

def photos():
    torch.manual_seed(1)
    clean = torch.rand(4, 3, 8, 8)
    return [
        {"image": c + 0.1 * torch.randn(3, 8, 8), "clean": c, "name": str(i), "degradation": "noise"}
        for i, c in enumerate(clean)
    ]
"""


@pytest.fixture
def model(tmp_path, request) -> str:
    name = f"methods_network_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(NETWORK)
    return f"{tmp_path / name}.py:network"


def rank(model, out, *options):
    main(["rank", "--model", model, "--images", "photos", "--out", str(out), "--fraction", "0.4", *options])


def refused(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit, match="2"):
        main(list(arguments))
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.splitlines()[-1]


@pytest.mark.slow
def test_all_methods_are_ranked_by_and_compared_in_one_run(model, tmp_path, capsys):
    rank(model, tmp_path, "--method", "all", "--n-steps", "4")
    printed = capsys.readouterr().out
    ranked = METHODS.keys() - {"faig", "cka", "cosine"}
    for name in ranked:
        assert LayerImportance.load(tmp_path / name / "importance.nc").dataset.attrs["method"] == name
        assert f"{name}, top 40 %: " in printed
    assert f"written: {tmp_path / 'report.html'}, " in printed
    agreement = pd.read_csv(tmp_path / "agreement.csv")
    assert len(agreement[agreement["measure"] == "spearman"]) == math.comb(len(ranked), 2)
    assert (tmp_path / "agreement.png").stat().st_size > 10_000
    assert "sharing passes saves 32 of them" in printed  # drift, patching, gradient x output, output: 2 each, 4 images


def test_methods_that_look_at_the_weights_need_no_images(model, tmp_path, capsys):
    out = tmp_path / "weights"
    main(["rank", "--model", model, "--method", "kappa,spectrum", "--out", str(out)])
    printed = capsys.readouterr()
    assert "no image: the methods look at the weights alone" in printed.out
    assert "pass/s" not in printed.err
    assert "None: the method looks at the weights alone" in (out / "report.html").read_text()
    kappa = LayerImportance.load(out / "kappa" / "importance.nc")
    assert kappa.dataset["sample"].values.tolist() == ["no image"]
    main(["rank", "--model", model, "--method", "kappa,spectrum", "--out", str(out)])
    assert "already holds this ranking, complete" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "kappa,mac"], "`images` is missing: give --images FOLDER. 'mac' reads them; kappa, spectrum, "),
        (["--method", "kappa", "--limit", "2"], "`limit` = 2 has no effect without --images"),
        (["--method", "snip"], "no method 'snip'; it scores single weights for pruning"),
    ],
)
def test_what_images_are_for_is_explained(model, tmp_path, capsys, options, message):
    assert message in refused(capsys, "rank", "--model", model, "--out", str(tmp_path / "out"), *options)


def test_files_of_other_tools_are_compared(model, tmp_path, capsys):
    main(["rank", "--model", model, "--method", "kappa", "--out", str(tmp_path / "own")])
    snr = {"0": {"snr": 3.0, "type": "conv"}, "2": {"snr": 1.0, "type": "conv"}, "4": {"snr": 2.0, "type": "conv"}}
    (tmp_path / "snr_results.json").write_text(json.dumps(snr))
    (tmp_path / "plain.csv").write_text("layer,score\n4,0.5\n0,0.9\n2,0.1\n")
    files = [str(tmp_path / name) for name in ("snr_results.json", "plain.csv", "own/ranking.csv")]
    main(["compare", *files, str(tmp_path / "own" / "importance.nc"), "--out", str(tmp_path / "out")])
    agreement = pd.read_csv(tmp_path / "out" / "agreement.csv").query("measure == 'spearman'").set_index(["a", "b"])
    assert agreement.loc[("snr_results", "plain"), "value"] == 1
    assert agreement.loc[("ranking", "own"), "value"] == 1


def test_a_finished_run_leaves_no_parts(model, tmp_path):
    out = tmp_path / "out"
    rank(model, out, "--n-steps", "4")
    names = ["heatmap.png", "importance.nc", "ranking.csv", "report.html", "run.json"]
    assert sorted(file.name for file in out.iterdir() if file.name != ".lock") == names


def test_the_same_run_again_is_complete_and_another_needs_to_overwrite(model, tmp_path, capsys):
    out = tmp_path / "out"
    rank(model, out, "--n-steps", "4")
    written = (out / "importance.nc").read_bytes()
    rank(model, out, "--n-steps", "4")
    assert "already holds this ranking, complete" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        rank(model, out, "--n-steps", "2")
    assert "holds a finished run with other settings (groups = 3, now 2; n_steps = 4, now 2)" in capsys.readouterr().err
    assert (out / "importance.nc").read_bytes() == written
    rank(model, out, "--n-steps", "2", "--overwrite")
    assert (out / "importance.nc").read_bytes() != written


def test_weights_of_another_checkpoint_start_the_path_in_weight_space(model, tmp_path):
    shapes = {"0.weight": (4, 3, 3, 3), "0.bias": (4,), "2.weight": (4, 4, 3, 3), "2.bias": (4,)}
    shapes |= {"4.weight": (3, 4, 3, 3), "4.bias": (3,)}
    torch.save({name: torch.zeros(shape) for name, shape in shapes.items()}, tmp_path / "start.pth")
    rank(model, tmp_path / "out", "--method", "faig", "--n-steps", "4", "--start-weights", str(tmp_path / "start.pth"))
    assert (LayerImportance.load(tmp_path / "out" / "importance.nc").scores() > 0).any()


def test_a_stable_run_says_what_it_saved(model, tmp_path, capsys):
    file = tmp_path / "many.py"
    file.write_text("import torch\ntorch.manual_seed(0)\nphotos = list(torch.rand(30, 3, 8, 8))\n")
    options = ["--images", f"{file}:photos", "--n-steps", "4", "--until-stable"]
    main(["rank", "--model", model, "--out", str(tmp_path / "out"), "--fraction", "0.4", *options])
    assert "of 30 images" in capsys.readouterr().out


def test_methods_are_listed_in_a_line_each_under_what_they_need(capsys):
    main(["methods"])
    groups = [part.splitlines() for part in capsys.readouterr().out.split("\n\n")]
    listed = {head.partition(" ")[2]: [row.split()[0] for row in rows[1:]] for head, *rows in groups[:-1]}
    assert sorted(name for names in listed.values() for name in names) == sorted(METHODS)
    network, images, targets, checkpoint = listed.values()
    assert network == [name for name, method in METHODS.items() if not needs_images(method)]
    assert {"mac", "cka", "drift"} <= set(images)
    assert {"mac_loss", "fisher", "taylor"} <= set(targets)
    assert checkpoint == ["faig"]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_explained_with_cost_and_source(name, capsys):
    main(["methods", name, "mac"])
    printed = capsys.readouterr().out
    method = METHODS[name]
    assert printed.startswith(f"{name}\n  score   {method.summary}\n  source  {method.source}\n  needs   ")
    assert (f"passes  {method.price}" in printed) == needs_images(method)
    assert printed.count("\nmac\n") == (name != "mac")
    assert "{" not in printed


def test_an_unknown_method_is_answered_with_what_there_is(capsys):
    assert "no method 'macc'; did you mean mac" in refused(capsys, "methods", "macc")


def test_rankings_are_compared_from_files_and_official_lists(model, tmp_path, capsys):
    for seed in ("0", "1"):
        rank(model, tmp_path / seed, "--n-steps", "4", "--seed", seed)
    official = tmp_path / "official"
    official.mkdir()
    for part, words in {"name": "4 0 2", "cond": "3.0 2.0 1.0", "index": "2 0 1"}.items():
        (official / f"filter_{part}.txt").write_text("\n".join(words.split()))
    files = [str(tmp_path / seed / "importance.nc") for seed in ("0", "1")]
    capsys.readouterr()
    main(["compare", *files, str(official), "--out", str(tmp_path / "c"), "--fraction", "0.4"])
    assert "next:" not in capsys.readouterr().out  # a page needs more than names and scores
    table = pd.read_csv(tmp_path / "c" / "agreement.csv", dtype={"a": str, "b": str})
    pairs = table[table["measure"] == "spearman"]
    assert pairs[["a", "b"]].to_numpy().tolist() == [["0", "1"], ["0", "official"], ["1", "official"]]
    assert pairs["low"].notna().all()  # the images of a ranking are resampled, also against a list without
    for figure in ("agreement.png", "rank_flow.png", "overlap.png"):
        assert (tmp_path / "c" / figure).stat().st_size > 10_000


def test_a_comparison_of_rankings_suggests_their_page(made_up, tmp_path, capsys):
    files = [str(tmp_path / f"{name}.nc") for name in ("a b", "c")]
    for seed, file in enumerate(files):
        made_up([f"layer{i}" for i in range(6)], seed=seed).save(file)
    main(["compare", *files, "--out", str(tmp_path / "out")])
    program, *words = shlex.split(capsys.readouterr().out.rpartition("next:\n")[2])
    assert program == "macattr"
    main(words)
    assert "What changes from one ranking to the other" in (tmp_path / "out" / "report.html").read_text()


def test_the_folder_of_several_rankings_stands_for_all_of_them(made_up, tmp_path, capsys):
    for seed, method in enumerate(("drift", "mac")):
        (tmp_path / "both" / method).mkdir(parents=True)
        ranking = made_up([f"layer{i}" for i in range(6)], seed=seed)
        ranking.dataset.attrs["method"] = method
        ranking.save(tmp_path / "both" / method / "importance.nc")
    main(["compare", str(tmp_path / "both"), "--out", str(tmp_path / "of folder")])
    files = [str(tmp_path / "both" / method / "importance.nc") for method in ("drift", "mac")]
    main(["compare", *files, "--out", str(tmp_path / "of files")])
    assert (tmp_path / "of folder/agreement.csv").read_text() == (tmp_path / "of files/agreement.csv").read_text()
    main(["report", str(tmp_path / "both"), "--out", str(tmp_path / "report.html")])
    assert "What changes from one ranking to the other" in (tmp_path / "report.html").read_text()
    capsys.readouterr()
    error = refused(capsys, "select", str(tmp_path / "both"), "--count", "1")
    assert f"'{tmp_path / 'both'}' holds 2 rankings: give one of {files[0]}, {files[1]}" in error


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["a/importance.nc"], "a comparison needs at least two rankings, got 1"),
        (["a/importance.nc", "a/importance.nc"], "a ranking is given twice"),
        (["a/importance.nc", "nowhere.nc"], "'{}/nowhere.nc' cannot be read as a ranking"),
        (["a/importance.nc", "broken.nc"], "'{}/broken.nc' cannot be read as a ranking"),
        (["a", "a/importance.nc"], "a ranking is given twice"),
        (["a/importance.nc", "empty"], "'{}/empty' holds no ranking: neither importance.nc nor the authors' lists"),
        (["a/importance.nc", "some"], "the rankings cover different layers, 2 are common"),
    ],
    ids=["one", "twice", "missing", "broken", "folder twice", "empty", "layers"],
)
def test_what_cannot_be_compared_is_explained(model, tmp_path, capsys, sources, message):
    rank(model, tmp_path / "a", "--n-steps", "4")
    (tmp_path / "broken.nc").write_bytes((tmp_path / "a" / "importance.nc").read_bytes()[:3000])
    (tmp_path / "some").mkdir()
    (tmp_path / "empty").mkdir()
    for part, words in {"name": "4 0", "cond": "3.0 2.0", "index": "1 0"}.items():
        (tmp_path / "some" / f"filter_{part}.txt").write_text("\n".join(words.split()))
    paths = [str(tmp_path / source) for source in sources]
    assert message.format(tmp_path) in refused(capsys, "compare", *paths, "--out", str(tmp_path / "c"))


def test_a_check_randomises_and_names_what_is_suspect(model, tmp_path, capsys):
    options = ["--images", "photos", "--method", "magnitude", "--steps", "2", "--fraction", "0.4"]
    main(["check", "--model", model, "--out", str(tmp_path / "check"), *options])
    printed = capsys.readouterr().out
    table = pd.read_csv(tmp_path / "check" / "cascading.csv")
    np.testing.assert_allclose(table["share"], [1 / 3, 1.0])
    assert "all parameters random: Spearman" in printed
    assert "dependence on size" in printed
    assert (tmp_path / "check" / "randomisation.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("correlation", "layers", "verdict"),
    [
        (0.91, 5, "SUSPECT: above 0.9"),
        (0.90, 5, "PASSED: it is not above 0.9"),
        (-1.0, 90, "PASSED"),
        (0.99, 4, "UNDECIDED: 4 layers are too few"),
        (math.nan, 90, "UNDECIDED: all scores of a ranking are equal"),
    ],
)
def test_the_verdict_of_a_check_goes_by_correlation_and_number_of_layers(correlation, layers, verdict):
    assert verdict in _verdict(correlation, layers)


@pytest.mark.slow
def test_torchrun_starts_processes_that_share_the_work(model, tmp_path):
    rank(model, tmp_path / "alone", "--n-steps", "4")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "macattr", "rank"]
    arguments = ["--model", model, "--images", "photos", "--n-steps", "4", "--out", str(tmp_path / "shared")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, *arguments], env=environment, check=True, capture_output=True, timeout=120)
    one, two = ((tmp_path / name / "importance.nc").read_bytes() for name in ("alone", "shared"))
    assert one == two


SMALL = """
import torch
from torch import nn
torch.manual_seed(0)
photos = list(torch.rand(2, 3, 8, 8))

def network():
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range({layers})))
"""


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_a_network_of_few_layers_is_ranked_by_several_methods_and_checked(tmp_path, capsys, layers):
    file = tmp_path / f"small_network_{layers}.py"
    file.write_text(SMALL.format(layers=layers))
    model = f"{file}:network"
    main(["rank", "--model", model, "--images", "photos", "--method", "magnitude,depth", "--out", str(tmp_path / "r")])
    assert "agreement of the methods\n" in capsys.readouterr().out
    main(["check", "--model", model, "--images", "photos", "--method", "magnitude", "--out", str(tmp_path / "c")])
    printed = capsys.readouterr().out
    assert "UNDECIDED" in printed
    assert "PASSED" not in printed
    assert (tmp_path / "c" / "randomisation.png").is_file()


@pytest.mark.parametrize("names", [("1e3", "007"), ("NA", "nan"), ("1_000", "True"), ("null", "-1")])
def test_names_of_rankings_stay_text_in_tables(made_up, tmp_path, capsys, names):
    for seed, name in enumerate(names):
        (tmp_path / name).mkdir()
        made_up(["0", "NA", "1e3", "007"], seed=seed).save(tmp_path / name / "importance.nc")
    files = [str(tmp_path / name / "importance.nc") for name in names]
    main(["compare", *files, "--out", str(tmp_path / "c")])
    table = pd.read_csv(tmp_path / "c" / "agreement.csv", dtype={"a": str, "b": str}, keep_default_na=False)
    assert {*table["a"]} == {names[0]}
    assert {*table["b"]} == {names[1]}
    loaded = LayerImportance.load(files[0])
    loaded.to_csv(tmp_path / "ranking.csv")
    read = pd.read_csv(tmp_path / "ranking.csv", dtype={"layer": str}, keep_default_na=False)
    assert read["layer"].tolist() == loaded.ranking()["layer"].tolist()
