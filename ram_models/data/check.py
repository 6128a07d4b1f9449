"""Is a folder of data sets whole: files that can be read, two sides to every pair, no test image in training?"""

__all__ = ["Problem", "Report", "SetReport", "check_data", "summary"]

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from tqdm.auto import tqdm

from macattr.image_files import read_pixels
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
    """One thing that is wrong.

    Args:
        kind: Key of ``KINDS``: "unreadable", "unmatched", "size mismatch" or "duplicate".
        image_set: Name of the set.
        split: Its split.
        file: The file in question.
        detail: What is wrong with it.
    """

    kind: str
    image_set: str
    split: str
    file: Path
    detail: str


@dataclass(frozen=True)
class SetReport:
    """What one set holds.

    Args:
        name: Name of the set.
        task: Degradation of its pairs; None for clean images.
        split: "train", "val", "test" or "all".
        directory: Where it lies.
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
class Report:
    """What a folder of data sets holds and what is wrong with it.

    Args:
        directory: The folder.
        sets: One entry a set.
        problems: What is wrong, worst kind first.
        others: Images that belong to no set.
    """

    directory: Path
    sets: tuple[SetReport, ...]
    problems: tuple[Problem, ...]
    others: tuple[Path, ...]


@dataclass(frozen=True)
class _Inspected:
    """What reading one file told: width and height without the border, hashes of bytes and pixels, or the error."""

    size: tuple[int, int] | None = None
    bytes_hash: str = ""
    pixels_hash: str = ""
    error: str = ""


def _inspect(file: Path, border: int) -> _Inspected:
    """Read a file from beginning to end, as training would."""
    try:
        content = hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
        pixels = read_pixels(file)
    except (ValueError, OSError) as error:
        return _Inspected(error=str(error).replace(f"{str(file)!r} ", ""))
    height, width = (side - 2 * border for side in pixels.shape[1:])
    kept = pixels[:, border : border + height, border : border + width].contiguous().numpy()
    digest = hashlib.blake2b(kept.tobytes(), digest_size=16).hexdigest()
    return _Inspected((width, height), content, f"{width}x{height} {digest}")


def _files(image_set: ImageSet) -> dict[Path, int]:
    """All files of a set with the border to cut off."""
    files = dict.fromkeys(image_set.unmatched, 0)
    for pair in image_set.pairs:
        files |= {pair.clean: pair.clean_border} | ({pair.degraded: 0} if pair.degraded else {})
    return files


def _inspect_all(sets: Iterable[ImageSet], workers: int) -> dict[Path, _Inspected]:
    """Every file of some sets, read by ``workers`` threads behind a progress bar."""
    files = {file: border for image_set in sets for file, border in _files(image_set).items()}
    pool = ThreadPoolExecutor(workers)
    try:
        inspected = tqdm(pool.map(_inspect, files, files.values()), total=len(files), unit="image", leave=False)
        return dict(zip(files, inspected, strict=True))
    finally:
        pool.shutdown(cancel_futures=True)  # an interruption must not wait for what has not begun


def _set_problems(image_set: ImageSet, inspected: dict[Path, _Inspected]) -> Iterator[Problem]:
    """What is wrong inside one set."""
    name, split = image_set.name, image_set.split
    for file in _files(image_set):
        if inspected[file].error:
            yield Problem("unreadable", name, split, file, inspected[file].error)
    for file in image_set.unmatched:
        yield Problem("unmatched", name, split, file, "no counterpart")
    for pair in image_set.pairs:
        if detail := _mismatch(pair, inspected):
            yield Problem("size mismatch", name, split, pair.degraded or pair.clean, detail)


def _mismatch(pair: Pair, inspected: dict[Path, _Inspected]) -> str:
    """How the two sides of a pair differ in size; empty if they do not."""
    clean, degraded = inspected[pair.clean].size, pair.degraded and inspected[pair.degraded].size
    if not clean or not degraded or clean == degraded:
        return ""
    border = f" without its border of {pair.clean_border}" if pair.clean_border else ""
    return "{}x{} pixels, ".format(*degraded) + f"but {str(pair.clean)!r} has " + "{}x{}".format(*clean) + border


def _duplicates(sets: Iterable[ImageSet], inspected: dict[Path, _Inspected]) -> Iterator[Problem]:
    """Images of validation or test sets that have the pixels of a training image."""
    places = [(image_set, file) for image_set in sets for file in _files(image_set) if inspected[file].size]
    trained = {inspected[file].pixels_hash: file for image_set, file in places if image_set.split == "train"}
    for image_set, file in places:
        twin = trained.get(inspected[file].pixels_hash)
        if image_set.split in ("val", "test") and twin is not None:
            same = inspected[file].bytes_hash == inspected[twin].bytes_hash
            kind = "the same file as" if same else "the same pixels, in other bytes, as"
            yield Problem("duplicate", image_set.name, image_set.split, file, f"{kind} {str(twin)!r}")


def _set_report(image_set: ImageSet, inspected: dict[Path, _Inspected]) -> SetReport:
    """What one set holds."""
    files = _files(image_set)
    clean = {pair.clean for pair in image_set.pairs}
    sizes = Counter("{}x{}".format(*size) for file in clean if (size := inspected[file].size))
    return SetReport(
        image_set.name,
        image_set.task,
        image_set.split,
        image_set.directory,
        len(image_set.pairs),
        LAYOUTS[image_set.name].complete.get(image_set.split) if image_set.name in LAYOUTS else None,
        len(files),
        sum(file.stat().st_size for file in files if file.exists()) / 1e6,
        dict(sizes.most_common()),
    )


def check_data(directory: Path | str, layout: str | None = None, workers: int = 4) -> Report:
    """Read every image of the data sets below a folder and say what is wrong.

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
    return Report(Path(directory), reports, tuple(problems), tuple(others))


def summary(report: Report, listed: int = 50) -> str:
    """A report in words: a table of the sets, then every kind of problem with its first ``listed`` files."""
    files, megabytes = sum(one.files for one in report.sets), sum(one.megabytes for one in report.sets)
    lines = [f"{report.directory}: {_count(len(report.sets), 'set')}, {files} files, {megabytes:.0f} MB", ""]
    header = ("set", "split", "task", "items", "width x height", "folder")
    lines += _aligned([header, *(_row(one, report.directory) for one in report.sets)])
    lines += ["", *_others(report)]
    for kind, group in groupby(report.problems, key=lambda problem: problem.kind):
        problems = list(group)
        lines += [f"{KINDS[kind]}: {len(problems)}"]
        lines += [f"  {problem.file}: {problem.detail}" for problem in problems[:listed]]
        lines += [f"  and {len(problems) - listed} more"] if len(problems) > listed else []
    return "\n".join(lines if report.problems else [*lines, _all_is_well(report)])


def _count(number: int, noun: str) -> str:
    """A number and its noun."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _row(one: SetReport, directory: Path) -> tuple[str, ...]:
    """The line of a set in the table."""
    noun = "image" if one.task is None else "pair"
    partial = one.complete is not None and one.items < one.complete
    items = f"{one.items} of {one.complete} {noun}s" if partial else _count(one.items, noun)
    sizes = ", ".join(list(one.sizes)[:2]) + (f" and {len(one.sizes) - 2} more" if len(one.sizes) > 2 else "")
    folder = str(one.directory.relative_to(directory))
    return one.name, one.split, one.task or "(clean)", items, sizes, folder


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Lines of a table with columns of one width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _others(report: Report) -> list[str]:
    """A line on every folder with images that belong to no set."""
    folders = Counter(file.parent.relative_to(report.directory) for file in report.others)
    lines = [f"not part of any set: {_count(number, 'image')} in {folder}" for folder, number in folders.items()]
    return [*lines, ""] if lines else []


def _all_is_well(report: Report) -> str:
    """What was looked for and not found."""
    splits = {one.split for one in report.sets}
    compared = "train" in splits and splits & {"val", "test"}
    apart = "no image is in both train and test" if compared else "nothing to compare between train and test"
    return f"No problem: every image can be read, the two sides of every pair have one size, {apart}."
