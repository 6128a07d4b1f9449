"""Image files of every kind become RGB in [0, 1], or an error that says what is wrong."""

import numpy as np
import pytest
import torch
from PIL import Image

from macattr.image_files import center_crop, find_images, read_image, read_pixels


@pytest.fixture
def ramp() -> np.ndarray:
    return np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def test_rgb_values_are_divided_by_255(tmp_path, ramp):
    Image.fromarray(np.stack([ramp, ramp // 2, ramp // 4], -1)).save(tmp_path / "a.png")
    expected = torch.from_numpy(np.stack([ramp, ramp // 2, ramp // 4])).float() / 255
    torch.testing.assert_close(read_image(tmp_path / "a.png"), expected)


def test_grey_images_get_three_equal_channels(tmp_path, ramp):
    Image.fromarray(ramp).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.shape == (3, 8, 8)
    assert torch.equal(image[0], image[1])
    assert torch.equal(image[0], image[2])


def test_sixteen_bit_grey_keeps_its_precision(tmp_path):
    values = np.array([[0, 1], [32768, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    torch.testing.assert_close(read_image(tmp_path / "a.png")[0], torch.from_numpy(values.astype(np.float32)) / 65535)


def test_opaque_alpha_is_dropped(tmp_path, ramp):
    Image.fromarray(np.stack([ramp, ramp, ramp, np.full_like(ramp, 255)], -1)).save(tmp_path / "a.png")
    torch.testing.assert_close(read_image(tmp_path / "a.png")[0], torch.from_numpy(ramp).float() / 255)


def test_transparency_is_refused(tmp_path, ramp):
    Image.fromarray(np.stack([ramp] * 4, -1)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png.*partly transparent: flatten it"):
        read_image(tmp_path / "a.png")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match=r"a\.png' is empty"):
        read_image(tmp_path / "a.png")


def test_a_truncated_file_is_refused(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot be read as an image"):
        read_image(tmp_path / "a.png")


def test_a_text_file_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(ValueError, match="cannot be read as an image"):
        read_image(tmp_path / "a.png")


def test_floating_point_pixels_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="floating-point pixels of unknown range"):
        read_image(tmp_path / "a.tif")


def test_images_are_found_in_subfolders_in_order(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.PNG", "sub/a.jpg", "c.txt"):
        (tmp_path / name).touch()
    assert [file.name for file in find_images(tmp_path)] == ["b.PNG", "a.jpg"]


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no image: looked for \.png"):
        find_images(tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no file or folder"):
        find_images(tmp_path / "nowhere")


def test_the_crop_is_the_middle_and_never_larger_than_the_image():
    image = torch.arange(3 * 6 * 4).reshape(3, 6, 4).float()
    assert torch.equal(center_crop(image, 2), image[:, 2:4, 1:3])
    assert torch.equal(center_crop(image, 5), image[:, 0:5, :])


@pytest.mark.parametrize(
    ("kind", "dtype"), [(np.uint8, torch.uint8), (np.uint16, torch.float32)], ids=["8 bit", "16 bit"]
)
def test_pixels_are_kept_as_bytes_where_bytes_hold_them(tmp_path, kind, dtype):
    values = np.arange(12, dtype=kind).reshape(3, 4) * (np.iinfo(kind).max // 12)
    Image.fromarray(values).save(tmp_path / "grey.png")
    pixels = read_pixels(tmp_path / "grey.png")
    assert pixels.dtype == dtype
    unit = pixels / 255 if dtype == torch.uint8 else pixels
    assert unit.equal(read_image(tmp_path / "grey.png"))
    assert unit[2].double().numpy() == pytest.approx(values / np.iinfo(kind).max, abs=1e-7)  # float32 rounding
