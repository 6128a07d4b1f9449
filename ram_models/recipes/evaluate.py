"""PSNR and SSIM of a network on test sets: ``ram evaluate DATA``."""

__all__ = ["Config", "main"]

import csv
import hashlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd
from torch import nn
from tqdm.auto import tqdm

from macattr.atomic_files import sole_writer
from ram_models.data.recognition import read_sets
from ram_models.data.sets import Pair
from ram_models.evaluation.metrics import SSIM_WINDOW, Convention, psnr, ssim
from ram_models.evaluation.protocols import UNSEEN_ON, Evaluation, Plan, plan
from ram_models.evaluation.tables import (
    TABLES,
    beside_paper,
    by_setting,
    markdown,
    paper_rows,
    read_results,
    summarise,
)
from ram_models.networks.inference import check_device, check_tiles, network_by_name, restore_any_size, restorer
from ram_models.seeds import check_seed, seeded

FIELDS = ("method", "setting", "dataset", "task", "image", "height", "width", "psnr_db", "ssim", "sha256")

TABLE_FILES = ("results", "tables")
"""Names of the tables over all methods, which no method can have."""

IDENTICAL = "Identical pairs have an infinite PSNR: their number is stated, mean and deviation are those of the others."
"""The remark under tables with identical pairs."""


@dataclass(frozen=True)
class Config:
    """Measure PSNR and SSIM of a network on test sets.

    Every measured image is kept at once, so a stopped run continues where it was. Methods that are measured into one
    folder stand side by side in its tables.

    Args:
        data: Folder of test sets in their own layouts (see docs/datasets.md), at any depth.
        out: Folder for the results.
        network: Name of the network: ram-swinir-tiny, ram-denoise-tiny, ram-swinir, ram-promptir-tiny, ram-promptir;
            or identity, which measures the degraded images.
        weights: File of its weights, or a Hugging Face repository as owner/name; default the bundled ones.
        twins: Predict every pixel while it is hidden, in two runs with complementary masks.
        method: Name of the row in the tables; default the network's. With the name of one of the paper's methods, the
            tables show the difference from it.
        protocol: paper for the paper's test settings, as far as present; noises for noise alone, trained and unseen;
            pairs for every set of real pairs; sets for these and every clean set with noise of sigma 25, blur of sigma
            2 and JPEG of quality 50.
        paper: Folder of the paper's tables as CSV, to show next to the results of its protocol.
        layout: Name of the layout of the data; recognised by default.
        tile: Restore images with a longer side in tiles of this size in pixels, a multiple of 16; default whole images.
        overlap: Pixels that neighbouring tiles share and blend.
        crop: Measure the middle of every image only, at most this many pixels a side.
        limit: Measure the first images of every set only.
        convention: Convention of PSNR and SSIM: channels (rgb or y), border, data_range, rounded.
        seed: Seed of synthesised degradations and twin masks, together with the name of each image.
        device: Device to compute on, such as cpu or cuda.
    """

    data: Path
    out: Path = Path("evaluation")
    network: str = "ram-swinir-tiny"
    weights: str | None = None
    twins: bool = False
    method: str | None = None
    protocol: Literal["paper", "noises", "pairs", "sets"] = "paper"
    paper: Path | None = None
    layout: str | None = None
    tile: int | None = None
    overlap: int = 64
    crop: int | None = None
    limit: int | None = None
    convention: Convention = field(default_factory=Convention)
    seed: int = 0
    device: str = "cpu"

    @property
    def name(self) -> str:
        """Name of the method."""
        return self.method or f"{self.network}{' with twin masks' if self.twins else ''}"


def main(config: Config) -> int:
    """Measure the remaining images and write the tables. A bad image is reported and makes the exit code 2."""
    check(config)
    planned = plan(config.protocol, read_sets(config.data, config.layout))
    network, sha256 = network_by_name(config.network, config.weights, config.device, config.twins)
    with sole_writer(config.out):
        refuse_other_files(config, planned)
        record_settings(config, sha256)
        failures = measure_all(config, planned, network)
        for failure in failures:
            print(f"ram evaluate: error: {failure}", file=sys.stderr)
        write_tables(config, planned)
    return 2 if failures else 0


def measure_all(config: Config, planned: Plan, network: nn.Module) -> list[str]:
    """Measure every image that is not measured yet; the messages of those that failed."""
    file = config.out / f"{config.name}.csv"
    done = measured(file)
    waiting = [(test, pair) for test, pair in images(planned, config) if (test.setting.name, pair.name) not in done]
    print(f"{config.name}: {len(waiting)} images to measure, {len(done)} measured before; {config.convention}")
    failures = []
    with file.open("a", newline="") as opened:
        results = csv.DictWriter(opened, header(file), extrasaction="ignore", lineterminator="\n")
        if opened.tell() == 0:
            results.writeheader()
        for test, pair in (progress := tqdm(waiting, unit="image")):
            progress.set_postfix_str(test.setting.name)
            try:
                results.writerow(measure(test, pair, network, config))
                opened.flush()
            except (ValueError, OSError) as error:
                failures.append(f"{test.setting.name}, {pair.name}: {located(error, pair)}")
    return failures


def check(config: Config) -> None:
    """Refuse settings out of range, before anything is computed."""
    check_seed(config.seed)
    check_device(config.device)
    for name, value in {"crop": config.crop, "limit": config.limit}.items():
        if value is not None and value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    least = SSIM_WINDOW + 2 * config.convention.border
    if config.convention.data_range != 1:
        raise ValueError(
            f"`convention.data_range` must be 1 here, got {config.convention.data_range:g}: images are read in [0, 1]."
        )
    if config.crop is not None and config.crop < least:
        raise ValueError(f"`crop` must be at least {least}, got {config.crop}: SSIM has windows of that size.")
    if config.tile is not None:
        check_tiles(config.tile, config.overlap)
    elif config.overlap != Config.overlap:
        raise ValueError(f"`overlap` = {config.overlap} has no effect without `tile`: give both, or none.")
    if config.paper is not None:
        if config.protocol != "paper":
            raise ValueError(f"`paper` has no numbers for `protocol` {config.protocol}: leave one of them out.")
        for name in TABLES:
            paper_rows(name, config.paper)
    if Path(config.name).name != config.name or config.name in TABLE_FILES or not config.name.isprintable():
        names = " and ".join(map(repr, TABLE_FILES))
        raise ValueError(f"`method` must be usable as a file name other than {names}, got {config.name!r}.")


def images(planned: Plan, config: Config) -> Iterator[tuple[Evaluation, Pair]]:
    """Every image of every setting."""
    for test in planned.tests:
        for pair in test.pairs[: config.limit]:
            yield test, pair


def measure(test: Evaluation, pair: Pair, network: nn.Module, config: Config) -> dict[str, object]:
    """One line of results."""
    setting = test.setting
    degraded, clean = test.read(pair, config.seed, config.crop)
    masks = seeded(f"twin masks of {setting.name}/{pair.name}", config.seed)
    restore = restorer(network, config.twins, masks, config.device)
    restored = restore_any_size(restore, degraded, config.tile, config.overlap)
    values = {"psnr_db": psnr(restored, clean, config.convention), "ssim": ssim(restored, clean, config.convention)}
    height, width = clean.shape[-2:]
    identity = (config.name, setting.name, setting.dataset, setting.task, pair.name, height, width)
    written = {name: f"{value:.6f}" for name, value in values.items()} | {"sha256": hash_of(pair)}
    return dict(zip(FIELDS, identity, strict=False)) | written


def hash_of(pair: Pair) -> str:
    """SHA-256 of the files of a pair, first 16 digits."""
    digest = hashlib.sha256()
    for file in (pair.clean, pair.degraded):
        digest.update(b"" if file is None else file.read_bytes())
    return digest.hexdigest()[:16]


def refuse_other_files(config: Config, planned: Plan) -> None:
    """Raise if an image of that name was measured in this folder, by any method, and was another one.

    Raises:
        ValueError: With the image and its folder.
    """
    known: dict[tuple[str, str], str] = {}
    for record in records(config.out):
        known |= measured(record.with_suffix(".csv"))
    for test, pair in images(planned, config):
        before = known.get((test.setting.name, pair.name))
        if before and before != hash_of(pair):
            raise ValueError(
                f"{str(config.out)!r} holds results of another image {pair.name!r} of {test.setting.name!r} than "
                f"{str(pair.degraded or pair.clean)!r}: choose another `out` for other data."
            )


def located(error: Exception, pair: Pair) -> str:
    """An error with the file that it concerns."""
    file = str(pair.degraded or pair.clean)
    return (
        str(error) if any(name in str(error) for name in (repr(file), repr(str(pair.clean)))) else f"{file!r}: {error}"
    )


def measured(file: Path) -> dict[tuple[str, str], str]:
    """Setting and image of every finished line, with the hash of its files; '' where an older version wrote none.

    A line that was cut off by a crash is removed from the file.
    """
    if not file.exists():
        return {}
    whole = file.read_bytes().rpartition(b"\n")[0]
    os.truncate(file, len(whole) + bool(whole))
    with file.open(newline="") as lines:
        return {(row["setting"], row["image"]): row.get("sha256") or "" for row in csv.DictReader(lines)}


def header(file: Path) -> list[str]:
    """Columns of a file of results: those that it has, or those of a new one."""
    with file.open(newline="") as lines:
        return next(csv.reader(lines), list(FIELDS))


def record_settings(config: Config, sha256: str | None) -> None:
    """Write METHOD.json, or compare with it and with those of other methods.

    Raises:
        ValueError: If the folder holds results of other settings.
    """
    given = settings(config, sha256)
    for file, stored in records(config.out).items():
        own = file.stem == config.name
        for name in ("network", "weights_sha256", "twins", "tile", "overlap") if own else ():
            refuse_difference(file, name, stored[name], given[name])
        for name in ("convention", "crop", "limit", "seed"):
            refuse_difference(file, name, stored[name], given[name])
    (config.out / f"{config.name}.json").write_text(json.dumps(given, indent=2) + "\n")


def records(folder: Path) -> dict[Path, dict[str, object]]:
    """What the METHOD.json files of a folder hold; other files of that kind are passed over."""
    found = {file: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}
    return {file: record for file, record in found.items() if isinstance(record, dict) and "convention" in record}


def refuse_difference(file: Path, name: str, stored: object, given: object) -> None:
    """Raise if results of one folder would differ in a setting."""
    if stored != given:
        raise ValueError(
            f"the results in {str(file.with_suffix('.csv'))!r} were made with {name} = {stored}, got {given}: use the "
            "same, or another `out` (or another `method`, if it is another network)."
        )


def settings(config: Config, sha256: str | None) -> dict[str, object]:
    """How the results are made, as plain values."""
    packages = ("torch", "torchmetrics", "Pillow", "macattr")
    return {
        **{name: value if not isinstance(value, Path) else str(value) for name, value in asdict(config).items()},
        "weights_sha256": sha256,
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def write_tables(config: Config, planned: Plan) -> None:
    """Write results.csv, tables.csv and results.md from all methods in the folder, and print those of this one."""
    files = [file.with_suffix(".csv") for file in records(config.out)]
    rows = pd.concat([read_results(file) for file in files if file.exists()])
    summary = summarise(rows)
    summary.to_csv(config.out / "results.csv", index=False, float_format="%.4f")
    text = [f"# Test sets\n\n{how(config)}\n", by_setting(summary)]
    if config.protocol == "paper":
        tables = [beside_paper(name, summary, config.paper) for name in TABLES]
        tables = [table for table in tables if (table["source"] == "measured").any()]
        if tables:
            pd.concat(tables).to_csv(config.out / "tables.csv", index=False, float_format="%.4f")
        text += [markdown(table) for table in tables]
        text += [f"The unseen noises are put on {UNSEEN_ON}: the paper names neither its images nor their strength.\n"]
    if summary["identical"].any():
        text += [IDENTICAL + "\n"]
    if planned.missing:
        text += ["Not tested, for want of images:\n", *(f"- {s.name} ({s.dataset} {s.split})" for s in planned.missing)]
    (config.out / "results.md").write_text("\n".join(text).rstrip() + "\n")
    own = summary[summary["method"] == config.name]
    print(by_setting(own))
    if own["identical"].any():
        print(IDENTICAL)
    if planned.missing:
        print(f"missing below {config.data}: {', '.join(dict.fromkeys(s.dataset for s in planned.missing))}")
    print(
        f"written: {', '.join(str(config.out / name) for name in (f'{config.name}.csv', 'results.md', 'results.csv'))}"
    )


def how(config: Config) -> str:
    """The conditions that all methods of a folder share, in words."""
    parts = [
        f"PSNR in dB / SSIM: {config.convention}; SSIM with a Gaussian window of 11 pixels, sigma 1.5",
        "mean ± standard deviation over the images",
        f"middle {config.crop} pixels of each image" if config.crop else "whole images",
        *([f"the first {config.limit} images of a set"] if config.limit else []),
        f"seed {config.seed}",
    ]
    return "; ".join(parts) + "."
