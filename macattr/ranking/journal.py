"""Parts of a run on disk: one file for every finished image and pixel order."""

__all__ = ["SETTINGS", "Journal", "Record", "Unit", "read_settings", "remove_parts", "shorten"]

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from macattr.atomic_files import write_text
from macattr.methods.provenance import UNIDENTIFIED
from macattr.methods.readings import Reading

SETTINGS = "settings.json"
"""Name of the file that says how the parts were measured."""

PART = re.compile(r"\d{6,}-\d{4,}\.json")
"""Names of the parts."""

Unit = tuple[int, int]
"""Number of an image and of a pixel order."""


@dataclass(frozen=True)
class Record:
    """The readings of one image along one pixel order.

    Args:
        name: Name of the image.
        degradation: Name of its degradation.
        height: Its rows in pixels.
        width: Its columns in pixels.
        sha256: Of it, its clean image, the given pixel order and its arguments, first 16 digits.
        readings: By name of the method.
    """

    name: str
    degradation: str
    height: int
    width: int
    sha256: str
    readings: Mapping[str, Reading]


class Journal:
    """A folder with one file for every finished image and pixel order, each written whole or not at all.

    Args:
        folder: Where they are kept; None keeps nothing.
        settings: How the run measures; a folder of a run with other settings is refused.

    Raises:
        ValueError: If the folder belongs to a run with other settings, or a setting cannot be identified.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, object]) -> None:
        self.folder = folder
        if folder is None:
            return
        refuse_unidentified(settings)
        folder.mkdir(parents=True, exist_ok=True)
        file, text = folder / SETTINGS, json.dumps(settings, indent=1, sort_keys=True)
        if not file.exists():
            write_text(file, text)
        stored = read_settings(file)
        wanted = json.loads(text)
        if changed := sorted(name for name in stored | wanted if stored.get(name) != wanted.get(name)):
            name = changed[0]
            before, now = shorten(stored.get(name)), shorten(wanted.get(name))
            told = f"other {name}" if before == now else f"{name} = {before}, got {now}"
            raise ValueError(
                f"{str(folder)!r} holds a run with {told}: choose another folder, or remove this one to start again."
            )

    def read(self, unit: Unit) -> Record | None:
        """The record of a unit, if it was kept.

        Raises:
            ValueError: If its file is damaged.
        """
        if self.folder is None or not (file := _part(self.folder, unit)).exists():
            return None
        try:
            fields = json.loads(file.read_text())
            return Record(**fields | {"readings": {name: Reading(**r) for name, r in fields["readings"].items()}})
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{str(file)!r} is damaged ({error}): remove it, and it is measured again.") from error

    def write(self, unit: Unit, record: Record) -> None:
        """Keep a unit."""
        if self.folder is not None:
            text = json.dumps(asdict(record))
            write_text(_part(self.folder, unit), text)


def refuse_unidentified(settings: Mapping[str, object]) -> None:
    """Raise ValueError if a setting is an object that two processes could not compare."""
    for name, value in settings.items():
        if UNIDENTIFIED in str(value):
            raise ValueError(
                f"`parts` needs settings that can be compared, but `{name}` is {shorten(value)}: pass a function, or "
                "an instance of a frozen dataclass."
            )


def read_settings(file: Path) -> dict[str, object]:
    """The settings of a run.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        stored = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{str(file)!r} is damaged ({error}): remove its folder to start again.") from error
    if not isinstance(stored, dict):
        raise ValueError(f"{str(file)!r} does not hold the settings of a run: choose another folder.")
    return stored


def remove_parts(folder: Path) -> None:
    """Remove the files of a journal, and its folder if nothing else is in it."""
    if not (folder / SETTINGS).is_file():
        return
    for file in folder.iterdir():
        if PART.fullmatch(file.name) and not file.is_symlink():
            file.unlink(missing_ok=True)  # several processes of a run may remove them at once
    (folder / SETTINGS).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _part(folder: Path, unit: Unit) -> Path:
    """Where a unit is kept."""
    return folder / f"{unit[0]:06d}-{unit[1]:04d}.json"


def shorten(value: object) -> str:
    """A setting that fits into a line; of methods, which are stored as ``name: definition``, the names.

    Args:
        value: As it stands in the file.

    Example:
        >>> shorten(["fisher: SampleMethod(name=fisher)", "depth: JointMethod(name=depth)"])
        'fisher, depth'
    """
    text = ", ".join(str(item).partition(": ")[0] for item in value) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
