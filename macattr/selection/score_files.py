"""Scores of layers from the files of other tools: JSON and CSV, and Spectrum's published signal-to-noise ratios."""

__all__ = ["SUFFIXES", "read_scores"]

import csv
import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from macattr.statistics.class_shares import class_shares

SUFFIXES = (".json", ".csv")
"""Ends of the files that hold scores."""

NAME_COLUMNS = ("layer", "name", "module")
SCORE_COLUMNS = ("score", "snr", "value")


def read_scores(path: Path | str) -> dict[str, float]:
    """Scores by layer name, in the order of the file.

    A JSON file maps names to scores, or is one of Spectrum's: names to ``{"snr": ..., "type": ...}``, or types to names
    to ratios. Ratios of different types cannot be compared, so they become :func:`class_shares`, as in the method
    ``spectrum``. A CSV file has a column layer (or name, module) and a column score (or snr, value), as our own
    ``ranking.csv``; or two columns without a header.

    Args:
        path: File that ends in .json or .csv.

    Raises:
        ValueError: If it cannot be read as one of these, or a score is not finite.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "snr.json")
        ...     _ = file.write_text('{"0.fc": {"snr": 0.4, "type": "fc"}, "1.fc": {"snr": 0.1, "type": "fc"}}')
        ...     read_scores(file)
        {'0.fc': 0.5, '1.fc': 0.0}
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        is_csv = Path(path).suffix.lower() == ".csv"
        scores = _from_csv(text) if is_csv else _from_json(json.loads(text, object_pairs_hook=_without_repeats))
    except (OSError, ValueError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{str(path)!r} cannot be read as scores of layers: {str(reason).rstrip('.')}.") from error
    if not scores:
        raise ValueError(f"{str(path)!r} holds no score.")
    if bad := [name for name, score in scores.items() if not math.isfinite(score)]:
        raise ValueError(f"{str(path)!r}: the score of {bad[0]!r} is {scores[bad[0]]}: a ranking needs finite scores.")
    return scores


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The entries of a JSON object; a name that stands there twice is refused."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        repeated, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"{repeated!r} stands there more than once")
    return entries


def _from_json(content: object) -> dict[str, float]:
    """Scores of a JSON file's content."""
    if isinstance(content, list) and content and all(isinstance(row, Mapping) for row in content):
        raise ValueError("it is a list of rows: write a mapping from names to scores, or a CSV file")
    if not isinstance(content, Mapping):
        raise ValueError("it is no mapping from names to scores")
    if "kind" in content and "layers" in content:
        raise ValueError("it is an exported selection, which names the chosen layers alone; give the ranking")
    values = list(content.values())
    if values and all(isinstance(value, Mapping) and "snr" in value for value in values):
        ratios = {name: _number(value["snr"], name) for name, value in content.items()}
        return _shares(ratios, [str(value.get("type", "")) for value in values])
    if values and all(isinstance(value, Mapping) for value in values):
        rows = [(name, _number(ratio, name)) for group in values for name, ratio in group.items()]
        return _shares(_without_repeats(rows), [kind for kind, group in content.items() for _ in group])
    return {name: _number(value, name) for name, value in content.items()}


def _shares(ratios: Mapping[str, float], types: list[str]) -> dict[str, float]:
    """Spectrum's ratios as places within their types."""
    return dict(zip(ratios, class_shares(np.array(list(ratios.values())), types).tolist(), strict=True))


def _number(value: object, name: str) -> float:
    """The score of a layer; truth values are none."""
    try:
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            return float(value)
    except ValueError:
        pass
    percent = "; write a percentage as a number" if str(value).strip().endswith("%") else ""
    raise ValueError(f"the score of {name!r} is no number: {value!r}{percent}")


def _from_csv(text: str) -> dict[str, float]:
    """Scores of a CSV file's text."""
    rows = [row for row in csv.reader(text.splitlines()) if row]
    if not rows:
        return {}
    if len(rows[0]) == 1 and (separator := next((mark for mark in ";\t" if mark in rows[0][0]), "")):
        raise ValueError(f"its columns are separated by {separator!r}: write it with commas, and decimals with points")
    head = [cell.strip().lower() for cell in rows[0]]
    if "trains" in head:
        raise ValueError("it is an exported selection, which names the chosen layers alone; give the ranking")
    names = next((head.index(column) for column in NAME_COLUMNS if column in head), None)
    values = next((head.index(column) for column in SCORE_COLUMNS if column in head), None)
    if names is None or values is None:
        if len(head) != 2:
            raise ValueError(f"it has no columns 'layer' and 'score', but {', '.join(map(repr, rows[0]))}")
        names, values = 0, 1
    else:
        rows = rows[1:]
    if short := [row for row in rows if len(row) <= max(names, values)]:
        raise ValueError(f"a row is too short: {','.join(short[0])!r}")
    if unnamed := [row for row in rows if not row[names].strip()]:
        raise ValueError(f"a row has no name: {','.join(unnamed[0])!r}")
    return _without_repeats([(row[names].strip(), _number(row[values], row[names].strip())) for row in rows])
