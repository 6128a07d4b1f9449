"""The table of walks: the words say where each path runs."""

import pytest
import torch
from torch import nn

from macattr.methods.samples import Sample
from macattr.methods.task import Options, Task, Trial
from macattr.methods.walks import WALKS, walk_of
from macattr.paths.inputs import BlurPath, LinearPath

IMAGE, CLEAN = torch.full((1, 1, 4, 4), 0.5), torch.ones(1, 1, 4, 4)
IMAGE[..., 0] = 0.75


@pytest.fixture
def trial() -> Trial:
    return Trial(Task(nn.Identity(), {}, Options(baselines=0.25)), Sample(IMAGE, "a", clean=CLEAN))


def ends(path) -> list[torch.Tensor]:
    return [path.at(torch.tensor([alpha]))[0] for alpha in path.interval]


def test_restore_runs_from_the_degraded_to_the_clean_image(trial):
    start, end = ends(WALKS["restore"].path(trial))
    assert torch.equal(start, IMAGE)
    assert torch.equal(end, CLEAN)
    assert "from the degraded to the clean image" in WALKS["restore"].words


@pytest.mark.parametrize("name", [name for name, walk in WALKS.items() if walk.ends_at_image])
def test_walks_that_end_at_the_image_do(trial, name):
    assert torch.equal(ends(WALKS[name].path(trial))[1], IMAGE)
    assert "image" in WALKS[name].words


@pytest.mark.parametrize(("name", "hidden"), [("mask", 8), ("twin", 8)])
def test_mask_paths_begin_with_a_share_of_the_pixels_hidden(trial, name, hidden):
    assert int((ends(WALKS[name].path(trial))[0] == 0.25).sum()) == hidden


def test_the_tail_begins_at_the_masked_fraction(trial):
    torch.testing.assert_close(ends(WALKS["tail"].path(trial))[0], (IMAGE + 0.25) / 2)


def test_blur_and_line_are_the_paths_of_their_names(trial):
    assert isinstance(WALKS["blur"].path(trial), BlurPath)
    assert torch.equal(ends(WALKS["line"].path(trial))[0], torch.full_like(IMAGE, 0.25))


def test_a_function_is_a_walk_of_its_own(trial):
    walk = walk_of(lambda image: LinearPath((image,), (image / 2,)))
    assert torch.equal(ends(walk.path(trial))[0], IMAGE / 2)
    assert not walk.ends_at_image
