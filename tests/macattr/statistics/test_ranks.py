import pytest

from macattr.statistics.ranks import top_count, whole_part


def test_the_top_fraction_counts_as_the_paper_does():
    assert [top_count(f, n) for f, n in ((0.1, 263), (0.29, 100), (0.2, 92))] == [26, 29, 18]


@pytest.mark.parametrize(("fraction", "layers"), [(0.1, 2), (0.1, 9), (1e-6, 445), (0.5, 1)])
def test_the_top_holds_at_least_one_layer(fraction, layers):
    assert (top_count(fraction, layers), whole_part(fraction, layers)) == (1, 0)
