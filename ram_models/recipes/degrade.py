"""Degraded copies of clean images, with a table of their parameters and a contact sheet.

Run it with ``ram degrade IN OUT --task haze,rain``; every field of :class:`Config` is also an option.
"""

__all__ = ["Config", "main"]

import csv
import os
import sys
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from macattr.image_files import center_crop, display_name, find_images, read_image
from ram_models.degradations import DEGRADATIONS, TASKS, Degradation, draw
from ram_models.seeds import check_seed

TABLE = "parameters.csv"
"""Name of the table."""

SHEET = "sheet.png"
"""Name of the contact sheet."""

COLUMNS = ("image", "task", "output", "seed")
"""Its columns before those of the parameters."""


@dataclass(frozen=True)
class Config:
    """Write degraded copies of clean images, a table of their parameters and a contact sheet.

    Parameters are drawn at random unless they are given: --parameters.noise.sigma_255 25 sets the strength of noise.

    Args:
        input: Image file, or folder of images, searched recursively.
        output: Folder for PNG files of 8 bits in a sub-folder for every task, parameters.csv and sheet.png.
        task: Names of degradations, separated by commas: haze, rain, noise, motion_blur, lowlight, blur, jpeg ...
        parameters: Values by task and parameter that are set instead of drawn.
        seed: Seed of everything random. A degradation depends on the seed, the image's name and the task alone.
        sheet_images: Images on the sheet, the first ones in sorted order; 0 for no sheet.
        sheet_crop: Side in pixels of the middle of each image that the sheet shows.
    """

    input: Path
    output: Path
    task: str = ",".join(TASKS)
    parameters: dict[str, dict[str, float]] = field(default_factory=dict)
    seed: int = 0
    sheet_images: int = 6
    sheet_crop: int = 256


@dataclass(frozen=True)
class Sample:
    """An image on the sheet and in the table.

    Args:
        panel: Its middle.
        caption: Parameters of its degradation; empty for a clean image.
        row: Its row of parameters.csv; empty for a clean image.
    """

    panel: Float[Tensor, "3 h w"]
    caption: str = ""
    row: dict[str, object] = field(default_factory=dict)


def _seed(seed: int, name: str, task: str) -> int:
    """Seed of one degraded image, independent of all other images and tasks."""
    sequence = np.random.SeedSequence([seed, zlib.crc32(os.fsencode(name)), zlib.crc32(task.encode())])
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)


def draw_with(task: str, given: Mapping[str, float], generator: torch.Generator) -> Degradation:
    """The degradation of ``task``, its parameters drawn and then replaced by the given ones.

    Raises:
        ValueError: If there is no such task or parameter.
    """
    drawn = draw(task, generator)
    values = asdict(drawn)
    for name, value in given.items():
        if name not in values:
            raise ValueError(f"{task!r} has no parameter {name!r}; it has {', '.join(values)}.")
        if isinstance(values[name], int) and not float(value).is_integer():
            raise ValueError(f"`{name}` of {task!r} must be a whole number, got {value}.")
        values[name] = type(values[name])(value)
    return replace(drawn, **values)


def check_request(config: Config) -> list[str]:
    """Names of the tasks, after a check of names, parameters and folders.

    Raises:
        ValueError: If one of them is wrong.
    """
    tasks = list(dict.fromkeys(name.strip() for name in config.task.split(",")))
    if surplus := [name for name in config.parameters if name not in tasks]:
        raise ValueError(f"`parameters` are given for {surplus[0]!r}, but the tasks are {', '.join(tasks)}.")
    check_seed(config.seed)
    for name, least in (("sheet_images", 0), ("sheet_crop", 1)):
        if getattr(config, name) < least:
            raise ValueError(f"`{name}` must be at least {least}, got {getattr(config, name)}.")
    source = config.input.resolve()
    for made in (config.output / TABLE, config.output / SHEET):
        if made.exists() and source in (made.resolve(), *made.resolve().parents):
            raise ValueError(f"{str(made)!r} would be replaced, which is among the input: choose another `output`.")
    for folder in (config.output.resolve() / task for task in tasks):
        if source == folder or source in folder.parents or folder in source.parents:
            raise ValueError(f"`output` {str(config.output)!r} overlaps with the input: choose a folder outside of it.")
    card = torch.full((3, 128, 128), 0.5)  # a wrong parameter is one error here, not one for every image
    for task in tasks:
        generator = torch.Generator().manual_seed(0)
        draw_with(task, config.parameters.get(task, {}), generator)(card, generator)
    return tasks


def write_png(image: Float[Tensor, "3 h w"], path: Path) -> None:
    """Write an image with 8 bits a channel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(path)


def relative_names(source: Path) -> dict[str, Path]:
    """The images below ``source`` by their path in it.

    Raises:
        ValueError: If there is none, or two would be written to the same PNG.
    """
    root = source.parent if source.is_file() else source
    files = {file.relative_to(root).as_posix(): file for file in find_images(source)}
    targets: dict[Path, str] = {}
    for name in files:
        other = targets.setdefault(Path(name).with_suffix(""), name)
        if other != name:
            raise ValueError(f"{other!r} and {name!r} would both become {png_name(name)!r}: rename one of them.")
    return files


def png_name(name: str) -> str:
    """Name of the PNG that is made of the image ``name``."""
    return Path(name).with_suffix(".png").as_posix()


def degrade_one(clean: Float[Tensor, "3 h w"], name: str, task: str, config: Config) -> Sample:
    """Write an image degraded by one task."""
    seed = _seed(config.seed, name, task)
    generator = torch.Generator().manual_seed(seed)
    degradation = draw_with(task, config.parameters.get(task, {}), generator)
    degraded = degradation(clean, generator)
    target = f"{task}/{png_name(name)}"
    write_png(degraded, config.output / target)
    words = [f"{key} {value:.3g}" for key, value in asdict(degradation).items()]
    return Sample(
        center_crop(degraded, config.sheet_crop).clone(),
        "\n".join(", ".join(words[i : i + 2]) for i in range(0, len(words), 2)),
        {"image": display_name(name), "task": task, "output": display_name(target), "seed": seed} | asdict(degradation),
    )


def degrade_file(
    source: Path, name: str, tasks: Sequence[str], config: Config, report: Callable[[str], None]
) -> dict[str, Sample]:
    """Degraded images of one file by task, and the file itself as ``clean``; errors are reported."""
    try:
        clean = read_image(source)
    except ValueError as error:
        report(str(error))
        return {}
    samples = {"clean": Sample(center_crop(clean, config.sheet_crop).clone())}
    for task in tasks:
        try:
            samples[task] = degrade_one(clean, name, task, config)
        except ValueError as error:
            report(f"{str(source)!r} by {task}: {error}")
    return samples


def draw_sheet(rows: Mapping[str, Mapping[str, Sample]], titles: Sequence[str]) -> Figure:
    """Images from top to bottom, degradations from left to right; failures leave their place empty."""
    figure = Figure(figsize=(2.2 * len(titles), 2.6 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for line, (name, samples) in zip(grid, rows.items(), strict=True):
        line[0].set_ylabel(display_name(name), parse_math=False)
        for axes, title in zip(line, titles, strict=True):
            axes.set(xticks=[], yticks=[])
            if title in samples:
                axes.imshow(samples[title].panel.clamp(0, 1).permute(1, 2, 0).numpy())
                axes.set_xlabel(samples[title].caption, fontsize=7)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title)
    return figure


def _other_rows(file: Path, tasks: Collection[str], images: Collection[str]) -> list[dict[str, str]]:
    """The rows of a table for what is not degraded now and is still there."""
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as opened:
        if not set(COLUMNS) <= set(csv.DictReader(opened).fieldnames or ()):
            raise ValueError(f"{str(file)!r} is no table of degraded images and would be replaced: move it away.")
        opened.seek(0)
        rows = [{str(name): value or "" for name, value in row.items()} for row in csv.DictReader(opened)]
    others = [row for row in rows if row.get("task") not in tasks or row.get("image") not in images]
    return [row for row in others if (file.parent / row.get("output", "")).is_file()]


def main(config: Config) -> None:
    """Write degraded images, parameters.csv and sheet.png into ``config.output``.

    Images of the same names and tasks are replaced, and so are their rows; the rows of others stay.

    Raises:
        ValueError: At once if the settings are wrong; at the end, after all other images, if some images were bad.
    """
    tasks, files = check_request(config), relative_names(config.input)
    config.output.mkdir(parents=True, exist_ok=True)
    kept = _other_rows(config.output / TABLE, tasks, set(map(display_name, files)))
    parameters = dict.fromkeys(item.name for task in tasks for item in fields(DEGRADATIONS[task]))
    parameters |= {name: None for row in kept for name in row if name not in COLUMNS}
    sheet: dict[str, dict[str, Sample]] = {}
    problems: list[str] = []
    written, replaced = 0, sum((config.output / task / png_name(name)).exists() for name in files for task in tasks)

    def report(problem: str) -> None:
        tqdm.write(problem, sys.stderr)
        problems.append(problem)

    with (config.output / TABLE).open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [*COLUMNS, *parameters], restval="")
        table.writeheader()
        table.writerows(kept)
        for name, source in tqdm(files.items(), unit="image"):
            samples = degrade_file(source, name, tasks, config, report)
            rows = [sample.row for sample in samples.values() if sample.row]
            table.writerows(rows)
            written += len(rows)
            file.flush()  # finished rows survive an interruption
            if samples and len(sheet) < config.sheet_images:
                sheet[name] = samples
    if sheet:
        draw_sheet(sheet, ["clean", *tasks]).savefig(config.output / SHEET, dpi=120)
    earlier = f"; {replaced} in place of earlier ones" if replaced else ""
    print(f"written: {written} images ({', '.join(tasks)}) and {TABLE} in {config.output}{earlier}")
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ValueError(f"{count}, the other images are in {str(config.output)!r}; {problems[0]}")
