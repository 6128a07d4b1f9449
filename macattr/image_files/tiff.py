"""TIFF files: their headers, and 16-bit pixels, of which Pillow keeps 8 bits."""

__all__ = ["TiffHeader", "is_tiff", "read_tiff_header", "read_tiff_pixels"]

import io
import logging
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # its complaints end in our errors instead

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF files, little and big endian."""

MIN_IS_WHITE, MIN_IS_BLACK, RGB = 0, 1, 2
"""Values of PhotometricInterpretation whose channels are grey or red, green and blue."""

LZW, HORIZONTAL = 5, 2
"""Values of Compression and Predictor."""

ASSOCIATED, UNASSOCIATED = 1, 2
"""Values of ExtraSamples for colours that are multiplied by alpha, and for colours that are not."""

KINDS = {1: "unsigned", 2: "signed", 3: "floating-point"}
"""SampleFormat in words."""


@dataclass(frozen=True)
class TiffHeader:
    """Properties of the first page of a TIFF file.

    Args:
        height: Rows as stored.
        width: Columns as stored.
        is_clipped: Whether Pillow keeps 8 of 16 bits, or takes white for black.
        orientation: Value of the tag Orientation, 1 to 8.
        frames: Number of full pages; previews and masks do not count.
        info: Colour profile and resolution, as Pillow names them.
        extras: Number of channels that are neither colour nor alpha.
    """

    height: int
    width: int
    is_clipped: bool
    orientation: int
    frames: int
    info: Mapping[str, object] = field(default_factory=dict)
    extras: int = 0


def is_tiff(file: Path) -> bool:
    """Whether a file begins as TIFF files do, whatever its suffix."""
    with file.open("rb") as opened:
        return opened.read(4) in SIGNATURES


def read_tiff_header(file: Path) -> TiffHeader:
    """Header of the first page.

    Raises:
        ValueError: If the file is damaged or truncated, or its channels are not unsigned with at most 8 or with 16
            bits.
    """
    with tifffile.TiffFile(file) as tiff:
        page = _first_page(tiff)
        bits = page.bitspersample
        if page.sampleformat != 1 or not (bits <= 8 or bits == 16):
            kind = KINDS.get(page.sampleformat, "other")
            raise ValueError(f"it holds {bits}-bit {kind} pixels of unknown range: save it with 8 or 16 bits.")
        segments = zip(page.dataoffsets, page.databytecounts, strict=True)
        if any(offset + count > tiff.filehandle.size for offset, count in segments):
            raise ValueError("it is truncated.")
        tag = page.tags.get(274)
        return TiffHeader(
            height=page.imagelength,
            width=page.imagewidth,
            is_clipped=bits == 16 and (page.samplesperpixel > 1 or page.photometric == MIN_IS_WHITE),
            orientation=1 if tag is None else int(tag.value),
            frames=max(1, sum(not other.subfiletype for other in tiff.pages if isinstance(other, tifffile.TiffPage))),
            info=_info(page),
            extras=sum(kind not in (ASSOCIATED, UNASSOCIATED) for kind in page.extrasamples),
        )


def read_tiff_pixels(file: Path) -> npt.NDArray[np.uint16]:
    """Exact 16-bit pixels of the first page as stored, (h, w, c): c = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.

    Min-is-white becomes min-is-black, and colours that are multiplied by alpha are divided by it.

    Raises:
        ValueError: If the channels are not grey or RGB, or the compression needs a package that is missing.
    """
    with tifffile.TiffFile(file) as tiff:
        page = _first_page(tiff)
        if page.photometric not in (MIN_IS_WHITE, MIN_IS_BLACK, RGB):
            kind = getattr(page.photometric, "name", page.photometric)
            raise ValueError(f"it holds 16-bit pixels that are neither grey nor RGB ({kind}).")
        values = _decoded(page)
        colours = 3 if page.photometric == RGB else 1
        channels = values[..., :colours]
        if page.photometric == MIN_IS_WHITE:
            channels = np.iinfo(np.uint16).max - channels
        for number, kind in enumerate(page.extrasamples):
            if kind in (ASSOCIATED, UNASSOCIATED):
                alpha = values[..., colours + number : colours + number + 1]
                channels = _divided(channels, alpha) if kind == ASSOCIATED else channels
                return np.concatenate((channels, alpha), axis=2)
        return np.ascontiguousarray(channels)


def _first_page(tiff: tifffile.TiffFile) -> tifffile.TiffPage:
    """The page that is read."""
    if not len(tiff.pages):
        raise ValueError("it holds no image.")
    return cast(tifffile.TiffPage, tiff.pages[0])


def _decoded(page: tifffile.TiffPage) -> npt.NDArray[np.uint16]:
    """All channels of a page, (h, w, c)."""
    try:
        values = page.asarray()
    except ValueError as error:
        if "imagecodecs" in str(error) and page.compression == LZW and page.axes in ("YX", "YXS"):
            return _decoded_lzw(page)
        if "imagecodecs" in str(error):
            name = getattr(page.compression, "name", page.compression)
            raise ValueError(
                f"its 16 bits are compressed by {name}: save it without compression, or pip install imagecodecs."
            ) from error
        raise
    values = np.asarray(values).astype(np.uint16, copy=False).reshape(page.shape)
    if page.axes == "SYX":
        return np.moveaxis(values, 0, -1)
    if page.axes not in ("YX", "YXS"):
        raise ValueError(f"it holds an array of axes {page.axes}, not an image.")
    return values.reshape(*values.shape[:2], -1)


def _decoded_lzw(page: tifffile.TiffPage) -> npt.NDArray[np.uint16]:
    """Channels of a page that is compressed by LZW, (h, w, c); tifffile has no decoder for it."""
    with Image.open(io.BytesIO(_as_grey(page))) as image:
        values = np.array(image).astype(np.uint16).reshape(page.imagelength, page.imagewidth, page.samplesperpixel)
    if page.predictor != HORIZONTAL:
        return values
    width = page.tilewidth if page.is_tiled else page.imagewidth
    for left in range(0, page.imagewidth, width):
        part = values[:, left : left + width]
        np.cumsum(part, axis=1, dtype=np.uint16, out=part)
    return values


def _as_grey(page: tifffile.TiffPage) -> bytes:
    """A page's strips or tiles as those of a grey file, as wide as all channels together, which Pillow expands."""
    handle, order, channels = page.parent.filehandle, page.parent.byteorder, page.samplesperpixel
    segments = []
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        handle.seek(offset)
        segments.append(handle.read(count))
    shape = {322: page.tilewidth * channels, 323: page.tilelength} if page.is_tiled else {278: page.rowsperstrip}
    fields: dict[int, int] = {256: page.imagewidth * channels, 257: page.imagelength, 258: 16, 259: LZW, 262: 1, 277: 1}
    places, counts = (324, 325) if page.is_tiled else (273, 279)
    number = len(segments)
    entries = sorted((fields | shape | {places: 0, counts: 0}).items())
    lists = 8 + 2 + 12 * len(entries) + 4
    sizes = [len(segment) for segment in segments]
    offsets = [lists + 8 * number + sum(sizes[:place]) for place in range(number)]
    stored = {places: lists if number > 1 else offsets[0], counts: lists + 4 * number if number > 1 else sizes[0]}
    head = struct.pack(f"{order}2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(entries))
    for tag, value in entries:
        head += struct.pack(f"{order}HHII", tag, 4, number if tag in stored else 1, stored.get(tag, value))
    return head + struct.pack(f"{order}I{2 * number}I", 0, *offsets, *sizes) + b"".join(segments)


def _divided(colours: npt.NDArray[np.uint16], alpha: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Colours that were multiplied by alpha, divided by it; black where nothing is visible."""
    white = np.iinfo(np.uint16).max
    divided = np.rint(colours * (white / np.maximum(alpha, 1).astype(np.float64)))
    return np.where(alpha > 0, divided.clip(0, white), 0).astype(np.uint16)


def _info(page: tifffile.TiffPage) -> dict[str, object]:
    """Colour profile and resolution, as Pillow names them."""
    info: dict[str, object] = {"icc_profile": page.iccprofile} if page.iccprofile else {}
    if page.resolutionunit in (2, 3) and all(value > 0 for value in page.resolution):
        info["dpi"] = page.get_resolution(unit=2)
    return info
