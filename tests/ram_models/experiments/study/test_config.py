"""What a study's results are known by."""

from dataclasses import dataclass

import pytest

from ram_models.experiments.study.config import Study


@dataclass(frozen=True)
class Before:
    """Settings before an option arrives."""

    steps: int


@dataclass(frozen=True)
class After:
    """The same with the option."""

    steps: int
    option: float | None = None


def test_results_outlive_an_option_that_is_off_and_nothing_else():
    study = Study("table5")
    assert study.made_with(Before(1), "weights") == study.made_with(After(1), "weights")
    others = [(After(1, 0.0), "weights"), (After(2), "weights"), (After(1), "other weights")]
    assert len({study.made_with(Before(1), "weights"), *(study.made_with(*other) for other in others)}) == 4


@pytest.mark.parametrize(
    ("seeds", "finetune_seeds", "message"),
    [
        ([0, 1, 110], [10], "a block the seed 110, so that it would see the crops of a pre-training"),
        ([0, 1], [10, 110], "give two blocks the same crops"),
        ([0, 1], [97], "the crops of the comparison of rates"),
        ([0], [1000], "the crops of the rankings"),
    ],
)
def test_seeds_that_would_show_the_same_crops_twice_are_refused(seeds, finetune_seeds, message):
    with pytest.raises(ValueError, match=message):
        Study("table5", seeds=seeds, finetune_seeds=finetune_seeds)
