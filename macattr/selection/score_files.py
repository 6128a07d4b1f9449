"""Scores of layers from the files of other tools: JSON and CSV, and Spectrum's published signal-to-noise ratios."""

__all__ = ["SUFFIXES", "read_scores"]

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path

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
        scores = _from_csv(text) if Path(path).suffix.lower() == ".csv" else _from_json(json.loads(text))
    except (OSError, ValueError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{str(path)!r} cannot be read as scores of layers: {reason}.") from error
    if not scores:
        raise ValueError(f"{str(path)!r} holds no score.")
    if bad := [name for name, score in scores.items() if not math.isfinite(score)]:
        raise ValueError(f"{str(path)!r}: the score of {bad[0]!r} is {scores[bad[0]]}: a ranking needs finite scores.")
    return scores


def _from_json(content: object) -> dict[str, float]:
    """Scores of a JSON file's content."""
    if not isinstance(content, Mapping):
        raise ValueError("it is no mapping from names to scores")
    if "kind" in content and "layers" in content:
        raise ValueError("it is an exported selection, which names the chosen layers alone; give the ranking")
    values = list(content.values())
    if values and all(isinstance(value, Mapping) and "snr" in value for value in values):
        ratios = {name: float(value["snr"]) for name, value in content.items()}
        return _shares(ratios, [str(value.get("type", "")) for value in values])
    if values and all(isinstance(value, Mapping) for value in values):
        ratios = {name: float(ratio) for group in values for name, ratio in group.items()}
        return _shares(ratios, [kind for kind, group in content.items() for _ in group])
    return {name: _number(value) for name, value in content.items()}


def _shares(ratios: dict[str, float], types: list[str]) -> dict[str, float]:
    """Spectrum's ratios as places within their types."""
    return dict(zip(ratios, class_shares(np.array(list(ratios.values())), types).tolist(), strict=True))


def _number(value: object) -> float:
    """A score; truth values are none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is no score")
    return float(value)


def _from_csv(text: str) -> dict[str, float]:
    """Scores of a CSV file's text."""
    rows = [row for row in csv.reader(text.splitlines()) if row]
    if not rows:
        return {}
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
    scores = {row[names].strip(): float(row[values]) for row in rows}
    if len(scores) < len(rows):
        raise ValueError("a layer stands there more than once")
    return scores
