"""Figures of rankings."""

__all__ = [
    "BlockGrid",
    "block_grid",
    "plot_agreement",
    "plot_group_ranks",
    "plot_heatmap",
    "plot_intervals",
    "plot_overlap",
    "plot_randomisation",
    "plot_rank_flow",
    "plot_stability",
]

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import groupby

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from matplotlib.ticker import MaxNLocator

LABELLED = 6
"""Number of layers that are named in the depth panel."""

MARKERS = "osD^vPX*<>"
"""Markers of the classes of layers, which also differ in grey."""

ALIKE = 0.5
"""Share of the layers inside two modules, by name and class, above which the modules count as built alike."""

TOP_HEIGHT = 0.7
"""Share of the rank flow's height that the top k take, however many layers follow."""


@dataclass(frozen=True)
class BlockGrid:
    """Grid of layers by role and block.

    Args:
        roles: Role of every row; a role has two rows if its layers would cover one another.
        blocks: Name of every column: the innermost repeated units, in order of depth.
        groups: Short name and number of columns of every group of neighbouring blocks.
        places: Row, first column and number of columns of every layer that is inside a block.
    """

    roles: tuple[str, ...]
    blocks: tuple[str, ...]
    groups: tuple[tuple[str, int], ...]
    places: Mapping[str, tuple[int, int, int]]


def block_grid(table: pd.DataFrame) -> BlockGrid:
    """Rows and columns of a heat map; a layer of a group of blocks spans the group's columns.

    Layers outside of numbered blocks make columns if their modules have siblings with the same layers inside, such as
    ``enc1``, ``enc2``, ``mid``.

    Args:
        table: One row for each layer, in order of depth: ``layer``, ``type``, ``block``, ``role``.
    """
    table = _with_siblings(table)
    blocks = _blocks(table)
    roles: list[str] = []
    filled: list[set[int]] = []
    places = {}
    for layer in table[table["block"] != ""].itertuples():
        spanned = [i for i, name in enumerate(blocks) if f"{name}.".startswith(f"{layer.block}.")]
        free = [row for row, role in enumerate(roles) if role == layer.role and filled[row].isdisjoint(spanned)]
        if not free:
            free = [len(roles)]
            roles.append(layer.role)
            filled.append(set())
        filled[free[0]].update(spanned)
        places[layer.layer] = (free[0], spanned[0], len(spanned))
    return BlockGrid(roles=tuple(roles), blocks=tuple(blocks), groups=_groups(blocks), places=places)


def plot_heatmap(table: pd.DataFrame, title: str, unit: str, k: int = 0) -> Figure:
    """Scores of all layers: role by block above, in order of depth below, on logarithmic scales.

    Layers that belong to a group of blocks (such as the convolution that closes a residual group) span the group's
    columns. Layers outside of any block appear in the lower panel only. A network without blocks has that panel alone.

    Args:
        table: One row for each layer: ``layer``, ``score``, ``type``, ``block``, ``role``, ``depth``; and
            ``parameters``, if layers without any are not to be marked.
        title: Heading.
        unit: Unit of the scores.
        k: Number of the highest layers that are framed above and circled below; 0 for none.

    Source:
        Qin et al. 2024 (RAM), Fig. 14.
    """
    table = table.sort_values("depth", ignore_index=True)
    grid = block_grid(table)
    columns = max(len(grid.blocks), 8)
    width = min(24.0, 4.5 + 0.42 * columns)
    figure = plt.figure(figsize=(width, 8 if grid.blocks else 4.5), layout="constrained")
    ratios = (1.25, 1) if grid.blocks else (1,)
    *above, below = figure.subplots(len(ratios), 1, height_ratios=ratios, squeeze=False)[:, 0]
    owners = table[table["parameters"] > 0] if "parameters" in table else table
    top = frozenset((owners if len(owners) else table).nlargest(k, "score")["layer"])
    _draw_depth(below, table, unit, top, letters=int(6.5 * width) - 22)
    for axes in above:
        norm = _logarithmic(table.loc[table["layer"].isin(grid.places), "score"])
        _draw_blocks(axes, table, grid, norm, top)
        figure.colorbar(plt.cm.ScalarMappable(norm, "viridis"), ax=axes, label=unit, fraction=0.03)
    _name_kinds(figure, below)
    figure.suptitle(title)
    return figure


def plot_rank_flow(ranks: pd.DataFrame, k: int, title: str) -> Figure:
    """Ranks of all layers from one ranking to the next, those in any top k highlighted and the others grey.

    The top k take most of the height, the remaining ranks share the rest. Layers in the first ranking's top k are named
    on the left, those in the last one's on the right.

    Args:
        ranks: One row for each layer (its name is the index), one column for each ranking; 1 is the highest rank, and
            every rank occurs once.
        k: Number of layers in the top.
        title: Heading.
    """
    columns = len(ranks.columns)
    figure = Figure(figsize=(8.0 + 1.6 * (columns - 1), max(5.0, 0.24 * k + 2.2)), layout="constrained")
    axes = figure.subplots()
    top, heights = ranks <= k, ranks.astype(float).map(lambda rank: _flow_height(rank, k, len(ranks)))
    kinds = {label: chosen for label, chosen in _flow_kinds(top).items() if chosen.any()}
    for colour, (label, chosen) in zip(sns.color_palette("colorblind", len(kinds)), kinds.items(), strict=True):
        axes.plot(heights[chosen].T.to_numpy(), color=colour, linewidth=1.4, zorder=3)
        marked = heights[chosen].where(top[chosen]).T.to_numpy()
        axes.plot(marked, color=colour, marker="o", linestyle="", markersize=4, zorder=4, clip_on=False)
        axes.plot([], [], color=colour, label=f"{label} ({chosen.sum()})")
    others = ~top.any(axis=1)
    axes.plot(heights[others].T.to_numpy(), color="0.88", linewidth=0.5)
    axes.plot([], [], color="0.8", label=f"in none ({others.sum()})")
    axes.axhline(_flow_height(k + 0.5, k, len(ranks)), color="0.4", linewidth=0.8, linestyle=":")
    axes.set(xlim=(0, columns - 1), ylim=(1, 0))
    _name_flow(axes, ranks, heights, k)
    figure.legend(title=f"top {k}", loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.suptitle(title)
    sns.despine(ax=axes, left=True, bottom=True)
    return figure


def _flow_kinds(top: pd.DataFrame) -> dict[str, pd.Series]:
    """Layers in every top, in the first top and in another top, by label."""
    first = top.columns[0]
    in_every, in_any = top.all(axis=1), top.any(axis=1)
    return {
        "in every": in_every,
        f"in that of {first}, not in every": top[first] & ~in_every,
        f"in another, not in that of {first}": in_any & ~top[first],
    }


def _name_flow(axes: Axes, ranks: pd.DataFrame, heights: pd.DataFrame, k: int) -> None:
    """Names of the rankings above, of their top layers at both sides."""
    axes.set_xticks(range(len(ranks.columns)), ranks.columns)
    axes.xaxis.tick_top()
    right = axes.secondary_yaxis("right")
    right.spines["right"].set_visible(False)
    for side, column in ((axes, ranks.columns[0]), (right, ranks.columns[-1])):
        highest = ranks[column].nsmallest(k)
        numbers = [f"{rank:.0f}".rjust(len(str(k)), "\N{FIGURE SPACE}") for rank in highest]
        pairs = zip(highest.index, numbers, strict=True)
        texts = [f"{layer}   {number}" if side is axes else f"{number}   {layer}" for layer, number in pairs]
        side.set_yticks(heights.loc[highest.index, column], texts, fontsize=7.5)
        side.tick_params(length=0, pad=8)


def _flow_height(rank: float, k: int, layers: int) -> float:
    """Height at which a rank is drawn, 0 above and 1 below; the border of the top k is at ``TOP_HEIGHT``."""
    border = TOP_HEIGHT if k < layers else 1.0
    return border * (rank - 0.5) / k if rank <= k + 0.5 else border + (1 - border) * (rank - 0.5 - k) / (layers - k)


def plot_group_ranks(ranked: pd.DataFrame, k: int, title: str) -> Figure:
    """Ranks of the layers in each group of images; those in a group's top k are coloured, and bold if in every top.

    Args:
        ranked: One row for each layer (its name is the index), one column for each group; 1 is the highest rank. Layers
            that are in the top k of no group are left out.
        k: Layers in a top.
        title: Heading.
    """
    rows = ranked[(ranked <= k).any(axis=1)]
    everywhere = (rows <= k).all(axis=1)
    figure = Figure(figsize=(4.2 + 0.75 * len(ranked.columns), 1.6 + 0.26 * len(rows)), layout="constrained")
    axes = figure.subplots()
    sns.heatmap(
        rows,
        mask=rows > k,
        vmin=1,
        vmax=k + 1,
        cmap="crest_r",
        cbar=False,
        linewidths=0.8,
        annot=True,
        fmt="d",
        annot_kws={"fontsize": 8},
        ax=axes,
    )
    for (row, column), rank in np.ndenumerate(rows.to_numpy()):
        if rank > k:
            axes.text(column + 0.5, row + 0.5, str(rank), ha="center", va="center", fontsize=8, color="0.5")
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows.index, fontsize=8, rotation=0)
    for label, shared in zip(axes.get_yticklabels(), everywhere, strict=True):
        label.set_fontweight("bold" if shared else "normal")
    axes.set(xlabel="", ylabel="")
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    figure.suptitle(f"{title}: {everywhere.sum()} layers (bold) in the top {k} of all {len(ranked.columns)}")
    return figure


def plot_overlap(curves: Mapping[str, pd.DataFrame], k: int, title: str) -> Figure:
    """Overlap of the tops against their size, with the overlap of unrelated rankings.

    Args:
        curves: By label, tables with ``k``, ``overlap``, ``expected``, ``random_low`` and ``random_high``
            (:func:`macattr.statistics.agreement.overlap_curve`) over the same number of layers.
        k: Size that is marked.
        title: Heading.
    """
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.subplots()
    for colour, (label, curve) in zip(sns.color_palette("colorblind", len(curves)), curves.items(), strict=True):
        at_k = curve.loc[curve["k"] == k, "overlap"].item()
        axes.plot(curve["k"], curve["overlap"], color=colour, linewidth=1.6, label=f"{label}: {at_k:.0%} at {k}")
    axes.plot(curve["k"], curve["expected"], color="0.5", linewidth=1, linestyle="--", label="unrelated rankings")
    axes.fill_between(
        curve["k"], curve["random_low"], curve["random_high"], color="0.92", step="mid", label="95 % of these"
    )
    axes.axvline(k, color="0.4", linewidth=0.8, linestyle=":")
    axes.set(
        xscale="log",
        xlim=(1, max(2, len(curve))),
        ylim=(0, 1.02),
        xlabel="layers in the top (k)",
        ylabel="share in both",
    )
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_title(title)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    sns.despine(ax=axes)
    return figure


def plot_stability(curve: pd.DataFrame, k: int, may_differ: int, title: str, stopped: int | None = None) -> Figure:
    """Agreement of the top of few images with that of all images, against the number of images.

    Args:
        curve: ``images``, ``same_set``, ``near_set``, ``overlap``
            (:func:`macattr.statistics.bootstrap.stability_curve`).
        k: Number of layers in the top.
        may_differ: Layers that ``near_set`` lets differ.
        title: Heading.
        stopped: Images after which an early stop would have come; None: not marked.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    labels = {"overlap": f"mean share of the top {k} that is the same", "same_set": f"P(the same top {k})"}
    if may_differ:
        labels["near_set"] = f"P(at most {may_differ} of {k} differ)"
    for colour, (column, label) in zip(sns.color_palette("colorblind", len(labels)), labels.items(), strict=True):
        axes.plot(curve["images"], curve[column], color=colour, marker="o", markersize=4, linewidth=1.6, label=label)
    if stopped is not None:
        axes.axvline(stopped, color="0.4", linewidth=0.8, linestyle=":")
        axes.annotate(f"stop at {stopped}", (stopped, 0.02), (4, 0), textcoords="offset points", fontsize=8)
    axes.set(xscale="log", ylim=(0, 1.02), xlabel="images", title=title)
    axes.set_xticks(curve["images"], [f"{images}" for images in curve["images"]])
    axes.minorticks_off()
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    sns.despine(ax=axes)
    return figure


def plot_intervals(table: pd.DataFrame, k: int, title: str, unit: str, shown: int | None = None) -> Figure:
    """Scores of the highest layers with their intervals, coloured by the probability to be in the top k.

    Intervals of positive scores are cut a hundredfold beyond all shown scores, because few images can leave an interval
    without an end.

    Args:
        table: One row for each layer (its name is the index): ``score``, ``score_low``, ``score_high``, ``rank``,
            ``rank_low``, ``rank_high`` (:func:`macattr.statistics.bootstrap.bootstrap`) and ``probability``
            (:func:`macattr.statistics.bootstrap.probability_in_top`).
        k: Number of layers in the top.
        title: Heading.
        unit: Unit of the scores.
        shown: Layers that are drawn; None: 1.5 k, at least 10.
    """
    count = min(len(table), max(10, round(1.5 * k)) if shown is None else shown)
    rows = table.nsmallest(count, "rank")
    figure = Figure(figsize=(8.5, 1.8 + 0.22 * count), layout="constrained")
    axes = figure.subplots()
    colours = sns.color_palette("crest", as_cmap=True)
    places = np.arange(count)
    log = bool((rows["score_low"] > 0).all())
    limits = (rows["score"].min() / 100, rows["score"].max() * 100) if log else (-np.inf, np.inf)
    low, high = (rows[name].clip(*limits) for name in ("score_low", "score_high"))
    axes.hlines(places, low, high, color=colours(rows["probability"]), linewidth=2.5)
    axes.scatter(rows["score"], places, color=colours(rows["probability"]), edgecolor="white", s=34, zorder=3)
    axes.axhline(k - 0.5, color="0.4", linewidth=0.8, linestyle=":")
    if log:
        axes.set_xscale("log")
    axes.set(ylim=(count - 0.5, -0.5), xlabel=unit)
    axes.set_yticks(places, rows.index, fontsize=8)
    axes.tick_params(axis="y", length=0)
    ranks = axes.secondary_yaxis("right")
    spans = [(row.rank_low, row.rank_high) for row in rows.itertuples()]
    ranks.set_yticks(places, [f"{low} - {high}" if low < high else f"{low}" for low, high in spans], fontsize=8)
    ranks.tick_params(length=0)
    ranks.spines["right"].set_visible(False)
    axes.annotate("rank", (1, 1), (4, 4), xycoords="axes fraction", textcoords="offset points", fontsize=8)
    bar = figure.colorbar(plt.cm.ScalarMappable(cmap=colours), ax=axes, fraction=0.03, pad=0.04)
    bar.set_label(f"P(in the top {k})")
    axes.set_title(title)
    sns.despine(ax=axes, left=True)
    return figure


def _with_siblings(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a block and role for layers outside of blocks whose module has siblings that are built alike."""
    outside = table.loc[table["block"] == "", ["layer", "type"]].itertuples(index=False)
    inside: dict[str, set[tuple[str, str]]] = {}
    for layer, kind in outside:
        parts = layer.split(".")
        for end in range(1, len(parts)):
            inside.setdefault(".".join(parts[:end]), set()).add((".".join(parts[end:]), kind))
    alike = {
        name
        for name, layers in inside.items()
        for other, others in inside.items()
        if name != other
        and name.rpartition(".")[0] == other.rpartition(".")[0]
        and len(layers & others) > max(1, len(layers | others) * ALIKE)
    }
    places = []
    for row in table.itertuples():
        parts = row.layer.split(".")
        names = [".".join(parts[:end]) for end in range(1, len(parts))] if row.block == "" else []
        block = next((name for name in names if name in alike), row.block)
        places.append((block, row.layer[len(block) + 1 :] if block != row.block else row.role))
    return table.assign(block=[block for block, _ in places], role=[role for _, role in places])


def _blocks(table: pd.DataFrame) -> list[str]:
    """The innermost repeated units, in order of depth: blocks that contain no other."""
    names = [name for name in dict.fromkeys(table["block"]) if name]
    return [name for name in names if not any(other.startswith(f"{name}.") for other in names)]


def _groups(blocks: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Neighbouring blocks of one parent, under the part of its name that differs."""
    parents = [block.rpartition(".")[0].split(".") for block in blocks]
    same = _shared_parts([parent[::-1] for parent in parents if parent != [""]])
    names = [".".join(parent[: len(parent) - same]) for parent in parents]
    return tuple((name, len(list(run))) for name, run in groupby(names))


def _shared_parts(names: Sequence[Sequence[str]]) -> int:
    """Number of parts at the beginning that all names share; each keeps at least one of its own."""
    shortest = min(map(len, names), default=1)
    return next((i for i in range(shortest - 1) if len({name[i] for name in names}) > 1), max(0, shortest - 1))


def _draw_blocks(axes: Axes, table: pd.DataFrame, grid: BlockGrid, norm: LogNorm, top: AbstractSet[str]) -> None:
    """Role by block, one rectangle a layer; those of the top with a frame and a notch."""
    colours = plt.get_cmap("viridis")
    scores = table.set_index("layer")["score"]
    for layer, (row, column, width) in grid.places.items():
        colour = colours(norm(scores[layer])) if scores[layer] > 0 else "white"
        corner = (column - 0.5, row - 0.5)
        axes.add_patch(Rectangle(corner, width, 1, facecolor=colour, edgecolor="white", linewidth=0.8))
        if layer in top:
            _frame(axes, *corner, width)
    axes.set(xlim=(-0.5, len(grid.blocks) - 0.5), ylim=(len(grid.roles) - 0.5, -0.5))
    axes.set_yticks(range(len(grid.roles)), grid.roles)
    short = [name.rpartition(".")[2] for name in grid.blocks]
    axes.set_xticks(range(len(short)), short)
    upright = [name for name in short if len(name) > _letters(grid)]
    for label in axes.get_xticklabels():
        label.set_rotation(90 if label.get_text() in upright else 0)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    _draw_groups(axes, grid, -0.09 - 0.02 * max(map(len, upright), default=0))


def _frame(axes: Axes, x: float, y: float, width: int) -> None:
    """A black frame inside of a cell, and a white notch in its corner."""
    left, above, inset = x + 0.06, y + 0.06, 0.12
    frame = Rectangle((left, above), width - inset, 1 - inset, fill=False, edgecolor="black", linewidth=1.6, zorder=3)
    corners = [(left, above), (left + 0.35, above), (left, above + 0.35)]
    axes.add_patch(frame)
    axes.add_patch(Polygon(corners, facecolor="white", edgecolor="black", linewidth=1.6, zorder=4))


def _letters(grid: BlockGrid) -> float:
    """Letters that have room over a column."""
    return 6 * min(46, max(8, len(grid.blocks))) / len(grid.blocks)


def _draw_groups(axes: Axes, grid: BlockGrid, height: float) -> None:
    """Brackets with the names of the groups below the columns, at a height in shares of the panel."""
    axes.set_xlabel("block, in order of depth", labelpad=28 if any(name for name, _ in grid.groups) else 4)
    ends = np.cumsum([width for _, width in grid.groups])
    starts = ends - [width for _, width in grid.groups]
    below = axes.secondary_xaxis(height)
    names = [_cut(name, int(_letters(grid) * width)) for name, width in grid.groups]
    below.set_xticks((starts + ends - 1) / 2, names, fontsize=9)
    below.tick_params(length=0, pad=2)
    below.spines["bottom"].set_visible(False)
    for start, end, name in zip(starts, ends, names, strict=True):
        bracket = [start - 0.4, end - 0.6], [height, height]
        if name:
            axes.plot(*bracket, color="0.5", linewidth=0.8, clip_on=False, transform=axes.get_xaxis_transform())


def _name_kinds(figure: Figure, axes: Axes) -> None:
    """Legend below the panels, in as many columns as have room."""
    handles, labels = axes.get_legend_handles_labels()
    inches = 0.5 + 0.08 * max(map(len, labels))
    columns = max(1, int(figure.get_figwidth() / inches))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)


def _cut(name: str, letters: int) -> str:
    """A name that is cut if it has more letters."""
    return name if len(name) <= letters else f"{name[: max(1, letters - 1)]}…"


def _end(name: str, letters: int) -> str:
    """The end of a name that has more letters."""
    return name if len(name) <= letters else f"…{name[1 - letters :]}"


def _logarithmic(scores: pd.Series) -> LogNorm:
    """Logarithmic scale over the positive scores."""
    positive = scores[scores > 0]
    low, high = (float(positive.min()), float(positive.max())) if len(positive) else (0.1, 1.0)
    return LogNorm(low, high if high > low else low * 10)


def _draw_depth(axes: Axes, table: pd.DataFrame, unit: str, top: AbstractSet[str], letters: int) -> None:
    """All layers in order of depth, the highest named by their last letters, those of the top circled."""
    scale = _logarithmic(table["score"])
    low, high = float(scale.vmin or 0.1), float(scale.vmax or 1.0)
    shown = table["score"].clip(lower=low)
    types = list(dict.fromkeys(table["type"]))
    palette = dict(zip(types, sns.color_palette("colorblind", len(types)), strict=True))
    for number, kind in enumerate(types):
        chosen, marker = table["type"] == kind, MARKERS[number % len(MARKERS)]
        points = table.loc[chosen, "depth"], shown[chosen]
        axes.scatter(*points, s=24, color=palette[kind], marker=marker, label=kind, zorder=3)
    axes.vlines(table["depth"], shown.min(), shown, color="0.85", linewidth=1, zorder=1)
    if top:
        circled = table["layer"].isin(top)
        points, label = (table.loc[circled, "depth"], shown[circled]), f"top {len(top)}, framed above"
        axes.scatter(*points, s=90, facecolor="none", edgecolor="black", linewidth=1, zorder=4, label=label)
    axes.set(yscale="log", xlabel="layer, in order of depth", ylabel=unit, xlim=(-1, len(table)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(top=high * (high / low) ** 0.7)  # room for the names
    middle = (len(table) - 1) / 2
    named = table.nlargest(LABELLED, "score").sort_values("depth", key=lambda depth: -abs(depth - middle))
    line = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 0, "patchA": None}
    # Outer layers have higher names, which run inwards: no name covers another one, its line or a point.
    for place, layer in enumerate(named.itertuples()):
        axes.annotate(
            _end(layer.layer, letters),
            (layer.depth, layer.score),
            xytext=(layer.depth, 0.97 - 0.06 * place),
            textcoords=("data", "axes fraction"),
            fontsize=8,
            ha="left" if layer.depth < middle else "right",
            va="center",
            arrowprops=line | {"relpos": (layer.depth >= middle, 0.5)},
            bbox={"facecolor": "white", "linewidth": 0, "pad": 0.6},
        )
    sns.despine(ax=axes)


def plot_agreement(matrix: pd.DataFrame, title: str, label: str) -> Figure:
    """Agreement of every pair of rankings as a matrix of numbers.

    Args:
        matrix: Symmetric, named rows and columns, values in [-1, 1].
        title: Heading.
        label: Name of the numbers.
    """
    side = 2.4 + 0.52 * len(matrix)
    figure = Figure(figsize=(side + 1.2, side), layout="constrained")
    axes = figure.subplots()
    sns.heatmap(
        matrix,
        vmin=-1,
        vmax=1,
        cmap="vlag",
        annot=True,
        fmt=".2f",
        annot_kws={"fontsize": 7},
        square=True,
        linewidths=0.5,
        cbar_kws={"label": label, "shrink": 0.7},
        ax=axes,
    )
    axes.set_title(title)
    axes.tick_params(length=0)
    return figure


def plot_randomisation(tables: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """Agreement of a ranking with those of the network with randomised parameters.

    Args:
        tables: Tables of :func:`macattr.ranking.sanity.randomisation_test`, by kind.
        title: Heading.
    """
    figure = Figure(figsize=(8.5, 1.6 + 0.42 * sum(map(len, tables.values()))), layout="constrained")
    panels = figure.subplots(len(tables), 1, squeeze=False, sharex=True)[:, 0]
    blue, orange = sns.color_palette("colorblind", 2)
    for axes, (kind, table) in zip(panels, tables.items(), strict=True):
        places = np.arange(len(table))
        axes.hlines(places, 0, table["spearman"], color="0.85", linewidth=1)
        axes.scatter(table["spearman"], places, color=blue, s=36, zorder=3, label="Spearman")
        axes.scatter(table["overlap"], places, color=orange, s=36, marker="D", zorder=3, label="overlap of the top")
        axes.set_yticks(places, table["randomised"], fontsize=8)
        axes.set(ylim=(len(table) - 0.5, -0.5), xlim=(-1.05, 1.05), title=f"{kind}: randomised layers")
        axes.axvline(0, color="0.4", linewidth=0.8)
        axes.tick_params(axis="y", length=0)
        sns.despine(ax=axes, left=True)
    panels[-1].set_xlabel("agreement with the ranking of the unchanged network")
    panels[0].legend(loc="lower left", frameon=False, fontsize=8)
    figure.suptitle(title)
    return figure
