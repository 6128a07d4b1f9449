"""What is said of the methods follows from the runs, by two paths."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ram_models.experiments.layerbench import challengers, rankings  # noqa: F401 - both register methods
from ram_models.experiments.layerbench.ledger import Ledger
from ram_models.experiments.layerbench.methods import METHODS
from ram_models.experiments.layerbench.standings import (
    WINNER,
    cells,
    check_contrasts,
    coincidences,
    left_out,
    misfits,
    problems,
    read_asked,
    standings,
    with_winner,
)

COMMITTED = Path(__file__).parents[4] / "results" / "layerbench"
ASKED = read_asked()
EXACT = 1e-9
LARGEST = {0.02: "2 %", 0.05: "5 %", 0.1: "10 %", 0.2: "20 %", 1.0: "all"}


@pytest.fixture(params=["made up", "committed"])
def folder(request, made_up, tmp_path):
    """Raw tables: made up, and those of the repository."""
    if request.param == "made up":
        return made_up(tmp_path).folder
    if not (COMMITTED / "runs.csv").exists() or not len(cells(Ledger(COMMITTED), ASKED)):
        pytest.skip("no block is complete yet")
    return COMMITTED


def second_path(folder):
    """Captured gain by (network, shift, seed, budget, method, draw), by plain loops over the raw files."""
    read = lambda name: pd.read_csv(folder / f"{name}.csv", dtype={"trained": str}, keep_default_na=False)  # noqa: E731
    choices = read("choices").to_dict("records")
    best, kinds, gains = {}, {}, {}
    for rate in read("rates").to_dict("records"):
        key = rate["network"], rate["shift"], rate["kind"]
        best[key] = max(best.get(key, (-np.inf, 0.0)), (rate["validation_db"], rate["lr"]))
    for row in read("sets").to_dict("records"):
        size = next(name for most, name in LARGEST.items() if float(row["share"]) <= most)
        kinds[row["network"], row["trained"]] = size if row["kind"] == "layers" else row["kind"]
    for run in read("runs").to_dict("records"):
        block = run["network"], run["shift"], run["seed"]
        if best[(*block[:2], kinds[run["network"], run["trained"]])][1] != run["lr"]:
            continue
        gains.setdefault(block, {})[run["trained"]] = run["after_db"] - run["before_db"]
    captured, trained = {}, {}
    for block, gain in gains.items():
        own = [c for c in choices if (c["network"], c["shift"]) == block[:2] and c["seed"] in (-1, block[2])]
        own = [c for c in own if c["trained"] and (c["budget"] in ASKED.budgets or c["method"] == "all layers")]
        full = next((gain.get(c["trained"]) for c in own if c["method"] == "all layers"), None)
        if full is None or full < ASKED.least_gain_db or any(c["trained"] not in gain for c in own):
            continue
        for c in own:
            for budget in ASKED.budgets if c["method"] == "all layers" else [c["budget"]]:
                key = (*block, budget, c["method"], c["draw"])
                captured[key], trained[key] = gain[c["trained"]] / full, c["trained"]
    return captured, trained


def test_problems_that_all_layers_hardly_gain_in_are_left_out_and_named():
    ledger = Ledger(COMMITTED)
    runs, choices = ledger.table("runs"), ledger.table("choices")
    full = runs.merge(choices[choices["method"] == "all layers"][["network", "shift", "trained"]].drop_duplicates())
    gains = {}
    for _, run in full.iterrows():
        gains.setdefault((run["network"], run["shift"]), []).append(run["after_db"] - run["before_db"])
    small = {problem: sum(own) / len(own) for problem, own in gains.items() if max(own) < ASKED.least_gain_db}
    assert small, "the committed tables hold such a problem"
    assert left_out(ledger, ASKED).to_dict() == pytest.approx(small)
    kept = cells(ledger, ASKED)
    assert small.keys().isdisjoint(zip(kept["network"], kept["shift"], strict=True))


def averaged(captured):
    """The same with draws averaged: a value for every cell and method."""
    by_cell = {}
    for (*cell, _), value in captured.items():
        by_cell.setdefault(tuple(cell), []).append(value)
    return {cell: sum(values) / len(values) for cell, values in by_cell.items()}


def problem_means(values):
    """Means over seeds and budgets of what is keyed by (network, shift, ...)."""
    by_problem = {}
    for key, value in values.items():
        by_problem.setdefault(key[:2], []).append(value)
    return {problem: sum(group) / len(group) for problem, group in by_problem.items()}


def test_standings_follow_from_the_raw_runs_by_another_path(folder):
    captured, _ = second_path(folder)
    mean, table = averaged(captured), standings(cells(Ledger(folder), ASKED)).set_index("method")
    assert set(table.index) == {key[4] for key in mean}
    cell_keys = list(dict.fromkeys(key[:4] for key in mean))
    for method, row in table.iterrows():
        own = np.array(list(problem_means({k: v for k, v in mean.items() if k[4] == method}).values()))
        assert row["captured"] == pytest.approx(own.mean(), abs=EXACT)
        assert row["worst"] == pytest.approx(own.min(), abs=EXACT)
        if len(own) > 1 and np.ptp(own):
            low, high = stats.t.interval(0.95, len(own) - 1, own.mean(), stats.sem(own))
            assert (row["low"], row["high"]) == pytest.approx((low, high), abs=EXACT)
        if method == "all layers":
            continue
        places, wins, regrets = [], [], []
        for cell in cell_keys:
            here = {k[4]: v for k, v in mean.items() if k[:4] == cell and k[4] != "all layers"}
            if method in here:
                values = list(here.values())
                ranks = dict(zip(here, stats.rankdata([-v for v in values]), strict=True))
                places.append(ranks[method])
                wins.append(here[method] >= max(values) - 1e-9)
                best = max(v for k, v in captured.items() if k[:5] == (*cell, "random"))
                regrets.append(best - here[method])
        expected = np.mean(places), np.mean(wins), np.mean(regrets)
        assert (row["rank"], row["wins"], row["regret"]) == pytest.approx(expected, abs=EXACT)


def test_contrasts_follow_from_the_raw_runs_by_another_path(folder):
    captured, trained = second_path(folder)
    mean = averaged(captured)
    sets = {}
    for (*cell, _), key in trained.items():
        sets.setdefault(tuple(cell), set()).add(key)
    found = check_contrasts(cells(Ledger(folder), ASKED), ASKED)
    raw_p = []
    for _, row in found.iterrows():
        if WINNER in (row["a"], row["b"]):
            raw_p.append(row["p"])
            continue
        pairs = {
            key[:4]: (key, (*key[:4], row["b"])) for key in mean if key[4] == row["a"] and (*key[:4], row["b"]) in mean
        }
        differences = {cell: mean[a] - mean[b] for cell, (a, b) in pairs.items() if sets[a] != sets[b]}
        own = np.array(list(problem_means(differences).values()))
        if not len(own):
            assert pd.isna(row["mean"])
            raw_p.append(np.nan)
            continue
        assert row["mean"] == pytest.approx(own.mean(), abs=EXACT)
        assert row["problems"] == len(own)
        raw_p.append(stats.ttest_1samp(own, ASKED.margin).pvalue if len(own) > 1 and np.ptp(own) else row["p"])
        if len(own) > 1 and np.ptp(own):
            low, high = stats.t.interval(0.95, len(own) - 1, own.mean(), stats.sem(own))
            assert (row["low"], row["high"]) == pytest.approx((low, high), abs=EXACT)
    tested = np.isfinite(raw_p)
    order = np.argsort(np.array(raw_p)[tested])
    steps = np.array(raw_p)[tested][order] * np.arange(tested.sum(), 0, -1)
    adjusted = np.minimum(1, np.maximum.accumulate(steps))
    assert found["p_holm"][tested].to_numpy()[order] == pytest.approx(adjusted, abs=EXACT)


def test_a_block_without_one_of_its_runs_does_not_count(made_up, tmp_path):
    whole = cells(made_up(tmp_path / "whole"), ASKED)
    cut = cells(made_up(tmp_path / "cut", without=[("srvgg-x2", "a", 11, "every")]), ASKED)
    blocks = lambda table: set(zip(table["network"], table["shift"], table["seed"], strict=True))  # noqa: E731
    assert blocks(whole) - blocks(cut) == {("srvgg-x2", "a", 11)}


def test_a_run_at_another_rate_than_that_of_its_class_does_not_count(made_up, tmp_path):
    ledger = made_up(tmp_path)
    before = cells(ledger, ASKED)
    run = ledger.table("runs").iloc[0].to_dict()
    ledger.add("runs", [{**run, "lr": 3e-3, "after_db": 99.0}])
    pd.testing.assert_frame_equal(cells(ledger, ASKED), before)
    rate = ledger.table("rates").iloc[-1].to_dict()
    ledger.add("rates", [{**rate, "lr": 1e-2, "validation_db": 1.0}])
    network, shift = rate["network"], rate["shift"]
    left = before[(before["network"] != network) | (before["shift"] != shift)].reset_index(drop=True)
    pd.testing.assert_frame_equal(cells(ledger, ASKED), left)  # its runs are to be done again


def test_runs_at_another_rate_tell_how_well_rates_fit(made_up, tmp_path):
    ledger = made_up(tmp_path)
    assert misfits(ledger).empty
    runs = ledger.table("runs").iloc[:3].to_dict("records")
    ledger.add("runs", [{**runs[0], "lr": 1e-2, "after_db": runs[0]["after_db"] + 3}])
    ledger.add("runs", [{**run, "lr": 3e-3, "after_db": run["after_db"] - 1} for run in runs])
    (row,) = misfits(ledger).to_dict("records")
    assert (row["network"], row["shift"], row["sets"]) == ("vgg7-noise1", "a", 3)
    assert (row["better"], row["median"], row["worst"]) == pytest.approx((1 / 3, 1.0, -3.0))


def test_equal_sets_have_equal_gains_and_places(made_up, tmp_path):
    table = cells(made_up(tmp_path), ASKED)
    spread = table.groupby(["network", "shift", "seed", "trained"])["captured"].agg(np.ptp)
    assert spread.max() == pytest.approx(0, abs=1e-12)


def test_the_winner_is_chosen_on_other_networks(made_up, tmp_path):
    table = cells(made_up(tmp_path), ASKED)
    more = table["captured"].where(~((table["network"] == "srvgg-x2") & (table["method"] == "cka")), 9.0)
    praised = with_winner(table.assign(captured=more))
    there = praised[(praised["method"] == WINNER) & (praised["network"] == "srvgg-x2")]
    assert not (there["captured"] == 9.0).any(), "srvgg-x2 itself has no say"
    elsewhere = praised[(praised["method"] == WINNER) & (praised["network"] != "srvgg-x2")]
    own = praised[(praised["method"] == "cka") & (praised["network"] != "srvgg-x2")]
    assert set(elsewhere["trained"]) == set(own["trained"])


def test_contrasts_leave_out_cells_with_the_same_set(made_up, tmp_path):
    table = cells(made_up(tmp_path), ASKED)
    copied = pd.concat([table, table[table["method"] == "mac"].assign(method="LoRA")], ignore_index=True)
    row = check_contrasts(copied, ASKED).set_index("b").loc["LoRA"]
    assert row["verdict"] == "the same layers"
    assert row["same"] == 6


def test_coincidences_count_sets_of_rankings_alone(made_up, tmp_path):
    table = cells(made_up(tmp_path), ASKED)
    row = coincidences(table.assign(trained="one")).iloc[0]
    assert (row["sets"], row["methods"], row["one"], row["as_mac"]) == (1, 3, 1, 1)


def test_problems_tell_the_spread_of_rankings(made_up, tmp_path):
    rows = problems(cells(made_up(tmp_path), ASKED))
    assert len(rows) == 6 * len(ASKED.budgets)
    assert ((rows["best"] >= rows["mac"]) & (rows["mac"] >= rows["worst"])).all()


def test_every_contrast_names_known_methods():
    assert {name for each in ASKED.contrasts for name in (each["a"], each["b"])} <= {*METHODS, WINNER}
