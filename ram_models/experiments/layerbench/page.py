"""The page ``docs/layerbench.md`` and its figure: which method should choose the layers, from the tables alone."""

__all__ = ["Page", "draw", "write_page"]

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from macattr.atomic_files import write_text
from ram_models.evaluation.tables import between, grid
from ram_models.experiments.layerbench.controls import ADAPTERS, ALL, DRAWS, RANDOM
from ram_models.experiments.layerbench.ledger import BLOCK, Ledger
from ram_models.experiments.layerbench.methods import METHODS
from ram_models.experiments.layerbench.networks import NETWORKS, PROBLEMS
from ram_models.experiments.layerbench.photographs import JUDGED, RANKED
from ram_models.experiments.layerbench.rates import CLASSES
from ram_models.experiments.layerbench.shifts import SHIFTS
from ram_models.experiments.layerbench.standings import (
    WINNER,
    Asked,
    best_rates,
    cells,
    check_contrasts,
    coincidences,
    left_out,
    misfits,
    problems,
    read_asked,
    standings,
)
from ram_models.experiments.layerbench.texts import JUDGED as JUDGED_TEXTS
from ram_models.experiments.layerbench.texts import TASKS
from ram_models.experiments.layerbench.training import LENGTH
from ram_models.experiments.templates import render
from ram_models.experiments.verdicts.statistics import DECISIVE

FILE, FIGURE = "layerbench.md", "layerbench.png"

WORDS = {name: shift.words for name, shift in SHIFTS.items()} | {name: task.words for name, task in TASKS.items()}
"""What every shift does to photographs, or asks of texts."""


def write_page(results: Path, docs: Path) -> list[Path]:
    """Write the page and its figure, and the tables of standings and contrasts beside the runs; the files written.

    Args:
        results: Folder of the tables.
        docs: Where the page goes; the figure into images/.
    """
    mpl.use("Agg")
    page = Page(results)
    written = [docs / FILE]
    if len(page.cells):
        (docs / "images").mkdir(parents=True, exist_ok=True)
        draw(page.cells, page.standings).savefig(docs / "images" / FIGURE, dpi=110)
        written.append(docs / "images" / FIGURE)
    tables = {"standings": page.standings, "contrasts": page.contrasts, "standings-texts": page.text_standings}
    for name, table in tables.items():
        if len(table):
            table.to_csv(results / f"{name}.csv", index=False, float_format="%.12g", lineterminator="\n")
            written.append(results / f"{name}.csv")
    text = render(Path(__file__).with_name("layerbench.md.j2"), page)
    docs.mkdir(parents=True, exist_ok=True)
    write_text(docs / FILE, text)
    return written


@dataclass(frozen=True)
class Page:
    """What the template asks for.

    Args:
        results: Folder of the tables.
    """

    results: Path

    steps, draws, ranked, judged = LENGTH, DRAWS, RANKED, JUDGED
    text_batch, text_judged = NETWORKS["minilm"].batch, JUDGED_TEXTS

    @cached_property
    def asked(self) -> Asked:
        """The contrasts as they were registered."""
        return read_asked()

    @cached_property
    def all_cells(self) -> pd.DataFrame:
        """What every method gained, on photographs and texts."""
        return cells(Ledger(self.results), self.asked)

    @cached_property
    def cells(self) -> pd.DataFrame:
        """What every method gained on photographs, which the contrasts were registered for."""
        return self.all_cells[~self.all_cells["shift"].isin(TASKS)].reset_index(drop=True)

    @cached_property
    def text_cells(self) -> pd.DataFrame:
        """What every method gained on texts."""
        return self.all_cells[self.all_cells["shift"].isin(TASKS)].reset_index(drop=True)

    @cached_property
    def standings(self) -> pd.DataFrame:
        """How every method did on photographs."""
        return standings(self.cells) if len(self.cells) else pd.DataFrame()

    @cached_property
    def text_standings(self) -> pd.DataFrame:
        """How every method did on texts."""
        return standings(self.text_cells) if len(self.text_cells) else pd.DataFrame()

    @cached_property
    def contrasts(self) -> pd.DataFrame:
        """What was asked beforehand."""
        return check_contrasts(self.cells, self.asked) if len(self.cells) else pd.DataFrame()

    @property
    def blocks(self) -> int:
        """Number of complete blocks that count."""
        return len(self.cells[list(BLOCK)].drop_duplicates())

    @property
    def runs(self) -> int:
        """Number of finished runs, those of incomplete blocks too."""
        return len(Ledger(self.results).table("runs"))

    @property
    def hours(self) -> float:
        """Processor time of everything, in hours."""
        ledger = Ledger(self.results)
        choices = ledger.table("choices").drop_duplicates(["network", "shift", "seed", "method", "draw"])
        training = ledger.table("runs")["seconds"]
        # A tuning run takes as long as a run of the same network; its own time is not kept.
        mean = ledger.table("runs").groupby("network")["seconds"].mean()
        tuning = ledger.table("rates")["network"].map(mean).dropna()
        return float((training.sum() + choices["seconds"].sum() + tuning.sum()) / 3600)

    @property
    def seeds(self) -> str:
        """Numbers of seeds that problems have, in words."""
        counts = self.cells.groupby(["network", "shift"])["seed"].nunique()
        return " to ".join(dict.fromkeys(str(count) for count in (counts.min(), counts.max())))

    @property
    def asked_problems(self) -> int:
        """Number of problems with a complete block."""
        return len(self.cells[["network", "shift"]].drop_duplicates())

    @property
    def missing(self) -> list[str]:
        """Problems without a complete block."""
        there = {*zip(self.all_cells["network"], self.all_cells["shift"], strict=True), *self._small.index}
        return [f"{network} {shift}" for network, shift in PROBLEMS if (network, shift) not in there]

    @property
    def small(self) -> list[str]:
        """Problems that all layers hardly gain in, with their gain."""
        return [f"{network} {shift} ({gain:.2f} dB)" for (network, shift), gain in self._small.items()]

    @cached_property
    def _small(self) -> pd.Series:
        """Gain of all layers in these problems, in dB."""
        return left_out(Ledger(self.results), self.asked)

    @property
    def is_decisive(self) -> bool:
        """Whether enough problems were measured for any verdict."""
        return self.asked_problems >= DECISIVE

    @property
    def has_adapters(self) -> bool:
        """Whether low-rank adapters were measured."""
        return ADAPTERS in set(self.standings["method"])

    def methods(self) -> str:
        """The table of methods."""
        table, budgets = self.standings, [_budget(budget) for budget in self.asked.budgets]
        header = ["method", "captured", "95 % over problems", "worst", *(f"at {budget}" for budget in budgets)]
        header += ["rank", "wins", "regret", "parameters, %", "cost"]
        rows = []
        for _, row in table.iterrows():
            cells = [_points(row["captured"]), _interval(row["low"], row["high"]), _points(row["worst"])]
            cells += [_points(row.get(budget)) for budget in budgets]
            cells += [_number(row["rank"]), _points(row["wins"]), _points(row["regret"])]
            cells += [f"{100 * row['share']:.1f}", _cost(row["seconds"])]
            asked = "" if row["problems"] == table["problems"].max() else f" ({row['problems']} problems)"
            rows.append((_title(row["method"]) + asked, cells))
        return grid(header, rows)

    def text_methods(self) -> str:
        """The table of methods on texts."""
        budgets = [_budget(budget) for budget in self.asked.budgets]
        tasks = list(dict.fromkeys(self.text_cells["shift"]))
        by_task = self.text_cells.groupby(["method", "shift", "budget"])["captured"].mean()
        by_task = by_task.groupby(level=["method", "shift"]).mean()
        rows = []
        for _, row in self.text_standings.iterrows():
            cells = [_points(row["captured"]), *(_points(by_task.get((row["method"], task))) for task in tasks)]
            cells += [_points(row.get(budget)) for budget in budgets]
            cells += [_number(row["rank"]), f"{100 * row['share']:.1f}", _cost(row["seconds"])]
            rows.append((_title(row["method"]), cells))
        header = ["method", "captured", *tasks, *(f"at {budget}" for budget in budgets)]
        return grid([*header, "rank", "parameters, %", "cost"], rows)

    def text_gains(self) -> str:
        """Gains of all layers on texts, in words."""
        table = problems(self.text_cells).drop_duplicates("shift")
        seeds = table["seeds"].max()
        gains = " and ".join(f"{row['gain_db']:.2f} dB (`{row['shift']}`)" for _, row in table.iterrows())
        return f"{gains}, {seeds} seed{'s' if seeds > 1 else ''}"

    def tasks(self) -> str:
        """The table of problems and budgets."""
        rows = []
        for _, row in problems(self.cells).iterrows():
            spread = [_points(row[name]) for name in ("best", "middle", "worst", "mac", "random")]
            cells = [row["shift"], _budget(row["budget"]), f"{row['gain_db']:.2f}", f"{row['sets']:.0f}", *spread]
            rows.append((row["network"], cells))
        header = ["network", "shift", "budget", "gain of all layers, dB", "sets"]
        return grid([*header, "best ranking", "median", "worst", "mac", "random"], rows)

    def agreement(self) -> str:
        """How often rankings choose the same layers."""
        rows = [
            (
                _budget(row["budget"]),
                [f"{row['sets']:.1f} of {row['methods']:.0f}", *map(_percent, (row["one"], row["as_mac"]))],
            )
            for _, row in coincidences(self.cells).iterrows()
        ]
        return grid(["budget", "distinct sets in a cell", "cells with one set", "others that choose MAC's"], rows)

    def verdicts(self) -> str:
        """What was asked beforehand, and what the problems say."""
        rows = []
        for _, row in self.contrasts.iterrows():
            if pd.isna(row["mean"]):
                rows.append((row["text"], ["-", "-", "-", "-", "-", f"**{row['verdict']}**"]))
                continue
            intervals = [
                _interval(row["low"], row["high"], "+"),
                _interval(row["low_networks"], row["high_networks"], "+"),
            ]
            p = "-" if pd.isna(row["p_holm"]) else "<\u00a00.001" if row["p_holm"] < 5e-4 else f"{row['p_holm']:.3f}"
            cells = [f"{100 * row['mean']:+.0f}", *intervals, f"{row['problems']:.0f}", p, f"**{row['verdict']}**"]
            rows.append((row["text"], cells))
        return grid(
            ["claim", "difference, points", "95 % over problems", "over networks", "problems", "p (Holm)", "verdict"],
            rows,
        )

    def rates(self) -> str:
        """The learning rates that were chosen, by class."""
        wide = best_rates(Ledger(self.results)).pivot_table("lr", ["network", "shift"], "kind", sort=False)
        wide = wide[[kind for kind in CLASSES if kind in wide]]
        rows = [
            (str(network), [str(shift), *("-" if pd.isna(lr) else f"{lr:g}" for lr in row)])
            for (network, shift), row in zip(wide.index, wide.to_numpy(), strict=True)
        ]
        return grid(["network", "shift", *(str(kind) for kind in wide)], rows)

    def misfits(self) -> str:
        """How well the rates of classes fit their sets, where that was measured, in words."""
        lines = []
        for _, row in misfits(Ledger(self.results)).iterrows():
            better, problem = _percent(row["better"]), f"`{row['network']}` `{row['shift']}`"
            gave = f"that of the class gave {row['median']:+.1f} dB in the median, {row['worst']:+.1f} dB at worst"
            lines.append(f"- {problem}, {row['sets']} sets: {better} were better at the second rate; {gave}.")
        return "\n".join(lines)

    def networks(self) -> str:
        """The networks in words."""
        used = self.all_cells["network"].unique()
        return "\n".join(f"- `{name}`: {NETWORKS[name].words}." for name in NETWORKS if name in used)

    def shifts(self) -> str:
        """The shifts in words."""
        used = self.all_cells["shift"].unique()
        return "\n".join(f"- `{name}`: {words}." for name, words in WORDS.items() if name in used)

    def row(self, method: str) -> pd.Series:
        """The standing of a method."""
        return self.standings.set_index("method").loc[method]

    @property
    def best(self) -> str:
        """The ranking that captures most, of those that every problem could be asked."""
        table = self.standings
        complete = table[table["problems"] == table["problems"].max()]
        return str(next(name for name in complete["method"] if name in METHODS and not METHODS[name].control))

    def captured(self, method: str) -> str:
        """The captured gain of a method in words."""
        row = self.row(method)
        between = f" ({_interval(row['low'], row['high'])})" if np.isfinite(row["low"]) else ""
        return f"{_percent(row['captured'])}{between}"

    def indifference(self) -> str:
        """How often the worst ranking is as good as the best, by budget, in words."""
        table = problems(self.cells)
        near = (table["best"] - table["worst"] <= self.asked.margin).groupby(table["budget"]).agg(["sum", "count"])
        parts = [f"{row['sum']} of {row['count']} problems at {_percent(budget)}" for budget, row in near.iterrows()]
        points = f"{100 * self.asked.margin:.0f} points"
        return f"The worst ranking is within {points} of the best in {', '.join(parts)} of the parameters."

    def in_short(self) -> str:
        """What the contrasts say to somebody who must choose, in words."""
        table = self.contrasts.set_index(["a", "b"])
        adapters, ranking = table.loc[("mac", ADAPTERS)], table.loc[(WINNER, RANDOM)]
        lines = []
        if adapters["verdict"] == "falsified":
            shares = [f"{100 * self.row(method)['share']:.1f}\u00a0%" for method in (ADAPTERS, "mac")]
            lines.append(
                f"Within the same budget, adapters on all layers ({shares[0]} of the parameters on average) gain more "
                f"than the layers that MAC chooses ({shares[1]}, which leave more of it unused)."
            )
        told = "is" if ranking["verdict"] == "holds" else "is not"
        lines.append(f"That a ranking is better than random layers {told} shown")
        if np.isfinite(ranking["mean"]):
            ends = _interval(ranking["low"], ranking["high"], "+")
            lines[-1] += (
                f": the ranking that wins on the other networks differs from random layers by "
                f"{100 * ranking['mean']:+.0f} points ({ends}); to hold, the whole interval would have to lie above "
                f"{100 * self.asked.margin:.0f} points"
            )
        return f"{' '.join(lines)}."

    def by_budget(self) -> str:
        """Captured gains of MAC, random layers and the best ranking by budget, in words."""
        parts = []
        for budget in self.asked.budgets:
            mac, random, best = (_points(self.row(name)[_budget(budget)]) for name in ("mac", RANDOM, self.best))
            parts.append(f"{mac}, {random} and {best} at {_percent(budget)}")
        return f"{'; '.join(parts)} of the parameters"


def _title(method: str) -> str:
    """A method as it is written in the table."""
    return f"`{method}`" if method in METHODS and not METHODS[method].control else method


def _budget(share: float) -> str:
    """A budget in words, as columns of standings are named."""
    return f"{100 * share:.0f} %"


def _points(value: float | None) -> str:
    """A share in hundredths; a dash if there is none."""
    return "-" if value is None or not np.isfinite(value) else f"{100 * value:.0f}"


def _percent(value: float | None) -> str:
    """A share in words; a dash if there is none."""
    return f"{number}\u00a0%" if (number := _points(value)) != "-" else number


def _number(value: float) -> str:
    """A rank; a dash if there is none."""
    return "-" if pd.isna(value) else f"{value:.1f}"


def _interval(low: float, high: float, sign: str = "") -> str:
    """An interval in hundredths; a dash if it has no ends."""
    return between(100 * low, 100 * high, f"{sign}.0f")


def _cost(seconds: float) -> str:
    """Time of choosing over that of training all layers."""
    return "-" if pd.isna(seconds) else f"{seconds:.1f}" if seconds >= 0.05 else "0"


def draw(table: pd.DataFrame, ranked: pd.DataFrame) -> Figure:
    """Captured gain of every method: a dot a problem, a bar the mean.

    Args:
        table: Of :func:`ram_models.experiments.layerbench.standings.cells`.
        ranked: Of :func:`ram_models.experiments.layerbench.standings.standings`.
    """
    shown = ranked[ranked["method"] != ALL].iloc[::-1]["method"].tolist()
    means = table.groupby(["method", "network", "shift"], sort=False)["captured"].mean()
    networks = list(dict.fromkeys(table["network"]))
    colours = dict(zip(networks, sns.color_palette("colorblind", len(networks)), strict=True))
    figure = Figure(figsize=(8.5, 1.6 + 0.27 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(1, color="0.5", linestyle=":", linewidth=1)
    for place, method in enumerate(shown):
        part = means[method]
        axes.scatter(part, [place] * len(part), color=[colours[name] for name, _ in part.index], s=22, alpha=0.75)
        axes.plot(part.mean(), place, "|", color="black", markersize=14, markeredgewidth=2)
    for network, colour in colours.items():
        axes.scatter([], [], color=colour, s=22, label=network)
    axes.set_yticks(range(len(shown)), shown, fontsize=9)
    axes.set(
        xlabel="captured gain: 0 before fine-tuning, 1 after fine-tuning of all layers", ylim=(-0.6, len(shown) - 0.4)
    )
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=min(4, len(networks)))
    figure.suptitle("dot: a problem (network and shift), mean over budgets and seeds; bar: mean", fontsize=10)
    sns.despine(ax=axes, left=True)
    return figure
