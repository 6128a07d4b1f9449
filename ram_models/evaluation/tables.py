"""Results of test sets in the layouts of the paper's tables, next to its own numbers."""

__all__ = [
    "TABLES",
    "Column",
    "Table",
    "beside_paper",
    "between",
    "by_setting",
    "grid",
    "markdown",
    "paper_rows",
    "read_results",
    "summarise",
]

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from ram_models.evaluation.protocols import PAPER, SIGMAS
from ram_models.psnr_means import mean_of_means, mean_psnr


@dataclass(frozen=True)
class Column:
    """A column of a table: the mean of its parts.

    Args:
        label: Heading, as in the paper.
        parts: Names of settings, or other columns.
    """

    label: str
    parts: tuple["str | Column", ...]

    def settings(self) -> Iterator[str]:
        """Names of all settings below it."""
        for part in self.parts:
            yield from (part,) if isinstance(part, str) else part.settings()

    def mean(self, values: Mapping[str, float]) -> float | None:
        """Its value, given those of the settings; None if one is missing, or infinite among others."""
        parts = [values.get(part) if isinstance(part, str) else part.mean(values) for part in self.parts]
        present = [part for part in parts if part is not None and not math.isnan(part)]
        mean = mean_of_means(present) if len(present) == len(parts) else math.nan
        return None if math.isnan(mean) else mean


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Args:
        title: Heading.
        columns: Its columns.
        ssim: Whether SSIM is shown too.
    """

    title: str
    columns: tuple[Column, ...]
    ssim: bool = True


_RAIN = tuple(Column(name, (name,)) for name in ("Rain100L", "Rain100H", "Test100", "Test1200", "Test2800"))
_BSD68 = tuple(Column(f"BSD68 {sigma}", (f"BSD68 sigma={sigma}",)) for sigma in SIGMAS)
_URBAN100 = tuple(Column(f"Urban100 {sigma}", (f"Urban100 sigma={sigma}",)) for sigma in SIGMAS)
_SEVEN = (
    Column("SOTS", ("SOTS-outdoor",)),
    Column("Rain13k-Test", _RAIN),
    Column("BSD68", _BSD68),
    Column("GoPro", ("GoPro",)),
    Column("LOL", ("LOL",)),
    Column("LSDIR-Blur", ("LSDIR blur k=15 sigma=2",)),
    Column("LSDIR-Jpeg", ("LSDIR JPEG q=50",)),
)
_UNSEEN = tuple(Column(name, (f"BSD68 {name.lower()}",)) for name in ("Poisson", "Pepper", "Speckle"))

TABLES: Mapping[str, Table] = MappingProxyType(
    {
        "table1_seven_tasks": Table("Table 1: seven tasks", (*_SEVEN, Column("Average", _SEVEN))),
        "table2_gaussian_denoising": Table(
            "Table 2: Gaussian denoising",
            (*_BSD68, Column("BSD68 average", _BSD68), *_URBAN100, Column("Urban100 average", _URBAN100)),
            ssim=False,
        ),
        "table6_ood_tradeoff": Table(
            "Table 6: unseen noise",
            (*_UNSEEN, Column("Average", _UNSEEN), Column("In-distribution", (Column("Average", _SEVEN),))),
            ssim=False,
        ),
        "table7_rain13k": Table("Table 7: the five sets of Rain13k-Test", (*_RAIN, Column("Average", _RAIN))),
    }
)
"""Tables of the paper that tests alone fill, by the names of the CSV files with its numbers."""

_TABLE6 = {
    "poisson_psnr_db": "Poisson",
    "pepper_psnr_db": "Pepper",
    "speckle_psnr_db": "Speckle",
    "ood_average_psnr_db": "Average",
    "in_distribution_psnr_db": "In-distribution",
}


TEXT = ("method", "setting", "dataset", "task", "image", "sigma", "finetuned_fraction", "sha256")
"""Columns of names, which stay text even where they look like numbers ("1e3", "007") or missing values ("NA")."""


def read_results(file: Path) -> pd.DataFrame:
    """A CSV file of results or of the paper, with names as text; empty numbers are NaN.

    Raises:
        ValueError: If the file is not a table.
    """
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
        numbers = [name for name in table if name not in TEXT]
        return table.assign(**{name: pd.to_numeric(table[name].replace("", "nan")) for name in numbers})
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"{str(file)!r} cannot be read as a table of results: {error}.") from error


def paper_rows(name: str, folder: Path) -> pd.DataFrame:
    """The paper's numbers of one table: ``method``, ``column``, ``psnr_db`` and, where it has them, ``ssim``.

    Args:
        name: Name in :data:`TABLES`.
        folder: Folder of CSV files.

    Raises:
        ValueError: If there is no such file, or it lacks the columns of that table.
    """
    file = folder / f"{name}.csv"
    if not file.is_file():
        raise ValueError(f"there is no file {str(file)!r}: `paper` must be the folder of the paper's tables as CSV.")
    try:
        table = read_results(file)
        if name == "table6_ood_tradeoff":
            share = table["finetuned_fraction"].map(lambda text: f" {float(text):.0%}" if text else "")
            wide = table.assign(method=table["method"] + share).rename(columns=_TABLE6)
            return wide.melt("method", list(_TABLE6.values()), "column", "psnr_db")
        column = table["dataset"] + (" " + table["sigma"] if "sigma" in table else "")
        return table.assign(column=column)[["method", "column", *table.columns.intersection(["psnr_db", "ssim"])]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{str(file)!r} does not have the expected columns: {error}.") from error


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Per method and setting, in the order of the rows: number of images, mean and spread over them.

    Identical pairs have infinite PSNR. They are counted, and mean and spread of PSNR are those of the others; the mean
    is infinite only if there are no others.

    Args:
        rows: One row an image: ``method``, ``setting``, ``task``, ``psnr_db``, ``ssim``.

    Returns:
        ``method, setting, task, images, identical, psnr_db, psnr_std, ssim, ssim_std`` (sample standard deviations).
    """
    return (
        rows.groupby(["method", "setting", "task"], sort=False)
        .agg(
            images=("psnr_db", "size"),
            identical=("psnr_db", lambda values: mean_psnr(values.to_numpy()).identical),
            psnr_db=("psnr_db", lambda values: mean_psnr(values.to_numpy()).db),
            psnr_std=("psnr_db", lambda values: values[values < math.inf].std()),
            ssim=("ssim", "mean"),
            ssim_std=("ssim", "std"),
        )
        .reset_index()
    )


def beside_paper(name: str, summary: pd.DataFrame, paper: Path | None = None) -> pd.DataFrame:
    """One table of the paper in long form: its own rows, then ours.

    Args:
        name: Name in :data:`TABLES`.
        summary: See :func:`summarise`.
        paper: Folder of the paper's tables as CSV files; None to leave its rows out.

    Returns:
        ``table, source, method, column, psnr_db, ssim, images, identical, complete``: source is "paper" or "measured";
        images is the number of tested images, identical that of pairs left out of PSNR, and complete that of the whole
        sets. Columns that lack a set have no row.
    """
    parts = [] if paper is None else [paper_rows(name, paper).assign(source="paper")]
    parts += [_measured(TABLES[name], method, own) for method, own in summary.groupby("method", sort=False)]
    columns = ["table", "source", "method", "column", "psnr_db", "ssim", "images", "identical", "complete"]
    parts = [part for part in parts if len(part)] or [pd.DataFrame(columns=columns)]
    return pd.concat(parts, ignore_index=True).assign(table=name).reindex(columns=columns)


def _measured(table: Table, method: str, summary: pd.DataFrame) -> pd.DataFrame:
    """Our rows of one method."""
    psnr, ssim, images, identical = (
        dict(zip(summary["setting"], summary[name], strict=True)) for name in ("psnr_db", "ssim", "images", "identical")
    )
    complete = {setting.name: setting.complete or 0 for setting in PAPER}
    rows = [
        {
            "source": "measured",
            "method": method,
            "column": column.label,
            "psnr_db": column.mean(psnr),
            "ssim": column.mean(ssim),
            "images": sum(images.get(name, 0) for name in column.settings()),
            "identical": sum(identical.get(name, 0) for name in column.settings()),
            "complete": sum(complete[name] for name in column.settings()),
        }
        for column in table.columns
    ]
    return pd.DataFrame([row for row in rows if row["psnr_db"] is not None])


def markdown(long: pd.DataFrame) -> str:
    """A table of :func:`beside_paper` in the paper's layout.

    Where a measured method has the name of one of the paper's, the difference to it follows. Further rows state the
    number of images where less than the whole sets was tested, and that of identical pairs, which have no share in the
    mean PSNR.
    """
    table = TABLES[long["table"].iloc[0]]
    cells = {key: group.set_index("column") for key, group in long.groupby(["source", "method"], sort=False)}
    rows = [
        (f"{method} ({source})", [_cell(group, column.label, table.ssim) for column in table.columns])
        for (source, method), group in cells.items()
    ]
    for (source, method), group in cells.items():
        if source == "measured" and ("paper", method) in cells:
            difference = group[["psnr_db", "ssim"]] - cells["paper", method].reindex(columns=["psnr_db", "ssim"])
            rows.append(
                (f"{method}: ours - paper", [_cell(difference, c.label, table.ssim, "+") for c in table.columns])
            )
        if source == "measured" and (group["images"] < group["complete"]).any():
            rows.append((f"{method}: images", [_count(group, column.label) for column in table.columns]))
        if source == "measured" and (group["identical"] > 0).any():
            counts = [f"{group['identical'].get(column.label, 0):.0f}" for column in table.columns]
            rows.append((f"{method}: identical", counts))
    quantity = "PSNR in dB / SSIM" if table.ssim else "PSNR in dB"
    return f"### {table.title}, {quantity}\n\n{grid(['method', *(c.label for c in table.columns)], rows)}"


def grid(header: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A Markdown table, its first column to the left and the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *([first, *others] for first, others in rows)]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped) + "\n"


def between(low: float, high: float, form: str) -> str:
    """An interval in a cell of a table, where it stays on one line; a dash if it has no ends.

    Args:
        low: Lower end.
        high: Upper end.
        form: How each is written, such as ``+.2f``.

    Example:
        >>> between(-0.123, 1.0, "+.1f").split()
        ['-0.1', '…', '+1.0']
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return "-"
    return f"{low:{form}}\N{NO-BREAK SPACE}…\N{NO-BREAK SPACE}{high:{form}}"


def _cell(rows: pd.DataFrame, column: str, ssim: bool, sign: str = "") -> str:
    """PSNR, and SSIM behind a slash; a dash if there is no number."""
    if column not in rows.index or pd.isna(rows.loc[column, "psnr_db"]):
        return "-"
    psnr = f"{rows.loc[column, 'psnr_db']:{sign}.2f}"
    return f"{psnr}/{rows.loc[column, 'ssim']:{sign}.4f}" if ssim else psnr


def _count(rows: pd.DataFrame, column: str) -> str:
    """Number of tested images and that of the whole sets."""
    return f"{rows.loc[column, 'images']:.0f} of {rows.loc[column, 'complete']:.0f}" if column in rows.index else "-"


def by_setting(summary: pd.DataFrame) -> str:
    """Markdown of all settings, one a row, with all methods side by side: mean ± standard deviation over the images."""
    methods = list(summary["method"].unique())
    rows = []
    for (setting, task), group in summary.groupby(["setting", "task"], sort=False):
        cells = group.set_index("method")
        rows.append((setting, [task, f"{group['images'].max()}", *(_spread(cells, method) for method in methods)]))
    return grid(["setting", "task", "images", *methods], rows)


def _spread(cells: pd.DataFrame, method: str) -> str:
    """Both quantities of one method with their spread; the numbers of identical pairs, and of images if not of all."""
    if method not in cells.index:
        return "-"
    psnr, psnr_std, ssim, ssim_std = cells.loc[method, ["psnr_db", "psnr_std", "ssim", "ssim_std"]]
    spread = [f" ± {std:.{digits}f}" if pd.notna(std) else "" for std, digits in ((psnr_std, 2), (ssim_std, 4))]
    identical, images, most = cells.loc[method, "identical"], cells.loc[method, "images"], cells["images"].max()
    remarks = [f"{identical} identical"] if identical else []
    remarks += [f"{images} of {most} images"] if images < most else []
    remark = f" ({', '.join(remarks)})" if remarks else ""
    return f"{psnr:.2f}{spread[0]}{remark} / {ssim:.4f}{spread[1]}"
