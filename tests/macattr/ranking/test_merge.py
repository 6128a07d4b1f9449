"""Rankings that were made in parts, and how sure they are together."""

import numpy as np
import pytest
import torch
from torch import nn

from macattr.cli.summary import describe_top
from macattr.ranking.importance import LayerImportance
from macattr.ranking.rank import rank_layers
from macattr.statistics.bootstrap import bootstrap


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3, padding=1)).eval()


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return [{"image": torch.rand(3, 8, 8, generator=generator), "name": str(i)} for i in range(5)]


ORDERS = torch.stack([torch.randperm(64, generator=torch.Generator().manual_seed(i)) for i in range(2)])


def test_images_ranked_apart_are_put_together(network, images):
    whole = rank_layers(network, images, n_steps=4, orders=ORDERS)
    parts = [rank_layers(network, some, n_steps=4, orders=ORDERS) for some in (images[:2], images[2:])]
    merged = LayerImportance.merge(parts)
    np.testing.assert_array_equal(merged.values, whole.values)
    assert merged.dataset["sample"].values.tolist() == whole.dataset["sample"].values.tolist()
    assert merged.dataset.attrs == whole.dataset.attrs


def test_orders_ranked_apart_are_put_together(network, images):
    first, second = (rank_layers(network, images, n_steps=4, seed=seed) for seed in (1, 2))
    second.dataset.attrs["seed"] = first.dataset.attrs["seed"]
    merged = LayerImportance.merge([first, second])
    np.testing.assert_array_equal(merged.values, np.concatenate([first.values, second.values], axis=1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n, i: [], "nothing to merge"),
        (lambda n, i: [rank_layers(n, i), rank_layers(n, i, layers=["0"])], "over different layers"),
        (lambda n, i: [rank_layers(n, i[:1]), rank_layers(n, i[1:], n_steps=4)], "differ in 'n_steps'"),
        (lambda n, i: [rank_layers(n, i[:2]), rank_layers(n, i[1:])], "share some images but not all"),
        (lambda n, i: [rank_layers(n, i), rank_layers(n, i)], "the same pixel orders of the same images"),
    ],
    ids=["none", "layers", "settings", "some images", "the same"],
)
def test_what_does_not_fit_together_is_refused(network, images, change, message):
    with pytest.raises(ValueError, match=message):
        LayerImportance.merge(change(network, images))


def test_intervals_are_those_of_the_bootstrap_most_important_first(network, images):
    importance = rank_layers(network, images, n_steps=4)
    table = importance.intervals(seed=1)
    expected = bootstrap(importance.values, np.random.default_rng(1))
    assert table["layer"].tolist() == importance.ranking()["layer"].tolist()
    np.testing.assert_array_equal(table["score_low"], expected.sort_values("rank")["score_low"])


def test_probabilities_to_be_in_the_top_add_up_to_its_size(network, images):
    shares = rank_layers(network, images, n_steps=4).probability_in_top(0.5)
    assert shares.sum() == pytest.approx(1.0)
    assert shares.iloc[0] >= shares.iloc[1]


def test_the_step_part_of_the_variance_needs_step_errors(network, images):
    without = rank_layers(network, images, n_steps=10).variance_components()
    with_errors = rank_layers(network, images, n_steps=10, step_error=True).variance_components()
    assert "step" not in set(without["source"])
    assert float(with_errors.set_index("source")["variance"]["step"]) > 0


def test_images_with_other_numbers_of_orders_are_not_merged(network, images):
    parts = [rank_layers(network, images[:1], n_steps=4), rank_layers(network, images[1:2], n_steps=4, orders=2)]
    with pytest.raises(ValueError, match="have 1 and 2 pixel orders of an image: rank all images with the same"):
        LayerImportance.merge(parts)


def test_intervals_are_in_the_unit_of_the_scores(network, images):
    found = rank_layers(network, images, preset="official", n_steps=4)
    scores = found.scores()
    expected = dict(zip(scores["layer"].values.tolist(), scores.values.tolist(), strict=True))
    assert found.intervals().set_index("layer")["score"].to_dict() == pytest.approx(expected)


@pytest.mark.parametrize("absent", ["alias_of", "parameters", "unit"])
def test_a_file_without_what_a_ranking_needs_is_refused(network, images, tmp_path, absent):
    dataset = rank_layers(network, images[:1], n_steps=2).dataset
    if absent in dataset.attrs:
        del dataset.attrs[absent]
    else:
        dataset = dataset.drop_vars(absent)
    LayerImportance(dataset).save(tmp_path / "old.nc")
    with pytest.raises(ValueError, match=f"it lacks {absent}. Rank again"):
        LayerImportance.load(tmp_path / "old.nc")


def test_layers_without_parameters_are_not_chosen(network, images):
    found = rank_layers(network, images, layers=["0", "1", "2"], n_steps=4)
    assert found.with_parameters().dataset["layer"].values.tolist() == ["0", "2"]
    shown = describe_top(found, network, 0.5)
    assert "1 of 2 layers with parameters" in shown
    assert found.top(0.5).layers[0] in shown.partition("chosen above")[0]
    assert "Tanh" not in shown
