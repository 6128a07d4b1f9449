"""The judge: fixed tests, and the map of colours that is the cheapest repair."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

from ram_models.experiments.study.config import JudgeSettings, Study
from ram_models.experiments.study.judge import Judge, fit_affine


@pytest.fixture
def study(tmp_path):
    """A study that tests low light on three pairs of LOL, and pepper noise on two images of CBSD68."""
    for side, factor in (("high", 1.0), ("low", 0.5)):
        (tmp_path / "test/LOL/eval15" / side).mkdir(parents=True)
        for number in range(3):
            save(tmp_path / f"test/LOL/eval15/{side}/{number}.png", number, factor)
    (tmp_path / "test/CBSD68").mkdir()
    for number in range(2):
        save(tmp_path / f"test/CBSD68/{number}.png", number)
    return Study("table5", tmp_path, judged=JudgeSettings({"lowlight": ["LOL"]}, {"pepper": ["BSD68 pepper"]}))


def save(path, seed, factor=1.0):
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3)) * factor
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def test_every_network_meets_the_same_noise(study):
    first, second = Judge(study).score(nn.Identity()), Judge(study).score(nn.Identity())
    assert first.equals(second)
    assert first.groupby("kind")["image"].count().to_dict() == {"trained": 3, "unseen": 2}


def test_a_network_that_does_nothing_keeps_its_input(study):
    assert (Judge(study).score(nn.Identity())["kept_db"] == float("inf")).all()


def test_images_are_spread_over_the_set(study):
    few = replace(study, judged=replace(study.judged, images=2))
    assert Judge(few).score(nn.Identity())["image"].tolist()[:2] == ["0", "1"]
    assert len(list(Judge(few).items())) == 4


def test_an_unknown_setting_is_named(study):
    wrong = replace(study, judged=JudgeSettings({"lowlight": ["LOLL"]}))
    with pytest.raises(ValueError, match=r"no images to test 'LOLL' on; there are .*LOL"):
        Judge(wrong)


def test_a_study_that_tests_nothing_is_refused(study):
    with pytest.raises(ValueError, match=r"`judged\.tasks` is empty"):
        Judge(replace(study, judged=JudgeSettings()))


def test_data_without_tests_is_refused(study, tmp_path):
    with pytest.raises(ValueError, match="`data` must be a folder with train/ and test/ in it"):
        Judge(replace(study, data=tmp_path / "test"))


def test_a_wrong_tint_is_undone_by_twelve_numbers():
    clean = torch.rand(4, 3, 8, 8)
    tint = torch.tensor([[0.5, 0.2, 0.0], [0.0, 0.7, 0.1], [0.3, 0.0, 0.9]])
    tinted = torch.einsum("oc,bchw->bohw", tint, clean) + 0.1
    repaired = fit_affine(nn.Identity(), TensorDataset(tinted, clean), 4)
    torch.testing.assert_close(repaired(tinted), clean, rtol=0, atol=1e-4)  # solved in float32
