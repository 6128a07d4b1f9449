"""Restore image files of any size and kind with a network: ``ram restore IN OUT``."""

__all__ = ["Config", "main"]

import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib as mpl
import matplotlib.pyplot as plt
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm

from macattr.image_files import SUFFIXES, center_crop, display_name, find_images
from ram_models.data.pictures import read_picture, write_picture
from ram_models.networks.inference import (
    check_device,
    check_tiles,
    network_by_name,
    restore_any_size,
    restorer,
    tile_count,
)
from ram_models.seeds import check_seed, seeded

DETAIL = 128
"""Side in pixels of the detail in a figure."""

RECORD = "restored.jsonl"
"""File in a folder of results that says how each was made, in a line each; the last line of a result counts."""

SHOWN = 1024
"""Largest side in pixels of a whole image in a figure."""


@dataclass(frozen=True)
class Config:
    """Restore an image, or a folder of images, of any size.

    Args:
        source: Image file, or folder of image files, searched recursively.
        out: File or folder for the results; a folder keeps the names and subfolders of its source.
        network: Name of the network: ram-swinir-tiny, ram-denoise-tiny, ram-swinir, ram-promptir-tiny, ram-promptir;
            or identity, which copies images.
        weights: File of its weights, or a Hugging Face repository as owner/name; default the bundled ones.
        twins: Predict every pixel while it is hidden, in two runs with complementary masks. For networks that were
            pre-trained with masks and not fine-tuned, such as the bundled one.
        tile: Images with a longer side, in pixels, are restored in tiles of this size. A multiple of 16.
        overlap: Pixels that neighbouring tiles share and blend. A multiple of 16, at most half of the tile.
        format: Format of the results, as png; default that of each source. JPEG is written at quality 95.
        existing: Treatment of results that exist: skip them (so a stopped run can be continued), refuse to start, or
            overwrite them. Results of other settings or pictures are refused, not skipped. A source is never
            overwritten.
        figure: Folder for figures that show every image next to its restoration.
        seed: Seed of the twin masks.
        device: Device to compute on, such as cpu or cuda.
    """

    source: Path
    out: Path
    network: str = "ram-swinir-tiny"
    weights: str | None = None
    twins: bool = False
    tile: int = 512
    overlap: int = 64
    format: str | None = None
    existing: Literal["skip", "refuse", "overwrite"] = "skip"
    figure: Path | None = None
    seed: int = 0
    device: str = "cpu"


def main(config: Config) -> int:
    """Restore every image. A bad image is reported and makes the exit code 2; the others are restored.

    Raises:
        ValueError: If a setting is out of range or has no effect, or results there were made otherwise.
    """
    mpl.use("Agg")
    check_seed(config.seed)
    check_device(config.device)
    check_tiles(config.tile, config.overlap)
    if config.seed != Config.seed and not config.twins:
        raise ValueError(f"`seed` = {config.seed} has no effect without `twins`: leave it out.")
    targets = planned(config)
    network, sha256 = network_by_name(config.network, config.weights, config.device, config.twins)
    record = Record.of(config, sha256)
    waiting = {s: t for s, t in targets.items() if config.existing == "overwrite" or not t.exists()}
    for source, target in targets.items():
        if source not in waiting and record is not None:
            record.refuse_another(source, target)
    failures = []
    for source, target in (progress := tqdm(waiting.items(), unit="image")):
        progress.set_postfix_str(display_name(source.name))
        try:
            is_new = not target.exists()
            if record is not None and is_new:  # a run that is killed behind the result has noted it
                record.note(source, target)
            restore_file(source, target, network, config)
            if record is not None and not is_new:
                record.note(source, target)
        except (ValueError, OSError) as error:
            failures.append(str(error) if repr(str(source)) in str(error) else f"{str(source)!r}: {error}")
    print(f"restored {len(waiting) - len(failures)} of {len(targets)} images into {display_name(config.out)}", end="")
    skipped = len(targets) - len(waiting)
    undrawn = " and draws their figures" if config.figure is not None else ""
    print(f"; {skipped} skipped, their results exist (--existing overwrite replaces them{undrawn})" if skipped else "")
    for failure in failures:
        print(f"ram restore: error: {failure}", file=sys.stderr)
    return 2 if failures else 0


@dataclass(frozen=True)
class Record:
    """How the results in a folder were made, which lies there as ``restored.jsonl``.

    Args:
        file: Its place.
        made: How this run makes them.
        entries: What is known of every result, by its path in the folder: how it was made, and of which file.
    """

    file: Path
    made: dict[str, object]
    entries: dict[str, dict[str, object]]

    @classmethod
    def of(cls, config: Config, sha256: str | None) -> "Record | None":
        """The record of the folder of the results; None for one file that has its own name."""
        if config.source.is_file() and naming(config)(config.source) == config.out:
            return None
        file = config.out / RECORD
        own = ("network", "twins", "tile", "overlap", "seed")
        made = {name: getattr(config, name) for name in own} | {"weights": sha256}
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        entries = [json.loads(line) for line in lines if line.endswith("}")]  # one may have been cut off
        return cls(file, made, {entry["result"]: entry for entry in entries})

    def refuse_another(self, source: Path, target: Path) -> None:
        """Raise if a result that is there was made otherwise, or of another file."""
        entry, remedy = self.entries.get(self._key(target)), "choose another `out`, or --existing overwrite."
        if entry is None:
            raise ValueError(f"{str(target)!r} exists, and nothing says how it was made: {remedy}")
        if entry.get("sha256") != _hash(source):
            raise ValueError(f"{str(target)!r} was made of another picture than {str(source)!r} is now: {remedy}")
        if other := [name for name, value in self.made.items() if entry.get(name) != value]:
            name = other[0]
            raise ValueError(
                f"{str(target)!r} was made with {name} = {entry.get(name)}, now {self.made[name]}: {remedy}"
            )

    def note(self, source: Path, target: Path) -> None:
        """Add a result."""
        entry = {"result": self._key(target), "sha256": _hash(source), **self.made}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(f"\n{json.dumps(entry)}")

    def _key(self, target: Path) -> str:
        """A result's path in the folder."""
        return Path(os.path.relpath(target, self.file.parent)).as_posix()


def _hash(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def planned(config: Config) -> dict[Path, Path]:
    """Result file of every source file.

    Raises:
        ValueError: If there is no image, a result would replace a source, or two sources have the same result; or if
            one exists and ``existing`` is "refuse".
    """
    name, files = naming(config), sources(config)
    taken = {file.resolve() for file in files}
    origins: dict[Path, Path] = {}
    for source in files:
        target = name(source)
        if target.exists() and (target.samefile(source) or target.resolve() in taken):
            raise ValueError(f"{str(target)!r} would replace a source: choose another `out`.")
        if target.exists() and config.existing == "refuse":
            raise ValueError(f"{str(target)!r} exists: choose another `out`, or set `existing` to skip or overwrite.")
        if other := origins.get(target):
            raise ValueError(f"{str(other)!r} and {str(source)!r} would both become {str(target)!r}: rename one.")
        origins[target] = source
    return {source: target for target, source in origins.items()}


def sources(config: Config) -> list[Path]:
    """Image files to restore, without results and figures of an earlier run in folders inside the source.

    Raises:
        ValueError: If there is none, or figures would lie among the sources.
    """
    files, source = find_images(config.source), config.source.resolve()
    if config.figure is not None and config.figure.resolve() == source:
        raise ValueError(f"`figure` {str(config.figure)!r} is the folder of the images: name another.")
    made = [folder.resolve() for folder in (config.out, config.figure) if folder is not None]
    inside = [folder for folder in made if folder != source and folder.is_relative_to(source)]
    return [file for file in files if not any(file.resolve().is_relative_to(folder) for folder in inside)]


def naming(config: Config) -> Callable[[Path], Path]:
    """The function from source file to result file.

    Raises:
        ValueError: If `source`, `out` and `format` do not go together.
    """
    folder, out = config.source.is_dir(), config.out
    if folder and (out.is_file() or out.suffix.lower() in SUFFIXES):
        raise ValueError(f"`out` {str(out)!r} names a file, but {str(config.source)!r} is a folder: name a folder.")
    suffix = None if config.format is None else "." + config.format.lower().removeprefix(".")
    if suffix not in (None, *SUFFIXES):
        raise ValueError(f"`format` must be one of {', '.join(s[1:] for s in SUFFIXES)}, got {config.format!r}.")
    if not folder and out.suffix and not out.is_dir():
        if out.suffix.lower() not in SUFFIXES:
            raise ValueError(f"`out` {str(out)!r} is not a folder and ends with none of {', '.join(SUFFIXES)}.")
        if suffix not in (None, out.suffix.lower()):
            raise ValueError(f"`format` {config.format!r} contradicts `out` {str(out)!r}: leave one of them out.")
        return lambda source: out
    if out.exists() and not out.is_dir():
        raise ValueError(f"`out` {str(out)!r} is a file or device without suffix: name a folder, or a file with one.")
    root = config.source if folder else config.source.parent
    return lambda source: out / source.relative_to(root).with_suffix(suffix or source.suffix)


def restore_file(source: Path, target: Path, network: nn.Module, config: Config) -> None:
    """Read, restore and write one image, and draw its figure."""
    picture = read_picture(source)
    degraded = picture.rgb()
    height, width = degraded.shape[-2:]
    restore = restorer(network, config.twins, seeded(source.name, config.seed), config.device)
    tiles = tile_count(height, width, config.tile, config.overlap)
    with tqdm(total=tiles, unit="tile", leave=False, disable=tiles == 1) as progress:
        restored = restore_any_size(restore, degraded, config.tile, config.overlap, progress.update)
    result = picture.with_rgb(restored)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_picture(result, target)
    if config.figure is not None:
        draw(config.figure, source, config, degraded, result.rgb())


def draw(folder: Path, source: Path, config: Config, degraded: Tensor, restored: Tensor) -> None:
    """Write the figure of one image."""
    name = source.relative_to(config.source if config.source.is_dir() else config.source.parent)
    network = f"{config.network}{' with twin masks' if config.twins else ''}"
    figure = side_by_side(degraded, restored, f"{display_name(name.as_posix())}: {network}")
    target = folder / name.with_name(f"{name.name}.png")
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=120)
    plt.close(figure)


def side_by_side(degraded: Float[Tensor, "3 h w"], restored: Float[Tensor, "3 h w"], title: str) -> Figure:
    """Both images side by side; below them, if they are large, the middle of each at full resolution."""
    height, width = degraded.shape[-2:]
    detailed = min(height, width) > 2 * DETAIL
    ratios = [height / width, 1.0] if detailed else [height / width]
    figure, panels = plt.subplots(
        len(ratios), 2, figsize=(10, 5 * sum(ratios) + 0.8), height_ratios=ratios, squeeze=False, layout="constrained"
    )
    figure.suptitle(title, parse_math=False)
    for column, (heading, image) in enumerate({"input": degraded, "restored": restored}.items()):
        panels[0, column].imshow(thumbnail(image), extent=(0, width, height, 0))
        panels[0, column].set_title(heading)
        if detailed:
            corner = ((width - DETAIL) // 2, (height - DETAIL) // 2)
            panels[0, column].add_patch(Rectangle(corner, DETAIL, DETAIL, fill=False, color="yellow"))
            panels[1, column].imshow(center_crop(image, DETAIL).permute(1, 2, 0), interpolation="nearest")
            panels[1, column].set_title(f"the middle {DETAIL} by {DETAIL} pixels")
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
    return figure


def thumbnail(image: Float[Tensor, "3 h w"]) -> Image.Image:
    """The image at no more than ``SHOWN`` pixels a side."""
    shown = Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())
    shown.thumbnail((SHOWN, SHOWN))
    return shown
