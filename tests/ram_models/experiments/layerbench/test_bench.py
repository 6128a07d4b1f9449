"""The bench runs from photographs to a page, continues where it was, and refuses to mix settings."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from ram_models.cli import main
from ram_models.experiments.layerbench import bench, photographs, training
from ram_models.experiments.layerbench.ledger import Ledger
from ram_models.experiments.layerbench.methods import METHODS
from ram_models.experiments.layerbench.networks import NETWORKS, PROBLEMS
from ram_models.experiments.layerbench.photographs import Photographs
from ram_models.experiments.layerbench.shifts import SHIFTS
from ram_models.experiments.layerbench.texts import TASKS

ROOT = Path(__file__).parents[4]

KEPT = ("mac", "fisher", "random", "all layers", "ends", "norms and biases", "LoRA")


def small_network():
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(a, b, 3, padding=1) for a, b in ((3, 6), (6, 6), (6, 6), (6, 3))]
    return nn.Sequential(*(part for layer in convolutions for part in (layer, nn.Tanh()))).eval()


@pytest.fixture
def data(tmp_path):
    """Photographs, in folders as the bench expects them."""
    source = np.random.default_rng(0)
    for folder, count in (("train/BSDS500/data", 50), ("test/CBSD68", 24)):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for number in range(count):
            pixels = source.integers(0, 256, (5, 5, 3), dtype=np.uint8)
            image = Image.fromarray(pixels).resize((70, 66), Image.Resampling.BICUBIC)
            image.save(tmp_path / "data" / folder / f"{number}.png")
    return tmp_path / "data"


@pytest.fixture
def _small(monkeypatch):
    """One problem with a small network, few methods, few steps."""
    pretrained = replace(NETWORKS["vgg7-noise1"], name="small", build=small_network, crop=12, batch=2)
    monkeypatch.setattr(bench, "NETWORKS", {"small": pretrained})
    monkeypatch.setattr(bench, "PROBLEMS", (("small", "noise-25"),))
    monkeypatch.setattr(bench, "METHODS", {name: METHODS[name] for name in KEPT})
    monkeypatch.setattr(training, "LENGTH", 3)


@pytest.mark.usefixtures("_small")
def test_a_bench_that_was_stopped_goes_on(data, tmp_path, monkeypatch):
    config = bench.Config(data, seeds=[10], budgets=[0.2], results=tmp_path / "results", docs=None)
    trained, real = [], bench.train

    def stop(network, choice, batch, training, lr):
        trained.append(choice.key)
        if len(trained) == 12:
            raise KeyboardInterrupt
        return real(network, choice, batch, training, lr)

    monkeypatch.setattr(bench, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        bench.main(config)
    ledger = Ledger(config.results)
    before = len(ledger.table("rates")) + len(ledger.table("runs"))
    assert before == 11
    bench.main(config)
    count = len(trained)
    assert count - 1 == len(ledger.table("rates")) + len(ledger.table("runs")), "nothing is measured twice"
    bench.main(config)
    assert len(trained) == count
    runs = ledger.table("runs")
    assert not runs.duplicated(["trained", "seed"]).any()
    chosen = ledger.table("choices")
    assert set(chosen.loc[chosen["trained"] != "", "trained"]) == set(runs["trained"])


@pytest.mark.usefixtures("_small")
def test_other_settings_are_refused(data, tmp_path, monkeypatch):
    config = bench.Config(data, seeds=[10], budgets=[0.2], results=tmp_path / "results", docs=None)
    bench.main(config)
    monkeypatch.setattr(training, "LENGTH", 4)
    with pytest.raises(ValueError, match="were made with other settings or weights than now"):
        bench.main(config)


def test_the_page_is_written_from_tables_alone(made_up, tmp_path):
    names = iter(["noise-25", "jpeg-20"] * 3)
    problems = [
        (network, next(names)) for network in ("vgg7-noise1",) * 2 + ("resnet10-noise2",) * 2 + ("srvgg-x2",) * 2
    ]
    made_up(tmp_path / "results", problems)
    arguments = ["--run", "false", "--results", str(tmp_path / "results"), "--docs", str(tmp_path / "docs")]
    assert main(["bench", *arguments]) == 0
    text = (tmp_path / "docs" / "layerbench.md").read_text()
    assert "| MAC is better than random layers |" in text
    assert "Complete blocks: 12, of 6 problems with 2 seeds each." in text
    assert "nan" not in text
    assert "None" not in text
    first = (tmp_path / "results" / "standings.csv").read_bytes()
    assert main(["bench", *arguments]) == 0
    assert (tmp_path / "results" / "standings.csv").read_bytes() == first
    assert (tmp_path / "docs" / "images" / "layerbench.png").stat().st_size > 1000


def test_texts_have_a_table_of_their_own_and_no_part_in_the_verdicts(made_up, tmp_path):
    names = iter(["noise-25", "jpeg-20"] * 3)
    photographs = [(name, next(names)) for name in ("vgg7-noise1", "resnet10-noise2", "srvgg-x2") for _ in range(2)]
    pages = {}
    for folder, problems in (("without", photographs), ("with", [*photographs, ("minilm", "section")])):
        made_up(tmp_path / folder, problems)
        bench.main(bench.Config(run=False, results=tmp_path / folder, docs=tmp_path / f"{folder}-docs"))
        pages[folder] = (tmp_path / f"{folder}-docs" / "layerbench.md").read_text()
    assert "## On texts" not in pages["without"]
    assert "(`section`), 2 seeds." in pages["with"]
    for name in ("standings.csv", "contrasts.csv"):
        assert (tmp_path / "with" / name).read_text() == (tmp_path / "without" / name).read_text()
    (row,) = (line for line in pages["with"].split("## On texts")[1].splitlines() if line.startswith("| `fisher`"))
    texts = pd.read_csv(tmp_path / "with" / "standings-texts.csv").set_index("method")
    assert f"| {100 * texts.loc['fisher', 'captured']:.0f} |" in row


def test_the_committed_page_follows_from_the_committed_runs(tmp_path):
    shutil.copytree(ROOT / "results" / "layerbench", tmp_path / "results")
    assert (
        main(["bench", "--run", "false", "--results", str(tmp_path / "results"), "--docs", str(tmp_path / "docs")]) == 0
    )
    assert (tmp_path / "docs" / "layerbench.md").read_text() == (ROOT / "docs" / "layerbench.md").read_text()


@pytest.mark.parametrize("tables", [[], ["choices", "scores", "sets", "rates"]], ids=["no table", "no run"])
def test_the_page_says_that_nothing_is_measured(tables, made_up, tmp_path):
    folder = made_up(tmp_path / "whole").folder
    for name in tables:
        if (folder / f"{name}.csv").exists():
            shutil.copy(folder / f"{name}.csv", tmp_path)
    assert main(["bench", "--run", "false", "--results", str(tmp_path), "--docs", str(tmp_path / "docs")]) == 0
    assert "Nothing is measured yet" in (tmp_path / "docs" / "layerbench.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "`data` must be a folder with train/BSDS500 and test/CBSD68 in it, got none"),
        (["--data", "x", "--networks", "[vgg]"], "`networks` has no 'vgg': choose from vgg7-noise1"),
        (["--data", "x", "--budgets", "[1.5]"], "`budgets` must be shares in (0, 1), got 1.5"),
        (["--data", "nowhere"], "'nowhere/train/BSDS500' holds 0 images, less than the 48"),
    ],
)
def test_bad_options_are_refused(arguments, message, capsys):
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_texts_need_no_photographs(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(bench._Block, "run", lambda block, budgets: asked.append((block.network, block.shift)))
    options = ["--networks", "[minilm]", "--seeds", "[10]", "--results", str(tmp_path), "--docs", "null"]
    assert main(["bench", *options]) == 0
    assert asked == [("minilm", "package"), ("minilm", "section")]
    with pytest.raises(ValueError, match="`data` must be a folder"):
        bench.Config(networks=["minilm", "srvgg-x2"])


@pytest.mark.parametrize("shift", SHIFTS.values(), ids=list(SHIFTS))
def test_every_shift_degrades_and_keeps_its_scale(shift):
    clean = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))
    degraded = shift.degrade(clean, torch.Generator().manual_seed(0))
    assert degraded.shape[-1] * shift.scale == 40
    assert degraded.min() >= 0
    assert degraded.max() <= 1
    if shift.scale == 1:
        assert not torch.equal(degraded, clean)


def test_every_problem_is_known_and_every_network_meets_two_shifts():
    assert {network for network, _ in PROBLEMS} == set(NETWORKS)
    assert {shift for _, shift in PROBLEMS} == {*SHIFTS, *TASKS}
    assert not set(SHIFTS) & set(TASKS)
    assert pd.Series([network for network, _ in PROBLEMS]).value_counts().min() >= 2


def test_arms_of_a_seed_see_the_same_crops_and_seeds_others(data):
    pretrained = replace(NETWORKS["vgg7-noise1"], crop=12, batch=2)
    problems = [Photographs(data).problem(pretrained, "noise-25", seed) for seed in (10, 10, 11)]
    first, again, other = (problem.batch(3) for problem in problems)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(problems[0].batch(4)[0], first[0])


def test_held_out_photographs_are_never_trained_on(data):
    images = Photographs(data)
    used = []
    images.__dict__["read"] = lambda file: used.append(file) or torch.zeros(3, 70, 70, dtype=torch.uint8)
    problem = images.problem(replace(NETWORKS["vgg7-noise1"], crop=12, batch=8), "noise-25", 10)
    for step in range(20):
        problem.batch(step)
    assert not set(used) & set(images.files[-photographs.HELD_OUT :])
    assert len(set(used)) > 20
