"""Data sets as they lie on disk: which file is the clean side of which, for the layouts in which sets are published."""

__all__ = [
    "LAYOUTS",
    "Form",
    "ImageSet",
    "Layout",
    "Pair",
    "clean_folder",
    "layouts_table",
    "paired_folder",
    "read_sets",
    "recognise",
    "write_table",
]

import itertools
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from PIL import Image
from torch import Tensor

from macattr.image_files import SUFFIXES, find_images, read_image


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
        split: "train", "val", "test", or "all" where neither the layout nor a folder's name tells.
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


_TOKENS = {
    "id": r"(?P<id>[^/]+?)",
    "no": r"(?P<id>\d+)",
    "scene": r"(?P<scene>[^/]+)",
    "k": r"\d+",
    "a": r"\d+(?:\.\d+)?",
    "beta": r"\d+(?:\.\d+)?",
}


def _expression(pattern: str) -> str:
    """Regular expression for a pattern of :class:`Form`."""
    parts = re.split(r"(<\w+>|\*\*/|[*{,}])", pattern)
    wild = {"**/": "(?:[^/]+/)*", "*": "[^/]*", "{": "(?:", ",": "|", "}": ")"}
    return "".join(wild.get(part) or (_TOKENS[part[1:-1]] if part[:1] == "<" else re.escape(part)) for part in parts)


@dataclass(frozen=True)
class Form:
    """One way in which the files of a set are named.

    In the patterns ``<id>`` (any name), ``<no>`` (digits) and ``<scene>`` (a folder) are what a degraded image has in
    common with its clean one; ``<k>`` stands for digits, ``<a>`` and ``<beta>`` for numbers, ``{x,y}`` for either,
    ``*`` for any part of a name and ``**/`` for any folders. Suffixes and upper or lower case do not matter.

    Args:
        folder: Names that the folder of the set ends with; ``*`` if the names below it say enough.
        degraded: Degraded files below that folder; None for a set of clean images.
        clean: Clean files below that folder.
        split: The split that is laid out so; None to take it from the nearest folder called train, test or val.
        border: Pixels by which the clean image is larger on each side than the degraded one, if it is larger.
    """

    folder: str
    degraded: str | None
    clean: str
    split: str | None = None
    border: int = 0

    def expressions(self, directory: str | None = None) -> dict[str, tuple[re.Pattern[str], re.Pattern[str]]]:
        """For each side the expression of its folders (with a slash behind) and that of its file names.

        Args:
            directory: Path of the set's folder, whatever the name; the form's ``folder`` decides unless given.
        """
        folder = f"(?:.*/)?{_expression(self.folder)}" if directory is None else re.escape(directory)
        patterns = {"degraded": self.degraded, "clean": self.clean}
        divided = {side: pattern.rpartition("/") for side, pattern in patterns.items() if pattern is not None}
        return {
            side: (
                re.compile(f"(?P<directory>{folder})/{_expression(folders + slash)}", re.IGNORECASE),
                re.compile(_expression(name), re.IGNORECASE),
            )
            for side, (folders, slash, name) in divided.items()
        }


@dataclass(frozen=True)
class Layout:
    """A data set by name, and how it is recognised.

    Args:
        name: Name of the set.
        task: Degradation of its pairs; None for clean images alone, "folder" if the folder's name is the task.
        forms: Ways in which its files are named; the one that explains most files of a folder is taken.
        source: Paper and address.
        complete: Number of degraded images (clean ones if there are no others) in each whole split.
    """

    name: str
    task: str | None
    forms: tuple[Form, ...]
    source: str
    complete: Mapping[str, int] = field(default_factory=dict)


_TASK_FOLDERS = "{haze,rain,lowlight,motion_blur,noise,blur,jpeg}"
_YANG_2017 = "Yang et al., CVPR 2017 (JORDER); test pairs also from github.com/kuijiang94/MSPFN"
_DEHAZEFORMER = "Song et al., TIP 2023, selection of RESIDE; github.com/IDKiro/DehazeFormer"
_RESIDE = "Li et al., TIP 2019; sites.google.com/view/reside-dehaze-datasets"
_YANG_2021 = "Yang et al., TIP 2021; github.com/flyywh/SGM-Low-Light"


def _reside(name: str, train: int, test: int) -> Layout:
    """A selection of RESIDE as DehazeFormer lays it out: one name for both sides."""
    form = Form(f"{name}/{{train,test}}", "hazy/<id>", "GT/<id>")
    return Layout(name, "haze", (form,), _DEHAZEFORMER, {"train": train, "test": test})


def _rain_test(name: str, count: int, source: str, *more: Form, other: str = "") -> Layout:
    """A test set of Rain13k, in the folders of Restormer or of MSPFN."""
    folder = f"{{{name},{other}}}*" if other else name
    forms = (
        Form(folder, "input/<id>", "target/<id>", "test"),
        Form(folder, "inputcrop/<id>", "cleancrop/<id>", "test"),
    )
    return Layout(name, "rain", forms + more, source, {"test": count})


def _clean(name: str, count: int, source: str, *forms: Form) -> Layout:
    """A test set of clean images."""
    return Layout(name, None, forms, source, {"test": count})


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        layout.name: layout
        for layout in (
            _reside("RESIDE-IN", 13990, 500),
            _reside("RESIDE-OUT", 313950, 500),
            _reside("RESIDE-6K", 6000, 1000),
            Layout(
                "RESIDE-ITS",
                "haze",
                (Form("*", "{hazy,haze}/<id>_<k>_<beta>", "{gt,clear}/<id>", "train"),),
                _RESIDE,
                {"train": 13990},
            ),
            Layout(
                "RESIDE-OTS",
                "haze",
                (
                    Form("{OTS,RESIDE-OTS}*", "{hazy,haze}/**/<id>_<a>_<beta>", "{clear,gt}/**/<id>", "train"),
                    Form("*", "part<k>/<id>_<a>_<beta>", "clear/<id>", "train"),
                    Form("Dehaze", "synthetic/**/<id>_<a>_<beta>", "original/**/<id>", "train"),
                ),
                _RESIDE,
                {"train": 72135},
            ),
            Layout(
                "SOTS-indoor",
                "haze",
                (Form("*", "hazy/<id>_<k>", "{gt,clear}/<id>", "test", border=10),),
                _RESIDE,
                {"test": 500},
            ),
            Layout(
                "SOTS-outdoor",
                "haze",
                (
                    Form("{*SOTS*,outdoor}", "hazy/<id>_<a>_<beta>", "{clear,gt}/<id>", "test"),
                    Form("dehaze", "input/<id>_<a>_<beta>", "target/<id>", "test"),
                ),
                _RESIDE,
                {"test": 500},
            ),
            Layout(
                "Rain13k",
                "rain",
                (Form("{Rain13k/train,Rain13k}", "input/<id>", "target/<id>", "train"),),
                "Jiang et al., CVPR 2020 (MSPFN), as shipped by github.com/swz30/Restormer",
                {"train": 13712},
            ),
            _rain_test("Test100", 100, "Zhang et al., TCSVT 2019 (ID-CGAN)"),
            _rain_test(
                "Rain100H",
                100,
                _YANG_2017,
                Form("Rain100H*", "rain/{rain,norain}-<id>", "norain/norain-<id>", "test"),
                other="R100H",
            ),
            _rain_test(
                "Rain100L",
                100,
                _YANG_2017,
                Form("Rain100L*", "rain/{rain,norain}-<id>", "norain/norain-<id>", "test"),
                Form("derain", "input/<id>", "target/<id>", "test"),
                other="R100L",
            ),
            _rain_test("Test1200", 1200, "Zhang and Patel, CVPR 2018; github.com/hezhangsprinter/DID-MDN"),
            _rain_test("Test2800", 2800, "Fu et al., CVPR 2017 (DDN)"),
            Layout(
                "RainTrain",
                "rain",
                (Form("*", "{rain,rainy}/{rain,norain}-<id>", "{norain,gt}/norain-<id>"),),
                "Yang et al., CVPR 2017 (JORDER), heavy (1800 pairs) or light (200 pairs)",
            ),
            Layout(
                "GoPro",
                "motion_blur",
                (
                    Form("*", "GOPR<scene>/blur/<id>", "GOPR<scene>/sharp/<id>"),
                    Form("{GoPro,GOPRO_Large}*/{train,test}", "blur/<id>", "sharp/<id>"),
                    Form("{GoPro*/{train,test},GoPro*}", "input/<id>", "target/<id>"),
                    Form("GoPro*", "blur/blur_<id>", "sharp/sharp_<id>"),
                ),
                "Nah et al., CVPR 2017; seungjunnah.github.io/Datasets/gopro",
                {"train": 2103, "test": 1111},
            ),
            Layout(
                "LOL",
                "lowlight",
                (
                    Form("our485", "low/<id>", "high/<id>", "train"),
                    Form("eval15", "low/<id>", "high/<id>", "test"),
                    Form("LOL*/{train,test}", "low/<id>", "{high,normal}/<id>"),
                    Form("LOL*/{train,test}", "input/<id>", "target/<id>"),
                ),
                "Wei et al., BMVC 2018; daooshee.github.io/BMVC2018website",
                {"train": 485, "test": 15},
            ),
            Layout(
                "LOL-v2-real",
                "lowlight",
                (Form("Real_captured/{train,test}", "low/low<id>", "normal/normal<id>"),),
                _YANG_2021,
                {"train": 689, "test": 100},
            ),
            Layout(
                "LOL-v2-synthetic",
                "lowlight",
                (Form("Synthetic/{train,test}", "low/<id>", "normal/<id>"),),
                _YANG_2021,
                {"train": 900, "test": 100},
            ),
            Layout(
                "LSDIR",
                None,
                (
                    Form("{LSDIR*/val*,LSDIR*/HR/val*,LSDIR-val*}", None, "**/<no>", "val"),
                    Form("LSDIR*", None, "{HR/train/,train/,HR/,shard-*/,}<k>/<no>", "train"),
                ),
                "Li et al., CVPR workshops 2023; github.com/ofsoundof/LSDIR",
                {"train": 84991, "val": 250},
            ),
            Layout(
                "BSDS500",
                None,
                (
                    Form("BSDS500*/{data/images,images}", None, "{train,test}/<no>", "train"),
                    Form("BSDS500*/{data/images,images}", None, "val/<no>", "val"),
                ),
                "Arbelaez et al., TPAMI 2011; github.com/BIDS/BSDS500. `val` stays apart: CBSD68 is taken from it",
                {"train": 400, "val": 100},
            ),
            _clean(
                "CBSD68",
                68,
                "Roth and Black, CVPR 2005, of Martin et al., ICCV 2001",
                Form("{CBSD68*,CBSD68*/original_png}", None, "<id>", "test"),
            ),
            _clean("Kodak24", 24, "Kodak PhotoCD; r0k.us/graphics/kodak", Form("Kodak*", None, "kodim<no>", "test")),
            _clean(
                "Urban100",
                100,
                "Huang et al., CVPR 2015; github.com/jbhuang0604/SelfExSR",
                Form("{Urban100*,Urban100*/image_SRF_4}", None, "img_<no>_SRF_4_HR", "test"),
                Form("{Urban100*,Urban100*/HR}", None, "img_<no>", "test"),
            ),
            _clean("Set12", 12, "Zhang et al., TIP 2017; github.com/cszn/DnCNN", Form("Set12", None, "<no>", "test")),
            _clean(
                "LIVE1",
                29,
                "Sheikh et al., TIP 2006; live.ece.utexas.edu/research/quality",
                Form("{LIVE1*,LIVE1*/refimgs}", None, "<id>", "test"),
            ),
            _clean("classic5", 5, "Foi et al., TIP 2007", Form("classic5", None, "<id>", "test")),
            Layout(
                "Levin",
                "motion_blur",
                (Form("*", "im<no>_kernel<k>_img", "gt/im<no>", "test"),),
                "Levin et al., CVPR 2009: 4 images x 8 kernels, uniform blur",
                {"test": 32},
            ),
            Layout(
                "paired",
                "folder",
                (Form(_TASK_FOLDERS, "{degraded,input}/<id>", "{clean,target}/<id>"),),
                "your own pairs; any other two folders by `paired_folder(degraded, clean, task)`",
            ),
            Layout(
                "clean",
                None,
                (),
                "your own clean images; the same as `clean_folder(directory)`",
            ),
        )
    }
)
"""The known layouts by name; of two that explain a folder equally well the earlier is taken."""


@dataclass
class _Found:
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
        """Files on the counted side that have what they need."""
        return [file for key, files in self.sources.items() if key in self.clean for file in files]

    def files(self) -> set[Path]:
        """All files, paired or not."""
        return set(itertools.chain(*self.degraded.values(), *self.clean.values()))


def _folders(directory: Path) -> Iterator[tuple[str, list[Path]]]:
    """Absolute path and image files of every folder below; links are followed, hidden files left out."""
    seen = set()
    for parent, folders, names in os.walk(directory, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")) and real not in seen)
        shown = [Path(parent, name) for name in sorted(names) if not name.startswith(".") and real not in seen]
        seen.add(real)
        yield Path(os.path.abspath(parent)).as_posix(), [file for file in shown if file.suffix.lower() in SUFFIXES]


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

    def add(self, files: list[Path], scene: str, reading: _Found) -> None:
        """Put the files whose name fits into a reading."""
        named: dict[tuple[str, str], list[Path]] = getattr(reading, self.name)
        for file in files:
            if stem := self.stems.fullmatch(file.stem):
                named.setdefault((scene, stem["id"]), []).append(file)


def _find(directory: Path, layouts: Iterable[Layout], anywhere: bool = False) -> tuple[list[_Found], list[Path]]:
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
    found: dict[tuple[Form, Path], _Found] = {}
    images = []
    for absolute, files in _folders(directory):
        images += files
        for side in sides if files else ():
            folder = side.folders.fullmatch(absolute + "/")
            root = Path(folder["directory"] if folder else "")
            if folder and root.is_relative_to(top):
                reading = _Found(side.layout, side.form, directory / root.relative_to(top))
                side.add(files, folder.groupdict().get("scene", ""), found.setdefault((side.form, root), reading))
    return list(found.values()), images


def _choose(readings: Iterable[_Found]) -> list[_Found]:
    """Of the readings that share files the one that explains most, in the order of their folders."""
    chosen: list[_Found] = []
    taken: set[Path] = set()
    for reading in sorted(readings, key=lambda reading: (-len(reading.paired), reading.form.folder == "*")):
        files = reading.files()
        telling = reading.paired or reading.form.folder != "*"
        if files and telling and not taken.intersection(files):
            chosen.append(reading)
            taken |= files
    return sorted(chosen, key=lambda reading: (str(reading.directory), reading.layout.name))


def _border(degraded: Path, clean: Path, border: int) -> int:
    """``border`` if the clean image is larger by so much on each side, else none; an unreadable file does not tell."""
    try:
        with Image.open(degraded) as small, Image.open(clean) as large:
            return border if [side + 2 * border for side in small.size] == list(large.size) else 0
    except OSError:
        return border


def _pairs(found: _Found) -> Iterator[Pair]:
    """The items of the set that was found."""
    for (scene, key), files in found.sources.items():
        if found.form.degraded is None:
            yield from (Pair(file.relative_to(found.directory).with_suffix("").as_posix(), file) for file in files)
            continue
        for file, clean in itertools.product(files, found.clean.get((scene, key), [])[:1]):
            border = _border(file, clean, found.form.border) if found.form.border else 0
            yield Pair(f"{scene}/{file.stem}" if scene else file.stem, clean, file, border)


def _image_set(found: _Found) -> ImageSet:
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
    known = {file for image_set in sets for pair in image_set.pairs for file in (pair.clean, pair.degraded)}
    known |= {file for image_set in sets for file in image_set.unmatched}
    return sets, [file for file in images if file not in known]


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
            warnings.warn(
                f"{image_set.name} in {str(image_set.directory)!r}: files without a counterpart are left out "
                f"({count}, the first is {first!r}); `ram data check` lists them.",
                stacklevel=2,
            )
    complete = [image_set for image_set in sets if image_set.pairs]
    if not complete:
        raise ValueError(f"no file below {str(directory)!r} has its counterpart: `ram data check` lists what is there.")
    return complete


def layouts_table() -> str:
    """The known layouts as a Markdown table."""
    rows = ["| set | task | recognised by | images in the whole set | source |", "|---|---|---|---|---|"]
    for layout in LAYOUTS.values():
        task = {None: "clean images", "folder": "the folder's name"}.get(layout.task, layout.task)
        forms = "<br>".join(map(_described, layout.forms)) or "any image at any depth, if this layout is asked for"
        counts = "<br>".join(f"{split} {count}" for split, count in layout.complete.items()) or "-"
        rows.append(f"| {layout.name} | {task} | {forms} | {counts} | {layout.source} |")
    return "\n".join(rows) + "\n"


def _described(form: Form) -> str:
    """One form in words."""
    folder = "in any folder" if form.folder == "*" else f"in `{form.folder}`"
    border = f", {form.border} pixels cut off each side of a larger clean image" if form.border else ""
    degraded = f"`{form.degraded}` with " if form.degraded else ""
    return f"{degraded}`{form.clean}` {folder}{border}"


def write_table(page: Path | str) -> None:
    """Put the table of layouts anew between the two marks of a Markdown page.

    Raises:
        ValueError: If the page has no such marks.
    """
    text = Path(page).read_text()
    before, start, rest = text.partition("<!-- layouts -->\n")
    _, end, after = rest.partition("<!-- end of layouts -->")
    if not end:
        raise ValueError(f"{str(page)!r} has no lines '<!-- layouts -->' and '<!-- end of layouts -->' around a table.")
    Path(page).write_text(before + start + layouts_table() + end + after)


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
    sources, targets = _by_name(Path(degraded)), _by_name(Path(clean))
    partners = {key: _counterpart(key, targets) for key in sources}
    pairs = tuple(Pair(key, targets[other], sources[key]) for key, other in partners.items() if other is not None)
    if not pairs:
        raise ValueError(
            f"no image of {str(degraded)!r} has a counterpart in {str(clean)!r}: the two need equal names, or "
            "`NAME_anything` for `NAME`."
        )
    alone = [sources[key] for key, other in partners.items() if other is None]
    alone += [file for key, file in targets.items() if key not in set(partners.values())]
    name = name or Path(degraded).resolve().parent.name
    return ImageSet(name, task, "all", pairs, tuple(alone), Path(degraded).parent)


def clean_folder(directory: Path | str, name: str | None = None) -> ImageSet:
    """The set of all images below a folder, for degradations that are synthesised.

    Raises:
        ValueError: If the folder holds no image.
    """
    pairs = tuple(Pair(key, file) for key, file in _by_name(Path(directory)).items())
    return ImageSet(name or Path(directory).resolve().name, None, "all", pairs, (), Path(directory))


def _by_name(directory: Path) -> dict[str, Path]:
    """Image files by their path below a folder without suffix."""
    return {file.relative_to(directory).with_suffix("").as_posix(): file for file in find_images(directory)}


def _counterpart(name: str, clean: dict[str, Path]) -> str | None:
    """Name of the clean image that belongs to a degraded one, if there is one."""
    while name not in clean and "_" in name:
        name = name.rpartition("_")[0]
    return name if name in clean else None
