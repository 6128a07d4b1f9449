import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from ram_models.data.crops import LOW_COST, SyntheticCrops, sample


@pytest.fixture
def files(tmp_path):
    """Three small pictures; every pixel's colour says where it is."""
    paths = []
    for number in range(3):
        rows, columns = np.mgrid[:24, :30]
        pixels = np.stack([8 * rows, 8 * columns, np.full_like(rows, 100 * number)], -1).astype(np.uint8)
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.fixture
def clean_crops(files):
    return [clean for _, clean in SyntheticCrops(files, 60, 16)]


def test_crops_come_from_all_files_and_many_places(clean_crops):
    assert {round(float(clean[2, 0, 0]) * 255) for clean in clean_crops} == {0, 100, 200}
    assert len({tuple(clean[:2, 0, 0].tolist()) for clean in clean_crops}) > 30


def orientation(clean):
    """By how much the source's row and column change one pixel down and one to the right."""
    place = (clean[:2] * 255 / 8).round().int()
    down, right = place[:, 1, 0] - place[:, 0, 0], place[:, 0, 1] - place[:, 0, 0]
    return (*down.tolist(), *right.tolist())


def test_crops_are_whole_pieces_in_all_eight_orientations(clean_crops):
    places = (torch.stack(clean_crops)[:, :2] * 255 / 8).round().int()
    for dim in (2, 3):
        steps = places.diff(dim=dim).flatten(2)
        assert steps.amin(2).equal(steps.amax(2))
    turned = {(1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0)}
    mirrored = {(down_r, down_c, -right_r, -right_c) for down_r, down_c, right_r, right_c in turned}
    assert {orientation(clean) for clean in clean_crops} == turned | mirrored


def test_items_depend_on_seed_and_index_alone(files):
    crops = SyntheticCrops(files, 10, 16, seed=3)
    later = [crops[index] for index in (7, 2)]
    again = SyntheticCrops(files, 10, 16, seed=3)
    torch.testing.assert_close(later, [again[7], again[2]], rtol=0, atol=0)


def test_items_differ_between_seeds_and_indices(files):
    crops, other = SyntheticCrops(files, 10, 16, seed=3), SyntheticCrops(files, 10, 16, seed=4)
    assert not crops[0][0].equal(crops[1][0])
    assert not crops[0][0].equal(other[0][0])


def test_reading_an_item_leaves_the_global_generator_alone(files):
    before = torch.get_rng_state()
    SyntheticCrops(files, 10, 16)[0]
    assert torch.get_rng_state().equal(before)


def test_a_loader_reads_every_item_once_in_order(files):
    crops = SyntheticCrops(files, 6, 16)
    batches = list(DataLoader(crops, 2))
    torch.testing.assert_close(
        torch.cat([clean for _, clean in batches]), torch.stack([clean for _, clean in crops]), rtol=0, atol=0
    )
    assert len(crops) == 6


@pytest.mark.parametrize("index", [6, -1])
def test_there_is_nothing_before_or_after_the_items(files, index):
    with pytest.raises(IndexError, match=f"there are 6 crops, got index {index}"):
        SyntheticCrops(files, 6, 16)[index]


def test_only_the_tasks_asked_for_are_used(files):
    degraded, clean = SyntheticCrops(files, 1, 16, tasks=["blur"])[0]
    # A blur keeps the mean of a linear ramp apart from the border; noise of the weakest strength would not be smooth.
    assert degraded[2].std() < 1e-5
    assert float(degraded[2].mean()) == pytest.approx(float(clean[2].mean()), abs=1e-5)


def test_images_smaller_than_the_crop_are_refused_by_name(files):
    with pytest.raises(ValueError, match=r"'.*\.png' has 24x30 pixels, less than a crop of 28x28"):
        SyntheticCrops(files, 4, 28)[0]


def test_the_bundled_sample_has_every_photograph_with_every_degradation():
    images = sample(size=16)
    assert [image["degradation"] for image in images] == list(LOW_COST) * 4
    assert len({image["name"] for image in images}) == 12
    assert all(image["image"].shape == (3, 16, 16) for image in images)
    torch.testing.assert_close([i["image"] for i in sample(16)], [i["image"] for i in images], rtol=0, atol=0)
