"""A folder of images becomes degraded copies, a table of what was drawn, and a sheet; bad files stop nothing else."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from macattr.image_files import display_name, read_image
from ram_models.degradations import DEGRADATIONS, GaussianNoise
from ram_models.recipes import degrade as recipe
from ram_models.recipes.degrade import Config, main


@pytest.fixture
def folder(tmp_path):
    """A colour and, in a sub-folder, a grey picture."""
    generator = np.random.default_rng(0)
    (tmp_path / "in" / "sub").mkdir(parents=True)
    Image.fromarray(generator.integers(0, 256, (20, 30, 3), np.uint8)).save(tmp_path / "in" / "a.jpg")
    Image.fromarray(generator.integers(0, 256, (24, 18), np.uint8)).save(tmp_path / "in" / "sub" / "b.png")
    return tmp_path / "in"


def run(*arguments, **options):
    """Everything but the sheet."""
    main(Config(*arguments, **{"sheet_images": 0} | options))


def rows_of(output):
    with (output / "parameters.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def bytes_below(output):
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in output.rglob("*.png")}


def test_every_image_meets_every_task(folder, tmp_path):
    main(Config(folder, tmp_path / "out", "haze, pepper"))
    expected = {f"{task}/{name}" for task in ("haze", "pepper") for name in ("a.png", "sub/b.png")}
    assert set(bytes_below(tmp_path / "out")) == expected | {"sheet.png"}
    assert {row["output"] for row in rows_of(tmp_path / "out")} == expected
    assert read_image(tmp_path / "out/haze/sub/b.png").shape == (3, 24, 18)


def test_the_default_is_the_papers_seven_tasks(folder, tmp_path):
    run(folder / "a.jpg", tmp_path / "out")
    tasks = [row["task"] for row in rows_of(tmp_path / "out")]
    assert tasks == ["haze", "rain", "noise", "motion_blur", "lowlight", "blur", "jpeg"]
    assert not (tmp_path / "out" / "sheet.png").exists()


def test_rows_of_other_images_and_tasks_stay(folder, tmp_path, capsys):
    run(folder, tmp_path / "out", "haze,noise")
    before = {row["output"]: row for row in rows_of(tmp_path / "out")}
    run(folder / "a.jpg", tmp_path / "out", "noise", seed=7)
    assert "written: 1 images (noise) and parameters.csv in" in capsys.readouterr().out
    after = {row["output"]: row for row in rows_of(tmp_path / "out")}
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {"noise/a.png"}
    (tmp_path / "out/haze/a.png").unlink()
    run(folder / "a.jpg", tmp_path / "out", "noise")
    assert {row["output"] for row in rows_of(tmp_path / "out")} == before.keys() - {"haze/a.png"}


@pytest.mark.parametrize("task", ["noise", "rain", "jpeg"])
def test_a_row_of_the_table_makes_the_image_again(folder, tmp_path, task):
    run(folder, tmp_path / "out", task)
    row = rows_of(tmp_path / "out")[0]
    generator = torch.Generator().manual_seed(int(row["seed"]))
    drawn = DEGRADATIONS[task].draw(generator)
    assert {name: str(value) for name, value in vars(drawn).items()}.items() <= row.items()
    degraded = drawn(read_image(folder / row["image"]), generator)
    # Written with 8 bits: half a level.
    torch.testing.assert_close(read_image(tmp_path / "out" / row["output"]), degraded, rtol=0, atol=0.501 / 255)


def test_an_image_is_degraded_alike_whatever_stands_beside_it(folder, tmp_path):
    run(folder, tmp_path / "all", "noise,rain")
    run(folder / "a.jpg", tmp_path / "one", "rain")
    assert bytes_below(tmp_path / "one")["rain/a.png"] == bytes_below(tmp_path / "all")["rain/a.png"]


def test_images_tasks_and_seeds_differ_in_what_is_drawn(folder, tmp_path):
    run(folder, tmp_path / "0", "noise,pepper")
    run(folder, tmp_path / "1", "noise,pepper", seed=1)
    seeds = [row["seed"] for number in "01" for row in rows_of(tmp_path / number)]
    assert len(set(seeds)) == 8


def test_given_parameters_replace_the_drawn_ones(folder, tmp_path):
    run(folder, tmp_path / "out", "noise,jpeg", {"noise": {"sigma_255": 0.0}, "jpeg": {"quality": 30.0}})
    rows = rows_of(tmp_path / "out")
    assert [(row["sigma_255"], row["quality"]) for row in rows] == [("0.0", ""), ("", "30")] * 2
    assert read_image(tmp_path / "out/noise/sub/b.png").equal(read_image(folder / "sub/b.png"))


def test_setting_a_parameter_leaves_the_other_draws_alone(folder, tmp_path):
    run(folder, tmp_path / "free", "haze")
    run(folder, tmp_path / "set", "haze", {"haze": {"beta": 0.1}})
    free, fixed = rows_of(tmp_path / "free")[0], rows_of(tmp_path / "set")[0]
    assert fixed == free | {"beta": "0.1"}


def test_the_sheet_shows_images_by_tasks_with_their_parameters(folder, tmp_path, monkeypatch):
    shown = []

    def draw_sheet(rows, titles):
        shown.append((rows, titles))
        return original(rows, titles)

    original = recipe.draw_sheet
    monkeypatch.setattr(recipe, "draw_sheet", draw_sheet)
    main(Config(folder, tmp_path / "out", "speckle", sheet_crop=16))
    rows, titles = shown[0]
    assert titles == ["clean", "speckle"]
    assert list(rows) == ["a.jpg", "sub/b.png"]
    assert rows["a.jpg"]["speckle"].caption == "sigma 0.2"
    assert rows["a.jpg"]["clean"].panel.equal(read_image(folder / "a.jpg")[:, 2:18, 7:23])
    figure = original(rows, titles)
    assert [axes.get_title() for axes in figure.axes] == ["clean", "speckle", "", ""]
    assert [axes.get_ylabel() for axes in figure.axes] == ["a.jpg", "", "sub/b.png", ""]


def test_the_sheet_holds_no_more_images_than_asked_for(folder, tmp_path, monkeypatch):
    shown = []
    original = recipe.draw_sheet
    monkeypatch.setattr(recipe, "draw_sheet", lambda rows, titles: shown.append(list(rows)) or original(rows, titles))
    main(Config(folder, tmp_path / "out", "pepper", sheet_images=1))
    assert shown == [["a.jpg"]]


def test_bad_files_are_reported_and_the_others_done(folder, tmp_path, capsys):
    (folder / "broken.png").write_bytes((folder / "sub/b.png").read_bytes()[:100])
    (folder / "empty.png").touch()
    with pytest.raises(ValueError, match=r"^2 problems, the other images are in '.*out'; '.*broken\.png' cannot"):
        main(Config(folder, tmp_path / "out", "pepper"))
    reported = capsys.readouterr().err
    assert "broken.png' cannot be read as an image" in reported
    assert "empty.png' cannot be read as an image: it is empty" in reported
    assert [row["image"] for row in rows_of(tmp_path / "out")] == ["a.jpg", "sub/b.png"]
    assert set(bytes_below(tmp_path / "out")) == {"pepper/a.png", "pepper/sub/b.png", "sheet.png"}


def test_images_too_small_for_one_task_meet_the_others(folder, tmp_path):
    Image.new("RGB", (5, 6), (90, 90, 90)).save(folder / "tiny.png")
    with pytest.raises(ValueError, match=r"^1 problem, .*tiny\.png' by blur: an image of 6x5 pixels is too small"):
        run(folder, tmp_path / "out", "blur,pepper")
    assert {"pepper/tiny.png", "blur/a.png"} <= set(bytes_below(tmp_path / "out"))


def test_the_table_knows_what_was_finished_when_the_disk_fills_up(folder, tmp_path, monkeypatch):
    on_disk = []

    def write(image, path, original=recipe.write_png):
        if path.name == "b.png":
            on_disk.extend(rows_of(tmp_path / "out"))  # before anything is closed, as if the power went
            raise OSError(28, "No space left on device")
        original(image, path)

    monkeypatch.setattr(recipe, "write_png", write)
    with pytest.raises(OSError, match="No space left"):
        run(folder, tmp_path / "out", "noise")
    assert [row["image"] for row in on_disk] == ["a.jpg"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "snow"}, "no degradation 'snow'; there are haze, rain"),
        ({"task": ""}, "no degradation ''; there are haze, rain"),
        ({"task": "noise", "parameters": {"noise": {"sigma": 3.0}}}, "'noise' has no parameter 'sigma'; it has sigma_"),
        ({"task": "noise", "parameters": {"noise": {"sigma_255": -3.0}}}, "`sigma_255` must be at least 0, got -3.0"),
        ({"task": "noise", "parameters": {"noise": {"sigma_255": float("nan")}}}, "`sigma_255` must be .* got nan"),
        ({"task": "jpeg", "parameters": {"jpeg": {"quality": 50.5}}}, "`quality` of 'jpeg' must be a whole number"),
        ({"task": "jpeg", "parameters": {"jpeg": {"quality": float("nan")}}}, "`quality` of 'jpeg' must be a whole"),
        ({"task": "haze", "parameters": {"noise": {}}}, "`parameters` are given for 'noise', but the tasks are haze"),
        ({"seed": -1}, "`seed` must be a whole number from 0 to \\d+, got -1"),
        ({"sheet_crop": 0}, "`sheet_crop` must be at least 1, got 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_senseless_requests_write_nothing(folder, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        main(Config(folder, tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("source", "output"),
    [("in", "in"), ("in", "in/out"), ("in/haze", "in"), ("in/haze/b.png", "in")],
    ids=["same", "inside", "task_folder", "file_in_task_folder"],
)
def test_the_input_is_never_written_to(folder, tmp_path, source, output):
    (folder / "sub").rename(folder / "haze")
    with pytest.raises(ValueError, match=r"`output` '.*' overlaps with the input: choose a folder outside of it"):
        run(tmp_path / source, tmp_path / output, "haze")


def test_two_images_that_would_become_one_are_refused(folder, tmp_path):
    Image.new("RGB", (20, 20)).save(folder / "a.bmp")
    with pytest.raises(ValueError, match=r"'a\.bmp' and 'a\.jpg' would both become 'a\.png': rename one of them"):
        run(folder, tmp_path / "out", "noise")


def test_a_missing_input_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no file or folder"):
        main(Config(tmp_path / "nowhere", tmp_path / "out"))


def test_noise_of_a_given_strength_is_what_the_function_adds(folder, tmp_path):
    run(folder / "a.jpg", tmp_path / "out", "noise", {"noise": {"sigma_255": 25.0}})
    (row,) = rows_of(tmp_path / "out")
    generator = torch.Generator().manual_seed(int(row["seed"]))
    GaussianNoise.draw(generator)
    expected = GaussianNoise(25.0)(read_image(folder / "a.jpg"), generator)
    torch.testing.assert_close(read_image(tmp_path / "out/noise/a.png"), expected, rtol=0, atol=0.501 / 255)


@pytest.mark.parametrize("name", ["a\nb.png", "\udcff.png", "$x^{.png", "quo'te\".png", "007.png"])
def test_any_file_name_is_degraded_and_listed(tmp_path, name):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "in" / name)
    main(Config(tmp_path / "in", tmp_path / "out", "pepper"))
    assert (tmp_path / "out" / "pepper" / name).is_file()
    with (tmp_path / "out" / "parameters.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["image"] == display_name(name)


def test_a_photograph_that_is_called_like_the_sheet_is_not_replaced(tmp_path):
    photograph = tmp_path / "sheet.png"
    Image.new("RGB", (20, 30)).save(photograph)
    before = photograph.read_bytes()
    with pytest.raises(ValueError, match=r"sheet\.png' would be replaced, which is among the input"):
        main(Config(photograph, tmp_path, "noise"))
    assert photograph.read_bytes() == before


def test_a_table_of_the_users_is_not_replaced(folder, tmp_path):
    (tmp_path / "out").mkdir()
    table = tmp_path / "out" / "parameters.csv"
    table.write_text("mine,yours\n1,2\n")
    with pytest.raises(ValueError, match=r"parameters\.csv' is no table of degraded images and would be replaced"):
        main(Config(folder, tmp_path / "out", "noise"))
    assert table.read_text() == "mine,yours\n1,2\n"
