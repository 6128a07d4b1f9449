"""From runs to answers: the gain that every method captures, its rank and cost, and what the contrasts say."""

__all__ = [
    "CELL",
    "WINNER",
    "Asked",
    "best_rates",
    "cells",
    "check_contrasts",
    "coincidences",
    "left_out",
    "misfits",
    "problems",
    "read_asked",
    "standings",
]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from ram_models.experiments.layerbench.challengers import KERNEL_GREEDY, SMALL_FIRST
from ram_models.experiments.layerbench.controls import ALL, RANDOM
from ram_models.experiments.layerbench.ledger import ANY_SEED, BLOCK, Ledger
from ram_models.experiments.layerbench.methods import METHODS
from ram_models.experiments.layerbench.rates import rate_class
from ram_models.experiments.verdicts.statistics import Contrast, contrast, holm, interval, verdict_of

CELL = (*BLOCK, "budget")
"""Columns that tell what every method is asked once."""

PROBLEM = ["network", "shift"]

WINNER = "winner elsewhere"
"""The method that captures most on the other networks, chosen anew for each."""

WON = 1e-9
"""Captured gains this near to the highest one are equal to it."""


@dataclass(frozen=True)
class Asked:
    """What was asked before the first run; the file contrasts.yaml beside this module explains it.

    Args:
        least_gain_db: Least gain of all layers in a block that counts.
        margin: Largest difference of captured gains that would not matter.
        budgets: Shares of the parameters over which contrasts are averaged.
        contrasts: ``text``, and the names ``a`` and ``b`` of the methods that it compares.
    """

    least_gain_db: float
    margin: float
    budgets: Sequence[float]
    contrasts: Sequence[Mapping[str, str]]


def read_asked() -> Asked:
    """The contrasts as they were registered."""
    return Asked(**yaml.safe_load((Path(__file__).parent / "contrasts.yaml").read_text()))


def cells(ledger: Ledger, asked: Asked) -> pd.DataFrame:
    """What every method gained, in all complete blocks where all layers gain enough.

    A block is complete if everything that was chosen for it within the budgets was run at the rate of its class.

    Args:
        ledger: Finished runs.
        asked: Budgets, and the least gain.

    Returns:
        One row a method, draw, block and budget: :data:`CELL`, ``method, draw, trained, share, gain_db, captured``,
        ``seconds`` of choosing over those of training all layers; all layers stand in every budget.
    """
    table = _complete(ledger, asked)
    return table[table["gain_db_all"] >= asked.least_gain_db].drop(columns="gain_db_all").reset_index(drop=True)


def left_out(ledger: Ledger, asked: Asked) -> pd.Series:
    """Problems whose blocks are complete, none with enough of a gain, and the mean gain of all layers there in dB.

    Args:
        ledger: Finished runs.
        asked: Budgets, and the least gain.
    """
    gains = _complete(ledger, asked).groupby(PROBLEM, sort=False)["gain_db_all"]
    return gains.mean()[gains.max() < asked.least_gain_db]


def best_rates(ledger: Ledger) -> pd.DataFrame:
    """The learning rate of every class on every problem: ``network, shift, kind, lr``.

    Args:
        ledger: Rates that were compared.
    """
    rates = ledger.table("rates")
    best = rates.groupby([*PROBLEM, "kind"], sort=False)["validation_db"].idxmax()
    return rates.loc[best, [*PROBLEM, "kind", "lr"]]


def _tuned_runs(ledger: Ledger) -> pd.DataFrame:
    """The runs at the rate of their class; those from before it was found are left out."""
    sets = ledger.table("sets")
    kinds = [rate_class(kind, share) for kind, share in zip(sets["kind"], sets["share"], strict=True)]
    sets["kind"] = pd.Series(kinds, sets.index, dtype=object)
    classes = sets[["network", "trained", "kind"]].merge(best_rates(ledger), on=["network", "kind"])
    return ledger.table("runs").merge(classes, on=[*PROBLEM, "trained", "lr"])


def misfits(ledger: Ledger) -> pd.DataFrame:
    """What sets gained at the rate of their class, where they were run at another one too.

    Args:
        ledger: Finished runs.

    Returns:
        One row a problem: ``network, shift``, number of ``sets`` (each with a seed), share of them that were ``better``
        at another rate, and the quality at the rate of the class less that at the best other one, in dB: ``median``
        and ``worst``.
    """
    at_own = _tuned_runs(ledger)[[*BLOCK, "trained", "lr", "after_db"]]
    pairs = ledger.table("runs").merge(at_own, on=[*BLOCK, "trained"], suffixes=("_other", ""))
    pairs = pairs[pairs["lr_other"] != pairs["lr"]]
    best = pairs.groupby([*BLOCK, "trained"], sort=False)[["after_db_other", "after_db"]].max()
    difference = (best["after_db"] - best["after_db_other"]).groupby(level=PROBLEM, sort=False)
    parts = {
        "sets": difference.size(),
        "better": difference.agg(lambda values: (values < 0).mean()),
        "median": difference.median(),
        "worst": difference.min(),
    }
    return pd.DataFrame(parts).reset_index()


def _complete(ledger: Ledger, asked: Asked) -> pd.DataFrame:
    """:func:`cells` of all complete blocks, with ``gain_db_all``."""
    runs, sets, choices = _tuned_runs(ledger), ledger.table("sets"), ledger.table("choices")
    runs["gain_db"] = runs["after_db"] - runs["before_db"]
    choices = choices[choices["trained"] != ""].rename(columns={"seconds": "choosing"})
    everything = (
        choices[choices["method"] == ALL]
        .drop(columns="budget")
        .merge(pd.DataFrame({"budget": asked.budgets}), how="cross")
    )
    choices = pd.concat([choices[choices["method"] != ALL], everything], ignore_index=True)
    choices = choices[choices["budget"].isin(asked.budgets)]
    blocks = runs[list(BLOCK)].drop_duplicates()
    always = choices[choices["seed"] == ANY_SEED].drop(columns="seed").merge(blocks, on=PROBLEM)
    table = pd.concat([choices[choices["seed"] != ANY_SEED], always], ignore_index=True).drop(columns="made_with")
    table = table.merge(runs[[*BLOCK, "trained", "gain_db", "seconds"]], how="left", on=[*BLOCK, "trained"])
    is_run = table.assign(run=table["gain_db"].notna()).groupby(list(BLOCK))["run"].transform("all")
    table = table[is_run.astype(bool)]
    table = table.merge(sets[["network", "trained", "share"]], on=["network", "trained"])
    full = table[table["method"] == ALL].drop_duplicates(list(BLOCK))[[*BLOCK, "gain_db", "seconds"]]
    table = table.drop(columns="seconds").merge(full, on=list(BLOCK), suffixes=("", "_all"))
    table["captured"] = table["gain_db"] / table["gain_db_all"]
    table["seconds"] = table["choosing"] / table["seconds"]
    kept = [*CELL, "method", "draw", "trained", "share", "gain_db", "captured", "seconds", "gain_db_all"]
    return table[kept].sort_values([*CELL, "method", "draw"], ignore_index=True)


def _by_method(table: pd.DataFrame) -> pd.DataFrame:
    """Captured gain of every method in every cell, its draws averaged: one row a cell, one column a method."""
    wide = table.pivot_table("captured", list(CELL), "method", sort=False)
    return wide.loc[:, [name for name in table["method"].unique() if name in wide]]


def _by_problem(wide: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds and budgets: one row a problem, one column a method."""
    return wide.groupby(level=PROBLEM, sort=False).mean()


def standings(table: pd.DataFrame) -> pd.DataFrame:
    """How every method did.

    Args:
        table: Of :func:`cells`.

    Returns:
        One row a method, the best first: ``captured`` with its 95 % interval ``low ... high`` over problems (means over
        seeds and budgets), ``worst`` problem, one column a budget such as ``5 %``, ``rank`` (mean over cells, 1 is
        best, ties averaged) among ``ranked`` methods, ``wins`` (share of cells in which none gained more), ``regret``
        (captured gain below the best random draw's), ``share`` of the parameters, ``seconds`` (see :func:`cells`),
        ``problems``.
    """
    wide = _by_method(table)
    shown = wide.drop(columns=ALL, errors="ignore")
    means = _by_problem(wide)
    random = table[table["method"] == RANDOM].groupby(list(CELL), sort=False)["captured"].max()
    ranks = shown.rank(axis=1, ascending=False)
    rows = []
    for method in wide:
        own, part = means[method].dropna(), table[table["method"] == method]
        ends = interval(own.to_numpy())
        row = {"method": method, "captured": own.mean(), "low": ends.low, "high": ends.high, "worst": own.min()}
        by_budget = wide[method].groupby(level=["budget", *PROBLEM], sort=False).mean().groupby(level="budget").mean()
        row |= {f"{100 * budget:.0f} %": value for budget, value in by_budget.items()}
        if method in shown:
            best = shown.max(axis=1)
            present = shown[method].notna()
            row |= {"rank": ranks[method].mean(), "wins": (shown[method] >= best - WON)[present].mean()}
        row |= {"regret": (random - wide[method]).mean(), "share": part["share"].mean()}
        row |= {"seconds": part.drop_duplicates([*BLOCK])["seconds"].mean(), "problems": len(own)}
        rows.append(row)
    result = pd.DataFrame(rows).sort_values(["captured", "method"], ascending=[False, True], ignore_index=True)
    return result.assign(ranked=shown.shape[1])


def problems(table: pd.DataFrame) -> pd.DataFrame:
    """What there was to gain, and how much the choice mattered.

    Args:
        table: Of :func:`cells`.

    Returns:
        One row a problem and budget: ``gain_db`` of all layers, ``sets`` (distinct ones that the rankings chose), the
        captured gain of the ``best``, the median (``middle``) and the ``worst`` ranking, of ``mac`` and the mean
        ``random`` one, ``seeds``.
    """
    ranked = table[table["method"].map(_is_ranking)]
    wide = _by_method(table)
    keys = [*PROBLEM, "budget"]
    mean = wide.groupby(level=keys, sort=False).mean()
    rankings = mean[[name for name in mean if _is_ranking(str(name))]]
    result = pd.DataFrame(
        {
            "gain_db": table[table["method"] == ALL].groupby(keys, sort=False)["gain_db"].mean(),
            "sets": ranked.groupby(keys, sort=False)["trained"].nunique(),
            "best": rankings.max(axis=1),
            "middle": rankings.median(axis=1),
            "worst": rankings.min(axis=1),
            "mac": mean["mac"],
            "random": mean[RANDOM],
            "seeds": table.groupby(keys, sort=False)["seed"].nunique(),
        }
    )
    return result.reset_index()


def _is_ranking(method: str) -> bool:
    """Whether a method looks at more than the places and kinds of layers."""
    return method in METHODS and not METHODS[method].control


def coincidences(table: pd.DataFrame) -> pd.DataFrame:
    """How often rankings choose the same layers.

    Args:
        table: Of :func:`cells`.

    Returns:
        One row a budget: mean number of distinct ``sets`` in a cell, number of ``methods``, ``one`` (share of the cells
        in which all rankings choose the same set), ``as_mac`` (share of the others that choose MAC's).
    """
    ranked = table[table["method"].map(_is_ranking)].copy()
    macs = ranked[ranked["method"] == "mac"].set_index(list(CELL))["trained"]
    ranked["as_mac"] = (
        ranked["trained"].to_numpy() == macs.reindex(pd.MultiIndex.from_frame(ranked[list(CELL)])).to_numpy()
    )
    by_cell = ranked.groupby(list(CELL), sort=False)["trained"].nunique()
    others = ranked[ranked["method"] != "mac"].groupby("budget")["as_mac"].mean()
    return pd.DataFrame(
        {
            "sets": by_cell.groupby(level="budget").mean(),
            "methods": ranked.groupby("budget")["method"].nunique(),
            "one": (by_cell == 1).groupby(level="budget").mean(),
            "as_mac": others,
        }
    ).reset_index()


def with_winner(table: pd.DataFrame) -> pd.DataFrame:
    """The cells with :data:`WINNER` as one more method, where there are other networks to choose it on.

    Args:
        table: Of :func:`cells`.
    """
    means = _by_problem(_by_method(table))
    rankings = means[[name for name in means if _is_ranking(str(name)) and name not in (*SMALL_FIRST, KERNEL_GREEDY)]]
    parts = [table]
    for network in table["network"].unique():
        others = rankings[rankings.index.get_level_values("network") != network].dropna(axis=1)
        if others.size:
            best = others.mean().idxmax()
            parts.append(table[(table["network"] == network) & (table["method"] == best)].assign(method=WINNER))
    return pd.concat(parts, ignore_index=True)


def check_contrasts(table: pd.DataFrame, asked: Asked) -> pd.DataFrame:
    """What the problems say of every contrast.

    Args:
        table: Of :func:`cells`.
        asked: The contrasts.

    Returns:
        One row a contrast: ``text, a, b, problems, networks, same`` (problems without a cell in which both train
        different sets), ``mean`` difference of the captured gains, its 95 % interval over problems ``low ... high`` and
        over networks ``low_networks ... high_networks``, ``p`` of a difference as large as the margin, ``p_holm``,
        ``p_sign_flip``, and the ``verdict``.
    """
    complete = with_winner(table)
    measured = [_measure(complete, str(each["a"]), str(each["b"]), asked.margin) for each in asked.contrasts]
    p_values = np.array([np.nan if effect is None else effect.p for effect, _ in measured])
    tested = np.isfinite(p_values)
    p_values[tested] = holm(p_values[tested].tolist())
    rows = []
    for each, (effect, same), p_holm in zip(asked.contrasts, measured, p_values, strict=True):
        verdict = "the same layers" if effect is None and same else verdict_of(effect, asked.margin, float(p_holm))
        row = {**each, "same": same, "p_holm": p_holm, "verdict": verdict}
        rows.append(row | (_numbers(effect) if effect else {}))
    columns = ["text", "a", "b", "problems", "networks", "same", "mean", "low", "high", "low_networks", "high_networks"]
    return pd.DataFrame(rows).reindex(columns=[*columns, "p", "p_holm", "p_sign_flip", "verdict"])


def _measure(table: pd.DataFrame, a: str, b: str, margin: float) -> tuple[Contrast | None, int]:
    """The contrast of two methods, None if there is none; and the number of problems where they train the same."""
    sides = [table[table["method"] == name] for name in (a, b)]
    sets = [side.groupby(list(CELL), sort=False)["trained"].agg(lambda keys: frozenset(keys)) for side in sides]
    means = [side.groupby(list(CELL), sort=False)["captured"].mean() for side in sides]
    both = means[0].index.intersection(means[1].index, sort=False)
    if not len(both):
        return None, 0
    differ = np.array([sets[0][cell] != sets[1][cell] for cell in both])
    differences = (means[0][both] - means[1][both])[differ].groupby(level=PROBLEM, sort=False).mean()
    same = both.droplevel(["seed", "budget"]).nunique() - len(differences)
    if not len(differences):
        return None, same
    networks = differences.index.get_level_values("network").to_numpy(str)
    return contrast(differences.to_numpy(float), networks, margin), same


def _numbers(effect: Contrast) -> dict[str, float | int]:
    """The columns that hold a contrast."""
    return {
        "problems": effect.blocks,
        "networks": effect.pretrainings,
        "mean": effect.mean,
        "low": effect.over_blocks.low,
        "high": effect.over_blocks.high,
        "low_networks": effect.over_pretrainings.low,
        "high_networks": effect.over_pretrainings.high,
        "p": effect.p,
        "p_sign_flip": effect.p_sign_flip,
    }
