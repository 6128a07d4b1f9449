"""Arms: as large as they claim, and one where two could not be told apart."""

import pytest
from torch import nn

from macattr.layers.table import LayerTable
from ram_models.experiments.denoising.arms import DENOISING
from ram_models.experiments.paper_arms import PAPER, first_convolutions, label_of
from ram_models.experiments.study.arms import MERGED, merge, overlap

TABLE = LayerTable.of(nn.Sequential(nn.Linear(9, 10), nn.Linear(9, 1), nn.Linear(9, 10)))  # 100, 10, 100 parameters


def test_overlap_counts_parameters_not_layers():
    assert overlap(("0", "1"), ("0",), TABLE) == pytest.approx(100 / 110)
    assert overlap(("0", "1"), ("1",), TABLE) == pytest.approx(10 / 110)


def test_arms_that_train_nearly_the_same_in_every_block_are_run_once():
    blocks = [{"a": ("0", "1"), "b": ("0",), "c": ("2",)}, {"a": ("2",), "b": ("2", "1"), "c": ("0",)}]
    assert overlap(("0", "1"), ("0",), TABLE) > MERGED
    assert merge(blocks, TABLE) == {"a": "a", "b": "a", "c": "c"}


def test_arms_that_differ_in_one_block_are_run_in_all():
    blocks = [{"a": ("0",), "b": ("0",)}, {"a": ("0",), "b": ("2",)}]
    assert merge(blocks, TABLE) == {"a": "a", "b": "b"}


def test_an_arm_that_some_blocks_do_not_have_stands_for_itself():
    assert merge([{"a": ("0",), "b": ("0",)}, {"a": ("0",)}], TABLE) == {"a": "a", "b": "b"}


def test_an_arm_can_be_kept_whatever_it_trains():
    assert merge([{"a": ("0",), "b": ("0",)}], TABLE, keep=("b",)) == {"a": "a", "b": "b"}


def test_every_arm_is_known_by_its_own_name_and_title():
    for arms in (PAPER, DENOISING):
        assert all(arms.by_name[arm.name] is arm for arm in arms.arms)
    assert len({label_of(arm.name) for arm in PAPER.arms}) == len(PAPER.arms)


class Stages(nn.Module):
    """Three stages with a large convolution each, between a thin one and a large one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 2, 3)
        stage = [nn.ModuleDict({"norm": nn.LayerNorm(8), "conv": nn.Conv2d(8, 8, 3)}) for _ in range(3)]
        self.layers = nn.ModuleList(stage)
        self.body = nn.Conv2d(8, 8, 3)


def test_the_first_convolutions_come_with_the_thin_ends_alone():
    assert first_convolutions(Stages()) == ("first", "layers.0.conv", "layers.1.conv")
