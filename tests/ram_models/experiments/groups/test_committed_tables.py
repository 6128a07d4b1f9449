"""The committed tables of the experiment on groups: they follow from the raw ones, also by a second path."""

import itertools
from pathlib import Path

import pandas as pd
import pytest
import yaml
from scipy import stats

from ram_models import ram_swinir_tiny
from ram_models.experiments.groups import groups as experiment
from ram_models.experiments.groups.page import write_page
from ram_models.experiments.groups.partition import groups_of

RESULTS = Path(__file__).parents[4] / "results" / "groups"


def committed(name: str) -> pd.DataFrame:
    return pd.read_csv(RESULTS / f"{name}.csv")


def test_the_committed_tables_follow_from_the_raw_ones(tmp_path):
    for name in ("probes", "scores"):
        (tmp_path / f"{name}.csv").write_bytes((RESULTS / f"{name}.csv").read_bytes())
    experiment.write_tables(tmp_path, groups_of(ram_swinir_tiny()), [0.1, 0.25])
    for name in ("gains", "foresight", "captured", "claims"):
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / f"{name}.csv"), committed(name), rtol=1e-9)


def test_correlations_are_those_of_a_second_path():
    table, claims = (
        committed("gains").dropna(subset="loss_gain").set_index("group"),
        committed("foresight").set_index("method")["value"],
    )
    raw, additive = committed("scores"), yaml.safe_load(contrasts_file().read_text())["additive"]
    layers = {group.name: list(group.layers) for group in groups_of(ram_swinir_tiny())}
    for method, rows in raw.groupby("method"):
        by_name = rows.set_index("name")["score"]
        if method == "kernel":
            scores = by_name.reindex(table.index)
        else:
            scores = pd.Series(
                {g: by_name[ls].sum() if method in additive else by_name[ls].mean() for g, ls in layers.items()}
            )
        expected = stats.spearmanr(scores.reindex(table.index), table["loss_gain"]).statistic
        assert claims[method] == pytest.approx(expected, abs=1e-7)  # eight digits in the table


def contrasts_file() -> Path:
    return Path(experiment.__file__).parent / "contrasts.yaml"


@pytest.mark.parametrize("budget", [0.1, 0.25])
def test_no_captured_share_exceeds_that_of_the_best_set(budget):
    table = committed("gains")
    limit = budget * table["parameters"].sum()
    table = table.dropna(subset="loss_gain")
    useful = table[table["loss_gain"] > 0]
    sets = itertools.chain.from_iterable(itertools.combinations(useful.index, count) for count in range(1, 6))
    best = max(table.loc[list(s), "loss_gain"].sum() for s in sets if table.loc[list(s), "parameters"].sum() <= limit)
    captured = committed("captured")
    for _, row in captured[captured["budget"] == budget].iterrows():
        chosen = table[table["group"].isin(row["groups"].split("; "))]
        assert chosen["parameters"].sum() == row["parameters"] <= limit
        assert row["captured"] <= 1 + 1e-9
        assert chosen["loss_gain"].sum() / row["captured"] >= best * (1 - 1e-6)  # the divisor is that of the best set


def test_the_committed_page_follows_from_the_tables(tmp_path):
    write_page(RESULTS, tmp_path)
    assert (tmp_path / "groups.md").read_text() == (RESULTS.parents[1] / "docs" / "groups.md").read_text()
