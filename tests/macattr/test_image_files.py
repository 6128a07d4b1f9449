"""Image files of every kind become RGB in [0, 1], or an error that says what is wrong."""

import os
import struct
import zlib

import numpy as np
import png
import pytest
import tifffile
import torch
from PIL import Image

from macattr.image_files import (
    ImageFolder,
    center_crop,
    display_name,
    find_images,
    find_partners,
    fit_to_multiple,
    image_folders,
    luminance,
    read_image,
    read_picture,
    read_pixels,
    read_size,
)


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
    with pytest.raises(ValueError, match=r"a\.png' cannot be read as an image: it is empty"):
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


# ---- one rule for every format


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(len(shape)).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


UPRIGHT = {1: 0, 3: 2, 6: -1, 8: 1}
"""Quarter turns to the left that an orientation asks for."""


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_the_orientation_is_applied_whatever_the_format(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels, file = noise(8, 12, 3), tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(file, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    expected = np.rot90(pixels, UPRIGHT[orientation])
    np.testing.assert_array_equal(read_picture(file).pixels, expected)
    assert torch.equal(read_pixels(file), torch.from_numpy(expected.copy()).permute(2, 0, 1))
    assert read_size(file) == expected.shape[:2]


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [(2, [[2, 1], [4, 3]]), (4, [[3, 4], [1, 2]]), (5, [[1, 3], [2, 4]]), (7, [[4, 2], [3, 1]])],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_mirrored_tiff_pages_are_turned_at_every_depth(tmp_path, orientation, expected, dtype):
    pixels = np.array([[1, 2], [3, 4]], dtype)[..., None].repeat(3, 2)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extratags=[(0x0112, 3, 1, orientation, True)])
    assert read_picture(tmp_path / "a.tif").pixels[..., 0].tolist() == expected


def test_damaged_exif_data_do_not_hide_the_picture(tmp_path):
    pixels = noise(8, 12, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png").pixels, pixels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4], ids=["grey", "grey_alpha", "rgb", "rgb_alpha"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_exact(tmp_path, suffix, channels):
    pixels = noise(5, 7, channels, dtype=np.uint16)
    if suffix == "png":
        writer = png.Writer(7, 5, greyscale=channels < 3, alpha=channels in (2, 4), bitdepth=16)
        with (tmp_path / "a.png").open("wb") as file:
            writer.write(file, pixels.reshape(5, -1))
    else:
        alpha = {"extrasamples": ["unassalpha"]} if channels in (2, 4) else {}
        stored = pixels if channels > 1 else pixels[..., 0]
        tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack" if channels < 3 else "rgb", **alpha)
    np.testing.assert_array_equal(read_picture(tmp_path / f"a.{suffix}").pixels, pixels, strict=True)


@pytest.mark.parametrize(
    "options",
    [{"compression": "zlib", "predictor": 2}, {"bigtiff": True}, {"byteorder": ">"}, {"tile": (16, 16)}],
    ids=str,
)
def test_sixteen_bit_colours_reach_the_tensor_whatever_the_kind_of_tiff(tmp_path, options):
    pixels = noise(5, 7, 3, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", **options)
    expected = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1) / 65535
    torch.testing.assert_close(read_image(tmp_path / "a.tif"), expected, rtol=0, atol=1e-7)  # float32 rounding


def test_sixteen_bit_grey_is_read_whatever_the_compression(tmp_path):
    pixels = noise(5, 7, dtype=np.uint16)
    Image.fromarray(pixels).save(tmp_path / "grey.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(read_picture(tmp_path / "grey.tif").pixels[..., 0], pixels)


def test_one_transparent_colour_of_a_sixteen_bit_png_becomes_alpha(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        png.Writer(2, 1, greyscale=True, bitdepth=16, transparent=7).write(file, [[7, 8]])
    assert read_picture(tmp_path / "a.png").pixels.tolist() == [[[7, 0], [8, 65535]]]


@pytest.mark.parametrize(
    "dtype", [np.int8, np.int16, np.int32, np.uint32, np.uint64, np.float16, np.float32, np.float64]
)
def test_tiff_pixels_of_unknown_range_are_refused(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((4, 4), dtype))
    with pytest.raises(ValueError, match=r"a\.tif' .*pixels of unknown range: save it with 8 or 16 bits"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_where_the_least_value_is_white_values_are_inverted(tmp_path, dtype, compression):
    pixels = noise(5, 7, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite", compression=compression)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").pixels[..., 0], np.iinfo(dtype).max - pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colours_that_were_multiplied_by_alpha_are_divided_by_it(tmp_path, dtype):
    white = np.iinfo(dtype).max
    alpha = np.array([[0, white // 2, white]], dtype)[..., None]
    colours = np.array([[[0, 0, 0], [white // 4, 0, white // 2], [3, 2, 1]]], dtype)
    stored = np.concatenate((colours, alpha), 2)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=["assocalpha"])
    pixels = read_picture(tmp_path / "a.tif").pixels.astype(int)
    assert pixels[0, 0].tolist() == [0, 0, 0, 0]
    # A quarter of white at half of alpha is half of white; one level of rounding in each.
    assert np.abs(pixels[0, 1] - [white // 2, 0, white, white // 2]).max() <= 2
    assert pixels[0, 2].tolist() == [3, 2, 1, white]


def test_channels_of_unknown_meaning_are_left_out_with_a_warning(tmp_path):
    pixels = noise(5, 7, 4, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["unspecified"])
    with pytest.warns(UserWarning, match=r"a\.tif' holds channels of unknown meaning"):
        np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").pixels, pixels[..., :3])


def test_sixteen_bit_cmyk_is_not_taken_for_colours_with_alpha(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise(5, 7, 4, dtype=np.uint16), photometric="separated")
    with pytest.raises(ValueError, match="neither grey nor RGB"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk_becomes_rgb_with_a_warning(tmp_path, suffix):
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / f"a.{suffix}", quality=100)
    with pytest.warns(UserWarning, match="is CMYK: it becomes RGB without its colour profile"):
        image = read_image(tmp_path / f"a.{suffix}")
    torch.testing.assert_close(image[:, 0, 0], torch.tensor([1.0, 0.0, 0.0]), rtol=0, atol=0.02)  # JPEG rounds


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "gif"])
def test_of_an_animation_the_first_frame_is_read_with_a_warning(tmp_path, suffix):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    with pytest.warns(UserWarning, match=r"holds 3 (frames|pages): the first is read"):
        assert read_image(tmp_path / f"a.{suffix}")[:, 0, 0].tolist() == [1, 0, 0]


def test_the_preview_in_a_jpeg_of_a_phone_is_no_frame(tmp_path):
    photo = Image.fromarray(noise(24, 40, 3))
    photo.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[photo.resize((20, 12))])
    assert read_image(tmp_path / "a.jpg").shape == (3, 24, 40)


def test_the_preview_in_a_tiff_is_no_page(tmp_path):
    pixels = noise(8, 8, 3)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(pixels, photometric="rgb")
        file.write(pixels[::2, ::2], photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").pixels, pixels)


def header_of_a_png(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def test_more_than_179_megapixels_are_no_error(tmp_path):
    (tmp_path / "a.png").write_bytes(header_of_a_png(20000, 9000))
    assert read_size(tmp_path / "a.png") == (9000, 20000)


@pytest.mark.parametrize("read", [read_image, read_picture, read_size])
def test_a_decompression_bomb_is_refused(tmp_path, read):
    (tmp_path / "a.png").write_bytes(header_of_a_png(100_000, 100_000))
    with pytest.raises(ValueError, match=r"a\.png' .*100000x100000 pixels exceed the limit of 1,073,741,824: cut it"):
        read(tmp_path / "a.png")


def test_a_palette_with_transparency_is_refused_as_a_tensor(tmp_path):
    image = Image.fromarray(np.arange(4, dtype=np.uint8).reshape(2, 2)).convert("P")
    image.save(tmp_path / "a.png", transparency=2)
    with pytest.raises(ValueError, match="partly transparent"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "bmp"])
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_truncated_files_of_every_format_are_refused_in_one_line(tmp_path, suffix, share):
    Image.fromarray(noise(64, 64, 3)).save(tmp_path / f"a.{suffix}")
    whole = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=rf"a\.{suffix}' cannot be read as an image") as raised:
        read_image(tmp_path / f"a.{suffix}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("white", [65535, 1023], ids=str)
@pytest.mark.parametrize("plain", [False, True], ids=["binary", "plain"])
def test_colours_of_a_ppm_file_with_sixteen_bits_are_exact(tmp_path, white, plain):
    colours = np.random.default_rng(0).integers(0, white + 1, (5, 7, 3))
    pixels = " ".join(map(str, colours.ravel())).encode() if plain else colours.astype(">u2").tobytes()
    header = b"%s\n# a comment\n7 5\n%d\n" % (b"P3" if plain else b"P6", white)
    (tmp_path / "a.ppm").write_bytes(header + pixels)
    read = read_picture(tmp_path / "a.ppm").pixels
    assert read.dtype == np.uint16
    np.testing.assert_allclose(read, colours * (65535 / white), rtol=0, atol=0.5)  # rounded to whole levels


def test_a_truncated_ppm_file_with_sixteen_bits_is_refused(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6 2 2 65535\n" + bytes(20))
    with pytest.raises(ValueError, match=r"a\.ppm' cannot be read as an image: .*truncated"):
        read_image(tmp_path / "a.ppm")


@pytest.mark.parametrize("rows", [8, 1000], ids=["strips", "one_strip"])
@pytest.mark.parametrize("predictor", [1, 2], ids=["plain", "differences"])
@pytest.mark.parametrize("channels", [3, 4], ids=["rgb", "rgba"])
def test_sixteen_bit_colours_compressed_by_lzw_are_exact(tmp_path, rows, predictor, channels):
    """Pillow writes the strips as those of a grey image; then the header says that they are colours."""
    values = np.random.default_rng(0).integers(0, 65536, (37, 41, channels), dtype=np.uint16)
    stored = values.copy()
    if predictor == 2:
        stored[:, 1:] -= values[:, :-1]
    fields = {317: 1, 277: 1, 338: 2} if channels == 4 else {317: 1, 277: 1}
    Image.fromarray(stored.reshape(37, -1)).save(
        tmp_path / "a.tif", compression="tiff_lzw", tiffinfo=fields, strip_size=rows * 41 * channels * 2
    )
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        for tag, value in {256: 41, 262: 2, 277: channels, 317: predictor}.items():
            file.pages[0].tags[tag].overwrite(value)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").pixels, values)


@pytest.mark.parametrize("suffix", ["jp2", "j2k"])
@pytest.mark.parametrize("kind", ["rgb", "grey", "grey_16"])
def test_jpeg_2000_is_read_at_full_depth(tmp_path, suffix, kind):
    shape = (24, 20, 3) if kind == "rgb" else (24, 20)
    dtype = np.uint16 if kind == "grey_16" else np.uint8
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    read = read_picture(tmp_path / f"a.{suffix}").pixels
    assert read.dtype == dtype
    np.testing.assert_array_equal(read.reshape(shape), values)


@pytest.mark.parametrize(("mode", "bits"), [("RGB", 16), ("RGB", 12), ("L", 12)], ids=["rgb_16", "rgb_12", "grey_12"])
def test_jpeg_2000_with_bits_that_would_be_lost_is_refused(tmp_path, mode, bits):
    Image.new(mode, (8, 8)).save(tmp_path / "a.jp2")
    content = bytearray((tmp_path / "a.jp2").read_bytes())
    content[content.index(b"\xff\x4f\xff\x51") + 42] = bits - 1  # the depth of the first colour
    (tmp_path / "a.jp2").write_bytes(content)
    with pytest.raises(
        ValueError, match=f"JPEG2000 holds {bits} bits a colour, of which 8 .*: convert it to 16-bit PNG"
    ):
        read_image(tmp_path / "a.jp2")


def test_avif_is_read_upright(tmp_path):
    values = np.broadcast_to((np.arange(64, dtype=np.uint8) * 3)[None, :, None], (48, 64, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(values.copy()).save(tmp_path / "a.avif", quality=100, subsampling="4:4:4", exif=exif)
    picture = read_picture(tmp_path / "a.avif")
    np.testing.assert_allclose(picture.pixels, np.rot90(values, -1), rtol=0, atol=2)  # levels that the encoder moves


# ---- which files there are


@pytest.mark.parametrize(
    "hidden", ["._a.png", "__MACOSX/a.png", ".ipynb_checkpoints/a-checkpoint.png", "x/.thumb/a.png"]
)
def test_leftovers_of_other_programs_are_no_images(tmp_path, hidden):
    for name in ("a.png", hidden):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_images(tmp_path) == [tmp_path / "a.png"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.png").touch()
    scan = os.scandir

    def refuse(path):  # permissions do not stop the root user
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match=r"closed' cannot be read \(Permission denied\): make it readable"):
        find_images(tmp_path)


def test_a_folder_is_visited_once_however_many_links_lead_to_it(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert sum(len(files) for _, files in image_folders(tmp_path)) == 1


def test_an_empty_name_is_not_the_current_folder():
    with pytest.raises(ValueError, match="the name of the image file or folder is empty"):
        find_images("")


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a b.png", "a b.png"), ("a\nb.png", r"a\nb.png"), ("\udcff.png", r"\xff.png"), ("ä'\".png", "ä'\".png")],
)
def test_names_are_shown_in_one_line_of_valid_text(name, shown):
    assert display_name(name) == shown
    assert display_name(name).encode()


# ---- their clean partners


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("degraded", "clean"),
    [
        (("x/1.png", "y/1.png"), ("x/1.png", "y/1.png")),
        (("x/1.jpg", "y/1.png"), ("x/1.png", "y/1.tif")),
        (("a.jpg", "a.png"), ("a.jpg", "a.png")),
        (("a.png",), ("a.jpg", "a.png")),
    ],
    ids=["folders", "suffixes", "same stem", "a second clean one"],
)
def test_partners_have_the_same_relative_path(tmp_path, degraded, clean):
    files = find_images(touch(tmp_path / "in", *degraded))
    partners = find_partners(files, tmp_path / "in", touch(tmp_path / "gt", *clean))
    assert [str(file.relative_to(tmp_path / "gt")) for file in partners] == list(clean[-len(degraded) :])


@pytest.mark.parametrize(
    ("degraded", "clean", "message"),
    [
        (
            ("x/1.png",),
            ("1.png", "y/1.png"),
            r"1 of 1 images in '.*in' have no clean one of that path in '.*gt', e\.g\. 'x/1",
        ),
        (
            ("a.bmp",),
            ("a.jpg", "a.png"),
            r"unclear which clean image belongs to 'a\.bmp': 'a\.bmp', 'a\.jpg', 'a\.png'",
        ),
        (("a.jpg", "a.png"), ("a.png",), r"unclear which clean image belongs to 'a\.jpg'"),
    ],
    ids=["other folder", "two clean ones", "two degraded ones"],
)
def test_partners_that_are_missing_or_unclear_are_refused(tmp_path, degraded, clean, message):
    files = find_images(touch(tmp_path / "in", *degraded))
    with pytest.raises(ValueError, match=message):
        find_partners(files, tmp_path / "in", touch(tmp_path / "gt", *clean))


# ---- as inputs of a ranking


@pytest.fixture
def folder(tmp_path):
    for place in ("in", "gt"):
        for name in ("x/1.png", "y/1.png", "y/2.png"):
            file = tmp_path / place / name
            file.parent.mkdir(parents=True, exist_ok=True)
            value = len(place + name) + int(name[2]) + 10 * (place == "gt")
            Image.new("RGB", (12, 8), (value, value, value)).save(file)
    return tmp_path


def test_an_image_folder_is_a_sequence_of_named_images_with_their_clean_ones(folder):
    images = ImageFolder(folder / "in", clean=folder / "gt")
    assert [item["name"] for item in images] == [
        str(folder / "in" / name) for name in ("x/1.png", "y/1.png", "y/2.png")
    ]
    assert torch.equal(images[1]["clean"], read_image(folder / "gt" / "y" / "1.png"))
    assert torch.equal(images[-1]["image"], read_image(folder / "in" / "y" / "2.png"))


def test_a_slice_of_an_image_folder_keeps_crop_and_clean_images(folder):
    images = ImageFolder(folder / "in", crop=4, clean=folder / "gt")[1:]
    assert (len(images), images[0]["image"].shape, len(images.clean)) == (2, (3, 4, 4), 2)
    assert [file.name for file in images.select([1, 0]).files] == ["2.png", "1.png"]


def test_an_image_folder_takes_a_file_or_a_list_of_files(folder):
    files = [folder / "in" / "y" / "2.png", str(folder / "in" / "x" / "1.png")]
    assert [len(ImageFolder(source)) for source in (files, files[0], files[1])] == [2, 1, 1]
    assert "clean" not in ImageFolder(files)[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": []}, "the list of image files is empty"),
        ({"source": ["a.png"], "crop": 0}, "`crop` must be at least 1 pixel, got 0"),
        ({"source": ["a.png"], "clean": ["b.png", "c.png"]}, "`clean` has 2 files for 1 images"),
    ],
    ids=["none", "crop", "clean"],
)
def test_image_folders_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ImageFolder(**arguments)


@pytest.mark.parametrize(
    ("side", "multiple", "expected"),
    [
        (6, 3, [0, 1, 2, 3, 4, 5]),
        (7, 3, [0, 1, 2, 3, 4, 5]),
        (8, 3, [1, 2, 3, 4, 5, 6]),
        (3, 5, [1, 0, 1, 2, 1]),
        (2, 7, [0, 1, 0, 1, 0, 1, 0]),
        (1, 4, [0, 0, 0, 0]),
    ],
    ids=["fits", "one_off", "two_off", "reflected", "reflected_often", "one_pixel"],
)
def test_sides_are_cut_or_reflected_to_a_multiple(side, multiple, expected):
    row = torch.arange(side, dtype=torch.float32).expand(1, multiple, side)
    assert fit_to_multiple(row, multiple)[0, 0].tolist() == expected
    assert fit_to_multiple(row.mT, multiple)[0, :, 0].tolist() == expected


def test_grey_is_the_luminance_and_equal_channels_stay_exact():
    colours = torch.tensor([[[1.0, 0.0, 0.0, 1.0]], [[0.0, 1.0, 0.0, 1.0]], [[0.0, 0.0, 1.0, 1.0]]])
    torch.testing.assert_close(luminance(colours)[0, 0], torch.tensor([0.299, 0.587, 0.114, 1.0]))
    grey = torch.rand(1, 50, 50, generator=torch.Generator().manual_seed(0))
    assert luminance(grey.expand(3, -1, -1)).equal(grey)


def test_a_folder_gives_grey_images_and_their_clean_ones_of_the_same_part(tmp_path):
    for folder in ("in", "gt"):
        (tmp_path / folder).mkdir()
        Image.effect_noise((11, 6), 80).save(tmp_path / folder / "a.png")
    item = ImageFolder(tmp_path / "in", crop=9, clean=tmp_path / "gt", multiple=4, grey=True)[:1][0]
    whole = read_image(tmp_path / "in" / "a.png", grey=True)
    assert item["image"].equal(whole[:, 1:5, 1:9])
    assert item["clean"].shape == (1, 4, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"multiple": 0}, "`multiple` must be at least 1 pixel, got 0"),
        ({"crop": 8, "multiple": 16}, "`crop` 8 leaves less than one `multiple` of 16"),
    ],
    ids=["zero", "smaller_crop"],
)
def test_sizes_that_leave_nothing_are_refused(tmp_path, options, message):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=message):
        ImageFolder(tmp_path, **options)


@pytest.mark.parametrize("name", ["b.ppm", "b.JP2", "b.avif", "b.gif"])
def test_pictures_that_are_not_looked_for_in_folders_are_said(tmp_path, name):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / name).touch()
    with pytest.warns(UserWarning, match=rf"1 of the pictures in .* are left out, such as '{name}'"):
        assert find_images(tmp_path) == [tmp_path / "a.png"]


def save_pair(folder, name, size=(8, 8), clean_size=None, level=0):
    for side, sides in (("in", size), ("gt", clean_size or size)):
        (folder / side).mkdir(exist_ok=True)
        Image.new("RGB", sides, (level, 0, 0)).save(folder / side / name)


def test_files_of_a_list_have_the_clean_image_of_their_name(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        save_pair(tmp_path, name)
    images = ImageFolder([tmp_path / "in/b.png", tmp_path / "in/a.png"], clean=tmp_path / "gt")
    assert [file.name for file in images.clean] == ["b.png", "a.png"]
    (tmp_path / "gt/c.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 1 images .* have no clean one of that path"):
        ImageFolder([tmp_path / "in/c.png"], clean=tmp_path / "gt")


@pytest.mark.parametrize("options", [{"crop": 8}, {"multiple": 4}])
def test_a_clean_image_of_another_size_is_not_cut_by_itself(tmp_path, options):
    save_pair(tmp_path, "a.png", (12, 10), (16, 16))
    images = ImageFolder(tmp_path / "in", clean=tmp_path / "gt", **options)
    with pytest.raises(ValueError, match=r"a\.png' has .* `crop` and `multiple` cut both alike"):
        images[0]
    assert ImageFolder(tmp_path / "in", clean=tmp_path / "gt")[0]["clean"].shape == (3, 16, 16)
