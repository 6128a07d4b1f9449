"""The reader of image files: pixels at full depth, upright, with the metadata that a copy should keep."""

__all__ = ["Picture", "read_picture", "read_size"]

import io
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import png
import torch
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from torch import Tensor

from macattr.image_files.tiff import is_tiff, read_tiff_header, read_tiff_pixels
from macattr.user_warnings import warn_user

Array = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

DAMAGE = (
    ValueError,
    OSError,
    SyntaxError,
    EOFError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    MemoryError,
    Warning,
    zlib.error,
    struct.error,
    png.Error,
)
"""Exceptions of the decoders on damaged files (warnings where they are errors)."""

LARGEST = 2**30
"""Most pixels of an image: 3 GB as RGB. Pillow's own limit of 179 million excludes scans and panoramas."""

ORIENTATION = 0x0112
"""The EXIF and TIFF tag that says how a viewer turns the stored pixels."""

SIDEWAYS = (5, 6, 7, 8)
"""Orientations that exchange rows and columns."""

CODESTREAM = b"\xff\x4f\xff\x51"
"""First bytes of the pixels of a JPEG 2000 file, before their sizes and depths."""

_pillow = threading.Lock()


@dataclass(frozen=True)
class Picture:
    """An image file in memory, upright.

    Args:
        pixels: (h, w, c) with c = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha; 8 or 16 bits.
        info: Colour profile, EXIF data (without orientation) and resolution, as Pillow names them.
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


@dataclass(frozen=True)
class _Decoded:
    """An image as a decoder gives it, with remarks on anything that was left out.

    Args:
        pixels: As for :class:`Picture`, but not yet turned.
        orientation: The tag of the file, 1 to 8.
        info: As for :class:`Picture`.
        remarks: Ends of sentences that begin with the file's name.
        is_upright: Whether the decoder turned the pixels already.
    """

    pixels: Array
    orientation: int
    info: Mapping[str, object]
    remarks: tuple[str, ...] = ()
    is_upright: bool = False


def read_picture(path: Path | str) -> Picture:
    """The picture in an image file, upright.

    - The EXIF or TIFF orientation is applied to the pixels and removed from the EXIF data.
    - PNG, TIFF and PPM with 16 bits stay exact, JPEG 2000 with 16 bits if it is grey. Palettes become RGB.
    - Of several frames or pages the first is read, with a warning; the preview or gain map in a JPEG of a phone (MPO)
      does not count.
    - CMYK becomes RGB without its profile, with a warning.

    Raises:
        ValueError: If the file is empty, truncated or not an image, holds floating-point, signed or 32-bit pixels or
            more than 8 bits of which the decoder would keep 8, or has more than 2^30 pixels.
    """
    with _named_errors(path) as file:
        decoded = _read_tiff(file) if is_tiff(file) else _read_other(file)
    for remark in decoded.remarks:
        warn_user(f"{str(path)!r} {remark}")
    pixels = decoded.pixels if decoded.is_upright else _upright(decoded.pixels, decoded.orientation)
    info, dpi = dict(decoded.info), decoded.info.get("dpi")
    if decoded.orientation in SIDEWAYS and isinstance(dpi, tuple):
        info["dpi"] = dpi[::-1]
    return Picture(pixels.copy(), info)


def read_size(path: Path | str) -> tuple[int, int]:
    """Height and width of the upright picture, from the header of its file alone.

    Raises:
        ValueError: If the file cannot be read as an image.
    """
    with _named_errors(path) as file:
        if is_tiff(file):
            header = read_tiff_header(file)
            size, orientation = (header.height, header.width), header.orientation
        else:
            with _opened(file) as image:
                size, orientation = (image.height, image.width), _orientation(image)
    return size[::-1] if orientation in SIDEWAYS else size


@contextmanager
def _named_errors(path: Path | str) -> Iterator[Path]:
    """The file, if it is not empty; every error of a decoder names it in one line."""
    file = Path(path)
    try:
        if file.is_file() and file.stat().st_size == 0:
            raise ValueError("it is empty.")
        yield file
    except DAMAGE as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = " ".join(reason.split()) or type(error).__name__
        raise ValueError(f"{str(path)!r} cannot be read as an image: {reason.rstrip('.')}.") from error


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """The file opened by Pillow, under our own limit on its size."""
    with _pillow:  # Pillow's limit is global
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(file)
        except UnidentifiedImageError as error:
            raise ValueError("its format is unknown.") from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with image:
        _refuse_huge(image.height, image.width)
        yield image


def _refuse_huge(height: int, width: int) -> None:
    """Raise on more pixels than fit into memory: a large scan, or a decompression bomb."""
    if height * width > LARGEST:
        raise ValueError(f"its {height}x{width} pixels exceed the limit of {LARGEST:,}: cut it into parts.")


def _read_tiff(file: Path) -> _Decoded:
    """A TIFF file: by tifffile if Pillow would lose some of its 16 bits."""
    header = read_tiff_header(file)
    _refuse_huge(header.height, header.width)
    remarks = [f"holds {header.frames} pages: the first is read."] if header.frames > 1 else []
    if header.extras:
        remarks.append("holds channels of unknown meaning: they are left out.")
    if header.is_clipped:
        return _Decoded(read_tiff_pixels(file), header.orientation, header.info, tuple(remarks))
    with _opened(file) as image:
        image.load()  # which turns a TIFF image and removes the tag
        remarks += _remarks_on_colours(image)
        info = {name: value for name, value in header.info.items() if name in _kept(image)}
        is_upright = _orientation(image) == 1
        pixels = _sixteen_bits(image, file) if image.mode.startswith("I") else _eight_bits(image)
        return _Decoded(pixels, header.orientation, info, tuple(remarks), is_upright)


def _read_other(file: Path) -> _Decoded:
    """A file of any other format."""
    with _opened(file) as image:
        if (bits := _clipped_bits(image, file)) is not None:
            raise ValueError(
                f"{image.format} holds {bits} bits a colour, of which 8 can be read: convert it to 16-bit PNG or TIFF."
            )
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        remarks = [f"holds {frames} frames: the first is read."] if frames > 1 else []
        if isinstance(image, ImageFile) and _is_deep_ppm(image):
            return _Decoded(_deep_ppm(image, file), 1, _kept(image), tuple(remarks))
        image.load()
        remarks += _remarks_on_colours(image)
        deep = _is_deep_png(image, file)
        pixels = _sixteen_bits(image, file) if deep or image.mode.startswith(("I", "F")) else _eight_bits(image)
        return _Decoded(pixels, _orientation(image), _kept(image), tuple(remarks))


def _remarks_on_colours(image: Image.Image) -> list[str]:
    """A remark on CMYK."""
    cmyk = image.mode == "CMYK"
    return ["is CMYK: it becomes RGB without its colour profile, so colours are approximate."] if cmyk else []


def _is_deep_png(image: Image.Image, file: Path) -> bool:
    """Whether an image is a PNG file with 16 bits a channel, which Pillow reads as 8 if it has colours."""
    if image.format != "PNG":
        return False
    with file.open("rb") as opened:
        return opened.read(25)[24:] == b"\x10"


def _eight_bits(image: Image.Image) -> Array:
    """Pixels of a loaded image, (h, w, c) with 8 bits."""
    grey = image.mode in ("1", "L", "LA", "La")
    mode = ("LA" if grey else "RGBA") if image.has_transparency_data else ("L" if grey else "RGB")
    pixels: Array = np.array(image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], -1)


def _is_deep_ppm(image: ImageFile) -> bool:
    """Whether an image that is not loaded yet is a PPM file with more than 8 bits a colour, of which Pillow reads 8."""
    if (image.format, image.mode) != ("PPM", "RGB"):
        return False
    arguments = image.tile[0].args
    return isinstance(arguments, tuple) and any(isinstance(value, int) and value > 255 for value in arguments)


def _sixteen_bits(image: Image.Image, file: Path) -> Array:
    """Pixels of a loaded image, (h, w, c) with 16 bits."""
    grey = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if grey and "transparency" not in image.info:
        return np.array(image).astype(np.uint16)[..., None]
    if image.format == "PNG":
        return _deep_png(file)
    raise ValueError("it holds floating-point or 32-bit pixels of unknown range: save it with 8 or 16 bits.")


def _deep_ppm(image: ImageFile, file: Path) -> Array:
    """Exact colours of a PPM file, read as a grey one of three times its width."""
    _, _, offset, arguments = image.tile[0]
    height, width, content = image.height, image.width, file.read_bytes()
    kind = {b"P3": b"P2", b"P6": b"P5"}[content[:2]]
    white = max(value for value in cast(tuple[object, ...], arguments) if isinstance(value, int))
    header = b"%s %d %d %d\n" % (kind, 3 * width, height, white)
    with Image.open(io.BytesIO(header + content[offset:])) as grey:
        return np.array(grey).astype(np.uint16).reshape(height, width, 3)


def _clipped_bits(image: Image.Image, file: Path) -> int | str | None:
    """Bits a colour of a JPEG 2000 or AVIF file if Pillow would read fewer; None if it reads all."""
    content = file.read_bytes() if image.format in ("JPEG2000", "AVIF") else b""
    if image.format == "AVIF":
        header = content.partition(b"mdat")[0]
        boxes = [header[place + 6] for place in _places(header, b"av1C")]
        return None if boxes and not any(flags & 0x40 for flags in boxes) else "more than 8"
    if image.format == "JPEG2000":
        start = content.index(CODESTREAM)
        count = int.from_bytes(content[start + 40 : start + 42])
        depths = [content[start + 42 + 3 * number] + 1 for number in range(count)]
        is_exact = max(depths) <= 8 or (depths == [16] and image.mode == "I;16")
        return None if is_exact else max(depth if depth <= 128 else depth - 128 for depth in depths)
    return None


def _places(content: bytes, name: bytes) -> Iterator[int]:
    """Where a name occurs."""
    place = content.find(name)
    while place >= 0:
        yield place
        place = content.find(name, place + 1)


def _deep_png(file: Path) -> Array:
    """Exact pixels of a 16-bit PNG file; one transparent colour becomes an alpha channel."""
    with file.open("rb") as stream:
        reader = png.Reader(file=stream)
        width, height, rows, info = reader.read()
        pixels = np.empty((height, width * info["planes"]), np.uint16)
        for target, row in zip(pixels, rows, strict=True):
            target[:] = row
    pixels = pixels.reshape(height, width, -1)
    if reader.transparent is None:
        return pixels
    visible = (pixels != np.array(reader.transparent, np.uint16)).any(2, keepdims=True)
    return np.concatenate((pixels, visible * np.uint16(65535)), axis=2)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation that is still to be applied, 1 to 8; damaged EXIF data have none."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except DAMAGE:
        return 1


def _kept(image: Image.Image) -> dict[str, object]:
    """Metadata that a copy should keep: colour profile (but of CMYK), resolution, EXIF data without orientation."""
    kept = {name: image.info[name] for name in ("icc_profile", "dpi") if image.info.get(name)}
    if image.mode == "CMYK":
        kept.pop("icc_profile", None)
    if image.format != "TIFF" and (exif := _exif(image)):
        kept["exif"] = exif
    return kept


def _exif(image: Image.Image) -> bytes:
    """EXIF data without orientation, in the form of JPEG files, with ``Exif`` before them; empty if there are none."""
    data = image.info.get("exif")
    raw = data if isinstance(data, bytes) else b""
    try:
        exif = image.getexif()
        if ORIENTATION in exif or (exif and not raw):
            exif.pop(ORIENTATION, None)
            raw = exif.tobytes() if exif else b""
    except DAMAGE:
        return b""
    return b"Exif\0\0" + raw.removeprefix(b"Exif\0\0") if raw else b""


def _upright(pixels: Array, orientation: int) -> Array:
    """Stored pixels (h, w, c) as a viewer shows them."""
    if orientation in SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
