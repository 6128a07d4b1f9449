"""Image files as inputs of a ranking."""

__all__ = ["ImageFolder"]

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import overload

from torch import Tensor

from macattr.image_files.pictures import read_size
from macattr.image_files.search import display_name, find_images, find_partners
from macattr.image_files.tensors import center_crop, fit_to_multiple, read_image


class ImageFolder:
    """Images of a folder or a list of files, each read when it is reached.

    Args:
        source: Folder, searched recursively; image file; or list of image files.
        crop: Largest side in pixels, cut from the middle; None for whole images.
        clean: Folder of the clean images, under the same relative paths (of a list of files, below the folder that
            holds them all); or list of as many files. None if unknown.
        multiple: Number that divides both sides of every image: the rest is cut from the edges, and a shorter side is
            reflected. See :func:`macattr.image_files.tensors.fit_to_multiple`.
        grey: Whether images have one channel, see :func:`macattr.image_files.tensors.luminance`.

    Raises:
        ValueError: If there is no image, not one clean image for each, or no pixel would be left; when an image is
            read, if ``crop`` or ``multiple`` would cut it and its clean image differently.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (8, 4)).save(folder / "a.png")
        >>> ImageFolder(folder)[0]["image"].shape
        torch.Size([3, 4, 8])
    """

    def __init__(
        self,
        source: Path | str | Sequence[Path | str],
        crop: int | None = None,
        clean: Path | str | Sequence[Path | str] | None = None,
        *,
        multiple: int | None = None,
        grey: bool = False,
    ) -> None:
        self.files = _files(source)
        if not self.files:
            raise ValueError("the list of image files is empty.")
        for name, size in {"crop": crop, "multiple": multiple}.items():
            if size is not None and size < 1:
                raise ValueError(f"`{name}` must be at least 1 pixel, got {size}.")
        if crop is not None and multiple is not None and crop < multiple:
            raise ValueError(f"`crop` {crop} leaves less than one `multiple` of {multiple} pixels: raise it.")
        self.crop, self.multiple, self.grey = crop, multiple, grey
        self.clean = None if clean is None else self._partners(source, clean)

    def _partners(
        self, source: Path | str | Sequence[Path | str], clean: Path | str | Sequence[Path | str]
    ) -> list[Path]:
        """The clean image of every file: by name in a folder, by position in a list."""
        if isinstance(clean, Path | str) and (isinstance(source, Path | str) or Path(clean).is_dir()):
            root = source if isinstance(source, Path | str) else _common_folder(self.files)
            return find_partners(self.files, root, clean)
        partners = _files(clean)
        if len(partners) != len(self.files):
            raise ValueError(f"`clean` has {len(partners)} files for {len(self.files)} images: give one for each.")
        return partners

    def select(self, indices: Iterable[int]) -> "ImageFolder":
        """The images of these numbers, in this order; nothing is read."""
        numbers = list(indices)
        clean = None if self.clean is None else [self.clean[number] for number in numbers]
        files = [self.files[number] for number in numbers]
        return ImageFolder(files, self.crop, clean, multiple=self.multiple, grey=self.grey)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.files)

    def __iter__(self) -> Iterator[Mapping[str, object]]:
        """The images one after the other."""
        return (self[number] for number in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Mapping[str, object]: ...

    @overload
    def __getitem__(self, index: slice) -> "ImageFolder": ...

    def __getitem__(self, index: int | slice) -> "Mapping[str, object] | ImageFolder":
        """An image with its name, and its clean image if known; or some of the images, which are not read."""
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        item: dict[str, object] = {"image": self._read(self.files[index]), "name": display_name(self.files[index])}
        if self.clean is None:
            return item
        if self.crop is not None or self.multiple is not None:
            _refuse_other_size(self.files[index], self.clean[index])
        return item | {"clean": self._read(self.clean[index])}

    def _read(self, file: Path) -> Tensor:
        """An image, cropped."""
        image = read_image(file, self.grey)
        image = image if self.crop is None else center_crop(image, self.crop)
        return image if self.multiple is None else fit_to_multiple(image, self.multiple)


def _files(source: Path | str | Sequence[Path | str]) -> list[Path]:
    """Image files of a folder, or those of a list."""
    return find_images(source) if isinstance(source, Path | str) else [Path(file) for file in source]


def _common_folder(files: Sequence[Path]) -> Path:
    """The innermost folder that holds all files."""
    try:
        return Path(os.path.commonpath([file.parent for file in files]))
    except ValueError as error:
        raise ValueError(
            f"the files lie in no common folder ({error}): give the clean images as a list, too."
        ) from None


def _refuse_other_size(file: Path, clean: Path) -> None:
    """Raise if an image and its clean one, which are cut alike, have other sizes."""
    sizes = [read_size(path) for path in (file, clean)]
    if sizes[0] != sizes[1]:
        one, other = ("x".join(map(str, size)) for size in sizes)
        raise ValueError(
            f"{str(file)!r} has {one} pixels, its clean image {str(clean)!r} {other}: `crop` and `multiple` cut both "
            "alike, so their sizes must be equal. Cut the files beforehand, or leave these options out."
        )
