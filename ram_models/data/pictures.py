"""Image files with what must survive a restoration: bit depth, alpha, grey, colour profile and EXIF data."""

__all__ = ["Picture", "read_picture", "write_picture"]

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import png
import tifffile
import torch
from jaxtyping import Float
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from macattr.atomic_files import write_atomically

Array = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

UNREADABLE = (
    ValueError, OSError, SyntaxError, EOFError, zlib.error, struct.error, png.Error, Image.DecompressionBombError
)  # fmt: skip
"""What the decoders raise on damaged files."""

KEPT = ("exif", "icc_profile", "dpi")
"""What is handed on besides the pixels. Pixels are not rotated, so the EXIF orientation stays right."""

OPTIONS: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "JPEG": {"quality": 95, "subsampling": 0},
        "WEBP": {"lossless": True, "exact": True},
        "TIFF": {"compression": "tiff_deflate"},
    }
)
"""How files are written where the format leaves a choice."""


@dataclass(frozen=True)
class Picture:
    """An image file in memory.

    Args:
        pixels: As stored: (h, w, c) with c = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha; 8 or 16 bits.
        info: Colour profile, EXIF data and resolution, as Pillow names them.
    """

    pixels: Array
    info: Mapping[str, object] = field(default_factory=dict)

    @property
    def colours(self) -> int:
        """Channels that are not alpha: 1 or 3."""
        return int(self.pixels.shape[2]) - self.alpha

    @property
    def alpha(self) -> bool:
        """Whether the last channel is alpha."""
        return self.pixels.shape[2] in (2, 4)

    @property
    def white(self) -> int:
        """Largest value of a channel: 255 or 65535."""
        return int(np.iinfo(self.pixels.dtype).max)

    def rgb(self) -> Float[Tensor, "3 h w"]:
        """Colours in [0, 1] without alpha; grey as three equal channels."""
        colours = torch.from_numpy(self.pixels[..., : self.colours].astype(np.float32)).div_(self.white)
        return colours.permute(2, 0, 1).expand(3, -1, -1).contiguous()

    def with_rgb(self, rgb: Float[Tensor, "3 h w"]) -> "Picture":
        """The same picture with other colours, clipped to [0, 1]; a grey picture takes the mean of the channels.

        Raises:
            ValueError: If the size differs.
        """
        if rgb.shape[-2:] != self.pixels.shape[:2]:
            own, given = (f"{height}x{width}" for height, width in (self.pixels.shape[:2], rgb.shape[-2:]))
            raise ValueError(f"the picture has {own} pixels, got colours of {given}.")
        colours = rgb.mean(0, keepdim=True) if self.colours == 1 else rgb
        stored = colours.clamp(0, 1).mul_(self.white).round_().permute(1, 2, 0).numpy().astype(self.pixels.dtype)
        return replace(self, pixels=np.concatenate((stored, self.pixels[..., self.colours :]), axis=2))


def read_picture(path: Path | str) -> Picture:
    """The picture in an image file; palettes become RGB, and so does CMYK (its profile is dropped).

    Raises:
        ValueError: If the file is empty, truncated or no image, or holds several frames or other than 8 or 16 bits.
    """
    file = Path(path)
    try:
        if file.stat().st_size == 0:
            raise ValueError("it is empty.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damage, which raises below, and about large images, which are meant
            with Image.open(file) as opened:
                _refuse_unusual(opened)
                info = {name: opened.info[name] for name in KEPT if opened.info.get(name) and opened.mode != "CMYK"}
                pixels = _sixteen_bits(opened, file) if _bits(opened) == 16 else _eight_bits(opened)
    except UNREADABLE as error:
        raise ValueError(f"{str(path)!r} cannot be read as an image: {error}") from error
    return Picture(pixels, info)


def write_picture(picture: Picture, path: Path) -> None:
    """Write a picture in the format of the suffix, all of it or nothing: an interrupted write leaves no file.

    JPEG is written at quality 95 without chroma subsampling, WebP without loss. Colour profile, EXIF data and
    resolution are handed on, but for those of 16-bit TIFF other than the profile.

    Raises:
        ValueError: If the format is unknown, or cannot hold the picture's alpha or 16 bits.
        OSError: If the file cannot be written.
    """
    write_atomically(path, _encoder(picture, path))


def _refuse_unusual(image: Image.Image) -> None:
    """Raise on what has no faithful place in a :class:`Picture`."""
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise ValueError(f"it holds {frames} frames: save each as a file of its own.")
    if image.mode == "F":
        raise ValueError("it holds floating-point pixels of unknown range: save it with 8 or 16 bits.")
    if image.mode == "I" and _bits(image) != 16:
        raise ValueError("it holds 32-bit pixels of unknown range: save it with 8 or 16 bits.")
    if _bits(image) == 16 and "transparency" in image.info:
        raise ValueError("it has 16 bits and one transparent colour: save it with an alpha channel.")


def _bits(image: Image.Image) -> int:
    """Bits of a channel in the file: 16, or 8 for anything else (Pillow opens 16-bit colour as if it had 8)."""
    if isinstance(image, TiffImageFile):
        depths = image.tag_v2.get(258, (8,))  # BitsPerSample
        return 16 if (depths[0] if isinstance(depths, tuple) else depths) == 16 else 8
    if isinstance(image, PngImageFile):
        return 16 if "16" in str(image.tile[0].args) else 8
    return 8


def _eight_bits(image: Image.Image) -> Array:
    """Pixels of an opened file, (h, w, c) with 8 bits."""
    grey = image.mode in ("1", "L", "LA", "La")
    mode = ("LA" if grey else "RGBA") if image.has_transparency_data else ("L" if grey else "RGB")
    pixels: Array = np.array(image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], -1)


def _sixteen_bits(image: Image.Image, file: Path) -> Array:
    """Pixels of an opened file, (h, w, c) with 16 bits."""
    if image.mode.startswith("I"):
        return np.array(image).astype(np.uint16)[..., None]
    if isinstance(image, PngImageFile):
        with file.open("rb") as stream:
            width, height, rows, info = png.Reader(file=stream).read()
            pixels = np.empty((height, width * info["planes"]), np.uint16)
            for target, row in zip(pixels, rows, strict=True):
                target[:] = row
        return pixels.reshape(height, width, -1)
    stored = tifffile.imread(file)
    planar = stored.ndim == 3 and stored.shape[:2] != (image.height, image.width)
    ordered: Array = np.moveaxis(stored, 0, -1) if planar else stored
    if ordered.dtype != np.uint16 or ordered.shape[2] > 4:
        raise ValueError(f"it holds {ordered.shape[2]} channels of {ordered.dtype}: save it as RGB with 8 or 16 bits.")
    return ordered


def _encoder(picture: Picture, path: Path) -> Callable[[BinaryIO], None]:
    """What writes the picture into an open file."""
    suffix = path.suffix.lower()
    name = Image.registered_extensions().get(suffix)
    if name is None:
        raise ValueError(
            f"{str(path)!r}: no image format has the suffix {suffix!r}; use .png, .jpg, .tif, .webp or .bmp."
        )
    if picture.alpha and name in ("JPEG", "BMP"):
        raise ValueError(f"{name} cannot hold the alpha channel: write {path.stem!r} as png.")
    if picture.white > 255:
        if name not in SIXTEEN_BITS:
            raise ValueError(f"{name} cannot hold 16 bits: write {path.stem!r} as png.")
        return lambda file: SIXTEEN_BITS[name](picture, file)
    pixels = picture.pixels[..., 0] if picture.pixels.shape[2] == 1 else picture.pixels
    options = {**picture.info, **OPTIONS.get(name, {})}
    return lambda file: Image.fromarray(pixels).save(file, format=name, **options)


def _write_deep_png(picture: Picture, file: BinaryIO) -> None:
    """A 16-bit PNG, with colour profile, EXIF data and resolution."""
    height, width, _ = picture.pixels.shape
    buffer = io.BytesIO()
    writer = png.Writer(width, height, greyscale=picture.colours == 1, alpha=picture.alpha, bitdepth=16)
    writer.write_packed(buffer, (row.astype(">u2").tobytes() for row in picture.pixels))
    buffer.seek(0)
    header, *rest = png.Reader(file=buffer).chunks()
    png.write_chunks(file, [header, *_ancillary(picture.info), *rest])


def _ancillary(info: Mapping[str, object]) -> list[tuple[bytes, bytes]]:
    """Chunks of a PNG file that hold what is handed on."""
    chunks = []
    if isinstance(profile := info.get("icc_profile"), bytes):
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile)))
    if isinstance(exif := info.get("exif"), bytes):
        chunks.append((b"eXIf", exif.removeprefix(b"Exif\0\0")))
    if isinstance(dpi := info.get("dpi"), tuple):
        chunks.append((b"pHYs", struct.pack(">IIB", *(round(float(value) / 0.0254) for value in dpi), 1)))
    return chunks


def _write_deep_tiff(picture: Picture, file: BinaryIO) -> None:
    """A 16-bit TIFF, with colour profile."""
    profile = picture.info.get("icc_profile")
    pixels = picture.pixels if picture.pixels.shape[2] > 1 else picture.pixels[..., 0]
    tifffile.imwrite(
        file,
        pixels,
        photometric="minisblack" if picture.colours == 1 else "rgb",
        planarconfig="contig" if pixels.ndim == 3 else None,
        extrasamples=["unassalpha"] if picture.alpha else None,
        compression="zlib",
        iccprofile=profile if isinstance(profile, bytes) else None,
    )


SIXTEEN_BITS: Mapping[str, Callable[[Picture, BinaryIO], None]] = MappingProxyType(
    {"PNG": _write_deep_png, "TIFF": _write_deep_tiff}
)
"""Formats that can hold 16 bits a channel, by Pillow's name, and what writes them."""
