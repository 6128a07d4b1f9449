"""Figures of the experiments, drawn from the tables in ``results`` alone."""

__all__ = ["FIGURES", "draw"]

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from macattr.plots import plot_heatmap
from ram_models.experiments.study.runs import AGAIN, FULL, LONGER, LONGER_MAC, WHOLE
from ram_models.experiments.study.store import UNTUNED, Store
from ram_models.experiments.table6 import RATIOS
from ram_models.experiments.variants import STORE
from ram_models.experiments.verdicts.claims import ID, NOISE, by_network

VIEWS = ("input", "whole", "twins")
LABELS = {"input": "degraded input", "whole": "answer to the whole input", "twins": "answer with twin masks"}
COLOURS = dict(zip((*VIEWS, "clean"), ("0.6", "#d55e00", "#0072b2", "0.15"), strict=True))
SHOWN = ("noise", "lowlight", "blur")
"""Tasks whose colours are drawn, if they are tested."""
STAGES = {
    "fine-tuned": ("10 % by MAC fine-tuned", "0.15"),
    "twins": ("before, twin masks", COLOURS["twins"]),
    "whole": ("before, whole input", COLOURS["whole"]),
}
"""Labels and colours of a network before and after fine-tuning."""


def _points(results: Path) -> pd.DataFrame:
    """Every scored network, a row each."""
    return by_network(Store(results).scores()).reset_index()


def integrity_gap(results: Path) -> Figure:
    """PSNR and colours of whole input and twin masks, by task; Fig. 4."""
    points = _points(results)
    views = points[(points["seed"] == UNTUNED) & points["arm"].isin(VIEWS)]
    tasks = [name for name in pd.read_csv(results / "fig4.csv")["task"].unique()]
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(1.1, 1))
    above, below = (figure.add_subfigure(grid[part]) for part in (0, 1))
    axes = above.subplots()
    places = np.arange(len(tasks) + 1)
    for number, view in enumerate(VIEWS):
        of = views[views["arm"] == view]
        heights = of[[*tasks, ID]].mean()
        offset = (number - 1) * 0.27
        axes.bar(places + offset, heights, 0.25, color=COLOURS[view], label=LABELS[view])
        if view != "input":
            for _, network in of.iterrows():
                axes.plot(places + offset, network[[*tasks, ID]], ".", color="black", markersize=4)
    axes.set_xticks(places, [*(task.replace("_", " ") for task in tasks), "mean"])
    axes.set(ylabel="PSNR, dB", title="before fine-tuning (dots: pre-training seeds)")
    axes.legend(frameon=False, ncols=3, loc="upper center", fontsize=9)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.15)
    sns.despine(ax=axes)
    colours = pd.read_csv(results / "fig4-colours.csv").groupby(["task", "view", "level"], sort=False)["share"].mean()
    shown = [task for task in SHOWN if task in tasks]
    for panel, task in zip(below.subplots(1, len(shown), sharey=True, squeeze=False)[0], shown, strict=True):
        for view in (*VIEWS, "clean"):
            of = colours.loc[task, view]
            label = LABELS.get(view, "clean image")
            panel.plot(of.index, of, color=COLOURS[view], label=label, linewidth=2.2 if view == "clean" else 1.5)
        panel.set(title=task, xlabel="value of a channel")
        sns.despine(ax=panel)
    below.axes[0].set_ylabel("share of the pixels")
    below.axes[-1].legend(frameon=False, fontsize=8)
    return figure


def heat_map(results: Path, method: str) -> Figure:
    """Layer importance by one method, mean over pre-trainings; Fig. 14."""
    table = pd.read_csv(results / "fig14.csv", keep_default_na=False)
    of = table[table["method"] == method]
    score = of.groupby("layer", sort=False)["score"].agg(lambda values: np.exp(np.log(values).mean()))
    first = of.drop_duplicates("layer").drop(columns="score").merge(score.reset_index(), on="layer")
    networks = of["pretrained"].nunique()
    return plot_heatmap(first, f"layer importance by {method}, {networks} pre-trainings (geometric mean)", method)


def arms(results: Path) -> Figure:
    """Quality in distribution of every arm, block by block; Table 5."""
    points, table = _points(results), pd.read_csv(results / "table5.csv")
    table = table[table[ID].notna()].drop_duplicates("run_as")
    table = table[~table["arm"].isin(["whole", "input"])].sort_values(ID, ignore_index=True)
    figure = Figure(figsize=(8.5, 1.6 + 0.36 * len(table)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(table.itertuples()):
        of = points[(points["arm"] == row.run_as) & points["progress"].isin([0.0, 1.0])]
        floor = (of["seed"] == UNTUNED).all() or row.arm in ("ends", FULL)
        axes.plot(of[ID], np.full(len(of), place), "o", color="0.65" if floor else "#0072b2", markersize=5, alpha=0.6)
        axes.plot(of[ID].mean(), place, "|", color="black", markersize=16, markeredgewidth=2)
    names = [_label(row.arm, row.parameters) for row in table.itertuples()]
    axes.set_yticks(range(len(table)), names, fontsize=9)
    axes.set(xlabel="PSNR in distribution, dB (mean over seven tasks)", ylim=(-0.6, len(table) - 0.4))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    axes.set_title("what is fine-tuned: one dot a block, bar: mean; grey: floors and ceilings")
    sns.despine(ax=axes, left=True)
    return figure


def _label(arm: str, parameters: float) -> str:
    """An arm with the number of parameters that it trains."""
    known = {"colours": "none; one map of colours", "twins": "none; twin masks", FULL: "all layers"}
    return f"{known.get(arm, arm)}  ({parameters / 1000:,.0f} k)" if parameters == parameters else known.get(arm, arm)


def trade_off(results: Path) -> Figure:
    """Quality on unseen noise against quality in distribution; Table 6."""
    points = _points(results)
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    for axes, column in zip(figure.subplots(1, 2), (NOISE, "pepper"), strict=True):
        _draw_trade_off(axes, points, column)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _draw_trade_off(axes: Axes, points: pd.DataFrame, column: str) -> None:
    """Means over blocks with their standard errors; the way of full fine-tuning, and the straight one, as lines."""
    ends = points[(points["progress"] == 1.0) & (points["seed"] != UNTUNED)]
    start = points[(points["arm"] == "whole")][[ID, column]].mean()
    for full, colour, steps in zip(WHOLE, ("0.65", "0.35"), ("", " for 4 times the steps"), strict=True):
        last = ends[ends["arm"] == full][[ID, column]].mean()
        for way, style in ((full, "-"), (f"{full}, interpolated", "--")):
            of = points[(points["arm"] == way)].groupby("progress")[[ID, column]].mean()
            line = np.vstack([start.to_numpy(), of.to_numpy(), *([] if way == full else [last.to_numpy()])])
            label = f"full fine-tuning{steps}, {'on its way' if way == full else 'drawn back'}"
            axes.plot(line[:, 0], line[:, 1], style, color=colour, label=label, zorder=1)
    names = {arm: arm.replace("MAC 20", "20").replace("MAC 50", "50") for arm in ("ends", *RATIOS)}
    names |= {"random": "random 10 %", "MAC": "MAC 10 %", FULL: "100 %"}
    colours = dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True))
    for arm, marker in (*dict.fromkeys(names, "o").items(), (LONGER_MAC, "s"), (LONGER, "s")):
        of = ends[ends["arm"] == arm][[ID, column]]
        if len(of):
            (x, y), errors, trained_as = of.mean(), of.sem().fillna(0.0), AGAIN.get(arm, arm)
            label = names[trained_as] + (", 4 times the steps" if arm in AGAIN else "")
            bars = {"yerr": errors[column], "xerr": errors[ID], "color": colours[trained_as]}
            axes.errorbar(x, y, fmt=marker, label=label, zorder=2, **bars)
    degraded = points[points["arm"] == "input"][column].mean()
    axes.axhline(degraded, color="0.4", linestyle=":", linewidth=1, label="degraded input")
    low = ends[ID].min()
    axes.set(xlabel="PSNR in distribution, dB", ylabel=f"PSNR on {column}, dB", title=column)
    axes.set_xlim(low - 1.5, ends[ID].max() + 0.4)
    heights = [*ends.loc[ends["arm"].isin([*names, *AGAIN]), column], degraded]
    axes.set_ylim(min(heights) - 0.6, max(heights) + 0.6)
    sns.despine(ax=axes)


def variants(results: Path, name: str) -> Figure:
    """Quality in distribution of every variant of the pre-training, before and after fine-tuning; Tables 3, 4, Fig. 3.

    Args:
        results: Folder of the tables.
        name: Which of them.
    """
    made = pd.read_csv(results / f"{name}-pretrainings.csv")
    made["common"] = made.groupby("seed")["variant"].transform("nunique") == made["variant"].nunique()
    points = _points(results / STORE).merge(made[["pretrained", "variant", "common"]], on="pretrained")
    points["stage"] = points["arm"].where(points["seed"] == UNTUNED, "fine-tuned")
    shown = pd.read_csv(results / f"{name}.csv")["arm"]
    places = {variant: place for place, variant in enumerate(shown[shown != "input"])}
    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.axhline(points.loc[points["stage"] == "input", ID].mean(), color=COLOURS["input"], linestyle=":", zorder=0)
    for stage, (label, colour) in STAGES.items():
        of = points[points["stage"] == stage]
        axes.plot(of["variant"].map(places), of[ID], "o", color=colour, alpha=0.5, markersize=5, label=label)
        means = of[of["common"]].groupby("variant")[ID].mean()
        axes.plot(means.index.map(places), means, "_", color=colour, markersize=30, markeredgewidth=2)
    axes.set_xticks(list(places.values()), list(places))
    axes.set(ylabel="PSNR in distribution, dB", xlim=(-0.5, len(places) - 0.5))
    axes.set_title("dot: a pre-training; bar: mean of the seeds that all have; dotted: the degraded input", fontsize=10)
    figure.legend(frameon=False, fontsize=9, loc="outside right center")
    sns.despine(ax=axes)
    return figure


FIGURES: Mapping[str, tuple[str, Callable[[Path], Figure]]] = MappingProxyType(
    {
        "fig4": ("fig4.csv", integrity_gap),
        "fig14-mac": ("fig14.csv", lambda results: heat_map(results, "MAC")),
        "fig14-ig": ("fig14.csv", lambda results: heat_map(results, "IG")),
        "table5": ("table5.csv", arms),
        "table6": ("table6.csv", trade_off),
        "table4": ("table4.csv", lambda results: variants(results, "table4")),
        "table3": ("table3.csv", lambda results: variants(results, "table3")),
        "fig3": ("fig3.csv", lambda results: variants(results, "fig3")),
    }
)
"""Every figure by the name of its file, with the table that must be there."""


def draw(results: Path, folder: Path) -> list[Path]:
    """Draw every figure whose table is there, as ``reproduction-NAME.png``; the files written.

    Args:
        results: Folder of the tables.
        folder: Where the figures go.
    """
    written = []
    for name, (table, figure) in FIGURES.items():
        if (results / table).exists():
            written.append(folder / f"reproduction-{name}.png")
            figure(results).savefig(written[-1], dpi=110)
    return written
