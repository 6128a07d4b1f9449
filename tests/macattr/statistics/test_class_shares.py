"""Places within classes, against a count."""

import numpy as np
import pytest

from macattr.statistics.class_shares import class_shares


@pytest.mark.parametrize("share", [0.1, 0.25, 0.3, 0.35, 0.5, 0.7, 1.0])
def test_a_threshold_holds_the_top_share_of_every_class(share):
    random = np.random.default_rng(0)
    values, classes = random.random(60), ["a"] * 40 + ["b"] * 20
    chosen = class_shares(values, classes) >= 1 - share
    for name, size in (("a", 40), ("b", 20)):
        own = np.array([label == name for label in classes])
        assert chosen[own].sum() == int(size * share + 1e-9)
        assert set(values[own & chosen]) == set(sorted(values[own], reverse=True)[: int(size * share + 1e-9)])


def test_infinite_values_rank_first_undefined_ones_last_and_equal_ones_alike():
    values = np.array([1.0, np.inf, np.nan, np.inf, 2.0])
    assert class_shares(values, ["a"] * 5).tolist() == pytest.approx(
        [1 - 4 / 5, 1 - 1.5 / 5, 0, 1 - 1.5 / 5, 1 - 3 / 5]
    )


def test_every_value_needs_a_class():
    with pytest.raises(ValueError, match="2 values need as many classes, got 1"):
        class_shares(np.ones(2), ["a"])
