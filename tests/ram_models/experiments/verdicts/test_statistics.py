"""Statistics of paired runs: textbook values, exact enumeration, and verdicts at their borders."""

import itertools

import numpy as np
import pytest
from scipy import stats

from ram_models.experiments.verdicts.statistics import contrast, holm, interval, p_value, sign_flip_p, verdict_of

DIFFERENCES = np.array([0.31, 0.12, 0.25, 0.40, -0.05, 0.22])
NAMES = np.array(["0", "1", "2", "0", "1", "2"])


def test_the_interval_is_students():
    found = interval(DIFFERENCES, 0.9)
    half = stats.t.ppf(0.95, 5) * DIFFERENCES.std(ddof=1) / np.sqrt(6)
    expected = [DIFFERENCES.mean() - half, DIFFERENCES.mean() + half]
    np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-12)


def test_pre_trainings_count_once_each():
    found = contrast(DIFFERENCES, NAMES, 0.05).over_pretrainings
    means = np.array([0.355, 0.035, 0.235])
    half = stats.t.ppf(0.975, 2) * means.std(ddof=1) / np.sqrt(3)
    np.testing.assert_allclose([found.low, found.high], [means.mean() - half, means.mean() + half], rtol=1e-12)


def test_an_interval_ends_at_the_margin_where_p_is_five_percent():
    found = interval(DIFFERENCES)
    assert p_value(DIFFERENCES, found.low) == pytest.approx(0.05, rel=1e-9)
    assert p_value(DIFFERENCES, found.high) == pytest.approx(0.05, rel=1e-9)


def test_the_sign_flip_test_counts_every_pattern_of_signs():
    means = [np.mean(DIFFERENCES * signs) for signs in itertools.product((-1, 1), repeat=6)]
    share = np.mean(np.abs(means) >= DIFFERENCES.mean() - 1e-12)
    assert sign_flip_p(DIFFERENCES) == pytest.approx(share, abs=1e-12)


def verdict(differences, names=NAMES, margin=0.05, p_adjusted=None):
    found = contrast(np.asarray(differences), np.asarray(names), margin)
    return verdict_of(found, margin, found.p if p_adjusted is None else p_adjusted)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([0.30, 0.32, 0.31, 0.29, 0.31, 0.32], "holds"),
        ([-0.30, -0.32, -0.31, -0.29, -0.31, -0.32], "falsified"),
        ([0.01, -0.01, 0.005, 0.0, -0.005, 0.01], "equivalent"),
        ([0.010, 0.011, 0.012, 0.010, 0.011, 0.012], "equivalent"),
        ([-0.05, -0.03, -0.06, -0.05, -0.04, -0.06], "falsified"),
        ([0.5, -0.5, 0.4, 0.3, -0.2, 0.1], "undecided"),
        ([0.06, 0.03, 0.07, 0.05, 0.06, 0.08], "undecided"),
    ],
    ids=["above", "below", "nothing", "small but sure", "below on both sides of the band", "wide", "at the margin"],
)
def test_a_verdict_follows_from_the_intervals_and_the_margin(differences, expected):
    assert verdict(differences) == expected


def test_blocks_of_one_pre_training_cannot_decide_against_another():
    """The interval over six blocks lies above the margin; that over the means of three pre-trainings does not."""
    differences = [0.50, 0.52, 0.10, 0.12, 0.30, 0.32]
    names = ["0", "0", "1", "1", "2", "2"]
    assert contrast(np.array(differences), np.array(names), 0.05).over_blocks.low > 0.05
    assert verdict(differences, names) == "undecided"


def test_equivalence_needs_the_pre_trainings_too():
    differences, names = np.array([0.04, 0.04, 0.04, -0.04, -0.04, -0.04]), np.array(["0"] * 3 + ["1"] * 3)
    assert interval(differences, 0.9).high < 0.05
    assert not contrast(differences, names, 0.05).equivalent


def test_a_verdict_stands_the_number_of_claims():
    differences = [0.30, 0.32, 0.31, 0.29, 0.31, 0.32]
    assert verdict(differences, p_adjusted=0.049) == "holds"
    assert verdict(differences, p_adjusted=0.051) == "undecided"


@pytest.mark.parametrize("blocks", [1, 3, 5])
def test_few_blocks_decide_nothing(blocks):
    differences = [3.0, 3.01, 2.99, 3.0, 3.01][:blocks]
    assert verdict(differences, NAMES[:blocks]) == "undecided"


def test_one_block_says_nothing():
    found = contrast(np.array([3.0]), np.array(["0"]), margin=0.05)
    assert (found.over_blocks.low, found.over_blocks.high) == (float("-inf"), float("inf"))
    assert not found.equivalent
    assert np.isnan(found.p)


def test_what_was_not_measured_is_not_judged():
    assert verdict_of(None, 0.05, float("nan")) == "not tested"


@pytest.mark.parametrize("bad", [np.array([]), np.array([0.1, np.nan])], ids=["none", "nan"])
def test_missing_differences_are_refused(bad):
    with pytest.raises(ValueError, match="`differences` must be finite and at least one"):
        contrast(bad, np.array(["0", "1"][: len(bad)]), 0.05)


def test_holms_adjusted_values_bound_bonferronis_and_keep_the_order():
    p_values = [0.001, 0.02, 0.03, 0.5]
    adjusted = holm(p_values)
    assert adjusted == pytest.approx([0.004, 0.06, 0.06, 0.5])
    assert all(a <= 4 * p for a, p in zip(adjusted, p_values, strict=True))
