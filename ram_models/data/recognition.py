"""Recognition of the data sets below a folder, and of the clean side of every degraded file."""

__all__ = ["read_sets", "recognise"]

import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from macattr.image_files import SUFFIXES, display_name, image_folders, read_size, unique_names
from macattr.user_warnings import warn_user
from ram_models.data.layouts import LAYOUTS, Form, Layout
from ram_models.data.sets import ImageSet, Pair, clean_folder


@dataclass
class _Reading:
    """Files of one folder as one form explains them: for either side (scene, id) -> files."""

    layout: Layout
    form: Form
    directory: Path
    degraded: dict[tuple[str, str], list[Path]] = field(default_factory=dict)
    clean: dict[tuple[str, str], list[Path]] = field(default_factory=dict)

    @property
    def sources(self) -> dict[tuple[str, str], list[Path]]:
        """The side that is counted: degraded images, or clean ones where there are no others."""
        return self.clean if self.form.degraded is None else self.degraded

    @property
    def paired(self) -> list[Path]:
        """Files on the counted side that are not without a counterpart."""
        return [file for key, files in self.sources.items() if key in self.clean for file in files]

    def files(self) -> set[Path]:
        """All files, paired or not."""
        return set(itertools.chain(*self.degraded.values(), *self.clean.values()))


_SPLITS = {"train": "train", "training": "train", "val": "val", "validation": "val", "test": "test", "testing": "test"}


def _split(form: Form, directory: Path) -> str:
    """The form's split, or the one that the nearest folder is called after."""
    names = (name.lower() for name in reversed(Path(os.path.abspath(directory)).parts))
    return form.split or next((_SPLITS[name] for name in names if name in _SPLITS), "all")


@dataclass(frozen=True)
class _Side:
    """One side of one form, ready to be looked for."""

    layout: Layout
    form: Form
    name: str
    folders: re.Pattern[str]
    stems: re.Pattern[str]

    def add(self, files: list[Path], scene: str, reading: _Reading) -> None:
        """Put the files whose name fits into a reading."""
        named: dict[tuple[str, str], list[Path]] = getattr(reading, self.name)
        for file in files:
            if stem := self.stems.fullmatch(file.stem):
                named.setdefault((scene, stem["id"]), []).append(file)


def _find(directory: Path, layouts: Iterable[Layout], anywhere: bool = False) -> tuple[list[_Reading], list[Path]]:
    """Every reading of the folders below ``directory``, right or wrong, and all its images.

    Args:
        directory: Where to look.
        layouts: Layouts to try.
        anywhere: Take ``directory`` itself for the folder of the set, whatever its name.
    """
    top = Path(os.path.abspath(directory))
    sides = [
        _Side(layout, form, side, *expressions)
        for layout in layouts
        for form in layout.forms
        for side, expressions in form.expressions(top.as_posix() if anywhere else None).items()
    ]
    found: dict[tuple[Form, Path], _Reading] = {}
    images = []
    for parent, files in image_folders(directory):
        images += files
        for side in sides if files else ():
            folder = side.folders.fullmatch(Path(os.path.abspath(parent)).as_posix() + "/")
            root = Path(folder["directory"] if folder else "")
            if folder and root.is_relative_to(top):
                reading = _Reading(side.layout, side.form, directory / root.relative_to(top))
                side.add(files, folder.groupdict().get("scene", ""), found.setdefault((side.form, root), reading))
    return list(found.values()), images


def _choose(readings: Iterable[_Reading]) -> list[_Reading]:
    """Of the readings that share files the one that explains most, in the order of their folders."""
    chosen: list[_Reading] = []
    taken: set[Path] = set()
    for reading in sorted(readings, key=lambda reading: (-len(reading.paired), reading.form.folder == "*")):
        files = reading.files()
        telling = reading.paired or reading.form.folder != "*"
        if files and telling and not taken.intersection(files):
            chosen.append(reading)
            taken |= files
    return sorted(chosen, key=lambda reading: (str(reading.directory), reading.layout.name))


def _border(degraded: Path, clean: Path, border: int) -> int:
    """``border`` if the clean image is larger by so much on each side, or a file cannot be read; else 0."""
    try:
        small, large = read_size(degraded), read_size(clean)
    except ValueError:
        return border
    return border if [side + 2 * border for side in small] == list(large) else 0


def _pairs(found: _Reading) -> Iterator[Pair]:
    """The items of the set that was found, each under a name of its own."""
    if found.form.degraded is None:
        files = [file for group in found.clean.values() for file in group]
        yield from map(Pair, unique_names(files, found.directory), files)
        return
    partners = {
        file: (scene, _partner(file, clean))
        for (scene, key), files in found.degraded.items()
        if (clean := found.clean.get((scene, key)))
        for file in files
    }
    short = {file: f"{scene}/{file.stem}" if scene else file.stem for file, (scene, _) in partners.items()}
    count = Counter(short.values())
    for file, (_, partner) in partners.items():
        name = short[file] if count[short[file]] == 1 else file.relative_to(found.directory).as_posix()
        border = _border(file, partner, found.form.border) if found.form.border else 0
        yield Pair(display_name(name), partner, file, border)


def _partner(degraded: Path, clean: Sequence[Path]) -> Path:
    """Of several clean files of one name that with the suffix of the degraded one, else the first."""
    return next((file for file in clean if file.suffix.lower() == degraded.suffix.lower()), clean[0])


def _image_set(found: _Reading) -> ImageSet:
    """The set that was found, with the files that it cannot use."""
    pairs = tuple(sorted(_pairs(found), key=lambda pair: pair.name))
    used = {file for pair in pairs for file in (pair.clean, pair.degraded)}
    task = found.directory.resolve().name.lower() if found.layout.task == "folder" else found.layout.task
    split = _split(found.form, found.directory)
    return ImageSet(found.layout.name, task, split, pairs, tuple(sorted(found.files() - used)), found.directory)


def recognise(directory: Path | str, layout: str | None = None) -> tuple[list[ImageSet], list[Path]]:
    """The data sets below a folder, incomplete ones too, and the images that belong to none of them.

    Args:
        directory: Folder with one set or many, at any depth.
        layout: Name in :data:`LAYOUTS` to take the folder for, whatever it is called; every known one unless given.

    Raises:
        ValueError: If there is no such folder or layout, no image, or nothing of a known layout.
    """
    place = Path(directory)
    if not place.is_dir():
        raise ValueError(f"there is no folder {str(directory)!r}.")
    if layout == "clean":
        return [clean_folder(place)], []
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"no layout {layout!r}; there are {', '.join(LAYOUTS)}.")
    layouts = LAYOUTS.values() if layout is None else [LAYOUTS[layout]]
    readings, images = _find(place, layouts)
    if layout is not None and not any(reading.paired for reading in readings):
        readings, images = _find(place, layouts, anywhere=True)
    if not images:
        raise ValueError(f"the folder {str(directory)!r} holds no image: looked for {', '.join(SUFFIXES)}.")
    sets = [_image_set(reading) for reading in _choose(readings)]
    if not sets:
        raise ValueError(
            f"none of the {len(images)} images below {str(directory)!r} lies in a known layout "
            f"({', '.join(layout.name for layout in layouts)}): for pairs make folders TASK/degraded and TASK/clean, "
            "for clean images alone ask for the layout 'clean'."
        )
    used = {file for image_set in sets for pair in image_set.pairs for file in (pair.clean, pair.degraded)}
    used |= {file for image_set in sets for file in image_set.unmatched}
    return sets, [file for file in images if file not in used]


def read_sets(directory: Path | str, layout: str | None = None) -> list[ImageSet]:
    """The data sets below a folder, each in its published layout (see :data:`LAYOUTS`).

    Files without a counterpart are left out with a warning; the set names them in ``unmatched``.

    Args:
        directory: Folder with one set or many, at any depth.
        layout: Name in :data:`LAYOUTS` to take the folder for, whatever it is called; every known one unless given.

    Raises:
        ValueError: If there is no such folder or layout, no image, or no complete pair of a known layout.
    """
    sets, _ = recognise(directory, layout)
    for image_set in sets:
        if image_set.unmatched:
            count, first = len(image_set.unmatched), image_set.unmatched[0].name
            warn_user(
                f"{image_set.name} in {str(image_set.directory)!r}: files without a counterpart are left out "
                f"({count}, the first is {first!r}); `ram data check` lists them."
            )
    complete = [image_set for image_set in sets if image_set.pairs]
    if not complete:
        raise ValueError(f"no file below {str(directory)!r} has its counterpart: `ram data check` lists the files.")
    return complete
