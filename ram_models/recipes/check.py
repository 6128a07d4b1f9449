"""Check a folder of data sets before training or evaluation: ``ram data check DIR``."""

__all__ = ["Config", "main"]

import csv
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from macattr.image_files import display_name
from ram_models.data.check import CheckReport, Problem, check_data, summary


@dataclass(frozen=True)
class Config:
    """Folder to check, and files for the findings.

    Args:
        directory: Folder with one data set or many, at any depth.
        layout: Name of a layout of docs/datasets.md to take the folder for, "paired" or "clean" among them; every
            known one unless given.
        csv: File for the list of problems, one a line.
        json: File for all findings.
        workers: Threads that read images.
    """

    directory: Path
    layout: str | None = None
    csv: Path | None = None
    json: Path | None = None
    workers: int = 4


def write_csv(report: CheckReport, file: Path) -> None:
    """Write the problems, one a line."""
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, [field.name for field in fields(Problem)])
        writer.writeheader()
        writer.writerows(asdict(problem) | {"file": display_name(problem.file)} for problem in report.problems)


def main(config: Config) -> int:
    """Print the findings; the exit code is 0 without problems and 1 with some."""
    report = check_data(config.directory, config.layout, config.workers)
    print(summary(report))
    if config.csv is not None:
        write_csv(report, config.csv)
    if config.json is not None:
        config.json.write_text(json.dumps(asdict(report), indent=2, default=str) + "\n")
    return 1 if report.problems else 0
