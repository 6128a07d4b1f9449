import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ram_models.data.layouts import LAYOUTS
from ram_models.data.recognition import read_sets, recognise
from ram_models.data.sets import ImageSet, Pair, clean_folder, paired_folder

REPOSITORY = Path(__file__).parents[3]


def put(file, width=4, height=4, value=0):
    """Write one image of one colour."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (value, value, value)).save(file)
    return file


def tree(directory, *files):
    """Write an image of one colour at each place."""
    for file in files:
        put(directory / file)
    return directory


def found(sets):
    """What was read, in short."""
    return {(one.name, one.split, one.task, len(one.pairs)) for one in sets}


# ---- folders as they are published

DISTRIBUTED = {
    "train/BSDS500/data/images/test/112090.jpg": ("BSDS500", "train", None, 2),
    "train/BSDS500/data/images/train/309004.jpg": ("BSDS500", "train", None, 2),
    "train/RainTrain_JORDER/small/{rain,norain}/norain-15.png": ("RainTrain", "train", "rain", 1),
    "train/LOL/our485/{low,high}/131.png": ("LOL", "train", "lowlight", 1),
    "train/ITS_v2/hazy/1_2_0.97842.png": ("RESIDE-ITS", "train", "haze", 2),
    "train/ITS_v2/hazy/1_1_0.9.png": ("RESIDE-ITS", "train", "haze", 2),
    "train/ITS_v2/gt/1.png": ("RESIDE-ITS", "train", "haze", 2),
    "test/CBSD68/3096.jpg": ("CBSD68", "test", None, 1),
    "test/Kodak24/kodim17.png": ("Kodak24", "test", None, 1),
    "test/Set12/01.png": ("Set12", "test", None, 1),
    "test/LIVE1/statue.bmp": ("LIVE1", "test", None, 1),
    "test/classic5/boats.bmp": ("classic5", "test", None, 1),
    "test/Urban100/image_SRF_4/img_018_SRF_4_HR.png": ("Urban100", "test", None, 1),
    "test/Rain100H/{inputcrop,cleancrop}/41.png": ("Rain100H", "test", "rain", 1),
    "test/Rain100L_AirNet/derain/{input,target}/1.png": ("Rain100L", "test", "rain", 1),
    "test/SOTS_outdoor_AirNet/dehaze/input/0001_0.8_0.2.jpg": ("SOTS-outdoor", "test", "haze", 1),
    "test/SOTS_outdoor_AirNet/dehaze/target/0001.png": ("SOTS-outdoor", "test", "haze", 1),
    "test/SOTS_indoor/SOTS/hazy/1400_1.png": ("SOTS-indoor", "test", "haze", 1),
    "test/SOTS_indoor/SOTS/gt/1400.png": ("SOTS-indoor", "test", "haze", 1),
    "test/RESIDE-IN/test/{hazy,GT}/1414_3.png": ("RESIDE-IN", "test", "haze", 1),
    "test/LOL/eval15/{low,high}/748.png": ("LOL", "test", "lowlight", 1),
    "test/GoPro_samples/blur/blur_00.png": ("GoPro", "test", "motion_blur", 1),
    "test/GoPro_samples/sharp/sharp_00.png": ("GoPro", "test", "motion_blur", 1),
    "test/Levin/im1_kernel{1,2}_img.png": ("Levin", "test", "motion_blur", 4),
    "test/Levin/im2_kernel{1,2}_img.png": ("Levin", "test", "motion_blur", 4),
    "test/Levin/gt/im{1,2}.png": ("Levin", "test", "motion_blur", 4),
}
"""Files as the data sets name them (``{a,b}`` is both), and the set of each: name, split, task, number of its items."""


@pytest.fixture
def distributed(tmp_path):
    """All these files, and two blur kernels that lie with Levin's clean images."""
    for pattern in [*DISTRIBUTED, "test/Levin/gt/kernel{1,2}.png"]:
        start, choice, end = re.fullmatch(r"([^{]*)(?:{(.*)})?(.*)", pattern).groups()
        tree(tmp_path, *(f"{start}{part}{end}" for part in (choice or "").split(",")))
    return tmp_path


def test_every_published_set_is_recognised_with_its_count(distributed):
    sets = read_sets(distributed)
    assert found(sets) == set(DISTRIBUTED.values())
    assert not any(image_set.unmatched for image_set in sets)


def test_only_levins_kernels_are_part_of_no_set(distributed):
    _, others = recognise(distributed)
    assert sorted(file.name for file in others) == ["kernel1.png", "kernel2.png"]


def test_levins_blurred_images_share_their_clean_ones(distributed):
    pairs = next(image_set.pairs for image_set in read_sets(distributed) if image_set.name == "Levin")
    assert [len({pair.clean for pair in pairs}), len({pair.degraded for pair in pairs})] == [2, 4]
    assert all(Path(pair.clean).stem == pair.name.split("_")[0] for pair in pairs)


def test_a_set_is_recognised_from_inside_as_from_above(distributed):
    [alone] = read_sets(distributed / "test" / "LOL" / "eval15")
    [above] = [image_set for image_set in read_sets(distributed / "test") if image_set.name == "LOL"]
    assert found([alone]) == found([above]) == {("LOL", "test", "lowlight", 1)}
    assert alone.pairs == above.pairs


def test_without_its_border_a_clean_image_of_sots_indoor_lies_on_the_hazy_one(tmp_path):
    hazy = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    for file, pixels in {"hazy/1400_1.png": hazy, "gt/1400.png": np.pad(hazy, ((10, 10), (10, 10), (0, 0)))}.items():
        (tmp_path / "SOTS" / file).parent.mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "SOTS" / file)
    [image_set] = read_sets(tmp_path)
    degraded, clean = image_set.pairs[0].read()
    assert clean.equal(degraded)


# ---- other layouts, and other copies of these

TREES = {
    "OTS": (
        ["OTS/clear/0005.jpg", "OTS/hazy/part1/0005_0.8_0.04.jpg", "OTS/hazy/part2/0005_1_0.2.jpg"],
        ("RESIDE-OTS", "train", "haze", 2),
    ),
    "OTS as the authors of RAM keep it": (
        ["OTS_ALPHA/clear/clear_images/0005.jpg", "OTS_ALPHA/haze/OTS/0005_0.8_0.04.jpg"],
        ("RESIDE-OTS", "train", "haze", 1),
    ),
    "OTS of AirNet": (
        ["Train/Dehaze/original/0005.jpg", "Train/Dehaze/synthetic/part1/0005_0.8_0.04.jpg"],
        ("RESIDE-OTS", "train", "haze", 1),
    ),
    "ITS": (["ITS/clear/1.png", "ITS/hazy/1_1_0.9.png", "ITS/hazy/1_2_1.png"], ("RESIDE-ITS", "train", "haze", 2)),
    "SOTS indoor": (["SOTS/gt/1400.png", "SOTS/hazy/1400_1.png"], ("SOTS-indoor", "test", "haze", 1)),
    "SOTS outdoor": (
        ["SOTS/outdoor/clear/0001.png", "SOTS/outdoor/hazy/0001_0.8_0.2.jpg"],
        ("SOTS-outdoor", "test", "haze", 1),
    ),
    "RESIDE-OUT": (
        ["RESIDE-OUT/train/GT/1_1.png", "RESIDE-OUT/train/hazy/1_1.png"],
        ("RESIDE-OUT", "train", "haze", 1),
    ),
    "Rain13k": (["Rain13k/train/input/7.jpg", "Rain13k/train/target/7.jpg"], ("Rain13k", "train", "rain", 1)),
    "Rain13k of Restormer": (
        ["train/Rain13K/input/7.jpg", "train/Rain13K/target/7.jpg"],
        ("Rain13k", "train", "rain", 1),
    ),
    **{
        name: ([f"Rain13k/test/{name}/{side}/1.png" for side in ("input", "target")], (name, "test", "rain", 1))
        for name in ("Test100", "Rain100H", "Rain100L", "Test1200", "Test2800")
    },
    "Rain100L of AirNet's training": (
        ["train/Derain/rainy/rain-1.png", "train/Derain/gt/norain-1.png"],
        ("RainTrain", "train", "rain", 1),
    ),
    "GoPro train": (
        [f"GOPRO_Large/train/GOPR{scene}/{side}/1.png" for scene in (37, 38) for side in ("blur", "sharp")],
        ("GoPro", "train", "motion_blur", 2),
    ),
    "GoPro test": (
        [f"gopro/test/GOPR0384_11_00/{side}/000001.png" for side in ("blur", "sharp")],
        ("GoPro", "test", "motion_blur", 1),
    ),
    "LOL as the authors of RAM keep it": (
        ["LOL/test/input/1.png", "LOL/test/target/1.png"],
        ("LOL", "test", "lowlight", 1),
    ),
    "LOL-v2 real": (
        ["LOL-v2/Real_captured/Train/Low/low00001.png", "LOL-v2/Real_captured/Train/Normal/normal00001.png"],
        ("LOL-v2-real", "train", "lowlight", 1),
    ),
    "LOL-v2 synthetic": (
        ["LOL-v2/Synthetic/Test/Low/r1t.png", "LOL-v2/Synthetic/Test/Normal/r1t.png"],
        ("LOL-v2-synthetic", "test", "lowlight", 1),
    ),
    "LSDIR": (
        ["LSDIR/0001000/0000001.png", "LSDIR/0002000/0001001.png", "LSDIR/X4/0001000/0000001x4.png"],
        ("LSDIR", "train", None, 2),
    ),
    "LSDIR shards": (["LSDIR/shard-00/0001000/0000001.png"], ("LSDIR", "train", None, 1)),
    "LSDIR validation": (["LSDIR-val1/0000000/0000001.png"], ("LSDIR", "val", None, 1)),
    "BSDS500 val": (["BSR/BSDS500/data/images/val/101085.jpg"], ("BSDS500", "val", None, 1)),
    "names in capitals": (["KODAK24/KODIM01.PNG"], ("Kodak24", "test", None, 1)),
    "own pairs": (["mine/noise/degraded/a.png", "mine/noise/clean/a.jpg"], ("paired", "all", "noise", 1)),
}


@pytest.mark.parametrize(("files", "expected"), TREES.values(), ids=TREES)
def test_a_published_layout_is_recognised(tmp_path, files, expected):
    sets = read_sets(tree(tmp_path, *files))
    assert found(sets) == {expected}
    for pair in sets[0].pairs:
        assert pair.degraded is None or pair.degraded.stem.endswith(pair.name.split("/")[-1])


def test_sets_side_by_side_are_told_apart(tmp_path):
    files = [file for name, (files, _) in TREES.items() if name not in ("LSDIR shards",) for file in files]
    counted = found(read_sets(tree(tmp_path, *files)))
    expected = {expected for name, (_, expected) in TREES.items() if name not in ("LSDIR shards",)}
    assert counted == expected


def test_of_the_same_set_in_two_places_both_are_read(tmp_path):
    both = tree(tmp_path, *(f"{place}/eval15/{side}/1.png" for place in "ab" for side in ("low", "high")))
    assert [one.directory for one in read_sets(both)] == [tmp_path / "a" / "eval15", tmp_path / "b" / "eval15"]


def an_example(pattern):
    """A path that a pattern of a form means."""
    path = pattern
    while "{" in path:
        path = re.sub(r"\{([^{},]*)(,[^{}]*)?\}", r"\1", path)
    path = path.replace("**/", "part1/")
    for token, text in {
        "<id>": "31",
        "<no>": "31",
        "<scene>": "0372",
        "<k>": "2",
        "<a>": "0.8",
        "<beta>": "0.95",
    }.items():
        path = path.replace(token, text)
    return path.replace("*", "")


FORMS = [(layout, form) for layout in LAYOUTS.values() for form in layout.forms]


@pytest.mark.parametrize(("layout", "form"), FORMS, ids=[f"{one.name}: {form.clean}" for one, form in FORMS])
def test_every_row_of_the_table_is_recognised_from_its_own_words(tmp_path, layout, form):
    folder = tmp_path / (an_example(form.folder) or "anything")
    for pattern in filter(None, (form.degraded, form.clean)):
        put(folder / f"{an_example(pattern)}.png")
    (one,) = read_sets(tmp_path)
    assert (one.name, len(one.pairs)) == (layout.name, 1)
    assert one.task == ("haze" if layout.task == "folder" else layout.task)


# ---- how a folder is searched


def test_the_split_is_that_of_the_nearest_folder_called_so(tmp_path):
    for place in ("test/train", "train/test", "training", "other/RainTrain"):
        tree(tmp_path / place, "rain/norain-1.png", "norain/norain-1.png")
    splits = {str(one.directory.relative_to(tmp_path)): one.split for one in read_sets(tmp_path)}
    assert splits == {"test/train": "train", "train/test": "test", "training": "train", "other/RainTrain": "all"}


def test_files_without_a_counterpart_are_left_out_with_a_warning(tmp_path):
    tree(tmp_path, "eval15/low/1.png", "eval15/high/1.png", "eval15/low/2.png", "eval15/high/3.png")
    with pytest.warns(
        UserWarning, match=r"LOL in '.*eval15': files without a counterpart are left out \(2, the first is '3.png'"
    ):
        (lol,) = read_sets(tmp_path)
    assert [pair.name for pair in lol.pairs] == ["1"]
    assert {file.relative_to(lol.directory).as_posix() for file in lol.unmatched} == {"low/2.png", "high/3.png"}


@pytest.mark.parametrize(("degraded", "clean", "other"), [("1.png", "1.png", "1.jpg"), ("1.bmp", "1.jpg", "1.png")])
def test_of_two_clean_files_for_one_name_that_with_the_same_suffix_is_taken(tmp_path, degraded, clean, other):
    sets, _ = recognise(tree(tmp_path, f"eval15/low/{degraded}", "eval15/high/1.jpg", "eval15/high/1.png"))
    assert sets[0].pairs[0].clean.name == clean
    assert [file.name for file in sets[0].unmatched] == [other]


def test_images_that_differ_in_the_suffix_alone_keep_names_of_their_own(tmp_path):
    tree(tmp_path, *(f"eval15/{side}/{name}" for side in ("low", "high") for name in ("1.png", "1.jpg", "2.png")))
    (lol,) = read_sets(tmp_path)
    assert [(pair.name, pair.degraded.name, pair.clean.name) for pair in lol.pairs] == [
        ("2", "2.png", "2.png"),
        ("low/1.jpg", "1.jpg", "1.jpg"),
        ("low/1.png", "1.png", "1.png"),
    ]
    (clean,) = read_sets(tmp_path / "eval15" / "high", "clean")
    assert [pair.name for pair in clean.pairs] == ["1.jpg", "1.png", "2"]


def test_paired_folders_keep_images_apart_that_differ_in_the_suffix_alone(tmp_path):
    tree(tmp_path, *(f"{side}/{name}" for side in ("bad", "good") for name in ("a.jpg", "a.png", "b.png")))
    pairs = paired_folder(tmp_path / "bad", tmp_path / "good", "rain")
    assert [(pair.name, pair.clean.name) for pair in pairs.pairs] == [
        ("a.jpg", "a.jpg"),
        ("a.png", "a.png"),
        ("b", "b.png"),
    ]
    assert pairs.unmatched == ()


def test_an_unclear_counterpart_is_refused(tmp_path):
    tree(tmp_path, "bad/a.bmp", "good/a.jpg", "good/a.png")
    with pytest.raises(ValueError, match=r"unclear which clean image belongs to 'a\.bmp': 'a\.jpg', 'a\.png'; rename"):
        paired_folder(tmp_path / "bad", tmp_path / "good", "rain")


def test_an_underscore_of_a_folder_is_no_end_of_a_name(tmp_path):
    tree(tmp_path, "bad/my_set/1.png", "bad/my_set/2_x.png", "good/my.png", "good/my_set/2.png")
    pairs = paired_folder(tmp_path / "bad", tmp_path / "good", "rain")
    assert [(pair.name, pair.clean.name) for pair in pairs.pairs] == [("my_set/2_x", "2.png")]


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints/02.png", "__MACOSX/._01.png", "._01.png"])
def test_leftovers_of_other_programs_are_no_clean_images(tmp_path, hidden):
    tree(tmp_path, "01.png", hidden)
    assert [pair.name for pair in clean_folder(tmp_path).pairs] == ["01"]


def test_a_named_set_without_one_of_its_sides_is_recognised_but_not_read(tmp_path):
    sets, _ = recognise(tree(tmp_path, "eval15/low/1.png"))
    assert found(sets) == {("LOL", "test", "lowlight", 0)}
    with (
        pytest.warns(UserWarning, match=r"without a counterpart are left out \(1,"),
        pytest.raises(ValueError, match=r"no file below '.*' has its counterpart"),
    ):
        read_sets(tmp_path)


def test_hidden_files_and_archive_leftovers_are_not_images(tmp_path):
    tree(tmp_path, "Set12/01.png", "Set12/._01.png", "Set12/.cache/02.png", "__MACOSX/Set12/03.png")
    assert found(read_sets(tmp_path)) == {("Set12", "test", None, 1)}


def test_links_are_followed_and_a_loop_of_them_ends(tmp_path):
    tree(tmp_path, "disk/eval15/low/1.png", "disk/eval15/high/1.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "LOL").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "eval15" / "low" / "again").symlink_to(tmp_path / "disk" / "eval15" / "low")
    sets, others = recognise(tmp_path / "data")
    assert found(sets) == {("LOL", "test", "lowlight", 1)}
    assert others == []


@pytest.mark.parametrize(("width", "border"), [(24, 10), (4, 0)], ids=["larger", "already cut"])
def test_the_border_is_cut_only_where_the_clean_image_has_one(tmp_path, width, border):
    put(tmp_path / "SOTS/indoor/hazy/1400_1.png")
    put(tmp_path / "SOTS/indoor/gt/1400.png", width, width)
    (pair,) = read_sets(tmp_path)[0].pairs
    assert pair.clean_border == border
    assert [image.shape for image in pair.read()] == [(3, 4, 4), (3, 4, 4)]


def test_a_layout_can_be_asked_for_whatever_the_folder_is_called(tmp_path):
    tree(tmp_path / "my rain", "input/1.png", "target/1.png")
    with pytest.raises(ValueError, match="lies in a known layout"):
        read_sets(tmp_path)
    assert found(read_sets(tmp_path / "my rain", "Test100")) == {("Test100", "test", "rain", 1)}
    assert found(read_sets(tmp_path, "clean")) == {(tmp_path.name, "all", None, 2)}


def test_own_pairs_take_their_task_from_the_folder_when_asked_for(tmp_path):
    tree(tmp_path / "snow", "degraded/1.png", "clean/1.png")
    assert found(read_sets(tmp_path / "snow", "paired")) == {("paired", "all", "snow", 1)}


def test_only_the_layout_asked_for_is_read(tmp_path):
    tree(tmp_path, "Set12/01.png", "classic5/lena.bmp")
    assert found(read_sets(tmp_path, "Set12")) == {("Set12", "test", None, 1)}


@pytest.mark.parametrize(
    ("files", "layout", "message"),
    [
        ([], None, "the folder '.*' holds no image: looked for .png"),
        (
            ["a/1.png", "b/1.png"],
            None,
            r"none of the 2 images below .* \(RESIDE-IN, .*\): for pairs make folders TASK/",
        ),
        (["Set12/01.png"], "set12", "no layout 'set12'; there are RESIDE-IN, .*, clean"),
        (["x/01.png"], "LOL", r"none of the 1 images below .* known layout \(LOL\)"),
    ],
    ids=["empty", "unknown", "no such layout", "not that layout"],
)
def test_what_is_not_there_is_said_in_one_line(tmp_path, files, layout, message):
    with pytest.raises(ValueError, match=message) as raised:
        read_sets(tree(tmp_path, *files), layout)
    assert "\n" not in str(raised.value)


def test_one_side_of_a_pair_is_not_taken_for_the_set_around_it(tmp_path):
    tree(tmp_path, "eval15/low/1.png", "eval15/high/1.png")
    with pytest.raises(ValueError, match=r"none of the 1 images below .* lies in a known layout"):
        read_sets(tmp_path / "eval15" / "low")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"there is no folder '.*nowhere'"):
        read_sets(tmp_path / "nowhere")


# ---- folders of one's own


def test_a_paired_folder_matches_names_whatever_the_suffix(tmp_path):
    tree(tmp_path, "set/bad/a.jpg", "set/bad/sub/b.png", "set/good/a.png", "set/good/sub/b.png", "set/good/c.png")
    pairs = paired_folder(tmp_path / "set/bad", tmp_path / "set/good", "rain")
    assert (pairs.name, pairs.task, pairs.split) == ("set", "rain", "all")
    assert [(pair.name, pair.clean.name, pair.degraded.name) for pair in pairs.pairs] == [
        ("a", "a.png", "a.jpg"),
        ("sub/b", "b.png", "b.png"),
    ]
    assert pairs.unmatched == (tmp_path / "set/good/c.png",)


def test_a_paired_folder_gives_several_degraded_images_their_one_clean_image(tmp_path):
    tree(tmp_path, "hazy/0001_0.8_0.2.jpg", "hazy/0001_1_0.1.jpg", "hazy/0002_1.jpg", "gt/0001.png", "gt/0002_1.png")
    pairs = paired_folder(tmp_path / "hazy", tmp_path / "gt", "haze", "mine")
    assert pairs.name == "mine"
    assert [pair.clean.stem for pair in pairs.pairs] == ["0001", "0001", "0002_1"]
    assert pairs.unmatched == ()


def test_two_folders_with_nothing_in_common_are_refused(tmp_path):
    tree(tmp_path, "a/1.png", "b/2.png")
    with pytest.raises(ValueError, match=r"no image of '.*a' has a counterpart in '.*b': the two need equal names"):
        paired_folder(tmp_path / "a", tmp_path / "b", "rain")


def test_a_clean_folder_holds_every_image_at_any_depth(tmp_path):
    one = clean_folder(tree(tmp_path / "photographs", "b.png", "a/c.jpg"))
    assert one == ImageSet(
        "photographs",
        None,
        "all",
        (Pair("a/c", tmp_path / "photographs/a/c.jpg"), Pair("b", tmp_path / "photographs/b.png")),
        (),
        tmp_path / "photographs",
    )


# ---- reading a pair


def test_a_pair_is_read_as_degraded_and_clean_in_the_unit_range(tmp_path):
    pair = Pair("1", put(tmp_path / "clean.png", value=255), put(tmp_path / "bad.png", value=51))
    degraded, clean = pair.read()
    assert degraded.equal(torch.full((3, 4, 4), 51 / 255))
    assert clean.equal(torch.ones(3, 4, 4))


def test_a_clean_item_has_no_degraded_image(tmp_path):
    degraded, clean = Pair("1", put(tmp_path / "clean.png", value=255)).read()
    assert degraded is None
    assert clean.equal(torch.ones(3, 4, 4))


def test_a_grey_file_is_read_as_three_equal_channels(tmp_path):
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    _, clean = Pair("1", tmp_path / "grey.png").read()
    assert clean.equal((torch.from_numpy(pixels) / 255).expand(3, 4, 4))


def test_sides_of_two_sizes_are_refused_by_name(tmp_path):
    pair = Pair("1", put(tmp_path / "clean.png", 6, 4), put(tmp_path / "bad.png", 5, 4))
    with pytest.raises(ValueError, match=r"bad.png' has 5x4 pixels, its clean image '.*clean.png' has 6x4"):
        pair.read()
