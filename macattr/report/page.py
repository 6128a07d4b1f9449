"""Rankings as one self-contained HTML page: what to fine-tune, how sure that is, and how it was found."""

__all__ = ["write_report"]

from collections.abc import Mapping
from pathlib import Path

import jinja2
from torch import nn

from macattr.atomic_files import write_atomically
from macattr.ranking.importance import LayerImportance
from macattr.report.content import Report, collect
from macattr.report.words import format_number, format_percent


def write_report(
    rankings: LayerImportance | Mapping[str, LayerImportance],
    path: Path | str,
    *,
    fraction: float = 0.1,
    model: nn.Module | None = None,
    files: Mapping[str, Path | str] | None = None,
    seed: int = 0,
) -> None:
    """Write one self-contained HTML page: the answer, how sure it is, exports, and how it was measured.

    It needs no network and no other file. Layers that hold no parameter are left out: they cannot be trained.

    Args:
        rankings: One, or several of the same layers by their names; the page opens with the first.
        path: The file.
        fraction: Share of the layers, in (0, 1], that is chosen when it opens (at least one layer).
        model: The network, for exact totals and tied parameters; None: what the ranking tells of its layers.
        files: Where the rankings are kept, by their names, for the command that selects from them.
        seed: Seed of the resamples behind intervals and probabilities.

    Raises:
        ValueError: If the rankings are of different layers, none of these holds a parameter, or ``path`` is a folder.

    Example:
        >>> write_report(LayerImportance.load("importance.nc"), "report.html")  # doctest: +SKIP
    """
    if Path(path).is_dir():
        raise ValueError(f"`path` {str(path)!r} is a folder: name a file in it, such as {Path(path) / 'report.html'}.")
    if isinstance(rankings, LayerImportance):
        rankings = {str(rankings.dataset.attrs["method"]): rankings}
    content = collect(rankings, fraction, model, files or {}, seed)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    page = _render(content).encode()
    write_atomically(Path(path), lambda file: file.write(page))


def _render(report: Report) -> str:
    """The page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("macattr.report"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"number": format_number, "percent": format_percent}
    return environment.get_template("report.html.j2").render(report=report, data=_data(report))


def _data(report: Report) -> dict[str, object]:
    """What the page's script reads."""
    rankings = [
        {
            "choices": [vars(choice) for choice in ranked.choices],
            "exports": [vars(export) for export in ranked.exports],
            "pieces": ranked.pieces,
            "tops": ranked.tops,
        }
        for ranked in report.rankings
    ]
    agreement = report.agreement
    return {
        "k": report.k,
        "rankings": rankings,
        "shared": {} if agreement is None else agreement.shared,
        "common": [] if agreement is None else agreement.common,
    }
