"""Rankings as one self-contained HTML page: the layers to fine-tune, their certainty, and the measurement."""

__all__ = ["write_report"]

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import jinja2
from torch import nn

from macattr.atomic_files import write_atomically
from macattr.ranking.importance import LayerImportance
from macattr.report.content import RankingView, ReportContent, collect
from macattr.report.layers import Layer
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
    """Write one self-contained HTML page: the chosen layers, their certainty, exports, and the measurement.

    The page needs no internet and no other file. Layers without parameters are left out, because they cannot be
    trained.

    Args:
        rankings: One ranking, or several of the same layers by name; the page opens with the first.
        path: The page's file.
        fraction: Share of the layers, in (0, 1], that is chosen when the page opens (at least one layer).
        model: The network, for exact totals and tied parameters; None: totals are of the ranked layers.
        files: Files of the rankings, by name, for the command that selects from them.
        seed: Seed of the resamples behind intervals and probabilities.

    Raises:
        ValueError: If the rankings are of different layers, no layer holds a parameter, or ``path`` is a folder.

    Example:
        >>> write_report(LayerImportance.load("importance.nc"), "report.html")  # doctest: +SKIP
    """
    if Path(path).is_dir():
        raise ValueError(f"`path` {str(path)!r} is a folder: name a file in it, such as {Path(path) / 'report.html'}.")
    if isinstance(rankings, LayerImportance):
        rankings = {str(rankings.dataset.attrs["method"]): rankings}
    content = collect(rankings, fraction=fraction, model=model, files=files or {}, seed=seed)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    page = _render(content).encode()
    write_atomically(Path(path), lambda file: file.write(page))


def _render(report: ReportContent) -> str:
    """The page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("macattr.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": format_number, "percent": format_percent, "positions": _positions}
    return environment.get_template("report.html.j2").render(report=report, data=_data(report))


def _positions(names: Iterable[str]) -> list[tuple[str, int]]:
    """Names with their positions."""
    return [(name, place) for place, name in enumerate(names)]


def _data(report: ReportContent) -> dict[str, object]:
    """Data for the page's script."""
    agreement = report.agreement
    return {
        "k": report.k,
        "model": report.model,
        "rankings": [_ranking_data(ranking) for ranking in report.rankings],
        "shared": {} if agreement is None else agreement.shared,
        "common": [] if agreement is None else agreement.common,
    }


def _ranking_data(ranking: RankingView) -> dict[str, object]:
    """Data of one ranking."""
    return {
        "name": ranking.name,
        "choices": [vars(choice) for choice in ranking.choices],
        "exports": [vars(export) for export in ranking.exports],
        "pieces": ranking.pieces,
        "tops": ranking.tops,
        "degradations": None if ranking.degradations is None else vars(ranking.degradations),
        "layers": [_layer_data(layer) for layer in ranking.layers],
    }


def _layer_data(layer: Layer) -> list[str | int | float | None]:
    """Columns of a layer in the downloaded table after rank and name; infinite ends of intervals are left out."""
    ends = [end if math.isfinite(end) else None for end in layer.scores or ()]
    return [layer.type, layer.parameters, layer.score, *ends, *(layer.ranks or ())]
