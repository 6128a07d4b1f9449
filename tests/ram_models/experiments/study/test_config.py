"""What a study's results are known by."""

from dataclasses import dataclass

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
