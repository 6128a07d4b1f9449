"""Parts of a run on disk: one file for every finished image and pixel order."""

__all__ = ["Journal", "Record", "Unit"]

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from macattr.atomic_files import write_atomically
from macattr.methods.readings import Reading

Unit = tuple[int, int]
"""Number of an image and of a pixel order."""


@dataclass(frozen=True)
class Record:
    """What was measured of one image along one pixel order.

    Args:
        name: Name of the image.
        degradation: What was done to it.
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
        folder: Where; None keeps nothing.
        settings: How the run measures; a folder that was made otherwise is refused.

    Raises:
        ValueError: If the folder belongs to a run with other settings.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, object]) -> None:
        self.folder = folder
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        file, text = folder / "settings.json", json.dumps(settings, indent=1, sort_keys=True)
        if not file.exists():
            write_atomically(file, lambda opened: opened.write(text.encode()))
        stored = json.loads(file.read_text())
        wanted = json.loads(text)
        if changed := sorted(name for name in stored | wanted if stored.get(name) != wanted.get(name)):
            name = changed[0]
            raise ValueError(
                f"{str(folder)!r} holds a run with {name} = {_short(stored.get(name))}, got {_short(wanted.get(name))}"
                ": choose another folder, or remove this one to start anew."
            )

    def read(self, unit: Unit) -> Record | None:
        """What was kept of a unit.

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
            write_atomically(_part(self.folder, unit), lambda opened: opened.write(text.encode()))


def _part(folder: Path, unit: Unit) -> Path:
    """Where a unit is kept."""
    return folder / f"{unit[0]:06d}-{unit[1]:04d}.json"


def _short(value: object) -> str:
    """A setting that fits into a line."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
