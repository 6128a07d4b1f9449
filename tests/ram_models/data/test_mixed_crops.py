import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest, chisquare
from torch.utils.data import DataLoader, Subset

from ram_models.data import crops as datasets
from ram_models.data.crops import DecodedImages, MixedCrops
from ram_models.data.sets import ImageSet, Pair

CLEAN, RAIN, HAZE = 10, 100, 200


def save(file, blue, rows=20, columns=26, lift=0):
    """An image whose red and green say where a pixel is (plus ``lift``) and whose blue says which image it is."""
    row, column = np.mgrid[:rows, :columns]
    pixels = np.stack([5 * row + lift, 5 * column + lift, np.full_like(row, blue)], -1).astype(np.uint8)
    Image.fromarray(pixels).save(file)
    return file


@pytest.fixture
def rain(tmp_path):
    """Three pairs; the degraded side has the clean one's red and green plus 60, and blue 101, 102, 103."""
    pairs = [
        Pair(f"{n}", save(tmp_path / f"c{n}.png", RAIN + 50 + n), save(tmp_path / f"r{n}.png", RAIN + n, lift=60))
        for n in (1, 2, 3)
    ]
    return ImageSet("Rain", "rain", "train", tuple(pairs))


@pytest.fixture
def haze(tmp_path):
    """Two pairs of one clean image."""
    clean = save(tmp_path / "h.png", HAZE + 50)
    pairs = [Pair(f"{n}", clean, save(tmp_path / f"h{n}.png", HAZE + n, lift=30)) for n in (1, 2)]
    return ImageSet("Haze", "haze", "train", tuple(pairs))


@pytest.fixture
def photographs(tmp_path):
    """Two clean images, with blue 11 and 12."""
    return ImageSet(
        "Photos", None, "train", tuple(Pair(f"{n}", save(tmp_path / f"p{n}.png", CLEAN + n)) for n in (1, 2))
    )


@pytest.fixture
def sets(rain, haze, photographs):
    return [rain, haze, photographs]


def blue(image):
    return round(float(image[2].mean()) * 255)


TASKS = ["rain", "haze", "noise", "clean"]


def same(items, others):
    torch.testing.assert_close(list(items), list(others), rtol=0, atol=0)


# ---- what an item is made of


def test_every_task_comes_once_in_every_block_in_changing_order(sets):
    crops = MixedCrops(sets, 400, 16, TASKS)
    blocks = [tuple(crops.task(4 * block + place) for place in range(4)) for block in range(100)]
    assert {tuple(sorted(block)) for block in blocks} == {tuple(sorted(TASKS))}
    # 24 orders, so 100 draws miss more than 12 of them with a probability below 1e-20.
    assert len(set(blocks)) > 12


def test_a_task_named_twice_comes_twice_as_often(sets):
    crops = MixedCrops(sets, 300, 16, ["rain", "haze", "rain"])
    assert Counter(crops.task(index) for index in range(300)) == {"rain": 200, "haze": 100}


def test_items_of_a_task_with_real_pairs_are_those_pairs(sets):
    crops = MixedCrops(sets, 120, 16, TASKS)
    seen = {task: set() for task in TASKS}
    for index in range(120):
        degraded, clean = crops[index]
        seen[crops.task(index)].add((blue(degraded), blue(clean)))
    assert seen["rain"] == {(101, 151), (102, 152), (103, 153)}
    assert seen["haze"] == {(201, 250), (202, 250)}
    assert {clean for _, clean in seen["noise"]} == {11, 12}
    assert seen["clean"] == {(11, 11), (12, 12)}


def test_both_sides_of_a_pair_get_the_same_window_and_orientation(sets):
    crops = MixedCrops(sets, 60, 16, ["rain"])
    for degraded, clean in crops:
        torch.testing.assert_close(degraded[:2] - clean[:2], torch.full((2, 16, 16), 60 / 255))  # float32 rounding
    assert len({tuple(clean[:2, 0, 0].tolist() + clean[:2, 0, 1].tolist()) for _, clean in crops}) > 30


def test_every_pair_of_a_task_is_equally_likely_whatever_set_it_is_in(rain, photographs):
    split = [
        ImageSet("A", "rain", "train", rain.pairs[:1]),
        ImageSet("B", "rain", "train", rain.pairs[1:]),
        photographs,
    ]
    crops = MixedCrops(split, 900, 4, ["rain"], seed=1)
    counts = Counter(blue(crops[index][0]) for index in range(900))
    # Seeded, so it cannot fail by chance; a share of 1/2 for set A would give p < 1e-20.
    assert chisquare([counts[101], counts[102], counts[103]]).pvalue > 0.01


def test_the_stated_share_of_a_task_with_pairs_is_synthesised(sets):
    crops = MixedCrops(sets, 300, 16, ["rain"], synthesised=0.3)
    made = sum(blue(crops[index][1]) in (11, 12) for index in range(300))
    assert binomtest(made, 300, 0.3).pvalue > 0.01  # seeded; always or never would give p < 1e-40


def test_the_stated_share_of_the_items_is_grey_before_it_is_degraded(photographs):
    coloured, mixed = (MixedCrops([photographs], 200, 16, ["clean", "noise"], grey=grey) for grey in (None, 0.3))
    weights = torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)  # Rec. 601
    turned = 0
    for index in range(200):
        (degraded, clean), (_, before) = mixed[index], coloured[index]
        if torch.equal(clean, before):
            continue
        turned += 1
        torch.testing.assert_close(clean, (before * weights).sum(0).expand(3, -1, -1))
        if mixed.task(index) == "noise":
            assert not torch.equal(degraded[0], degraded[1])  # the noise has colours
    assert binomtest(turned, 200, 0.3).pvalue > 1e-4


def test_both_sides_of_a_real_pair_turn_grey(rain):
    for degraded, clean in MixedCrops([rain], 4, 16, ["rain"], grey=1.0):
        for image in (degraded, clean):
            assert torch.equal(image[0], image[1])
            assert torch.equal(image[0], image[2])
        assert not torch.equal(degraded, clean)


def test_a_synthesised_item_is_the_clean_crop_degraded(photographs):
    degraded, clean = MixedCrops([photographs], 1, 16, ["blur"])[0]
    assert blue(clean) in (11, 12)
    assert degraded[2].std() < 1e-5  # a blur keeps a constant
    assert not degraded.equal(clean)


def test_without_a_set_of_clean_images_the_clean_sides_of_pairs_serve(rain, haze):
    crops = MixedCrops([rain, haze], 200, 16, ["noise"])
    assert {blue(clean) for _, clean in crops} == {151, 152, 153, 250}
    assert [pair.clean.stem for pair in crops.clean] == ["c1", "c2", "c3", "h"]  # the shared one once


def test_a_border_of_the_clean_side_is_cut(tmp_path):
    pair = Pair("1", save(tmp_path / "c.png", 1, 24, 30), save(tmp_path / "d.png", 2, 20, 26, lift=10), clean_border=2)
    for degraded, clean in MixedCrops([ImageSet("S", "haze", "test", (pair,))], 8, 16, ["haze"]):
        torch.testing.assert_close(degraded[:2], clean[:2])


# ---- targets


def test_ground_truth_items_are_the_clean_crops_of_the_paired_ones(sets):
    paired = MixedCrops(sets, 40, 16, TASKS, seed=5)
    alone = MixedCrops(sets, 40, 16, TASKS, seed=5, target="ground_truth")
    for (_, expected), (given, target) in zip(paired, alone, strict=True):
        assert given.equal(expected)
        assert target.equal(expected)
        assert given.data_ptr() != target.data_ptr()


def test_ground_truth_items_do_not_need_the_degraded_files(sets, rain):
    for pair in rain.pairs:
        pair.degraded.unlink()
    assert len(list(MixedCrops(sets, 20, 16, ["rain"], target="ground_truth"))) == 20


# ---- independence


def test_items_do_not_depend_on_what_was_read_before(sets):
    crops = MixedCrops(sets, 40, 16, TASKS, seed=3)
    later = [crops[index] for index in (31, 7, 31)]
    again = MixedCrops(sets, 40, 16, TASKS, seed=3, cache_megabytes=0.0)
    same(later, [again[31], again[7], again[31]])


def test_items_do_not_depend_on_the_length(sets):
    same([MixedCrops(sets, 8, 16, TASKS)[5]], [MixedCrops(sets, 800, 16, TASKS)[5]])


@pytest.mark.parametrize("other", [{"seed": 4}, {"tasks": ["haze"]}], ids=["seed", "tasks"])
def test_items_differ_between_seeds_and_indices(sets, other):
    crops = MixedCrops(sets, 10, 16, ["rain"], seed=3)
    assert not crops[0][1].equal(crops[1][1])
    assert not crops[0][1].equal(MixedCrops(sets, 10, 16, **({"tasks": ["rain"], "seed": 3} | other))[0][1])


def test_a_loader_gives_the_same_batches_with_and_without_workers(sets):
    crops = MixedCrops(sets, 24, 16, [*TASKS, "blur", "jpeg"], seed=2)
    same(DataLoader(crops, 4, num_workers=2), DataLoader(crops, 4))


@pytest.mark.parametrize("world_size", [2, 3])
def test_several_processes_see_together_what_one_sees(sets, world_size):
    crops = MixedCrops(sets, 24, 16, TASKS)
    shares = [Subset(MixedCrops(sets, 24, 16, TASKS), range(rank, 24, world_size)) for rank in range(world_size)]
    together = [shares[index % world_size][index // world_size] for index in range(24)]
    same(together, crops)


def test_the_global_generator_is_left_alone(sets):
    before = torch.get_rng_state()
    list(MixedCrops(sets, 8, 16, TASKS))
    assert torch.get_rng_state().equal(before)


def test_an_item_can_be_written_to_without_changing_the_next(tmp_path):
    deep = np.arange(16 * 16, dtype=np.uint16).reshape(16, 16) * 250  # 16 bits, kept as float
    Image.fromarray(deep).save(tmp_path / "deep.png")
    crops = MixedCrops([ImageSet("D", None, "train", (Pair("1", tmp_path / "deep.png"),))], 16, 16, ["clean"])
    expected = [clean.clone() for _, clean in crops]
    for degraded, clean in crops:
        degraded.zero_()
        clean.zero_()
    same([clean for _, clean in crops], expected)
    assert set((expected[0][0] * 65535).round().long().flatten().tolist()) == set(deep.flatten().tolist())


# ---- sizes and refusals


def test_an_image_smaller_than_the_crop_is_continued_by_its_mirror_image(tmp_path):
    row = np.array([[0, 50, 100]], np.uint8)
    Image.fromarray(row).save(tmp_path / "row.png")
    crops = MixedCrops([ImageSet("S", None, "train", (Pair("1", tmp_path / "row.png"),))], 32, 8, ["clean"])
    lines = {tuple((clean[0] * 255).round().int()[0].tolist()) for _, clean in crops}
    mirrored = (0, 50, 100, 100, 50, 0, 0, 50)  # as numpy's "symmetric" padding continues
    assert tuple(np.pad(row[0], (0, 5), "symmetric").tolist()) == mirrored
    assert {mirrored, mirrored[::-1]} <= lines


@pytest.mark.parametrize("index", [24, -1])
def test_there_is_nothing_before_or_after_the_items(sets, index):
    crops = MixedCrops(sets, 24, 16, TASKS)
    assert len(crops) == 24
    with pytest.raises(IndexError, match=f"there are 24 crops, got index {index}"):
        crops[index]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": []}, "`tasks` must name at least one degradation"),
        ({"tasks": ["snow"]}, "the task 'snow' has no pairs in the sets given and cannot be synthesised; there is a"),
        ({"tasks": ["noise"], "synthesised": 1.5}, r"`synthesised` must lie in \[0, 1\], got 1.5"),
        ({"tasks": ["noise"], "grey": -0.1}, r"`grey` must lie in \[0, 1\], got -0.1"),
        ({"tasks": ["noise"], "target": "clean"}, "`target` must be 'paired' or 'ground_truth', got 'clean'"),
    ],
    ids=["no task", "unknown task", "synthesised", "grey", "target"],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_what_cannot_be_made_is_refused_at_once(sets, arguments, message):
    with pytest.raises(ValueError, match=message):
        MixedCrops(sets, 8, 16, **arguments)


def test_no_images_are_refused_at_once():
    with pytest.raises(ValueError, match="there are no images in `sets`"):
        MixedCrops([], 8, 16, ["noise"])


def test_a_broken_file_is_named(sets, rain):
    for pair in rain.pairs:
        pair.degraded.write_bytes(pair.degraded.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"'.*r[123].png' cannot be read as an image"):
        MixedCrops(sets, 8, 16, ["rain"])[0]


# ---- memory


@pytest.fixture
def opened(monkeypatch):
    """Files that were decoded, in order."""
    files = []
    read = datasets.read_pixels
    monkeypatch.setattr(datasets, "read_pixels", lambda file: files.append(Path(file).stem) or read(file))
    return files


def test_decoded_images_are_kept_up_to_the_stated_size(tmp_path, opened):
    one = 3 * 20 * 26  # bytes of an 8-bit image
    reader = DecodedImages(2.5 * one / 1e6)
    files = {name: save(tmp_path / f"{name}.png", 7) for name in "abc"}
    for name in "aba":
        reader(files[name])
    assert opened == ["a", "b"]
    reader(files["c"])  # a was used last, so b goes
    for name in "acb":
        reader(files[name])
    assert opened == ["a", "b", "c", "b"]
    assert reader.bytes == sum(pixels.nbytes for pixels in reader.kept.values()) == 2 * one


def test_an_image_larger_than_the_memory_is_read_anew_and_pushes_nothing_out(tmp_path, opened):
    reader = DecodedImages(3 * 20 * 26 / 1e6)
    small, large = save(tmp_path / "small.png", 1), save(tmp_path / "large.png", 1, 30, 30)
    for file in (small, large, large, small):
        reader(file)
    assert opened == ["small", "large", "large"]


def test_a_copy_for_another_process_starts_empty(tmp_path):
    reader = DecodedImages(1.0)
    reader(save(tmp_path / "a.png", 7))
    copy = pickle.loads(pickle.dumps(reader))
    assert (copy.megabytes, copy.bytes, len(copy.kept)) == (1.0, 0, 0)


def test_every_file_is_decoded_once_if_all_fit(sets, opened):
    list(MixedCrops(sets, 200, 16, ["rain", "haze"]))
    assert Counter(opened) == dict.fromkeys(["c1", "c2", "c3", "r1", "r2", "r3", "h", "h1", "h2"], 1)


# ---- everything together


def test_all_seven_tasks_run_on_pairs_of_three_and_photographs_for_the_others(sets, tmp_path):
    dark = Pair("1", save(tmp_path / "bright.png", 60, lift=60), save(tmp_path / "dark.png", 20))
    crops = MixedCrops([*sets, ImageSet("Dark", "lowlight", "train", (dark,))], 14, 16)
    tasks = [crops.task(index) for index in range(14)]
    assert (
        sorted(tasks[:7]) == sorted(tasks[7:]) == ["blur", "haze", "jpeg", "lowlight", "motion_blur", "noise", "rain"]
    )
    assert {task: len(pairs) for task, pairs in crops.real.items() if pairs} == {"haze": 2, "rain": 3, "lowlight": 1}
    for degraded, clean in crops:
        assert degraded.shape == clean.shape == (3, 16, 16)
        assert 0 <= min(degraded.min(), clean.min()) <= max(degraded.max(), clean.max()) <= 1
        assert not degraded.equal(clean)
