"""Degraded copies of clean images, the parameters they were made with, and a sheet to look at.

Run it with ``python -m ram_models.recipes.degrade IN OUT --task haze,rain``; every field of :class:`Config` is also an
option, and ``--parameters.noise.sigma_255 25`` sets what would be drawn.
"""

__all__ = ["Config", "main"]

import csv
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from macattr.image_files import center_crop, find_images, read_image
from ram_models.degradations import DEGRADATIONS, TASKS, Degradation, draw


@dataclass(frozen=True)
class Config:
    """Which images are degraded, and how.

    Args:
        input: Image file, or folder of images, searched recursively.
        output: Folder to write: PNG of 8 bits in a sub-folder for every task, parameters.csv, sheet.png.
        task: Names of degradations, separated by commas; see :data:`ram_models.degradations.DEGRADATIONS`.
        parameters: Values by task and parameter that are set instead of drawn.
        seed: Seed of everything random. What happens to an image depends on it, the image's name and the task alone.
        sheet_images: Images on the sheet, the first ones in sorted order; 0 for no sheet.
        sheet_crop: Side of the middle that the sheet shows of each image, in pixels.
    """

    input: Path
    output: Path
    task: str = ",".join(TASKS)
    parameters: dict[str, dict[str, float]] = field(default_factory=dict)
    seed: int = 0
    sheet_images: int = 6
    sheet_crop: int = 256


@dataclass(frozen=True)
class Made:
    """What is kept of an image: the middle for the sheet, what it was made with, and its row of the table."""

    panel: Float[Tensor, "3 h w"]
    caption: str = ""
    row: dict[str, object] = field(default_factory=dict)


def seed_of(seed: int, name: str, task: str) -> int:
    """Seed of one degraded image, whatever else is degraded beside it."""
    sequence = np.random.SeedSequence([seed, zlib.crc32(name.encode()), zlib.crc32(task.encode())])
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
    """Names of the tasks, once names, parameters and folders have been found to be in order.

    Raises:
        ValueError: If they are not.
    """
    tasks = list(dict.fromkeys(name.strip() for name in config.task.split(",")))
    if surplus := [name for name in config.parameters if name not in tasks]:
        raise ValueError(f"`parameters` are given for {surplus[0]!r}, but the tasks are {', '.join(tasks)}.")
    for name, least in (("seed", 0), ("sheet_images", 0), ("sheet_crop", 1)):
        if getattr(config, name) < least:
            raise ValueError(f"`{name}` must be at least {least}, got {getattr(config, name)}.")
    source = config.input.resolve()
    for folder in (config.output.resolve() / task for task in tasks):
        if source == folder or source in folder.parents or folder in source.parents:
            raise ValueError(f"`output` {str(config.output)!r} overlaps with the input: choose a folder beside it.")
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


def degrade_one(clean: Float[Tensor, "3 h w"], name: str, task: str, config: Config) -> Made:
    """Write an image degraded by one task."""
    seed = seed_of(config.seed, name, task)
    generator = torch.Generator().manual_seed(seed)
    degradation = draw_with(task, config.parameters.get(task, {}), generator)
    degraded = degradation(clean, generator)
    target = f"{task}/{png_name(name)}"
    write_png(degraded, config.output / target)
    words = [f"{key} {value:.3g}" for key, value in asdict(degradation).items()]
    return Made(
        center_crop(degraded, config.sheet_crop).clone(),
        "\n".join(", ".join(words[i : i + 2]) for i in range(0, len(words), 2)),
        {"image": name, "task": task, "output": target, "seed": seed} | asdict(degradation),
    )


def degrade_file(
    source: Path, name: str, tasks: Sequence[str], config: Config, report: Callable[[str], None]
) -> dict[str, Made]:
    """What could be made of one file, by task, and the file itself as ``clean``; the rest is reported."""
    try:
        clean = read_image(source)
    except ValueError as error:
        report(str(error))
        return {}
    made = {"clean": Made(center_crop(clean, config.sheet_crop).clone())}
    for task in tasks:
        try:
            made[task] = degrade_one(clean, name, task, config)
        except ValueError as error:
            report(f"{name!r} by {task}: {error}")
    return made


def draw_sheet(rows: Mapping[str, Mapping[str, Made]], titles: Sequence[str]) -> Figure:
    """Images from top to bottom, degradations from left to right; what could not be made stays empty."""
    figure = Figure(figsize=(2.2 * len(titles), 2.6 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for line, (name, made) in zip(grid, rows.items(), strict=True):
        line[0].set_ylabel(name)
        for axes, title in zip(line, titles, strict=True):
            axes.set(xticks=[], yticks=[])
            if title in made:
                axes.imshow(made[title].panel.clamp(0, 1).permute(1, 2, 0).numpy())
                axes.set_xlabel(made[title].caption, fontsize=7)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title)
    return figure


def main(config: Config) -> None:
    """Write degraded images, parameters.csv and sheet.png into ``config.output``; files of the same names are replaced.

    Raises:
        ValueError: At once if the request makes no sense; at the end, after all others, if some images were bad.
    """
    tasks, files = check_request(config), relative_names(config.input)
    config.output.mkdir(parents=True, exist_ok=True)
    parameters = dict.fromkeys(item.name for task in tasks for item in fields(DEGRADATIONS[task]))
    sheet: dict[str, dict[str, Made]] = {}
    problems: list[str] = []

    def report(problem: str) -> None:
        tqdm.write(problem, sys.stderr)
        problems.append(problem)

    with (config.output / "parameters.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["image", "task", "output", "seed", *parameters], restval="")
        table.writeheader()
        for name, source in tqdm(files.items(), unit="image"):
            made = degrade_file(source, name, tasks, config, report)
            table.writerows(item.row for item in made.values() if item.row)
            file.flush()  # what is finished stays known, whatever stops the rest
            if made and len(sheet) < config.sheet_images:
                sheet[name] = made
    if sheet:
        draw_sheet(sheet, ["clean", *tasks]).savefig(config.output / "sheet.png", dpi=120)
    if problems:
        count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ValueError(f"{count}, all else is in {str(config.output)!r}; {problems[0]}")


if __name__ == "__main__":
    from jsonargparse import auto_cli

    main(auto_cli(Config))
