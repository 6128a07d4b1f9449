"""Words of a finished ranking: the chosen layers, how sure they are, and how far several methods agree."""

__all__ = ["describe_agreement", "describe_certainty", "describe_degradations", "describe_top", "print_summary"]

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

from macattr.ranking.importance import LayerImportance
from macattr.report.choices import SURE
from macattr.report.words import describe_measurement, format_percent, reasons_to_doubt, why_without_intervals
from macattr.statistics.groups import in_every_top
from macattr.statistics.ranks import top_count

FEWEST_ROWS = 8
"""Rows of the ranking that are printed at least."""

NEXT_ROWS = 3
"""Rows below the chosen layers that are printed at least."""

MOST_PAIRS = 3
"""Pairs of methods whose agreement is printed one by one; of more, the extremes and the median."""


def print_summary(
    rankings: Mapping[str, LayerImportance], model: nn.Module, fraction: float, agreement: Path | None = None
) -> None:
    """Print the chosen layers, then how sure they are, then the agreement of several methods.

    Args:
        rankings: The rankings, by method.
        model: The network, which shares of parameters refer to.
        fraction: Share of the layers that is chosen, in (0, 1].
        agreement: Table that ``macattr compare`` writes; None or a missing file: no agreement.
    """
    for importance in rankings.values():
        print(f"\n{describe_top(importance, model, fraction)}")
    print("\nhow sure:")
    said: dict[str, list[str]] = {}
    for name, importance in rankings.items():
        for words in _doubts(importance, fraction):
            said.setdefault(words, []).append(name)
    print("\n".join(f"  {', '.join(names)}: {words}" for words, names in said.items()))
    if agreement is not None and agreement.is_file():
        print(f"\n{describe_agreement(pd.read_csv(agreement, dtype={'a': str, 'b': str}, keep_default_na=False))}")


def _doubts(importance: LayerImportance, fraction: float) -> list[str]:
    """How sure one ranking is, a sentence each."""
    stability = str(importance.dataset.attrs.get("stability", ""))
    residual = describe_measurement(importance).get("Input residual", "")
    sentences = [
        describe_certainty(importance, fraction),
        describe_degradations(importance, fraction),
        residual and f"input residual {residual}",
        *stability.splitlines(),
        *(words for words in reasons_to_doubt(importance) if words != stability.replace("\n", " ")),
    ]
    return [words for words in sentences if words]


def describe_top(importance: LayerImportance, model: nn.Module, fraction: float) -> str:
    """The chosen layers of one ranking, a line, and the next layers.

    Args:
        importance: The ranking.
        model: The network.
        fraction: Share of the layers that is chosen, in (0, 1].
    """
    ranking, every = importance.with_parameters().ranking(), importance.dataset.sizes["layer"]
    count = top_count(fraction, len(ranking))
    top, shown = ranking.head(count), ranking.head(max(count + NEXT_ROWS, FEWEST_ROWS))
    table = importance.layer_table(model)
    share = table.count(top["layer"]) / max(1, table.total)
    attrs = importance.dataset.attrs
    columns = shown[["rank", "layer", "score", "type", "parameters"]]
    formats = {"score": "{:.4g}".format, "parameters": "{:,}".format}
    lines = columns.to_string(index=False, formatters=formats, line_width=10_000).splitlines()
    if len(shown) > count:
        lines.insert(count + 1, f"{' chosen above ':-^{max(map(len, lines))}}")
    words = (
        f"{attrs['method']}, top {100 * fraction:g} %: {count} of {len(ranking)} layers"
        f"{' with parameters' if len(ranking) < every else ''}, {format_percent(share)} of the network's parameters; "
        f"score = {attrs['unit']}"
    )
    shared = [f"{row.layer} = {row.alias_of}" for row in top.itertuples() if row.layer != row.alias_of]
    more = f" and {len(shared) - MOST_PAIRS} more" if len(shared) > MOST_PAIRS else ""
    names = [f"same tensor under two names: {', '.join(shared[:MOST_PAIRS])}{more}"] if shared else []
    return "\n".join([words, *lines, *names])


def describe_certainty(importance: LayerImportance, fraction: float) -> str:
    """How many of the chosen layers other images of the same kind would choose too, in words.

    Args:
        importance: The ranking.
        fraction: Share of the layers that is chosen, in (0, 1].
    """
    if reason := why_without_intervals(importance):
        return reason
    importance = importance.with_parameters()
    names = importance.ranking()["layer"]
    count = top_count(fraction, len(names))
    probabilities = importance.probability_in_top(fraction)[names[:count]]
    sure = int((probabilities >= SURE).sum())
    who = f"{'all' if sure == count else f'{sure} of'} the {count} chosen layers stay"
    if count == 1:
        who = f"the chosen layer {'stays' if sure else 'does not stay'}"
    images = importance.dataset.sizes["sample"]
    return f"{who} chosen in at least {100 * SURE:.0f} % of the resamples of the {images} images"


def describe_degradations(importance: LayerImportance, fraction: float) -> str:
    """How many layers are chosen for every degradation alone, in words; '' without several degradations.

    Args:
        importance: The ranking.
        fraction: Share of the layers that is chosen, in (0, 1].
    """
    importance = importance.with_parameters()
    kinds = importance.degradations
    if len(kinds) < 2:
        return ""
    count = top_count(fraction, importance.dataset.sizes["layer"])
    shared = int(in_every_top(importance.degradation_ranks(), count).sum())
    return f"layers in the top {count} of every degradation alone ({', '.join(kinds)}): {shared}"


def describe_agreement(table: pd.DataFrame) -> str:
    """Agreement of all pairs of methods in three rows: the order, the order of the top, the layers in both tops.

    Args:
        table: ``a``, ``b``, ``measure``, ``value`` and ``chance``, one row for each measure of each pair.
    """
    table = table.assign(pair=table["a"] + ", " + table["b"], value=pd.to_numeric(table["value"], errors="coerce"))
    values = table.pivot_table(index="measure", columns="pair", values="value", sort=False, dropna=False)
    words = {
        "spearman": "same order (1: yes)",
        "rank-biased": "same top ranks (1: yes)",
        "overlap": "share in both tops",
    }
    rows = {label: values.index[values.index.str.startswith(start)][0] for start, label in words.items()}
    shown = values.loc[list(rows.values())]
    head = "agreement of the methods"
    if len(values.columns) > MOST_PAIRS:
        ordered = values.loc[rows["same order (1: yes)"]].sort_values()
        least, most = ordered.index[0], ordered.index[-1]
        head += f" ({len(values.columns)} pairs; every pair in agreement.csv)"
        medians = np.nanmedian(shown.to_numpy(), axis=1)
        shown = shown[[least, most]].rename(columns={least: f"least: {least}", most: f"most: {most}"})
        shown.insert(1, "median", medians)
    chance = table.drop_duplicates("measure").set_index("measure")["chance"]
    shown = shown.assign(unrelated=pd.to_numeric(chance.loc[shown.index]))
    shown.index = pd.Index(list(rows), name=None)
    return f"{head}\n{shown.rename_axis(columns=None).to_string(float_format='{:.2f}'.format, line_width=10_000)}"
