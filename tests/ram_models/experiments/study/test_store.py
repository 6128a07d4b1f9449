"""Finished runs: added once, found again."""

import pandas as pd
import pytest

from ram_models.experiments.study.store import UNTUNED_SEED, RunKey, Store, keyed

SCORES = pd.DataFrame({"kind": ["trained"], "task": ["noise"], "psnr_db": [20.123456789]})


def test_an_empty_store_has_finished_nothing(tmp_path):
    store = Store(tmp_path / "results")
    assert store.finished() == {}
    assert store.runs().empty


def key(arm, seed=10, lr=0.001):
    return RunKey("masked-0", seed, arm, lr)


def made(arm, seed=10, made_with="a1", lr=0.001, progress=1.0):
    return keyed(SCORES, key(arm, seed, lr), progress).assign(made_with=made_with)


def test_what_is_added_is_finished(tmp_path):
    store = Store(tmp_path / "results")
    store.add(made("MAC"), pd.DataFrame([key("MAC")]))
    store.add(made("MAC, with a comma", seed=11))
    assert store.finished() == {key("MAC"): "a1", key("MAC, with a comma", 11): "a1"}
    assert store.scores()["psnr_db"].tolist() == [20.1235, 20.1235]  # six digits are kept
    assert store.runs()["arm"].tolist() == ["MAC"]


def test_what_was_made_otherwise_is_refused(tmp_path):
    store = Store(tmp_path / "results")
    store.add(made("MAC"))
    store.refuse_others({key("MAC"): "a1", key("not there"): "b2", key("MAC", lr=0.003): "c3"})
    with pytest.raises(ValueError, match=r"holds 1 runs .* masked-0 / 10 / MAC / 0.001: choose another `results`"):
        store.refuse_others({key("MAC"): "b2"})


def test_rows_of_other_columns_are_refused(tmp_path):
    store = Store(tmp_path / "results")
    store.add(made("MAC"))
    with pytest.raises(ValueError, match="has the columns pretrained, seed, arm"):
        store.add(made("IG").drop(columns="psnr_db"))


def test_a_run_is_repeated_under_another_name(tmp_path):
    store = Store(tmp_path / "results")
    for arm, seed in (("MAC", 10), ("IG", 10), ("MAC", 11)):
        store.add(made(arm, seed), pd.DataFrame([key(arm, seed)]))
    store.repeat(key("MAC"), "convolutions", "b2")
    assert len(store.finished()) == 4
    assert store.finished()[key("convolutions")] == "b2"  # so that it is not refused when the study goes on
    other = ["arm", "made_with"]
    assert store.scores().iloc[-1].drop(other).equals(store.scores().iloc[0].drop(other))
    assert store.runs()[["seed", "arm"]].iloc[-1].tolist() == [10, "convolutions"]


def test_runs_at_two_rates_are_told_apart(tmp_path):
    store = Store(tmp_path / "results")
    for lr in (0.001, 0.003):
        store.add(made("all", lr=lr), pd.DataFrame([key("all", lr=lr)]))
        store.add(made("all, interpolated", lr=lr, progress=0.4))
    store.add(made("whole", UNTUNED_SEED, lr=0.0, progress=0.0))
    assert len(store.finished()) == 5
    chosen = store.scores_of([key("all", lr=0.003)])
    assert chosen[["arm", "progress"]].to_numpy().tolist() == [["all", 1.0], ["all, interpolated", 0.4], ["whole", 0.0]]
    assert store.runs_of([key("all", lr=0.003)])["lr"].tolist() == [0.003]


def test_a_run_that_was_made_again_after_a_stop_between_both_tables_counts_once(tmp_path):
    store = Store(tmp_path / "results")
    for seconds in (1, 2):
        store.add(made("MAC"), pd.DataFrame([key("MAC")]).assign(seconds=seconds))
    assert store.runs()["seconds"].tolist() == [2]
