"""Protocols: which images, under which degradation, the same in every run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ram_models.data.layouts import LAYOUTS
from ram_models.data.sets import ImageSet, Pair
from ram_models.degradations import UNSEEN, add_gaussian_noise, compress_jpeg, gaussian_blur
from ram_models.evaluation.protocols import NOISES, PAPER, Plan, plan
from ram_models.seeds import seeded


def image_set(name: str, task: str | None, count: int = 2, split: str = "test") -> ImageSet:
    """A set of files that nobody reads."""
    degraded = None if task is None else Path("degraded.png")
    pairs = tuple(Pair(f"{name}-{number}", Path("clean.png"), degraded) for number in range(count))
    return ImageSet(name, task, split, pairs)


def names(planned: Plan) -> list[str]:
    return [test.setting.name for test in planned.tests]


@pytest.fixture
def photo(tmp_path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "clean.png")
    return tmp_path / "clean.png"


def test_the_paper_protocol_has_the_paper_s_settings():
    """Sec. 4.1: SOTS-outdoor, five rain sets, three strengths of noise, GoPro, LOL, LSDIR-val twice; Tables 2 and 6."""
    tasks = [setting.task for setting in PAPER]
    expected = {"haze": 1, "rain": 5, "motion_blur": 1, "lowlight": 1, "noise": 6, "blur": 1, "jpeg": 1}
    assert {task: tasks.count(task) for task in set(tasks)} == expected | {"poisson": 1, "pepper": 1, "speckle": 1}
    assert all(setting.dataset in LAYOUTS and setting.complete for setting in PAPER)
    real = {setting.task for setting in PAPER if setting.synthesis is None}
    assert real == {"haze", "rain", "motion_blur", "lowlight"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("BSD68 sigma=25", lambda image: add_gaussian_noise(image, 25.0, seeded("BSD68 sigma=25/a"))),
        ("LSDIR blur k=15 sigma=2", lambda image: gaussian_blur(image, 2.0, 15)),
        ("LSDIR JPEG q=50", lambda image: compress_jpeg(image, 50)),
    ],
)
def test_synthesised_settings_have_the_paper_s_strength(photo, name, expected):
    setting = next(setting for setting in PAPER if setting.name == name)
    (test,) = (
        test
        for test in plan("paper", [ImageSet(setting.dataset, None, setting.split, (Pair("a", photo),))]).tests
        if test.setting.name == name
    )
    degraded, clean = test.read(test.pairs[0])
    torch.testing.assert_close(degraded, expected(clean))


def test_the_noises_are_those_of_training_a_stronger_one_and_all_that_it_never_sees():
    assert [setting.name for setting in NOISES[:4]] == [f"BSD68 sigma={sigma}" for sigma in (15, 25, 50, 70)]
    assert [setting.task for setting in NOISES[4:]] == list(UNSEEN)
    assert {setting.name for setting in PAPER if setting.task in UNSEEN} <= {setting.name for setting in NOISES}


@pytest.mark.parametrize("task", list(UNSEEN))
def test_unseen_noises_come_from_the_degradations(photo, task):
    (test,) = (
        test
        for test in plan("noises", [ImageSet("CBSD68", None, "test", (Pair("a", photo),))]).tests
        if test.setting.task == task
    )
    degraded, clean = test.read(test.pairs[0])
    assert not torch.equal(degraded, clean)
    if task == "pepper":
        assert set(torch.unique(degraded[degraded != clean]).tolist()) == {0.0}


def test_noise_belongs_to_the_image_the_setting_and_the_seed(photo):
    pairs = (Pair("a", photo), Pair("b", photo))
    tests = {test.setting.name: test for test in plan("paper", [ImageSet("CBSD68", None, "test", pairs)]).tests}
    weak, strong = tests["BSD68 sigma=15"], tests["BSD68 sigma=25"]
    first = weak.read(pairs[0])[0]
    assert torch.equal(first, weak.read(pairs[0])[0])
    assert not torch.equal(first, weak.read(pairs[1])[0])
    assert not torch.equal(first, weak.read(pairs[0], seed=1)[0])
    noise = [(test.read(pairs[0])[0] - test.read(pairs[0])[1]).flatten() for test in (weak, strong)]
    assert abs(float(torch.corrcoef(torch.stack(noise))[0, 1])) < 0.1


def test_a_crop_is_cut_before_the_degradation_is_synthesised(photo):
    (test, *_) = plan("paper", [ImageSet("LSDIR", None, "val", (Pair("a", photo),))]).tests
    degraded, clean = test.read(test.pairs[0], crop=16)
    torch.testing.assert_close(degraded, gaussian_blur(clean, 2.0, 15))
    assert clean.shape == (3, 16, 16)


def test_real_pairs_are_cropped_on_both_sides(photo):
    pair = Pair("a", photo, photo)
    (test,) = plan("pairs", [ImageSet("LOL", "lowlight", "test", (pair,))]).tests
    degraded, clean = test.read(pair, crop=16)
    assert torch.equal(degraded, clean)
    assert clean.shape == (3, 16, 16)


def test_what_is_missing_is_said():
    planned = plan("paper", [image_set("LOL", "lowlight"), image_set("Urban100", None)])
    assert names(planned) == ["LOL", "Urban100 sigma=15", "Urban100 sigma=25", "Urban100 sigma=50"]
    assert [s.name for s in planned.missing] == [s.name for s in PAPER if s.dataset not in ("LOL", "Urban100")]


def test_training_sets_are_not_tested_on():
    training = image_set("GoPro", "motion_blur", 9, "train")
    assert [len(t.pairs) for t in plan("paper", [training, image_set("GoPro", "motion_blur")]).tests] == [2]
    assert names(plan("pairs", [training, image_set("LOL", "lowlight")])) == ["LOL"]
    with pytest.raises(ValueError, match=r"no set of the protocol 'paper' is present; found were GoPro \(train\)"):
        plan("paper", [training])


@pytest.mark.parametrize("protocol", ["paper", "pairs"])
def test_of_two_copies_of_a_set_the_larger_is_taken(protocol):
    copies = [image_set("LOL", "lowlight", 3), image_set("LOL", "lowlight", 15), image_set("LOL", "lowlight", 1)]
    assert [len(test.pairs) for test in plan(protocol, copies).tests] == [15]


def test_pairs_takes_real_pairs_and_sets_takes_everything():
    sets = [image_set("Levin", "motion_blur"), image_set("Kodak24", None)]
    assert names(plan("pairs", sets)) == ["Levin"]
    assert names(plan("sets", sets)) == [
        "Kodak24 sigma=25", "Kodak24 blur k=15 sigma=2", "Kodak24 JPEG q=50", "Levin",
    ]  # fmt: skip


def test_unknown_protocols_list_the_known_ones():
    with pytest.raises(ValueError, match="no protocol 'papers'; there are paper, noises, pairs, sets"):
        plan("papers", [])
