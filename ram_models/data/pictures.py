"""Pictures written so that depth, alpha, grey, colour profile and EXIF data survive a restoration."""

__all__ = ["Picture", "read_picture", "write_picture"]

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import png
import tifffile
from PIL import Image

from macattr.atomic_files import write_atomically
from macattr.image_files import SUFFIXES, Picture, read_picture

OPTIONS: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "JPEG": {"quality": 95, "subsampling": 0},
        "WEBP": {"lossless": True, "exact": True},
        "TIFF": {"compression": "tiff_deflate"},
    }
)
"""Options of the encoders where a format leaves a choice."""


def write_picture(picture: Picture, path: Path) -> None:
    """Write a picture in the format of the suffix, all of it or nothing: an interrupted write leaves no file.

    JPEG is written at quality 95 without chroma subsampling, WebP without loss. Colour profile, EXIF data and
    resolution are handed on, but for those of 16-bit TIFF other than the profile.

    Raises:
        ValueError: If the format is unknown, or cannot hold the picture's alpha or 16 bits.
        OSError: If the file cannot be written.
    """
    write_atomically(path, _encoder(picture, path))


def _encoder(picture: Picture, path: Path) -> Callable[[BinaryIO], None]:
    """Function that writes the picture into an open file."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(
            f"{str(path)!r}: no image format has the suffix {suffix!r} and keeps all colours; use .png, .jpg, .tif, "
            ".webp or .bmp."
        )
    name = Image.registered_extensions()[suffix]
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
    """Chunks of a PNG file for profile, EXIF data and resolution."""
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
"""Encoders of the formats that can hold 16 bits a channel, by Pillow's name."""
