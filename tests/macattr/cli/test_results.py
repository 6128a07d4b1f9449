"""The folder of a ranking: the user's own files stay, a finished run is not replaced without a word."""

import json

import pytest
import torch
from torch import nn

from macattr.cli.results import Results
from macattr.ranking.journal import remove_parts
from macattr.ranking.rank import rank_methods

SETTINGS = {"r": 0.5, "images": ["a.png"]}


@pytest.fixture
def rankings():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3)).eval()
    return rank_methods(network, torch.rand(1, 3, 8, 8), ["magnitude"])


@pytest.fixture
def finished(tmp_path, rankings) -> Results:
    results = Results(tmp_path / "out", ["magnitude"], SETTINGS)
    results.write(rankings, 0.5)
    results.finish()
    return results


def test_the_same_run_is_complete_and_can_be_loaded(finished, rankings):
    again = Results(finished.folder, ["magnitude"], SETTINGS)
    assert again.is_complete()
    assert again.load()["magnitude"].dataset.identical(rankings["magnitude"].dataset)


@pytest.mark.parametrize("changed", [{"r": 0.3}, {"images": ["b.png"]}, {"n_steps": 4}], ids=str)
def test_a_finished_run_with_other_settings_is_refused(finished, changed):
    other = Results(finished.folder, ["magnitude"], SETTINGS | changed)
    with pytest.raises(ValueError, match=r"holds a finished run with other settings .*: choose another folder"):
        other.is_complete()
    assert not other.is_complete(overwrite=True)
    assert not list(finished.folder.iterdir())


def test_what_differs_is_told_in_names(finished):
    methods = {"methods": ["magnitude: JointMethod(name=magnitude, summary=mean |weight|)"]}
    (finished.folder / "run.json").write_text(json.dumps({"settings": SETTINGS | methods, "files": []}))
    for now, told in (
        ("depth: JointMethod()", "methods = magnitude, now depth"),
        ("magnitude: other", "other methods"),
    ):
        with pytest.raises(ValueError, match=f"other settings \\({told}\\)"):
            Results(finished.folder, ["magnitude"], SETTINGS | {"methods": [now]}).is_complete()


@pytest.mark.parametrize("name", ["thesis.txt", "photo.png", "parts/thesis.txt", "magnitude/notes.md"])
def test_files_of_the_user_are_never_removed(finished, name):
    own = finished.folder / name
    own.parent.mkdir(exist_ok=True)
    own.write_text("mine")
    assert not Results(finished.folder, ["magnitude"], SETTINGS).is_complete(overwrite=True)
    assert own.read_text() == "mine"


def test_files_of_another_origin_are_not_replaced(tmp_path):
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(
        ValueError, match=r"holds files of another origin that would be replaced, such as 'report.html'"
    ):
        Results(tmp_path, ["mac"], SETTINGS).is_complete()


def test_parts_are_removed_and_the_rest_of_their_folder_stays(tmp_path):
    for name in ("settings.json", "000000-0000.json", "000012-0003.json", "thesis.txt", "000000.json"):
        (tmp_path / name).write_text(json.dumps({}))
    remove_parts(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["000000.json", "thesis.txt"]


def test_a_folder_that_is_no_journal_is_left_alone(tmp_path):
    (tmp_path / "000000-0000.json").write_text("mine")
    remove_parts(tmp_path)
    assert (tmp_path / "000000-0000.json").read_text() == "mine"


def test_a_file_in_place_of_the_folder_is_explained(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(ValueError, match="is a file: name a folder"):
        Results(tmp_path / "out", ["mac"], SETTINGS).is_complete()
