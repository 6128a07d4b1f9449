"""Figures of rankings: what is drawn is what the tables say, also for hundreds of layers."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from matplotlib.text import Text
from torch import nn

from macattr.layers.table import describe_layers
from macattr.plots import (
    TOP_HEIGHT,
    block_grid,
    plot_group_ranks,
    plot_heatmap,
    plot_intervals,
    plot_overlap,
    plot_rank_flow,
    plot_stability,
)
from macattr.statistics.agreement import overlap_curve
from macattr.statistics.bootstrap import bootstrap, probability_in_top, stability_curve
from macattr.statistics.ranks import ranks

LAYERS, K = 263, 26


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def scores(generator) -> np.ndarray:
    """(images, orders, layers)."""
    return np.exp(generator.normal(size=LAYERS) + 0.3 * generator.normal(size=(8, 1, LAYERS)))


@pytest.fixture
def flow(scores, generator) -> pd.DataFrame:
    other = scores.mean(axis=(0, 1)) * np.exp(0.2 * generator.normal(size=LAYERS))
    columns = {"ours": ranks(scores.mean(axis=(0, 1))), "theirs": ranks(other)}
    return pd.DataFrame(columns, index=[f"layer{i}" for i in range(LAYERS)]).astype(int)


def labels(axis) -> list[str]:
    """What stands at the ticks."""
    return [text.get_text() for text in axis.get_ticklabels()]


def test_the_flow_names_the_top_layers_of_both_ends_in_their_order(flow):
    axes = plot_rank_flow(flow, K, "two").axes[0]
    left, right = labels(axes.yaxis), labels(axes.child_axes[0].yaxis)
    assert [text.split()[0] for text in left] == flow["ours"].nsmallest(K).index.tolist()
    assert [text.split()[-1] for text in right] == flow["theirs"].nsmallest(K).index.tolist()
    assert [text.split()[-1] for text in left] == [str(i) for i in range(1, K + 1)]


def test_the_flow_draws_every_layer_once_in_the_order_of_its_ranks(flow):
    axes = plot_rank_flow(flow, K, "two").axes[0]
    lines = [line for line in axes.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 2]
    assert len(lines) == LAYERS
    drawn = np.sort([line.get_ydata()[0] for line in lines])
    assert (np.diff(drawn) > 0).all()
    assert drawn[K - 1] < TOP_HEIGHT < drawn[K]


def test_the_flow_counts_who_stays_leaves_and_enters(flow):
    figure = plot_rank_flow(flow, K, "two")
    shared = int(((flow["ours"] <= K) & (flow["theirs"] <= K)).sum())
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == [
        f"in every ({shared})",
        f"in that of ours, not in every ({K - shared})",
        f"in another, not in that of ours ({K - shared})",
        f"in none ({LAYERS - 2 * K + shared})",
    ]


def test_a_flow_of_all_layers_has_no_others(flow):
    figure = plot_rank_flow(flow.head(5).rank().astype(int), 5, "all")
    assert figure.axes[0].get_ylim() == (1, 0)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["in every (5)", "in none (0)"]


def test_the_overlap_figure_states_the_overlap_at_k(flow):
    curve = overlap_curve(-flow["ours"].to_numpy(float), -flow["theirs"].to_numpy(float))
    figure = plot_overlap({"ours - theirs": curve}, K, "two")
    expected = f"ours - theirs: {curve.loc[K - 1, 'overlap']:.0%} at {K}"
    assert figure.legends[0].get_texts()[0].get_text() == expected


def test_the_stability_figure_shows_near_sets_only_with_a_tolerance(scores, generator):
    curve = stability_curve(scores, K, generator, n_resamples=20, may_differ=3)
    exact, near = (plot_stability(curve, K, may_differ, "curve", stopped=4) for may_differ in (0, 3))
    assert len(exact.axes[0].lines) + 1 == len(near.axes[0].lines)
    assert "P(at most 3 of 26 differ)" in [text.get_text() for text in near.legends[0].get_texts()]


@pytest.mark.parametrize(("shift", "scale"), [(0.0, "log"), (-5.0, "linear")], ids=["positive", "signed"])
def test_intervals_of_the_highest_layers_are_drawn_on_a_scale_that_can_show_them(scores, generator, shift, scale):
    table = bootstrap(scores + shift, generator, n_resamples=50)
    table["probability"] = probability_in_top(scores + shift, K, generator, 50)
    table.index = [f"layer{i}" for i in range(LAYERS)]
    figure = plot_intervals(table, K, "top", "mean |C|")
    axes = figure.axes[0]
    assert axes.get_xscale() == scale
    assert labels(axes.yaxis) == table.nsmallest(39, "rank").index.tolist()
    spans = labels(axes.child_axes[0].yaxis)
    best = table.nsmallest(1, "rank").iloc[0]
    assert spans[0].split(" - ")[-1] == str(int(best["rank_high"]))


def test_one_endless_interval_does_not_flatten_all_others(scores, generator):
    table = bootstrap(scores, generator).assign(probability=probability_in_top(scores, K, generator))
    table.loc[table["rank"] == 1, "score_high"] = np.inf
    axes = plot_intervals(table, K, "top", "mean |C|").axes[0]
    best = table.loc[table["rank"] == 1, "score"].item()
    first = axes.collections[0].get_segments()[0]
    assert first[:, 0].max() == pytest.approx(100 * best)
    assert best < axes.get_xlim()[1] < 1e4 * best


def test_figures_leave_nothing_open(flow, tmp_path):
    before = plt.get_fignums()
    figure = plot_rank_flow(flow, K, "two")
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "flow.png")
    assert plt.get_fignums() == before


def heat_table(parents: dict[str, int]) -> pd.DataFrame:
    """Two layers in each of some blocks, and one outside."""
    blocks = [f"{parent}.{i}" for parent, number in parents.items() for i in range(number)]
    rows = [(f"{block}.{role}", block, role) for block in blocks for role in ("attn", "fc")] + [("conv_last", "", "")]
    table = pd.DataFrame(rows, columns=["layer", "block", "role"])
    depths = np.arange(len(rows))
    return table.assign(depth=depths, score=np.exp(np.random.default_rng(0).normal(size=len(rows))), type="Linear")


@pytest.mark.parametrize(
    ("parents", "groups"),
    [
        ({"encoder": 2, "latent": 3, "decoder": 2}, (("encoder", 2), ("latent", 3), ("decoder", 2))),
        ({"layers.0.group.blocks": 2, "layers.1.group.blocks": 1}, (("layers.0", 2), ("layers.1", 1))),
        ({"body": 4}, (("body", 4),)),
    ],
    ids=["names", "numbers", "one"],
)
def test_neighbouring_blocks_form_groups_under_the_part_of_the_name_that_differs(parents, groups):
    table = heat_table(parents)
    assert block_grid(table).groups == groups
    above = plot_heatmap(table, "map", "mean |C|").axes[0]
    assert labels(above.child_axes[0].xaxis) == [name for name, _ in groups]


@pytest.mark.parametrize("place", ["start", "middle", "end", "apart"])
@pytest.mark.parametrize("blocks", [0, 1, 216])
@pytest.mark.parametrize("long", [False, True], ids=["short", "long"])
def test_names_of_the_highest_layers_cover_nothing(place, blocks, long):
    table = heat_table({f"encoder_level{i}": max(1, blocks // 18) for i in range(min(18, blocks))} or {"encoder": 3})
    if blocks == 0:
        table = table.assign(block="", layer=[f"l{i}" for i in range(len(table))])
    table["type"] = [f"Convolution{'WithAVeryLongName' * long}{i % 7}" for i in range(len(table))]
    table["layer"] = ["network.reconstruction_head." * 3 * long + name for name in table["layer"]]
    number = min(6, len(table))
    starts = {"start": 0, "middle": len(table) // 2 - number // 2, "end": len(table) - number}
    rows = np.linspace(0, len(table) - 1, number).astype(int) if place == "apart" else starts[place] + np.arange(number)
    table.loc[rows, "score"] = [50.0, 90, 60, 80, 55, 70][:number]
    figure = plot_heatmap(table, "map", "mean |C|", k=2)
    figure.canvas.draw()
    below = figure.axes[bool(blocks)]
    names = [Text.get_window_extent(text) for text in below.texts]  # without their lines
    boxes = [*names, figure.legends[0].get_window_extent(), below.xaxis.label.get_window_extent()]
    assert len(names) == number
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    points = below.transData.transform(table[["depth", "score"]])
    assert not any(name.contains(*point) for name in names for point in points)
    plt.close(figure)
    sheet = figure.bbox
    assert all(sheet.x0 <= box.x0 and box.x1 <= sheet.x1 for box in boxes)


@pytest.mark.parametrize("k", [0, 1, 3])
def test_the_top_is_framed_above_and_circled_below(k):
    table = heat_table({"encoder": 2, "decoder": 2})
    above, below = plot_heatmap(table, "map", "mean |C|", k).axes[:2]
    inside = set(table.loc[table["block"] != "", "layer"])
    framed = sum(isinstance(patch, Polygon) and not isinstance(patch, Rectangle) for patch in above.patches)
    assert framed == len(inside & set(table.nlargest(k, "score")["layer"]))
    circles = [points for points in below.collections if points.get_label().startswith("top ")]
    assert [len(points.get_offsets()) for points in circles] == ([k] if k else [])
    highest = set(table.nlargest(k, "score")["depth"])
    assert {int(depth) for points in circles for depth in points.get_offsets()[:, 0]} == highest


def test_a_network_without_blocks_has_a_depth_profile_alone():
    table = heat_table({}).loc[[0] * 3].assign(layer=["a", "b", "c"], depth=range(3))
    (axes,) = plot_heatmap(table, "map", "mean |C|").axes
    assert {text.get_text() for text in axes.texts} == {"a", "b", "c"}


def described(names: list[str]) -> pd.DataFrame:
    layers = describe_layers({name: nn.Identity() for name in names})
    return pd.DataFrame([vars(layer) for layer in layers]).rename(columns={"name": "layer"})


@pytest.mark.parametrize(
    ("names", "blocks"),
    [
        (["enc1.a", "enc1.b", "mid.a", "mid.b", "mid.skip", "out"], ["enc1", "mid"]),
        (["down.e1.a", "down.e1.b", "down.e2.a", "down.e2.b", "up.d.a", "up.d.b"], ["down.e1", "down.e2"]),
        (["enc.0", "enc.2", "dec.0", "dec.2"], ["enc", "dec"]),
        (["x.a", "y.a"], []),
        (["x.a", "x.b", "y.c", "y.d"], []),
        (["blocks.0.a", "blocks.0.b", "head.a", "head.b"], ["blocks.0"]),
        (["weight"], []),
    ],
    ids=["a skip more", "nested", "sequential", "one layer", "other layers", "numbered", "root"],
)
def test_siblings_are_columns_if_they_share_most_layers(names, blocks):
    grid = block_grid(described(names))
    assert list(grid.blocks) == blocks
    assert set(grid.places) == {name for name in names if any(name.startswith(f"{block}.") for block in blocks)}


def test_the_group_figure_holds_every_layer_of_a_top_and_counts_those_of_all():
    ranked = pd.DataFrame({"noise": [1, 2, 3, 4], "blur": [1, 3, 2, 4]}, index=list("abcd"))
    figure = plot_group_ranks(ranked, 2, "Net")
    axes = figure.axes[0]
    assert labels(axes.yaxis) == ["a", "b", "c"]
    assert [text.get_fontweight() for text in axes.get_yticklabels()] == ["bold", "normal", "normal"]
    assert sorted(int(text.get_text()) for text in axes.texts) == [1, 1, 2, 2, 3, 3]
    assert figure.get_suptitle() == "Net: 1 layers (bold) in the top 2 of all 2"
