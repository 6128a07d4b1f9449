"""Results of test sets in the layouts of the paper's tables, beside its own numbers."""

__all__ = ["TABLES", "Column", "Table", "beside_paper", "by_setting", "markdown", "mean_of", "paper_rows", "summarise"]

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from ram_models.evaluation.protocols import PAPER, SIGMAS


@dataclass(frozen=True)
class Column:
    """A column of a table: the mean of what it is made of.

    Args:
        label: Heading, as in the paper.
        of: Names of settings, or other columns.
    """

    label: str
    of: tuple["str | Column", ...]

    def settings(self) -> Iterator[str]:
        """Names of all settings below it."""
        for part in self.of:
            yield from (part,) if isinstance(part, str) else part.settings()


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Args:
        title: Heading.
        columns: What it shows.
        ssim: Whether SSIM stands beside PSNR.
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


def paper_rows(name: str, folder: Path) -> pd.DataFrame:
    """The paper's numbers of one table: ``method``, ``column``, ``psnr_db`` and, where it has them, ``ssim``.

    Args:
        name: Name in :data:`TABLES`.
        folder: Folder of CSV files.

    Raises:
        ValueError: If there is no such file, or it has not the columns of that table.
    """
    file = folder / f"{name}.csv"
    if not file.is_file():
        raise ValueError(f"there is no file {str(file)!r}: `paper` must be the folder of the paper's tables as CSV.")
    try:
        table = pd.read_csv(file)
        if name == "table6_ood_tradeoff":
            share = table["finetuned_fraction"].map(lambda value: "" if pd.isna(value) else f" {value:.0%}")
            wide = table.assign(method=table["method"] + share).rename(columns=_TABLE6)
            return wide.melt("method", list(_TABLE6.values()), "column", "psnr_db")
        column = table["dataset"] + (" " + table["sigma"] if "sigma" in table else "")
        return table.assign(column=column)[["method", "column", *table.columns.intersection(["psnr_db", "ssim"])]]
    except (KeyError, TypeError, pd.errors.ParserError) as error:
        raise ValueError(f"{str(file)!r} is no table of the expected columns: {error}.") from error


def mean_of(column: Column, values: Mapping[str, float]) -> float | None:
    """Value of a column, given those of the settings; None unless all of them are there."""
    parts = [values.get(part) if isinstance(part, str) else mean_of(part, values) for part in column.of]
    known = [part for part in parts if part is not None]
    return sum(known) / len(known) if len(known) == len(parts) else None


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Per method and setting, in the order of the rows: number of images, mean and spread over them.

    Args:
        rows: One row an image: ``method``, ``setting``, ``task``, ``psnr_db``, ``ssim``.

    Returns:
        ``method, setting, task, images, psnr_db, psnr_std, ssim, ssim_std`` (sample standard deviations).
    """
    return (
        rows.groupby(["method", "setting", "task"], sort=False)
        .agg(
            images=("psnr_db", "size"),
            psnr_db=("psnr_db", "mean"),
            psnr_std=("psnr_db", "std"),
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
        ``table, source, method, column, psnr_db, ssim, images, complete``: source is "paper" or "measured"; images is
        the number of tested images and complete that of the whole sets. Columns that lack a set have no row.
    """
    parts = [] if paper is None else [paper_rows(name, paper).assign(source="paper")]
    parts += [_measured(TABLES[name], method, of) for method, of in summary.groupby("method", sort=False)]
    columns = ["table", "source", "method", "column", "psnr_db", "ssim", "images", "complete"]
    parts = [part for part in parts if len(part)] or [pd.DataFrame(columns=columns)]
    return pd.concat(parts, ignore_index=True).assign(table=name).reindex(columns=columns)


def _measured(table: Table, method: str, summary: pd.DataFrame) -> pd.DataFrame:
    """Our rows of one method."""
    psnr, ssim, images = (
        dict(zip(summary["setting"], summary[of], strict=True)) for of in ("psnr_db", "ssim", "images")
    )
    complete = {setting.name: setting.complete or 0 for setting in PAPER}
    rows = [
        {
            "source": "measured",
            "method": method,
            "column": column.label,
            "psnr_db": mean_of(column, psnr),
            "ssim": mean_of(column, ssim),
            "images": sum(images.get(name, 0) for name in column.settings()),
            "complete": sum(complete[name] for name in column.settings()),
        }
        for column in table.columns
    ]
    return pd.DataFrame([row for row in rows if row["psnr_db"] is not None])


def markdown(long: pd.DataFrame) -> str:
    """A table of :func:`beside_paper` in the paper's layout.

    Where a measured method has the name of one of the paper's, the difference to it follows; where less than the whole
    sets was tested, the last row says how many images.
    """
    table = TABLES[long["table"].iloc[0]]
    cells = {key: of.set_index("column") for key, of in long.groupby(["source", "method"], sort=False)}
    rows = [
        (f"{method} ({source})", [_cell(of, column.label, table.ssim) for column in table.columns])
        for (source, method), of in cells.items()
    ]
    for (source, method), of in cells.items():
        if source == "measured" and ("paper", method) in cells:
            difference = of[["psnr_db", "ssim"]] - cells["paper", method].reindex(columns=["psnr_db", "ssim"])
            rows.append(
                (f"{method}: ours - paper", [_cell(difference, c.label, table.ssim, "+") for c in table.columns])
            )
        if source == "measured" and (of["images"] < of["complete"]).any():
            rows.append((f"{method}: images", [_count(of, column.label) for column in table.columns]))
    quantity = "PSNR in dB / SSIM" if table.ssim else "PSNR in dB"
    return f"### {table.title}, {quantity}\n\n{grid(['method', *(c.label for c in table.columns)], rows)}"


def grid(header: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A Markdown table, its first column to the left and the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *([first, *others] for first, others in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cell(rows: pd.DataFrame, column: str, ssim: bool, sign: str = "") -> str:
    """PSNR, and SSIM behind a slash; a dash if there is no number."""
    if column not in rows.index or pd.isna(rows.loc[column, "psnr_db"]):
        return "-"
    psnr = f"{rows.loc[column, 'psnr_db']:{sign}.2f}"
    return f"{psnr}/{rows.loc[column, 'ssim']:{sign}.4f}" if ssim else psnr


def _count(rows: pd.DataFrame, column: str) -> str:
    """How much of the sets was tested."""
    return f"{rows.loc[column, 'images']:.0f} of {rows.loc[column, 'complete']:.0f}" if column in rows.index else "-"


def by_setting(summary: pd.DataFrame) -> str:
    """Markdown of all settings, one a row, with all methods side by side: mean ± standard deviation over the images."""
    methods = list(summary["method"].unique())
    rows = []
    for (setting, task), of in summary.groupby(["setting", "task"], sort=False):
        cells = of.set_index("method")
        rows.append((setting, [task, f"{of['images'].max()}", *(_spread(cells, method) for method in methods)]))
    return grid(["setting", "task", "images", *methods], rows)


def _spread(cells: pd.DataFrame, method: str) -> str:
    """Both quantities of one method with their spread."""
    if method not in cells.index:
        return "-"
    psnr, psnr_std, ssim, ssim_std = cells.loc[method, ["psnr_db", "psnr_std", "ssim", "ssim_std"]]
    spread = (f" ± {psnr_std:.2f}", f" ± {ssim_std:.4f}") if pd.notna(psnr_std) else ("", "")
    return f"{psnr:.2f}{spread[0]} / {ssim:.4f}{spread[1]}"
