"""Figures of rankings."""

__all__ = ["plot_heatmap"]

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

LABELLED = 6
"""Layers that are named in the depth panel."""


def plot_heatmap(table: pd.DataFrame, title: str, unit: str) -> Figure:
    """Scores of all layers: role by block above, in order of depth below, on logarithmic scales.

    Layers that belong to a group of blocks (the convolution that closes a residual group, say) span the group's
    columns; layers outside of any block appear in the lower panel only.

    Args:
        table: One row a layer: ``layer``, ``score``, ``type``, ``block``, ``role``, ``depth``.
        title: Heading.
        unit: What the scores are.

    Source:
        Qin et al. 2024 (RAM), Fig. 14.
    """
    table = table.sort_values("depth", ignore_index=True)
    blocks = _blocks(table)
    columns = max(len(blocks), 8)
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(min(24.0, 4.5 + 0.42 * columns), 8), height_ratios=(1.25, 1), layout="constrained"
    )
    positive = table.loc[table["score"] > 0, "score"]
    low, high = (positive.min(), positive.max()) if len(positive) else (0.1, 1.0)
    norm = LogNorm(low, high if high > low else low * 10)
    _draw_blocks(above, table, blocks, norm)
    _draw_depth(below, table, norm, unit)
    figure.colorbar(plt.cm.ScalarMappable(norm, "viridis"), ax=(above, below), label=unit, fraction=0.03)
    figure.suptitle(title)
    return figure


def _blocks(table: pd.DataFrame) -> list[str]:
    """The innermost repeated units, in order of depth: blocks that contain no other."""
    names = [name for name in dict.fromkeys(table["block"]) if name]
    return [name for name in names if not any(other.startswith(f"{name}.") for other in names)]


def _draw_blocks(axes: Axes, table: pd.DataFrame, blocks: list[str], norm: LogNorm) -> None:
    """Role by block, one rectangle a layer."""
    if not blocks:
        axes.text(0.5, 0.5, "no repeated blocks", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    rows = list(dict.fromkeys(table.loc[table["block"] != "", "role"]))
    colours = plt.get_cmap("viridis")
    for layer in table[table["block"] != ""].itertuples():
        spanned = [i for i, name in enumerate(blocks) if name == layer.block or name.startswith(f"{layer.block}.")]
        colour = colours(norm(layer.score)) if layer.score > 0 else "white"
        corner = (spanned[0] - 0.5, rows.index(layer.role) - 0.5)
        axes.add_patch(Rectangle(corner, len(spanned), 1, facecolor=colour, edgecolor="white", linewidth=0.8))
    axes.set(xlim=(-0.5, len(blocks) - 0.5), ylim=(len(rows) - 0.5, -0.5), xlabel="block, in order of depth")
    axes.set_yticks(range(len(rows)), rows)
    shared = len(_common_prefix(blocks))
    axes.set_xticks(
        range(len(blocks)), [_short(name[shared:]) for name in blocks], rotation=90 if len(blocks) > 16 else 0
    )
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_depth(axes: Axes, table: pd.DataFrame, norm: LogNorm, unit: str) -> None:
    """All layers in order of depth, the highest named."""
    shown = table["score"].clip(lower=norm.vmin)
    types = list(dict.fromkeys(table["type"]))
    palette = dict(zip(types, sns.color_palette("colorblind", len(types)), strict=True))
    for kind in types:
        chosen = table["type"] == kind
        axes.scatter(table.loc[chosen, "depth"], shown[chosen], s=22, color=palette[kind], label=kind, zorder=3)
    axes.vlines(table["depth"], shown.min(), shown, color="0.85", linewidth=1)
    axes.set(yscale="log", xlabel="layer, in order of depth", ylabel=unit, xlim=(-1, len(table)))
    axes.set_ylim(top=float(norm.vmax or 1.0) * 6)
    highest = table.nlargest(LABELLED, "score").sort_values("score")
    for left in (True, False):
        for place, layer in enumerate(highest[(highest["depth"] < len(table) / 2) == left].itertuples()):
            axes.annotate(
                layer.layer,
                (layer.depth, layer.score),
                xytext=(12 if left else -12, 4 + 11 * place),
                textcoords="offset points",
                fontsize=8,
                ha="left" if left else "right",
                arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6},
            )
    axes.legend(fontsize=8, ncols=min(6, len(types)), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    sns.despine(ax=axes)


def _common_prefix(names: list[str]) -> str:
    """What all dotted names begin with, whole parts only."""
    parts = [name.split(".") for name in names]
    same = int(np.argmin([len(set(column)) == 1 for column in zip(*parts, strict=False)] + [False]))
    return "".join(f"{part}." for part in parts[0][:same])


def _short(name: str) -> str:
    """The numbers of a block's name, 'layers.0.residual_group.blocks.3' as '0.3'."""
    return ".".join(part for part in name.split(".") if part.isdigit()) or name
