"""Files of rankings: they come back as they were, or are refused in one line."""

import re

import numpy as np
import pytest

from macattr import LayerImportance
from macattr.cli import main

NAMES = ["first", "007", "NA", "1e3", "é\u2028", "last"]


@pytest.fixture
def importance(made_up) -> LayerImportance:
    return made_up(NAMES, images=2)


@pytest.fixture
def file(importance, tmp_path):
    importance.save(tmp_path / "importance.nc")
    return tmp_path / "importance.nc"


def loaded_or_refused(path) -> LayerImportance | None:
    """What a file holds; None if it is refused in one line without the library's own text."""
    try:
        return LayerImportance.load(path)
    except ValueError as error:
        message = str(error)
        assert message.startswith(f"{str(path)!r} cannot be read as a ranking: ")
        assert "\n" not in message
        assert "HDF5" not in message.partition(": ")[2]
        assert "errno" not in message
        return None


def test_everything_comes_back(importance, file):
    assert LayerImportance.load(file).dataset.identical(importance.dataset)


def test_rankings_that_hold_nan_infinity_and_whole_numbers_come_back(importance, tmp_path):
    score = importance.dataset["score"].copy()
    score[0, 0, :3] = [np.nan, np.inf, -0.0]
    special = LayerImportance(importance.dataset.assign(score=score))
    special.save(tmp_path / "special.nc")
    assert LayerImportance.load(tmp_path / "special.nc").dataset.identical(special.dataset)


@pytest.mark.parametrize("bit", [0, 7])
def test_a_damaged_byte_is_refused_or_harmless(importance, file, tmp_path, bit):
    content, damaged = file.read_bytes(), tmp_path / "damaged.nc"
    refused = 0
    for place in np.random.default_rng(bit).choice(len(content), 60, replace=False):
        changed = bytearray(content)
        changed[place] ^= 1 << bit
        damaged.write_bytes(changed)
        found = loaded_or_refused(damaged)
        refused += found is None
        assert found is None or found.dataset.identical(importance.dataset)
    assert refused >= 55  # of 60; harmless are those in the first words of the seal


def test_a_damaged_score_is_refused(importance, file):
    content = file.read_bytes()
    place = content.index(importance.values[0].astype("<f8").tobytes())
    file.write_bytes(content[: place + 3] + bytes([content[place + 3] ^ 1]) + content[place + 4 :])
    with pytest.raises(ValueError, match="its content does not match its checksum"):
        LayerImportance.load(file)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.995])
def test_a_file_that_was_cut_off_is_refused(file, share):
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    assert loaded_or_refused(file) is None


@pytest.mark.parametrize("command", ["report", "compare", "select"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.nc", "No such file or directory"),
        ("damaged.nc", "it is damaged"),
        ("text.nc", "it is damaged, cut off or not a NetCDF file"),
        ("other.nc", "it has no `score`"),
    ],
)
def test_commands_end_with_one_line(importance, file, tmp_path, capsys, command, name, reason):
    content = bytearray(file.read_bytes())
    content[len(content) // 3 :: 97] = bytes(len(content[len(content) // 3 :: 97]))
    (tmp_path / "damaged.nc").write_bytes(content)
    (tmp_path / "text.nc").write_text("a table")
    importance.dataset.drop_vars("score").to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    files = [str(tmp_path / name), *([str(file)] if command == "compare" else [])]
    with pytest.raises(SystemExit, match="2"):
        main([command, *files, *(["--count", "1"] if command == "select" else [])])
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{str(tmp_path / name)!r} cannot be read as a ranking: " in line
    assert reason in line


def test_the_folder_of_a_ranking_is_read_and_a_file_beside_it_answered_with_it(importance, tmp_path):
    for method in ("drift", "mac"):
        (tmp_path / method).mkdir()
        importance.save(tmp_path / method / "importance.nc")
    importance.to_csv(tmp_path / "mac" / "ranking.csv")
    drift, mac = (tmp_path / method / "importance.nc" for method in ("drift", "mac"))
    assert LayerImportance.load(tmp_path / "mac").dataset.identical(importance.dataset)
    for given in ("mac/ranking.csv", "mac/importance.nx"):
        with pytest.raises(ValueError, match=f"^{re.escape(repr(str(tmp_path / given)))} .*Did you mean {mac}\\?$"):
            LayerImportance.load(tmp_path / given)
    with pytest.raises(ValueError, match=rf"Is a directory\. Did you mean {drift} or {mac}\?$"):
        LayerImportance.load(tmp_path)


def test_a_printed_ranking_is_a_short_summary(importance):
    lines = str(importance).splitlines()
    assert lines[0] == "LayerImportance of SwinIR by mac: 6 layers, 2 images; score = mean |C|"
    assert [line.split()[1] for line in lines[2:7]] == importance.ranking()["layer"][:5].tolist()
    assert lines[7] == "... and 1 more: see ranking()"
