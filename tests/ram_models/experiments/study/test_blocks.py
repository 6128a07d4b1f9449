"""Runs of a block: what trains the same parameters is run once, and nothing is run again."""

from collections import OrderedDict

import pandas as pd
import pytest
from torch import nn

from macattr.layers.table import LayerTable
from ram_models.experiments.paper_arms import ALL, CONVOLUTIONS, IG, LONGER, MAC, MASKED, PAPER
from ram_models.experiments.study import blocks
from ram_models.experiments.study.blocks import Plan, run_blocks
from ram_models.experiments.study.config import Block, Pretraining, Rate, Study
from ram_models.experiments.study.store import RUN_COLUMNS, BlockKey, Store, keyed

LAYERS = {MAC.name: ("a", "b"), CONVOLUTIONS.name: ("b", "a"), IG.name: ("a", "c")}
LAYERS |= dict.fromkeys((ALL.name, LONGER.name, MASKED.name), ("a", "b", "c"))
WANTED = [PAPER.by_name[name] for name in LAYERS]
NETWORK = nn.Sequential(OrderedDict(a=nn.Linear(9, 10), b=nn.Linear(9, 1), c=nn.Linear(9, 10)))  # 100, 10, 100
STUDY = Study("table5", rates=[Rate(0.5, 1e-3), Rate(1.0, 4e-3)])


def plan(seeds=(10,)):
    return Plan({Block(Pretraining(0), seed): LAYERS for seed in seeds}, {}, LayerTable.of(NETWORK), PAPER.by_name)


@pytest.fixture
def tuned(monkeypatch):
    """Seed, arm and rate of the runs in their order; each is replaced by a number."""
    runs = []

    def tune(_, job):
        runs.append((job.block.seed, job.arm.name, job.lr))
        scores = keyed(pd.DataFrame({"psnr_db": [20.0 + len(runs)]}), job.key, 1.0).assign(made_with="a1")
        values = (*job.key, 1, 0.1, 10, 1, "cpu", "hash", " ".join(job.layers))
        return scores, pd.DataFrame([values], columns=list(RUN_COLUMNS))

    monkeypatch.setattr(blocks, "tune", tune)
    monkeypatch.setattr(blocks, "made_with", lambda *_: "a1")
    return runs


def test_arms_that_train_the_same_parameters_share_one_run_in_each_block(tuned, tmp_path):
    store = Store(tmp_path)
    run_blocks(STUDY, store, plan((10, 11)).jobs(STUDY, WANTED, {}))
    assert len(tuned) == 2 * 5  # with masks, or for longer, is another run
    assert {(key.seed, key.arm) for key in store.finished()} == {(seed, arm) for seed in (10, 11) for arm in LAYERS}
    psnr = store.scores().set_index(["seed", "arm"])["psnr_db"]
    for seed in (10, 11):
        assert psnr[seed, MAC.name] == psnr[seed, CONVOLUTIONS.name]
        assert psnr[seed].nunique() == 5
    assert psnr[10, MAC.name] != psnr[11, MAC.name]
    assert len(store.runs()) == 2 * len(LAYERS)


def test_arms_of_other_learning_rates_share_nothing(tuned, tmp_path):
    run_blocks(
        STUDY, Store(tmp_path), plan().jobs(STUDY, [MAC, CONVOLUTIONS], {MAC.name: 0.01, CONVOLUTIONS.name: 0.02})
    )
    assert sorted(tuned) == [(10, CONVOLUTIONS.name, 0.02), (10, MAC.name, 0.01)]


def test_a_shared_run_that_is_finished_serves_an_arm_that_comes_later(tuned, tmp_path):
    store = Store(tmp_path)
    for wanted in ([MAC], [MAC, CONVOLUTIONS], [CONVOLUTIONS]):
        run_blocks(STUDY, store, plan().jobs(STUDY, wanted, {}))
    assert [run[:2] for run in tuned] == [(10, MAC.name)]
    assert len(store.finished()) == 2


def test_a_run_at_another_rate_is_another_run(tuned, tmp_path):
    """A sweep over rates would otherwise take the run of the first rate for all."""
    store = Store(tmp_path)
    for lr in (0.01, 0.03, 0.01):
        run_blocks(STUDY, store, plan().jobs(STUDY, [MAC], {MAC.name: lr}))
    assert tuned == [(10, MAC.name, 0.01), (10, MAC.name, 0.03)]
    assert len(store.finished()) == 2


def test_an_arm_has_its_own_rate_or_that_of_its_parameters():
    jobs = {job.arm: job.lr for job in plan().jobs(STUDY, [MAC, ALL], {MAC.name: 0.0123456789})}
    assert jobs == {MAC: 0.0123457, ALL: 4e-3}


def test_arms_overlap_by_parameters_in_each_block():
    assert plan().overlaps(MAC.name, IG.name) == {BlockKey("masked-0", 10): pytest.approx(100 / 210)}
    assert plan().overlaps(MAC.name, "not there") == {}
