"""The page: that it says of a claim what its row says; on tables that were made up."""

import pandas as pd
import pytest

from ram_models.experiments.page.page import Page
from ram_models.experiments.verdicts.claims import CLAIM_COLUMNS

CLAIM = {
    "claim": "better",
    "a": "MAC",
    "b": "ends",
    "column": "in distribution",
    "paper_db": 0.5,
    "blocks": 6,
    "mean_db": 0.3,
    "low_db": 0.1,
    "high_db": 0.5,
    "low_pretrainings_db": -0.1,
    "high_pretrainings_db": 0.7,
    "unlit_db": 0.2,
    "low_unlit_db": 0.0,
    "high_unlit_db": 0.4,
    "least_overlap": 0.3,
    "most_overlap": 0.82,
    "tuned": True,
    "verdict": "undecided",
}


@pytest.fixture
def results(tmp_path):
    """A folder with two claims of Table 5, one of them provisional, and how one stood before."""
    rows = [CLAIM, CLAIM | {"claim": "other", "b": "all", "tuned": False}]
    pd.DataFrame(rows, columns=list(CLAIM_COLUMNS)).to_csv(tmp_path / "table5-claims.csv", index=False)
    (tmp_path / "history/1-first-networks").mkdir(parents=True)
    before = pd.DataFrame([CLAIM | {"mean_db": 0.1, "verdict": "holds"}])
    before.to_csv(tmp_path / "history/1-first-networks/table5-claims.csv", index=False)
    pd.DataFrame({"arm": ["MAC", "ends"], "lr": [0.005, 0.003]}).to_csv(tmp_path / "table5.csv", index=False)
    rates = [("MAC", 0.002, 20.0, False, True), ("MAC", 0.005, 20.5, True, True), ("ends", 0.002, 20.1, True, False)]
    table = pd.DataFrame(rates, columns=["arm", "lr", "psnr_db", "best", "edge"])
    table.assign(**{"masked-0/97": table["psnr_db"]}).to_csv(tmp_path / "rates.csv", index=False)
    return tmp_path


def test_a_claim_stands_beside_its_intervals_and_says_when_it_is_provisional(results):
    first, second = Page(results, ()).claims("table5").replace("\N{NO-BREAK SPACE}", " ").splitlines()[2:]
    numbers = "+0.50 | +0.30 | +0.10 … +0.50 | -0.10 … +0.70 | +0.20 (+0.00 … +0.40) | 6"
    assert first == f"| better | {numbers} | **undecided** |"
    assert second == f"| other | {numbers} | **undecided**, provisional |"


def test_the_summary_counts_verdicts_and_lists_those_that_decide(results):
    rows = [CLAIM | {"claim": "one", "verdict": "falsified"}, CLAIM | {"claim": "two", "tuned": False}]
    rows += [CLAIM | {"claim": "three", "verdict": "holds"}, CLAIM | {"claim": "four"}]
    pd.DataFrame(rows, columns=list(CLAIM_COLUMNS)).to_csv(results / "fig3-claims.csv", index=False)
    page = Page(results, ())
    assert page.answer("fig3") == "undecided: 2, falsified: 1, holds: 1"
    assert page.answer("rates") == "measured"
    assert page.answer("table3") == "not measured"
    numbers = "+0.50 | +0.30 | +0.10 … +0.50"
    decided = [f"| Fig 3: one | {numbers} | **falsified** |", f"| Fig 3: three | {numbers} | **holds** |"]
    assert page.decided().replace("\N{NO-BREAK SPACE}", " ").splitlines()[2:] == decided


def test_earlier_rounds_are_shown_for_the_claims_that_they_had(results):
    rows = Page(results, ()).history("table5").splitlines()
    assert rows[2:] == ["| better | +0.10, holds | +0.30, undecided |"]


def test_the_best_rate_is_bold_and_arms_at_another_rate_are_named(results):
    page = Page(results, ())
    assert "| MAC, 10 % | 20.00 | **20.50** |" in page.rates()
    assert "| ends | **20.10** | - |" in page.rates()
    assert page.at_edge() == ["MAC, 10 %"]
    assert page.untuned() == ["ends"]
    assert page.rate_blocks() == ["masked-0/97"]


def test_what_two_arms_have_in_common_is_a_range(results):
    assert Page(results, ()).common("MAC", "ends") == "30% to 82%"


def test_a_figure_that_was_not_drawn_is_left_out(results):
    assert Page(results, ()).figure("table5", "Table 5") == ""
    assert Page(results, ["reproduction-table5.png"]).figure("table5", "T") == "![T](images/reproduction-table5.png)\n"
