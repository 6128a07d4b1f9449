"""Check of a folder of data sets: every file can be read, every pair is whole, no test image is in training."""

__all__ = ["CheckReport", "Problem", "SetReport", "check_data", "summary"]

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from tqdm.auto import tqdm

from macattr.image_files import display_name, read_pixels
from ram_models.data.layouts import LAYOUTS
from ram_models.data.recognition import recognise
from ram_models.data.sets import ImageSet, Pair

KINDS = {
    "unreadable": "files that cannot be read",
    "unmatched": "files without a counterpart",
    "size mismatch": "pairs of two sizes",
    "duplicate": "images in both train and test",
}


@dataclass(frozen=True)
class Problem:
    """A fault of a file.

    Args:
        kind: Key of ``KINDS``: "unreadable", "unmatched", "size mismatch" or "duplicate".
        image_set: Name of the set.
        split: Its split.
        file: The file.
        detail: The fault in words.
    """

    kind: str
    image_set: str
    split: str
    file: Path
    detail: str


@dataclass(frozen=True)
class SetReport:
    """Contents of a set.

    Args:
        name: Name of the set.
        task: Degradation of its pairs; None for clean images.
        split: "train", "val", "test" or "all".
        directory: Its folder.
        items: Number of pairs, or of clean images.
        complete: Number of items in the whole published set, if known.
        files: Number of files in it.
        megabytes: Their size, in 10^6 bytes.
        sizes: How many clean images there are of each width and height, the most frequent first.
    """

    name: str
    task: str | None
    split: str
    directory: Path
    items: int
    complete: int | None
    files: int
    megabytes: float
    sizes: dict[str, int]


@dataclass(frozen=True)
class CheckReport:
    """Contents and faults of a folder of data sets.

    Args:
        directory: The folder.
        sets: One entry a set.
        problems: Faults, the worst kind first.
        others: Images that belong to no set.
    """

    directory: Path
    sets: tuple[SetReport, ...]
    problems: tuple[Problem, ...]
    others: tuple[Path, ...]


@dataclass(frozen=True)
class _Inspection:
    """Result of reading a file: width and height without the border, hashes of bytes and pixels, or the error."""

    size: tuple[int, int] | None = None
    bytes_hash: str = ""
    pixels_hash: str = ""
    error: str = ""


def _inspect(file: Path, border: int) -> _Inspection:
    """Read a file from beginning to end, as training would."""
    try:
        content = hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
        pixels = read_pixels(file)
    except (ValueError, OSError) as error:
        return _Inspection(error=str(error).replace(f"{str(file)!r} ", ""))
    height, width = (side - 2 * border for side in pixels.shape[1:])
    kept = pixels[:, border : border + height, border : border + width].contiguous().numpy()
    digest = hashlib.blake2b(kept.tobytes(), digest_size=16).hexdigest()
    return _Inspection((width, height), content, f"{width}x{height} {digest}")


def _files(image_set: ImageSet) -> dict[Path, int]:
    """All files of a set with the border to cut off."""
    files = dict.fromkeys(image_set.unmatched, 0)
    for pair in image_set.pairs:
        files |= {pair.clean: pair.clean_border} | ({pair.degraded: 0} if pair.degraded else {})
    return files


def _inspect_all(sets: Iterable[ImageSet], workers: int) -> dict[Path, _Inspection]:
    """Every file of some sets, read by ``workers`` threads behind a progress bar."""
    files = {file: border for image_set in sets for file, border in _files(image_set).items()}
    pool = ThreadPoolExecutor(workers)
    try:
        inspected = tqdm(pool.map(_inspect, files, files.values()), total=len(files), unit="image", leave=False)
        return dict(zip(files, inspected, strict=True))
    finally:
        pool.shutdown(cancel_futures=True)  # an interruption must not wait for what has not begun


def _set_problems(image_set: ImageSet, inspected: dict[Path, _Inspection]) -> Iterator[Problem]:
    """Faults inside a set."""
    name, split = image_set.name, image_set.split
    for file in _files(image_set):
        if inspected[file].error:
            yield Problem("unreadable", name, split, file, inspected[file].error)
    for file in image_set.unmatched:
        yield Problem("unmatched", name, split, file, "no counterpart")
    for pair in image_set.pairs:
        if detail := _mismatch(pair, inspected):
            yield Problem("size mismatch", name, split, pair.degraded or pair.clean, detail)


def _mismatch(pair: Pair, inspected: dict[Path, _Inspection]) -> str:
    """Difference in size of the two sides of a pair; empty if there is none."""
    clean, degraded = inspected[pair.clean].size, pair.degraded and inspected[pair.degraded].size
    if not clean or not degraded or clean == degraded:
        return ""
    border = f" without its border of {pair.clean_border}" if pair.clean_border else ""
    return "{}x{} pixels, ".format(*degraded) + f"but {str(pair.clean)!r} has " + "{}x{}".format(*clean) + border


def _duplicates(sets: Iterable[ImageSet], inspected: dict[Path, _Inspection]) -> Iterator[Problem]:
    """Images of validation or test sets that have the pixels of a training image."""
    places = [(image_set, file) for image_set in sets for file in _files(image_set) if inspected[file].size]
    trained = {inspected[file].pixels_hash: file for image_set, file in places if image_set.split == "train"}
    for image_set, file in places:
        twin = trained.get(inspected[file].pixels_hash)
        if image_set.split in ("val", "test") and twin is not None:
            same = inspected[file].bytes_hash == inspected[twin].bytes_hash
            kind = "the same file as" if same else "the same pixels, in other bytes, as"
            yield Problem("duplicate", image_set.name, image_set.split, file, f"{kind} {str(twin)!r}")


def _set_report(image_set: ImageSet, inspected: dict[Path, _Inspection]) -> SetReport:
    """Contents of a set."""
    files = _files(image_set)
    clean = {pair.clean for pair in image_set.pairs}
    sizes = Counter("{}x{}".format(*size) for file in clean if (size := inspected[file].size))
    return SetReport(
        name=image_set.name,
        task=image_set.task,
        split=image_set.split,
        directory=image_set.directory,
        items=len(image_set.pairs),
        complete=LAYOUTS[image_set.name].complete.get(image_set.split) if image_set.name in LAYOUTS else None,
        files=len(files),
        megabytes=sum(file.stat().st_size for file in files if file.exists()) / 1e6,
        sizes=dict(sizes.most_common()),
    )


def check_data(directory: Path | str, layout: str | None = None, workers: int = 4) -> CheckReport:
    """Read every image of the data sets below a folder and report the faults.

    Duplicates are found by a hash of the decoded pixels (borders cut), between training sets on one side, validation
    and test sets on the other. A crop or a compressed copy of a training image has other pixels and is not found.

    Args:
        directory: Folder with one set or many, at any depth.
        layout: Layout to take the folder for, see :func:`ram_models.data.recognition.recognise`; every known one
            unless given.
        workers: Threads that read.

    Raises:
        ValueError: If there is no such folder or layout, no image, or nothing of a known layout.
    """
    sets, others = recognise(directory, layout)
    inspected = _inspect_all(sets, workers)
    problems = [problem for image_set in sets for problem in _set_problems(image_set, inspected)]
    problems += _duplicates(sets, inspected)
    problems.sort(key=lambda problem: list(KINDS).index(problem.kind))
    reports = tuple(_set_report(image_set, inspected) for image_set in sets)
    return CheckReport(Path(directory), sets=reports, problems=tuple(problems), others=tuple(others))


def summary(report: CheckReport, listed: int = 50) -> str:
    """A report in words: a table of the sets, then every kind of problem with its first ``listed`` files."""
    files = sum(image_set.files for image_set in report.sets)
    megabytes = sum(image_set.megabytes for image_set in report.sets)
    lines = [
        f"{display_name(report.directory)}: {_count(len(report.sets), 'set')}, {files} files, {megabytes:.0f} MB",
        "",
    ]
    header = ("set", "split", "task", "items", "width x height", "folder")
    lines += _aligned([header, *(_row(image_set, report.directory) for image_set in report.sets)])
    lines += ["", *_others(report)]
    for kind, group in groupby(report.problems, key=lambda problem: problem.kind):
        problems = list(group)
        lines += [f"{KINDS[kind]}: {len(problems)}"]
        lines += [f"  {display_name(problem.file)}: {problem.detail}" for problem in problems[:listed]]
        lines += [f"  and {len(problems) - listed} more"] if len(problems) > listed else []
    return "\n".join(lines if report.problems else [*lines, _all_is_well(report)])


def _count(number: int, noun: str) -> str:
    """A number and its noun."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _row(image_set: SetReport, directory: Path) -> tuple[str, ...]:
    """The line of a set in the table."""
    noun = "image" if image_set.task is None else "pair"
    is_partial = image_set.complete is not None and image_set.items < image_set.complete
    items = f"{image_set.items} of {image_set.complete} {noun}s" if is_partial else _count(image_set.items, noun)
    sizes, more = list(image_set.sizes)[:2], len(image_set.sizes) - 2
    shown = ", ".join(sizes) + (f" and {more} more" if more > 0 else "")
    folder = display_name(image_set.directory.relative_to(directory))
    return image_set.name, image_set.split, image_set.task or "(clean)", items, shown, folder


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Lines of a table with columns of one width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _others(report: CheckReport) -> list[str]:
    """A line on every folder with images that belong to no set."""
    folders = Counter(file.parent.relative_to(report.directory) for file in report.others)
    lines = [
        f"not part of any set: {_count(number, 'image')} in {display_name(folder)}"
        for folder, number in folders.items()
    ]
    return [*lines, ""] if lines else []


def _all_is_well(report: CheckReport) -> str:
    """The faults that were looked for without result."""
    splits = {image_set.split for image_set in report.sets}
    compared = "train" in splits and splits & {"val", "test"}
    apart = "no image is in both train and test" if compared else "nothing to compare between train and test"
    return f"No problem: every image can be read, the two sides of every pair have one size, {apart}."
