"""Runs of a block: what trains the same parameters is run once, and nothing is run again."""

import pandas as pd
import pytest
from torch import nn

from macattr.layers import LayerTable
from ram_models.experiments.study import blocks
from ram_models.experiments.study.blocks import Plan, run_blocks
from ram_models.experiments.study.config import Block, Pretrained, Study
from ram_models.experiments.study.runs import FULL, LONGER, MASKED
from ram_models.experiments.study.store import RUN_COLUMNS, Store, keyed

LAYERS = {"MAC": ("a", "b"), "convolutions": ("b", "a"), "IG": ("a", "c"), FULL: ("a", "b", "c")}
LAYERS |= dict.fromkeys((LONGER, MASKED), LAYERS[FULL])
TABLE = LayerTable.of(nn.Sequential(nn.Linear(1, 1)))


@pytest.fixture
def tuned(monkeypatch):
    """Arms in the order of their runs, which are replaced by a number each."""
    arms = []

    def tune(_, job):
        arms.append((job.block.seed, job.arm))
        scores = keyed(pd.DataFrame({"psnr_db": [20.0 + len(arms)]}), *job.key, 1.0).assign(made_with="a1")
        values = (*job.key, 1, 0.1, 1e-3, 10, 1, "cpu", "hash", " ".join(job.layers))
        return scores, pd.DataFrame([values], columns=list(RUN_COLUMNS))

    monkeypatch.setattr(blocks, "tune", tune)
    monkeypatch.setattr(blocks, "made_with", lambda *_: "a1")
    return arms


def test_arms_that_train_the_same_parameters_share_one_run_in_each_block(tuned, tmp_path):
    plan = Plan({Block(Pretrained(0), seed): LAYERS for seed in (10, 11)}, {}, TABLE)
    store = Store(tmp_path)
    run_blocks(Study("table5"), store, plan, list(LAYERS))
    assert len(tuned) == 2 * 5  # with masks, or for longer, is another run
    assert {(seed, arm) for _, seed, arm in store.finished()} == {(seed, arm) for seed in (10, 11) for arm in LAYERS}
    psnr = store.scores().set_index(["seed", "arm"])["psnr_db"]
    for seed in (10, 11):
        assert psnr[seed, "MAC"] == psnr[seed, "convolutions"]
        assert psnr[seed].nunique() == 5
    assert psnr[10, "MAC"] != psnr[11, "MAC"]
    assert len(store.runs()) == 2 * len(LAYERS)


def test_a_shared_run_that_is_finished_serves_an_arm_that_comes_later(tuned, tmp_path):
    plan = Plan({Block(Pretrained(0), 10): LAYERS}, {}, TABLE)
    store = Store(tmp_path)
    for wanted in (["MAC"], ["MAC", "convolutions"], ["convolutions"]):
        run_blocks(Study("table5"), store, plan, wanted)
    assert tuned == [(10, "MAC")]
    assert len(store.finished()) == 2
