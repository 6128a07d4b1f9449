"""Depth, alpha, grey and metadata survive reading and writing; what cannot be kept is refused."""

from contextlib import nullcontext
from itertools import product

import numpy as np
import png
import pytest
import tifffile
import torch
from PIL import Image, ImageCms, ImageOps

from ram_models.data.pictures import Picture, read_picture, write_picture


def noise(channels: int, dtype=np.uint8, size=(9, 13)) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, np.iinfo(dtype).max + 1, (*size, channels), dtype)


def save_deep_png(path, pixels):
    """By pypng alone, with a filter on every row as photo editors write it."""
    height, width, channels = pixels.shape
    writer = png.Writer(width, height, greyscale=channels < 3, alpha=channels in (2, 4), bitdepth=16)
    with path.open("wb") as file:
        writer.write(file, pixels.reshape(height, -1))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_what_is_written_is_read_back(tmp_path, channels, dtype, suffix):
    picture = Picture(noise(channels, dtype))
    write_picture(picture, tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read_picture(tmp_path / f"a{suffix}").pixels, picture.pixels, strict=True)
    assert [file.name for file in tmp_path.iterdir()] == [f"a{suffix}"]


@pytest.mark.parametrize("channels", [1, 2, 3, 4], ids=["grey", "grey_alpha", "rgb", "rgb_alpha"])
def test_sixteen_bit_png_of_another_writer_keeps_all_bits(tmp_path, channels):
    pixels = noise(channels, np.uint16)
    save_deep_png(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png").pixels, pixels, strict=True)


def test_sixteen_bit_tiff_of_another_writer_keeps_all_bits(tmp_path):
    pixels = noise(3, np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", np.moveaxis(pixels, -1, 0), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").pixels, pixels, strict=True)


def test_another_reader_sees_the_same_sixteen_bits(tmp_path):
    picture = Picture(noise(3, np.uint16))
    write_picture(picture, tmp_path / "a.png")
    _, _, rows, info = png.Reader(bytes=(tmp_path / "a.png").read_bytes()).read()
    np.testing.assert_array_equal(np.vstack([np.asarray(row) for row in rows]), picture.pixels.reshape(9, -1))
    assert info["bitdepth"] == 16


def test_colours_are_divided_by_white():
    deep = Picture(np.array([[[0, 32768, 65535, 7]]], np.uint16))
    torch.testing.assert_close(deep.rgb().flatten(), torch.tensor([0, 32768 / 65535, 1]))


def test_new_colours_leave_alpha_alone():
    picture = Picture(noise(4))
    changed = picture.with_rgb(1 - picture.rgb())
    np.testing.assert_array_equal(changed.pixels[..., 3], picture.pixels[..., 3])
    np.testing.assert_array_equal(changed.pixels[..., :3], 255 - picture.pixels[..., :3])


def test_grey_takes_the_mean_of_the_channels():
    picture = Picture(np.zeros((1, 1, 1), np.uint8))
    assert picture.with_rgb(torch.tensor([0.1, 0.2, 0.6]).reshape(3, 1, 1)).pixels.item() == round(0.3 * 255)


def test_colours_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"the picture has 9x13 pixels, got colours of 9x12"):
        Picture(noise(3)).with_rgb(torch.zeros(3, 9, 12))


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("L", 1), ("P", 3), ("RGB", 3), ("RGBA", 4), ("CMYK", 3)], ids=str
)
def test_every_mode_has_its_channels(tmp_path, mode, channels):
    Image.fromarray(noise(3)).convert("RGBA").convert(mode).save(tmp_path / "a.tif")
    with pytest.warns(UserWarning, match="without its colour profile") if mode == "CMYK" else nullcontext():
        assert read_picture(tmp_path / "a.tif").pixels.shape == (9, 13, channels)


def test_a_transparent_palette_entry_becomes_alpha(tmp_path):
    image = Image.fromarray(np.arange(4, dtype=np.uint8).reshape(2, 2)).convert("P")
    image.save(tmp_path / "a.png", transparency=2)
    assert read_picture(tmp_path / "a.png").pixels[..., 3].flatten().tolist() == [255, 255, 0, 255]


@pytest.mark.parametrize(("dtype", "suffix"), [(np.uint8, "jpg"), (np.uint8, "png"), (np.uint16, "png")])
def test_profile_exif_and_resolution_are_handed_on(tmp_path, dtype, suffix):
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    info = {"icc_profile": profile, "exif": b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0"), "dpi": (300, 300)}
    write_picture(Picture(noise(3, dtype), info), tmp_path / f"a.{suffix}")
    with Image.open(tmp_path / f"a.{suffix}") as image:
        assert image.info["icc_profile"] == profile
        assert image.getexif()[0x010F] == "a camera"
        assert [round(float(value)) for value in image.info["dpi"]] == [300, 300]
    assert read_picture(tmp_path / f"a.{suffix}").info["icc_profile"] == profile


def test_webp_is_lossless_also_below_transparency(tmp_path):
    pixels = noise(4)
    pixels[:5, :, 3] = 0
    picture = Picture(pixels)
    write_picture(picture, tmp_path / "a.webp")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.webp").pixels, picture.pixels)


@pytest.mark.parametrize(
    ("pixels", "name", "message"),
    [
        (noise(4), "a.jpg", "JPEG cannot hold the alpha channel: write 'a' as png"),
        (noise(4), "a.bmp", "BMP cannot hold the alpha channel"),
        (noise(3, np.uint16), "a.jpg", "JPEG cannot hold 16 bits"),
        (noise(3), "a.xyz", "no image format has the suffix '.xyz'"),
    ],
    ids=["alpha_jpeg", "alpha_bmp", "deep_jpeg", "suffix"],
)
def test_formats_that_would_lose_something_are_refused(tmp_path, pixels, name, message):
    with pytest.raises(ValueError, match=message):
        write_picture(Picture(pixels), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_picture(Picture(noise(3)), tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        write_picture(Picture(noise(3)), tmp_path / "a.png")
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


@pytest.mark.parametrize(("suffix", "dtype"), [*product([".png", ".tif"], [np.uint8, np.uint16]), (".jpg", np.uint8)])
def test_truncated_files_are_refused(tmp_path, suffix, dtype):
    file = tmp_path / f"a{suffix}"
    write_picture(Picture(noise(3, dtype, (64, 64))), file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"a{suffix}' cannot be read as an image"):
        read_picture(file)


def test_empty_files_and_text_are_refused(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").write_text("no image")
    with pytest.raises(ValueError, match=r"a\.png' cannot be read as an image: it is empty"):
        read_picture(tmp_path / "a.png")
    with pytest.raises(ValueError, match="cannot be read as an image"):
        read_picture(tmp_path / "b.png")


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_of_unknown_range_are_refused(tmp_path, dtype):
    Image.fromarray(np.zeros((4, 4), dtype)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="pixels of unknown range: save it with 8 or 16 bits"):
        read_picture(tmp_path / "a.tif")


def shown(path):
    """Pixels as a viewer shows them, by Pillow alone."""
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@pytest.mark.parametrize("target", ["png", "tif", "webp", "bmp", "jpg"])
@pytest.mark.parametrize("source", ["png", "tif", "webp", "jpg"])
@pytest.mark.parametrize("orientation", [2, 3, 6, 7, 8])
def test_a_viewer_shows_the_same_picture_before_and_after(tmp_path, source, target, orientation):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "a camera"
    smooth = np.linspace(0, 255, 24 * 40).reshape(24, 40).astype(np.uint8)
    Image.fromarray(smooth).convert("RGB").save(tmp_path / f"a.{source}", exif=exif)
    write_picture(read_picture(tmp_path / f"a.{source}"), tmp_path / f"b.{target}")
    before, after = shown(tmp_path / f"a.{source}").astype(int), shown(tmp_path / f"b.{target}").astype(int)
    assert before.shape == after.shape
    assert np.abs(before - after).max() <= (3 if target == "jpg" else 0)  # JPEG at quality 95 rounds
    if "tif" not in (source, target) and target != "bmp":
        with Image.open(tmp_path / f"b.{target}") as image:
            assert image.getexif()[0x010F] == "a camera"


@pytest.mark.parametrize("target", ["png", "tif"])
def test_a_turned_sixteen_bit_tiff_is_written_upright(tmp_path, target):
    pixels = noise(3, np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extratags=[(0x0112, 3, 1, 6, True)])
    write_picture(read_picture(tmp_path / "a.tif"), tmp_path / f"b.{target}")
    np.testing.assert_array_equal(read_picture(tmp_path / f"b.{target}").pixels, np.rot90(pixels, -1), strict=True)


def test_the_resolutions_of_a_picture_on_its_side_change_places(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8
    for name in ("a.jpg", "a.tif"):
        Image.fromarray(noise(3)).save(tmp_path / name, exif=exif, dpi=(300, 150))
        assert [round(float(value)) for value in read_picture(tmp_path / name).info["dpi"]] == [150, 300]
