import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ram_models.data.check import check_data, summary
from ram_models.recipes.check import Config, main


def put(file, seed, width=16, height=16):
    """Write an image of noise, which no other seed gives."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(file)
    return file


@pytest.fixture
def data(tmp_path):
    """Three whole sets: LOL's two splits and clean photographs."""
    for seed, place in enumerate(
        f"LOL/{split}/{side}/{n}.png" for split in ("our485", "eval15") for side in ("low", "high") for n in (1, 2)
    ):
        put(tmp_path / place, seed)
    put(tmp_path / "Set12" / "01.png", 100)
    return tmp_path


def kinds(report):
    return [(problem.kind, problem.file.name) for problem in report.problems]


# ---- findings


def test_whole_sets_have_no_problem(data):
    report = check_data(data)
    assert report.problems == ()
    assert [(one.name, one.split, one.items, one.complete, one.files, one.sizes) for one in report.sets] == [
        ("LOL", "test", 2, 15, 4, {"16x16": 2}),
        ("LOL", "train", 2, 485, 4, {"16x16": 2}),
        ("Set12", "test", 1, 12, 1, {"16x16": 1}),
    ]
    size = sum(file.stat().st_size for file in data.rglob("*.png")) / 1e6
    assert sum(one.megabytes for one in report.sets) == pytest.approx(size)


@pytest.mark.parametrize(
    ("damage", "detail"),
    [
        (lambda content: b"", "cannot be read as an image: it is empty"),
        (lambda content: content[: len(content) // 2], "cannot be read as an image: .*truncated"),
        (lambda content: b"<html>404</html>", "cannot be read as an image: cannot identify image file"),
        (lambda content: content[:200] + bytes(50) + content[250:], "cannot be read as an image"),
    ],
    ids=["zero bytes", "truncated", "no image", "overwritten"],
)
@pytest.mark.parametrize("place", ["LOL/eval15/low/1.png", "LOL/eval15/high/1.png", "Set12/01.png"])
def test_an_unreadable_file_is_found_on_either_side(data, place, damage, detail):
    file = data / place
    file.write_bytes(damage(file.read_bytes()))
    (problem,) = check_data(data).problems
    assert (problem.kind, problem.file) == ("unreadable", file)
    assert problem.detail.startswith(detail.split(":")[0])
    assert str(file) not in problem.detail.split(": ")[0]


def test_a_link_to_nowhere_is_unreadable(data):
    (data / "Set12" / "02.png").symlink_to(data / "gone.png")
    assert kinds(check_data(data)) == [("unreadable", "02.png")]


def test_files_without_a_counterpart_are_found_on_either_side(data):
    put(data / "LOL/eval15/low/3.png", 50)
    put(data / "LOL/eval15/high/4.png", 51)
    assert kinds(check_data(data)) == [("unmatched", "4.png"), ("unmatched", "3.png")]


def test_a_set_with_one_side_only_is_a_problem_and_not_unknown(data):
    shutil.rmtree(data / "LOL/eval15/high")
    assert kinds(check_data(data)) == [("unmatched", "1.png"), ("unmatched", "2.png")]


def test_an_unmatched_file_is_read_too(data):
    put(data / "LOL/eval15/low/3.png", 50).write_bytes(b"")
    assert kinds(check_data(data)) == [("unreadable", "3.png"), ("unmatched", "3.png")]


def test_pairs_of_two_sizes_are_found(data):
    put(data / "LOL/eval15/low/2.png", 50, 17, 16)
    (problem,) = check_data(data).problems
    assert (problem.kind, problem.file) == ("size mismatch", data / "LOL/eval15/low/2.png")
    assert problem.detail == f"17x16 pixels, but {str(data / 'LOL/eval15/high/2.png')!r} has 16x16"


@pytest.mark.parametrize(("side", "found"), [(36, []), (16, []), (34, ["size mismatch"])])
def test_the_border_of_sots_indoor_is_no_mismatch(tmp_path, side, found):
    put(tmp_path / "SOTS/indoor/hazy/1400_1.png", 1)
    put(tmp_path / "SOTS/indoor/gt/1400.png", 2, side, side)
    assert [problem.kind for problem in check_data(tmp_path).problems] == found


def test_a_training_image_among_the_test_images_is_found(data):
    shutil.copy(data / "LOL/our485/high/2.png", data / "Set12/02.png")
    (problem,) = check_data(data).problems
    assert (problem.kind, problem.image_set, problem.file.name) == ("duplicate", "Set12", "02.png")
    assert problem.detail == f"the same file as {str(data / 'LOL/our485/high/2.png')!r}"


def test_a_training_image_saved_anew_is_found_by_its_pixels(data):
    Image.open(data / "LOL/our485/high/2.png").save(data / "Set12/02.bmp")
    (problem,) = check_data(data).problems
    assert problem.detail == f"the same pixels, in other bytes, as {str(data / 'LOL/our485/high/2.png')!r}"


def test_the_pixels_of_another_shape_are_another_image(tmp_path):
    for place, (width, height) in {"LOL/our485/low/1.png": (8, 2), "LOL/our485/high/1.png": (8, 2)}.items():
        put(tmp_path / place, len(place), width, height)
    pixels = np.asarray(Image.open(tmp_path / "LOL/our485/low/1.png")).reshape(4, 4, 3)
    (tmp_path / "Set12").mkdir()
    Image.fromarray(pixels).save(tmp_path / "Set12/01.png")
    assert check_data(tmp_path).problems == ()


def test_a_border_does_not_hide_a_duplicate(data):
    clean = np.asarray(Image.open(data / "LOL/our485/high/2.png"))
    put(data / "SOTS/indoor/hazy/1400_1.png", 7)
    (data / "SOTS/indoor/gt").mkdir()
    Image.fromarray(np.pad(clean, ((10, 10), (10, 10), (0, 0)), constant_values=255)).save(
        data / "SOTS/indoor/gt/1400.png"
    )
    assert kinds(check_data(data)) == [("duplicate", "1400.png")]


def test_duplicates_inside_the_test_sets_are_no_problem(data):
    shutil.copy(data / "LOL/eval15/high/2.png", data / "Set12/02.png")
    assert check_data(data).problems == ()


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_threads_changes_nothing(data, workers):
    put(data / "LOL/eval15/low/3.png", 50)
    assert check_data(data, workers=workers) == check_data(data)


# ---- in words


def test_every_problem_is_listed_worst_kind_first(data):
    shutil.copy(data / "LOL/our485/high/2.png", data / "Set12/02.png")
    put(data / "LOL/eval15/low/1.png", 50, 17, 16)
    put(data / "LOL/eval15/low/3.png", 51)
    (data / "LOL/eval15/low/2.png").write_bytes(b"")
    text = summary(check_data(data))
    heads = [line for line in text.splitlines() if line.endswith(": 1")]
    assert heads == [
        "files that cannot be read: 1",
        "files without a counterpart: 1",
        "pairs of two sizes: 1",
        "images in both train and test: 1",
    ]
    assert f"  {data / 'LOL/eval15/low/2.png'}: cannot be read as an image: it is empty." in text
    assert "No problem" not in text


def test_a_long_list_is_cut_in_the_terminal(data):
    for number in range(10, 15):
        put(data / f"LOL/eval15/low/{number}.png", number)
    lines = summary(check_data(data), listed=2).splitlines()
    assert lines[-4] == "files without a counterpart: 5"
    assert lines[-1] == "  and 3 more"


def test_images_of_no_set_are_mentioned_and_no_problem(data):
    put(data / "holiday/a.png", 70)
    put(data / "holiday/b.png", 71)
    assert "not part of any set: 2 images in holiday" in summary(check_data(data))
    assert check_data(data).problems == ()


def test_the_table_says_what_is_there_and_how_much_is_missing(data):
    lines = summary(check_data(data)).splitlines()
    assert lines[0].startswith(f"{data}: 3 sets, 9 files, ")
    assert [line.split() for line in lines[3:6]] == [
        ["LOL", "test", "lowlight", "2", "of", "15", "pairs", "16x16", "LOL/eval15"],
        ["LOL", "train", "lowlight", "2", "of", "485", "pairs", "16x16", "LOL/our485"],
        ["Set12", "test", "(clean)", "1", "of", "12", "images", "16x16", "Set12"],
    ]
    assert lines[-1] == (
        "No problem: every image can be read, the two sides of every pair have one size, no image is in both train and "
        "test."
    )


def test_what_could_not_be_compared_is_said(data):
    assert summary(check_data(data / "Set12")).endswith("nothing to compare between train and test.")


# ---- the command


def test_the_command_returns_0_for_whole_sets_and_1_for_problems(data, capsys):
    assert main(Config(data)) == 0
    assert "No problem" in capsys.readouterr().out
    (data / "Set12/01.png").write_bytes(b"")
    assert main(Config(data)) == 1
    assert "files that cannot be read: 1" in capsys.readouterr().out


def test_the_findings_are_written_on_request(data):
    put(data / "LOL/eval15/low/3.png", 50)
    (data / "Set12/01.png").write_bytes(b"")
    out = data.parent / "out"
    out.mkdir()
    main(Config(data, csv=out / "problems.csv", json=out / "report.json"))
    with (out / "problems.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["kind"], row["image_set"], row["split"], Path(row["file"]).name, row["detail"]) for row in rows] == [
        ("unreadable", "Set12", "test", "01.png", "cannot be read as an image: it is empty."),
        ("unmatched", "LOL", "test", "3.png", "no counterpart"),
    ]
    report = json.loads((out / "report.json").read_text())
    assert len(report["problems"]) == 2
    assert [one["name"] for one in report["sets"]] == ["LOL", "LOL", "Set12"]


def test_a_folder_with_nothing_known_is_refused_in_one_line(tmp_path):
    put(tmp_path / "holiday/a.png", 1)
    with pytest.raises(ValueError, match=r"none of the 1 images .* lies in a known layout .*LOL.* 'clean'") as raised:
        main(Config(tmp_path))
    assert "\n" not in str(raised.value)
    assert main(Config(tmp_path, layout="clean")) == 0


def test_names_that_are_no_text_are_listed(tmp_path):
    for name in ("\udcff.png", "a\nb.png"):
        (tmp_path / "Set12").mkdir(exist_ok=True)
        (tmp_path / "CBSD68").mkdir(exist_ok=True)
        (tmp_path / "CBSD68" / name).write_bytes(b"broken")
    assert main(Config(tmp_path, csv=tmp_path / "a.csv", json=tmp_path / "a.json")) == 1
    text = (tmp_path / "a.csv").read_text(encoding="utf-8")
    assert r"\xff.png" in text
    assert r"a\nb.png" in text
