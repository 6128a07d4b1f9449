"""Ranks within groups of images, on plain arrays and from a ranking."""

import numpy as np
import pytest

from macattr.ranking.importance import LayerImportance
from macattr.statistics.groups import group_ranks, in_every_top
from macattr.statistics.ranks import ranks


def test_each_group_is_ranked_by_its_own_images():
    scores = np.exp(np.random.default_rng(0).normal(size=(5, 2, 7)))
    table = group_ranks(scores, ["b", "a", "b", "a", "a"])
    assert list(table) == ["b", "a"]
    np.testing.assert_array_equal(table["b"], ranks(scores[[0, 2]].mean(axis=(0, 1))))
    np.testing.assert_array_equal(table["a"], ranks(scores[[1, 3, 4]].mean(axis=(0, 1))))


def test_all_layers_are_in_every_whole_top_and_none_in_opposite_ones():
    table = group_ranks(np.array([[[3.0, 2.0, 1.0]], [[1.0, 2.0, 3.0]]]), ["a", "b"])
    assert in_every_top(table, 3).all()
    assert in_every_top(table, 2).tolist() == [False, True, False]
    assert not in_every_top(table, 1).any()


def test_wrong_groups_scores_and_tops_are_explained():
    scores = np.ones((2, 1, 3))
    with pytest.raises(ValueError, match="names 1 groups, one for each image, and there are 2"):
        group_ranks(scores, ["a"])
    with pytest.raises(ValueError, match="must be finite"):
        group_ranks(scores * np.nan, ["a", "b"])
    with pytest.raises(ValueError, match="`k` must lie in 1"):
        in_every_top(group_ranks(scores, ["a", "b"]), 4)


def test_a_ranking_ranks_by_degradation_in_its_own_order(made_up):
    importance = made_up(["x", "y", "z"], images=4)
    kinds = ["noise", "blur", "noise", "blur"]
    mixed = LayerImportance(importance.dataset.assign_coords(degradation=("sample", kinds)))
    table = mixed.degradation_ranks()
    assert table.index.tolist() == mixed.ranking()["layer"].tolist()
    noise = mixed.dataset["score"].values[::2].mean(axis=(0, 1))
    assert table["noise"].sort_values().index.tolist() == np.array(["x", "y", "z"])[np.argsort(-noise)].tolist()
    assert mixed.degradations == ("noise", "blur")


def test_images_without_a_degradation_are_counted_in_the_error(made_up):
    importance = made_up(["x", "y"], images=3)
    some = LayerImportance(importance.dataset.assign_coords(degradation=("sample", ["noise", "", ""])))
    assert some.degradations == ()
    with pytest.raises(ValueError, match="2 of 3 images have no `degradation`"):
        some.degradation_ranks()
