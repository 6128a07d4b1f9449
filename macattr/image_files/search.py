"""Image files below folders, the names under which results list them, and their clean partners."""

__all__ = ["SUFFIXES", "display_name", "find_images", "find_partners", "image_folders", "unique_names"]

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from macattr.user_warnings import warn_user

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""Endings of image files, in lower case."""

ONLY_BY_NAME = (".ppm", ".pgm", ".pnm", ".jp2", ".j2k", ".avif", ".gif", ".heic")
"""Endings of pictures that are not looked for in folders."""


def find_images(source: Path | str) -> list[Path]:
    """The image file ``source``, or all image files below the folder, sorted.

    Links are followed. Hidden files and folders, and ``__MACOSX``, are left out.

    Raises:
        ValueError: If there is none, or a folder cannot be read.
    """
    if not str(source):
        raise ValueError("the name of the image file or folder is empty: for the current folder write '.'.")
    path = Path(source)
    if path.is_file():
        return [path]
    if not path.exists():
        raise ValueError(f"there is no file or folder {str(source)!r}.")
    files = sorted(file for _, inside in image_folders(path) for file in inside)
    if not files:
        raise ValueError(f"the folder {str(source)!r} holds no image: looked for {', '.join(SUFFIXES)}.")
    return files


def image_folders(directory: Path | str) -> Iterator[tuple[Path, list[Path]]]:
    """Every folder below ``directory`` (and itself) with its image files, sorted.

    Links are followed, each folder once. Hidden files and folders, and ``__MACOSX``, are left out.

    Raises:
        ValueError: If a folder cannot be read.

    Warns:
        UserWarning: If pictures are left out that are read by name alone.
    """
    visited = set()
    for parent, folders, names in os.walk(directory, onerror=_refuse_unreadable, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        files = [Path(parent, name) for name in sorted(names) if not _is_hidden(name)]
        if left_out := [file for file in files if file.suffix.lower() in ONLY_BY_NAME]:
            warn_user(
                f"{len(left_out)} of the pictures in {str(parent)!r} are left out, such as {left_out[0].name!r}: in "
                f"folders, {', '.join(SUFFIXES)} are looked for; name others one by one, or convert them."
            )
        yield Path(parent), [file for file in files if file.suffix.lower() in SUFFIXES]


def _is_hidden(name: str) -> bool:
    """Whether a file or folder is kept by a program for itself (``._a.png``, ``.ipynb_checkpoints``, ``__MACOSX``)."""
    return name.startswith(".") or name == "__MACOSX"


def _refuse_unreadable(error: OSError) -> NoReturn:
    """Raise: without the folder, other images would be taken than were asked for."""
    raise ValueError(
        f"the folder {str(error.filename)!r} cannot be read ({error.strerror}): make it readable, or move it away."
    ) from error


def display_name(path: Path | str) -> str:
    r"""A path as text for results: one line, valid UTF-8.

    Example:
        >>> display_name("a\nb.png")
        'a\\nb.png'
    """
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def unique_names(files: Sequence[Path], root: Path) -> list[str]:
    """Name of every file: its path below ``root`` without suffix, with it where two files differ in nothing else."""
    paths = [file.relative_to(root) for file in files]
    stems = [path.with_suffix("") for path in paths]
    count = Counter(stems)
    chosen = [stem if count[stem] == 1 else path for stem, path in zip(stems, paths, strict=True)]
    return [display_name(path.as_posix()) for path in chosen]


def find_partners(files: Sequence[Path], source: Path | str, clean: Path | str) -> list[Path]:
    """The clean image of every degraded one: the file of the same path below the other folder.

    The suffix may differ if only one file on either side has that path without suffix. Of two files given as such the
    one is the partner of the other.

    Args:
        files: Degraded images.
        source: Folder below which they lie, or their only file.
        clean: Folder of clean images, or the clean image of the only file.

    Raises:
        ValueError: If a file has no partner, or it is unclear which.
    """
    if Path(source).is_file() and Path(clean).is_file():
        return [Path(clean)]
    root, targets = _folder(source), _by_stem(find_images(clean), _folder(clean))
    rivals = _by_stem(files, root)
    partners = [_partner(file.relative_to(root), rivals, targets) for file in files]
    if missing := [file for file, partner in zip(files, partners, strict=True) if partner is None]:
        raise ValueError(
            f"{len(missing)} of {len(files)} images in {str(source)!r} have no clean one of that path in "
            f"{str(clean)!r}, e.g. {display_name(missing[0].relative_to(root))!r}."
        )
    return [partner for partner in partners if partner is not None]


def _folder(source: Path | str) -> Path:
    """A folder, or that of a file."""
    return Path(source).parent if Path(source).is_file() else Path(source)


def _by_stem(files: Sequence[Path], root: Path) -> dict[Path, list[Path]]:
    """Files by their path below a folder without suffix."""
    groups: dict[Path, list[Path]] = {}
    for file in files:
        groups.setdefault(file.relative_to(root).with_suffix(""), []).append(file)
    return groups


def _partner(path: Path, rivals: dict[Path, list[Path]], targets: dict[Path, list[Path]]) -> Path | None:
    """The clean image that belongs to a relative path; None if there is none."""
    stem = path.with_suffix("")
    candidates = targets.get(stem, [])
    same = [file for file in candidates if file.name == path.name]
    if same or not candidates:
        return same[0] if same else None
    if len(candidates) > 1 or len(rivals[stem]) > 1:
        names = ", ".join(repr(name) for name in sorted({file.name for file in (*rivals[stem], *candidates)}))
        raise ValueError(
            f"it is unclear which clean image belongs to {display_name(path)!r}: {names} differ in the suffix alone; "
            "rename them."
        )
    return candidates[0]
