"""The authors' lists: a ranking in the files that their fine-tuning reads."""

__all__ = ["read_official_ranking", "write_official_ranking"]

from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath


def read_official_ranking(folder: FilePath | str) -> dict[str, float]:
    """Scores by layer name, most important first, from the authors' ``filter_name.txt`` and ``filter_cond.txt``.

    ``filter_index.txt``, the position of every layer in module order, is checked to be a permutation.

    Args:
        folder: Where the three files are.

    Raises:
        ValueError: If a file is missing or the three do not fit together.
    """
    files = {part: FilePath(folder) / f"filter_{part}.txt" for part in ("name", "cond", "index")}
    if absent := [str(file) for file in files.values() if not file.is_file()]:
        raise ValueError(f"an official ranking consists of three files; missing: {', '.join(absent)}.")
    names, scores, index = (files[part].read_text().split() for part in ("name", "cond", "index"))
    try:
        numbers, places = list(map(float, scores)), sorted(map(int, index))
    except ValueError as error:
        raise ValueError(f"the lists in {folder} hold something else than numbers: {error}.") from None
    if not len(names) == len(scores) == len(index) or places != list(range(len(index))):
        raise ValueError(
            f"the lists in {folder} do not fit: {len(names)} names, {len(scores)} scores, {len(index)} indices."
        )
    if len(set(names)) < len(names):
        raise ValueError(f"{str(files['name'])!r} names {len(names) - len(set(names))} layers more than once.")
    return dict(zip(names, numbers, strict=True))


def write_official_ranking(scores: Mapping[str, float], layers: Sequence[str], folder: FilePath | str) -> None:
    """Write the three files that the authors' fine-tuning reads; it trains the first names of ``filter_name.txt``.

    Scores are written with all their digits, where the authors print six decimals.

    Args:
        scores: Score of every layer; equal ones keep their order.
        layers: The same layers in module order.
        folder: Where to write; made if it is missing.

    Raises:
        ValueError: If a layer has no score, or a score no layer, or a name holds a blank.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_official_ranking({"conv_first": 0.5, "norm": 2.0}, ["conv_first", "norm"], folder)
        ...     read_official_ranking(folder)
        {'norm': 2.0, 'conv_first': 0.5}
    """
    if spaced := [name for name in layers if len(name.split()) != 1]:
        raise ValueError(f"the authors' lists cannot hold {spaced[0]!r}: they divide names at blanks.")
    if unmatched := sorted(set(scores) ^ set(layers)):
        raise ValueError(f"scores and layers do not fit: {', '.join(unmatched)} stand in one of them only.")
    ranked = sorted(scores, key=lambda name: -scores[name])
    lists = {
        "name": ranked,
        "cond": [repr(float(scores[name])) for name in ranked],
        "index": [str(layers.index(name)) for name in ranked],
    }
    FilePath(folder).mkdir(parents=True, exist_ok=True)
    for part, entries in lists.items():
        (FilePath(folder) / f"filter_{part}.txt").write_text("".join(f"{entry}\n" for entry in entries))
