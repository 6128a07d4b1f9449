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
from ram_models.experiments.paper_arms import ALL, ENDS, LONGER, LONGER_MAC, MAC, MAC_20, MAC_50, RANDOM, label_of
from ram_models.experiments.study.store import UNTUNED_SEED, Store
from ram_models.experiments.variants import STORE
from ram_models.experiments.verdicts.means import ID, NOISE, TRAINED_NOISE, by_network

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


def _untuned(results: Path) -> pd.DataFrame:
    """Every network before fine-tuning, a row each."""
    scores = Store(results).scores()
    return by_network(scores[scores["seed"] == UNTUNED_SEED]).reset_index()


def integrity_gap(results: Path) -> Figure:
    """PSNR and colours of whole input and twin masks, by task; Fig. 4."""
    points = _untuned(results)
    views = points[points["arm"].isin(VIEWS)]
    tasks = [name for name in pd.read_csv(results / "fig4.csv")["task"].unique()]
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(1.1, 1))
    above, below = (figure.add_subfigure(grid[part]) for part in (0, 1))
    axes = above.subplots()
    places = np.arange(len(tasks) + 1)
    for number, view in enumerate(VIEWS):
        part = views[views["arm"] == view]
        heights = part[[*tasks, ID]].mean()
        offset = (number - 1) * 0.27
        axes.bar(places + offset, heights, 0.25, color=COLOURS[view], label=LABELS[view])
        if view != "input":
            for _, network in part.iterrows():
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
            part = colours.loc[task, view]
            label = LABELS.get(view, "clean image")
            panel.plot(part.index, part, color=COLOURS[view], label=label, linewidth=2.2 if view == "clean" else 1.5)
        panel.set(title=task, xlabel="value of a channel")
        sns.despine(ax=panel)
    below.axes[0].set_ylabel("share of the pixels")
    below.axes[-1].legend(frameon=False, fontsize=8)
    return figure


def heat_map(results: Path, method: str) -> Figure:
    """Layer importance by one method, mean over pre-trainings; Fig. 14."""
    table = pd.read_csv(results / "fig14.csv", keep_default_na=False)
    part = table[table["method"] == method]
    score = part.groupby("layer", sort=False)["score"].agg(lambda values: np.exp(np.log(values).mean()))
    first = part.drop_duplicates("layer").drop(columns="score").merge(score.reset_index(), on="layer")
    networks = part["pretrained"].nunique()
    return plot_heatmap(first, f"layer importance by {method}, {networks} pre-trainings (geometric mean)", method)


def arms(results: Path) -> Figure:
    """Quality in distribution of every arm, block by block; Table 5."""
    points, table = pd.read_csv(results / "table5-blocks.csv"), pd.read_csv(results / "table5.csv")
    table = table[table[ID].notna()].drop_duplicates("run_as")
    table = table[~table["arm"].isin(["whole", "input"])].sort_values(ID, ignore_index=True)
    figure = Figure(figsize=(8.5, 1.6 + 0.36 * len(table)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(table.itertuples()):
        part = points[(points["arm"] == row.run_as) & points["progress"].isin([0.0, 1.0])]
        floor = (part["seed"] == UNTUNED_SEED).all() or row.arm in (ENDS.name, ALL.name)
        axes.plot(
            part[ID], np.full(len(part), place), "o", color="0.65" if floor else "#0072b2", markersize=5, alpha=0.6
        )
        axes.plot(part[ID].mean(), place, "|", color="black", markersize=16, markeredgewidth=2)
    names = [
        label_of(row.arm) + (f"  ({row.parameters / 1000:,.0f} k)" if pd.notna(row.parameters) else "")
        for row in table.itertuples()
    ]
    axes.set_yticks(range(len(table)), names, fontsize=9)
    axes.set(xlabel="PSNR in distribution, dB (mean over seven tasks)", ylim=(-0.6, len(table) - 0.4))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    figure.suptitle("dot: a block; bar: mean; grey: floors and ceilings", fontsize=11)
    sns.despine(ax=axes, left=True)
    return figure


def trade_off(results: Path) -> Figure:
    """Quality on unseen noise against quality on the noise that is trained with; Table 6."""
    points = pd.read_csv(results / "table6-blocks.csv")
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    for axes, column in zip(figure.subplots(1, 2), (NOISE, "pepper"), strict=True):
        _draw_ways(axes, points, column)
        _draw_ends(axes, points, column)
        degraded = points[points["arm"] == "input"][column].mean()
        axes.axhline(degraded, color="0.4", linestyle=":", linewidth=1, label="degraded input")
        axes.set(xlabel="PSNR on trained noise, dB", ylabel=f"PSNR on {column}, dB", title=column)
        sns.despine(ax=axes)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _draw_ways(axes: Axes, points: pd.DataFrame, column: str) -> None:
    """The way of full fine-tuning, and the straight one, as lines of means over blocks."""
    start = points[points["arm"] == "whole"][[TRAINED_NOISE, column]].mean()
    for full, colour in ((ALL, "0.65"), (LONGER, "0.35")):
        end = points[(points["arm"] == full.name) & (points["progress"] == 1.0)][[TRAINED_NOISE, column]].mean()
        for way, how, style in ((full.name, "on its way", "-"), (full.interpolated, "drawn back", "--")):
            part = points[points["arm"] == way].groupby("progress")[[TRAINED_NOISE, column]].mean()
            line = np.vstack([start, part, *([] if way == full.name else [end])])
            axes.plot(line[:, 0], line[:, 1], style, color=colour, label=f"{label_of(full.name)}, {how}", zorder=1)


def _draw_ends(axes: Axes, points: pd.DataFrame, column: str) -> None:
    """Means over blocks with their standard errors; longer runs are squares in the colour of the shorter ones."""
    shown = {
        ENDS: ENDS,
        RANDOM: RANDOM,
        MAC: MAC,
        MAC_20: MAC_20,
        MAC_50: MAC_50,
        ALL: ALL,
        LONGER_MAC: MAC,
        LONGER: ALL,
    }
    colours = dict(zip(dict.fromkeys(shown.values()), sns.color_palette("colorblind"), strict=False))
    for arm, like in shown.items():
        part = points[(points["arm"] == arm.name) & (points["progress"] == 1.0)][[TRAINED_NOISE, column]]
        if len(part):
            (x, y), errors = part.mean(), part.sem().fillna(0.0)
            axes.errorbar(
                x,
                y,
                xerr=errors[TRAINED_NOISE],
                yerr=errors[column],
                fmt="o" if arm == like else "s",
                color=colours[like],
                label=label_of(arm.name),
                zorder=2,
            )


def variants(results: Path, name: str) -> Figure:
    """Quality in distribution of every variant of the pre-training, before and after fine-tuning; Tables 3, 4, Fig. 3.

    Args:
        results: Folder of the tables.
        name: Which of them.
    """
    made = pd.read_csv(results / f"{name}-pretrainings.csv")
    made["common"] = made.groupby("seed")["variant"].transform("nunique") == made["variant"].nunique()
    points = (
        by_network(Store(results / STORE).scores())
        .reset_index()
        .merge(made[["pretrained", "variant", "common"]], on="pretrained")
    )
    points["stage"] = points["arm"].where(points["seed"] == UNTUNED_SEED, "fine-tuned")
    shown = pd.read_csv(results / f"{name}.csv")["arm"]
    places = {variant: place for place, variant in enumerate(shown[shown != "input"])}
    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.axhline(points.loc[points["stage"] == "input", ID].mean(), color=COLOURS["input"], linestyle=":", zorder=0)
    for stage, (label, colour) in STAGES.items():
        part = points[points["stage"] == stage]
        axes.plot(part["variant"].map(places), part[ID], "o", color=colour, alpha=0.5, markersize=5, label=label)
        means = part[part["common"]].groupby("variant")[ID].mean()
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
