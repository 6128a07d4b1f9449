"""Means of PSNR with identical pairs among the images."""

import numpy as np
import pytest

from ram_models.psnr_means import mean_of_means, mean_psnr

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("values", "mean", "identical"),
    [
        ([20.0, 22.0], 21.0, 0),
        ([INF, 20.0, INF], 20.0, 2),
        ([INF, INF], INF, 2),
        ([-3.0, INF], -3.0, 1),
        ([NAN, INF, 20.0], NAN, 1),
    ],
    ids=["none", "two", "all", "below_zero", "diverged"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_identical_images_are_counted_and_the_mean_is_that_of_the_others(values, mean, identical, dtype):
    assert mean_psnr(np.array(values, dtype)) == (pytest.approx(mean, nan_ok=True), identical)


@pytest.mark.parametrize(
    ("values", "mean"),
    [([20.0, 22.0], 21.0), ([20.0, NAN], 20.0), ([20.0, INF], NAN), ([INF, INF], INF), ([NAN], NAN), ([], NAN)],
    ids=["finite", "untested", "some_infinite", "all_infinite", "untested_alone", "nothing"],
)
def test_a_mean_over_sets_is_missing_where_a_set_holds_identical_pairs_alone(values, mean):
    assert mean_of_means(values) == pytest.approx(mean, nan_ok=True)
