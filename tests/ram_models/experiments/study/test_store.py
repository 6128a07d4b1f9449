"""Finished runs: added once, found again."""

import pandas as pd
import pytest

from ram_models.experiments.study.store import Store, keyed

SCORES = pd.DataFrame({"kind": ["trained"], "task": ["noise"], "psnr_db": [20.123456789]})


def test_an_empty_store_has_finished_nothing(tmp_path):
    store = Store(tmp_path / "results")
    assert store.finished() == {}
    assert store.runs().empty


def made(arm, seed=10, made_with="a1"):
    return keyed(SCORES, "masked-0", seed, arm, 1.0).assign(made_with=made_with)


def test_what_is_added_is_finished(tmp_path):
    store = Store(tmp_path / "results")
    store.add(made("MAC"), pd.DataFrame({"arm": ["MAC"]}))
    store.add(made("MAC, with a comma", seed=11))
    assert store.finished() == {("masked-0", 10, "MAC"): "a1", ("masked-0", 11, "MAC, with a comma"): "a1"}
    assert store.scores()["psnr_db"].tolist() == [20.1235, 20.1235]  # six digits are kept
    assert store.runs()["arm"].tolist() == ["MAC"]


def test_what_was_made_otherwise_is_refused(tmp_path):
    store = Store(tmp_path / "results")
    store.add(made("MAC"))
    store.refuse_others({("masked-0", 10, "MAC"): "a1", ("masked-0", 10, "not there"): "b2"})
    with pytest.raises(ValueError, match=r"holds 1 runs .* masked-0 / 10 / MAC: choose another `results`"):
        store.refuse_others({("masked-0", 10, "MAC"): "b2"})


def test_rows_of_other_columns_are_refused(tmp_path):
    store = Store(tmp_path / "results")
    store.add(made("MAC"))
    with pytest.raises(ValueError, match="has the columns pretrained, seed, arm"):
        store.add(made("IG").drop(columns="psnr_db"))


def test_a_run_is_repeated_under_another_name(tmp_path):
    store = Store(tmp_path / "results")
    for arm, seed in (("MAC", 10), ("IG", 10), ("MAC", 11)):
        run = pd.DataFrame({"pretrained": ["masked-0"], "seed": [seed], "arm": [arm], "lr": [0.001]})
        store.add(made(arm, seed), run)
    store.repeat(("masked-0", 10, "MAC"), "convolutions")
    assert len(store.finished()) == 4
    assert store.finished()["masked-0", 10, "convolutions"] == "a1"
    assert store.scores().iloc[-1].drop("arm").equals(store.scores().iloc[0].drop("arm"))
    assert store.runs()[["seed", "arm"]].iloc[-1].tolist() == [10, "convolutions"]
