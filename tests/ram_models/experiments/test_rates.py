"""Learning rates: a ladder that is extended while its edge is the best; on runs that are replaced by a parabola."""

import math

import pandas as pd
import pytest
from torch import nn

from macattr.layers.table import LayerTable
from ram_models.experiments import rates
from ram_models.experiments.paper_arms import ALL, ENDS, MAC, PAPER
from ram_models.experiments.study.blocks import Plan
from ram_models.experiments.study.config import Block, Pretraining, Study

ORDER = list(PAPER.by_name)
LADDER = [8e-4, 2e-3, 5e-3, 1.25e-2]
LAYERS = {Block(Pretraining(number), 97 + 100 * number): {MAC.name: ("0",)} for number in (0, 1)}
PLAN = Plan(LAYERS, {}, LayerTable.of(nn.Sequential(nn.Linear(1, 1))), PAPER.by_name)


@pytest.mark.parametrize(
    ("peak", "expected"),
    [
        (2e-3, LADDER),
        (3e-4, [1.28e-4, 3.2e-4, *LADDER]),
        (1e-6, [1.28e-4, 3.2e-4, *LADDER]),
        (3e-2, [*LADDER, 3.125e-2, 7.8125e-2]),
    ],
    ids=["inside", "below", "far below", "above"],
)
def test_a_ladder_is_extended_while_its_edge_is_the_best(monkeypatch, peak, expected):
    monkeypatch.setattr(rates, "validate", lambda _, job: 20.0 - math.log(job.lr / peak) ** 2 + job.block.seed / 100)
    results = rates.compare(Study("rates", ladder=LADDER), PLAN, MAC)
    assert list(results) == pytest.approx(expected)
    assert all(len(values) == 2 for values in results.values())


def test_a_rate_is_the_best_by_its_mean_over_blocks(monkeypatch):
    """The first block prefers the lower rate by less than the second prefers the higher one."""
    psnr = dict.fromkeys(LADDER, (19.0, 19.0)) | {2e-3: (20.5, 20.0), 5e-3: (20.3, 20.4)}
    monkeypatch.setattr(rates, "validate", lambda _, job: psnr[job.lr][job.block.pretrained.seed])
    table = rates._rows(MAC, PLAN, rates.compare(Study("rates", ladder=LADDER), PLAN, MAC))
    assert table.loc[table["best"], "lr"].tolist() == [5e-3]
    assert table.columns.tolist() == ["arm", "lr", "masked-0/97", "masked-1/197", "psnr_db", "best", "edge"]
    assert table["edge"].tolist() == [True, False, False, True]


def test_arms_that_are_not_compared_keep_their_rows(monkeypatch, tmp_path):
    path = tmp_path / "rates.csv"
    ladder = Study("rates", ladder=LADDER)
    for arm, peak in ((ALL, 2e-3), (MAC, 5e-3), (ENDS, 2e-3), (MAC, 2e-3)):
        monkeypatch.setattr(rates, "validate", lambda _, job, peak=peak: 20.0 - math.log(job.lr / peak) ** 2)
        layers = {block: {arm.name: ("0",)} for block in LAYERS}
        plan = Plan(layers, {}, LayerTable.of(nn.Sequential(nn.Linear(1, 1))), PAPER.by_name)
        table = rates._replace_arm(path, rates._rows(arm, plan, rates.compare(ladder, plan, arm)), ORDER)
    assert pd.read_csv(path)["arm"].tolist() == table["arm"].tolist()
    assert table.loc[table["best"], ["arm", "lr"]].to_numpy().tolist() == [["MAC", 2e-3], ["ends", 2e-3], ["all", 2e-3]]


def test_rows_from_other_blocks_go(tmp_path):
    path = tmp_path / "rates.csv"
    pd.DataFrame({"arm": ["ends"], "lr": [2e-3], "masked-0/5": [20.0]}).to_csv(path, index=False)
    table = rates._replace_arm(path, rates._rows(MAC, PLAN, dict.fromkeys(LADDER, (19.0, 20.0))), ORDER)
    assert table["arm"].unique().tolist() == ["MAC"]
