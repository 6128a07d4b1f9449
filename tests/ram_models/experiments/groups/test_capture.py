"""Rank correlations over groups and budgets filled with them, against scipy and by trying every set."""

import itertools

import numpy as np
import pytest
from scipy import stats

from ram_models.experiments.groups.capture import best_set, correlations, differences, fill


def test_the_first_row_is_scipys_correlation():
    generator = np.random.default_rng(0)
    scores, gains = generator.normal(size=(3, 12)), generator.normal(size=12)
    scores[1, :4] = 0.0  # ties
    expected = [stats.spearmanr(row, gains).statistic for row in scores]
    np.testing.assert_allclose(correlations(scores, gains)[0], expected, rtol=1e-12, atol=1e-14)


def test_a_score_that_orders_all_groups_right_does_so_in_every_resample():
    gains = np.linspace(0.0, 1.0, 9)
    found = correlations(np.stack([gains**3, -gains]), gains)
    np.testing.assert_allclose(found[:, 0], 1.0, atol=1e-12)
    np.testing.assert_allclose(found[:, 1], -1.0, atol=1e-12)


def test_scores_that_tie_altogether_have_no_correlation():
    with pytest.raises(ValueError, match="are tied"):
        correlations(np.ones((1, 5)), np.arange(5.0))


def test_noise_is_not_told_from_zero_and_a_clear_difference_is():
    generator = np.random.default_rng(1)
    gains = generator.normal(size=17)
    found = correlations(np.stack([gains + 0.1 * generator.normal(size=17), generator.normal(size=17)]), gains)
    clear, noise = differences(found[:, 0] - found[:, 1]), differences(found[:, 1])
    assert clear.p < 0.05
    assert 0 < clear.low < clear.value < clear.high
    assert noise.low < 0 < noise.high
    assert noise.p > 0.05


@pytest.mark.parametrize("seed", range(4))
def test_the_best_set_is_that_of_all_sets(seed):
    generator = np.random.default_rng(seed)
    sizes, gains = generator.integers(1, 20, 7), generator.normal(size=7)
    sets = itertools.chain.from_iterable(itertools.combinations(range(7), count) for count in range(8))
    fitting = [list(chosen) for chosen in sets if sizes[list(chosen)].sum() <= 25]
    best = max(fitting, key=lambda chosen: gains[chosen].sum())
    assert best_set(gains, sizes, 25.0) == best


def test_a_group_that_does_not_fit_is_passed_over():
    assert fill([2, 0, 1], np.array([6, 3, 5]), 9.0) == [2, 1]  # 5 fits, 6 does not, 3 does
