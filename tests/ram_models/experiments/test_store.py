"""Finished runs: added once, found again."""

import pandas as pd

from ram_models.experiments.store import Store, keyed

SCORES = pd.DataFrame({"kind": ["trained"], "task": ["noise"], "psnr_db": [20.123456789]})


def test_an_empty_store_has_finished_nothing(tmp_path):
    store = Store(tmp_path / "results")
    assert store.finished() == set()
    assert store.runs().empty


def test_what_is_added_is_finished(tmp_path):
    store = Store(tmp_path / "results")
    store.add(keyed(SCORES, "masked-0", 10, "MAC", 1.0), pd.DataFrame({"arm": ["MAC"]}))
    store.add(keyed(SCORES, "masked-0", 11, "MAC, with a comma", 1.0))
    assert store.finished() == {("masked-0", 10, "MAC"), ("masked-0", 11, "MAC, with a comma")}
    assert store.scores()["psnr_db"].tolist() == [20.1235, 20.1235]  # six digits are kept
    assert store.runs()["arm"].tolist() == ["MAC"]
