"""Data sets as pairs of files: a clean image and, where there is one, its degraded version."""

__all__ = ["ImageSet", "Pair", "clean_folder", "paired_folder"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from macattr.image_files import find_images, read_image, unique_names


@dataclass(frozen=True)
class Pair:
    """One item of a data set: a clean image and, where the set has one, its degraded version.

    Args:
        name: Name within the set, without suffix.
        clean: File of the clean image.
        degraded: File of the degraded image; None if degradations are to be synthesised.
        clean_border: Pixels to cut off each side of the clean image (10 for the ground truth of SOTS indoor).
    """

    name: str
    clean: Path
    degraded: Path | None = None
    clean_border: int = 0

    def read(self, reader: Callable[[Path], Tensor] = read_image) -> tuple[Tensor | None, Tensor]:
        """Degraded (or None) and clean image, each (3, h, w), the clean one's border cut.

        Args:
            reader: Reads one file as (3, h, w); RGB in [0, 1] unless told otherwise.

        Raises:
            ValueError: If a file cannot be read, or the two sizes differ.
        """
        clean, border = reader(self.clean), self.clean_border
        if border:
            clean = clean[:, border:-border, border:-border]
        if self.degraded is None:
            return None, clean
        degraded = reader(self.degraded)
        if degraded.shape != clean.shape:
            sizes = [f"{image.shape[2]}x{image.shape[1]}" for image in (degraded, clean)]
            raise ValueError(
                f"{str(self.degraded)!r} has {sizes[0]} pixels, its clean image {str(self.clean)!r} has {sizes[1]}: "
                "they must be of one size."
            )
        return degraded, clean


@dataclass(frozen=True)
class ImageSet:
    """One data set, or one split of it.

    Args:
        name: Name of the set, as "Rain100H".
        task: Degradation of its pairs; None for clean images alone.
        split: "train", "val", "test", or "all" where it follows neither from the layout nor from a folder's name.
        pairs: The items, sorted by name.
        unmatched: Files that should have a counterpart and have none.
        directory: Folder in which the set was found.
    """

    name: str
    task: str | None
    split: str
    pairs: tuple[Pair, ...]
    unmatched: tuple[Path, ...] = ()
    directory: Path = Path()


def paired_folder(degraded: Path | str, clean: Path | str, task: str, name: str | None = None) -> ImageSet:
    """The set of pairs whose two sides lie in two folders, under names that belong together.

    A degraded file belongs to the clean file of the same path below its folder, whatever the suffixes; where there is
    none, to the one named by its beginning up to an underscore: ``0001_0.8_0.2.jpg`` to ``0001.png``.

    Args:
        degraded: Folder of degraded images, searched recursively.
        clean: Folder of clean images, searched recursively.
        task: Degradation, as "rain".
        name: Name of the set; the name of the folder around ``degraded`` unless given.

    Raises:
        ValueError: If a folder holds no image, or no file has a counterpart.
    """
    sources, targets = _named(Path(degraded)), _by_stem(Path(clean))
    partners = {key: _counterpart(file, targets, Path(degraded)) for key, file in sources.items()}
    pairs = tuple(Pair(key, partner, sources[key]) for key, partner in partners.items() if partner is not None)
    if not pairs:
        raise ValueError(
            f"no image of {str(degraded)!r} has a counterpart in {str(clean)!r}: the two need equal names, or "
            "`NAME_anything` for `NAME`."
        )
    used = set(partners.values())
    alone = [sources[key] for key, partner in partners.items() if partner is None]
    alone += [file for files in targets.values() for file in files if file not in used]
    return ImageSet(
        name=name or Path(degraded).resolve().parent.name,
        task=task,
        split="all",
        pairs=pairs,
        unmatched=tuple(alone),
        directory=Path(degraded).parent,
    )


def clean_folder(directory: Path | str, name: str | None = None) -> ImageSet:
    """The set of all images below a folder, for degradations that are synthesised.

    Raises:
        ValueError: If the folder holds no image.
    """
    pairs = tuple(Pair(key, file) for key, file in _named(Path(directory)).items())
    return ImageSet(
        name=name or Path(directory).resolve().name, task=None, split="all", pairs=pairs, directory=Path(directory)
    )


def _named(directory: Path) -> dict[str, Path]:
    """Image files by their names in a set."""
    files = find_images(directory)
    return dict(zip(unique_names(files, directory), files, strict=True))


def _by_stem(directory: Path) -> dict[str, list[Path]]:
    """Image files by their path below a folder without suffix."""
    groups: dict[str, list[Path]] = {}
    for file in find_images(directory):
        groups.setdefault(file.relative_to(directory).with_suffix("").as_posix(), []).append(file)
    return groups


def _counterpart(file: Path, clean: Mapping[str, list[Path]], degraded: Path) -> Path | None:
    """The clean image that belongs to a degraded one, if there is one; of two the one with the same suffix."""
    path = file.relative_to(degraded)
    name = path.with_suffix("").as_posix()
    while name not in clean and "_" in name.rpartition("/")[2]:
        name = name.rpartition("_")[0]
    candidates = clean.get(name, [])
    same = [other for other in candidates if other.suffix.lower() == file.suffix.lower()]
    if len(same) != 1 and len(candidates) > 1:
        names = ", ".join(repr(other.name) for other in candidates)
        raise ValueError(
            f"it is unclear which clean image belongs to {path.as_posix()!r}: {names}; rename one of them."
        )
    return next(iter(same or candidates), None)
