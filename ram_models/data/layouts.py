"""Layouts in which data sets are published: how their folders and files are named."""

__all__ = ["LAYOUTS", "Form", "Layout"]

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_SIGNS = {
    "<id>": r"(?P<id>[^/]+?)",
    "<no>": r"(?P<id>\d+)",
    "<scene>": r"(?P<scene>[^/]+)",
    "<k>": r"\d+",
    "<a>": r"\d+(?:\.\d+)?",
    "<beta>": r"\d+(?:\.\d+)?",
    "**/": "(?:[^/]+/)*",
    "*": "[^/]*",
    "{": "(?:",
    ",": "|",
    "}": ")",
}
"""Regular expression of every sign of a pattern; longer signs come before those that they begin with."""


def _expression(pattern: str) -> str:
    """Regular expression for a pattern of :class:`Form`: its signs translated, all else taken literally."""
    parts = re.split(f"({'|'.join(map(re.escape, _SIGNS))})", pattern)
    return "".join(_SIGNS.get(part, re.escape(part)) for part in parts)


@dataclass(frozen=True)
class Form:
    """A way in which the files of a set are named.

    In the patterns ``<id>`` (any name), ``<no>`` (digits) and ``<scene>`` (a folder) are what a degraded image has in
    common with its clean one; ``<k>`` stands for digits, ``<a>`` and ``<beta>`` for numbers, ``{x,y}`` for either,
    ``*`` for any part of a name and ``**/`` for any folders. Suffixes and upper or lower case do not matter.

    Args:
        folder: Names that the folder of the set ends with; ``*`` if the names below it suffice.
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
        """Expressions of the folders (with a slash at the end) and of the file names, for each side.

        Args:
            directory: Path of the set's folder, whatever its name; None to find it by the form's ``folder``.
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
    """A published data set and the names of its files.

    Args:
        name: Name of the set.
        task: Degradation of its pairs; None for clean images alone, "folder" if the folder's name is the task.
        forms: Ways in which its files are named; the one that fits most files of a folder is taken.
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
"""The known layouts by name; of two that fit a folder equally well the earlier is taken."""
