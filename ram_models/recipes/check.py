"""Check a folder of data sets before training or evaluation: ``ram data check DIR``."""

__all__ = ["Config", "main"]

import csv
import io
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from macattr.atomic_files import write_text
from macattr.image_files import display_name
from ram_models.data.check import CheckReport, Problem, check_data, summary


@dataclass(frozen=True)
class Config:
    """Check data sets on disk: read every image and list the problems. The exit code is 1 if there are any.

    Args:
        directory: Folder with one data set or many, at any depth.
        layout: Name of the layout of the folder, from docs/datasets.md or "paired" or "clean"; recognised by default.
        csv: File for the list of problems, one a line.
        json: File for all results.
        workers: Number of threads that read images.
    """

    directory: Path
    layout: str | None = None
    csv: Path | None = None
    json: Path | None = None
    workers: int = 4

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"`workers` must be at least 1, got {self.workers}.")


def _write_csv(report: CheckReport, file: Path) -> None:
    """Write the problems, one a line."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(Problem)])
    writer.writeheader()
    writer.writerows(asdict(problem) | {"file": display_name(problem.file)} for problem in report.problems)
    write_text(file, text.getvalue())


def main(config: Config) -> int:
    """Print the findings; the exit code is 0 without problems and 1 with some."""
    for file in (config.csv, config.json):
        if file is not None:  # found out before the images are read
            file.parent.mkdir(parents=True, exist_ok=True)
    report = check_data(config.directory, config.layout, config.workers)
    print(summary(report))
    if config.csv is not None:
        _write_csv(report, config.csv)
    if config.json is not None:
        text = json.dumps(asdict(report), indent=2, default=str) + "\n"
        write_text(config.json, text)
    return 1 if report.problems else 0
