"""Rankings over images: what is measured, what travels with it, and what is kept when something breaks."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from macattr import (
    OFFICIAL,
    InternalInfluence,
    LayerConductance,
    LayerImportance,
    LinearPath,
    MaskAttributeConductance,
    OutputSum,
    RankingInterrupted,
    SelectionRule,
    rank_layers,
)


class Twice(nn.Module):
    """A small convolutional network, one of whose layers is wrapped (alias) and one idle."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 3, 3, padding=1)
        self.middle = Wrapped()
        self.last = nn.Conv2d(3, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.middle(self.first(x)).tanh())


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(3, 1, 1))
        self.proj = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x + self.bias)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return Twice().eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def importance(network, images) -> LayerImportance:
    return rank_layers(network, images, n_steps=8, orders=2)


def test_scores_are_the_mean_absolute_conductance(network, images):
    order = torch.randperm(64, generator=torch.Generator().manual_seed(5))
    ranked = rank_layers(network, images, n_steps=8, groups=1, orders=order[None])
    for layer in ("first", "middle", "last"):
        attribution = MaskAttributeConductance(network, layer)
        each = [attribution.attribute(x[None], n_steps=8, groups=1, order=order).abs().mean() for x in images]
        # Two runs of the same float32 sums of terms up to one.
        np.testing.assert_allclose(
            ranked.dataset["score"].sel(layer=layer)[:, 0], torch.stack(each), rtol=1e-5, atol=1e-7
        )


def test_official_scores_are_summed_over_images(network, images):
    ranked = rank_layers(network, images, preset=OFFICIAL, n_steps=8)
    expected = ranked.dataset["score"].isel(order=0).sum("sample")
    np.testing.assert_allclose(ranked.scores(), expected, atol=1e-12)  # float64


def test_aliases_and_cuts_are_marked(importance):
    aliases = importance.dataset["alias_of"].sel(layer=["middle", "middle.proj"]).values.tolist()
    assert len(set(aliases)) == 1
    assert importance.dataset["is_cut"].all()


def test_at_a_cut_the_signed_sum_is_the_change_of_the_objective(network, images):
    data = rank_layers(network, images, n_steps=200, objective=OutputSum()).dataset
    change = data["objective_end"] - data["objective_start"]
    # n_steps = 200 leaves a relative quadrature error below 0.1 % on this smooth network.
    np.testing.assert_allclose(data["signed_sum"].sel(layer="first"), change, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(data["input_residual"], 0, atol=1e-2)


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda x: x, id="tensor"),
        pytest.param(list, id="list of images"),
        pytest.param(lambda x: [x[:2], x[2:]], id="list of batches"),
        pytest.param(lambda x: (item for item in x), id="generator"),
        pytest.param(lambda x: DataLoader(TensorDataset(x, x), batch_size=2), id="loader of pairs"),
        pytest.param(lambda x: [{"image": item} for item in x], id="mappings"),
    ],
)
def test_every_kind_of_input_gives_the_same_ranking(network, images, importance, wrap):
    again = rank_layers(network, wrap(images), n_steps=8, orders=2)
    np.testing.assert_array_equal(again.dataset["score"], importance.dataset["score"])


def test_names_and_degradations_come_from_mappings(network, images):
    items = [{"image": x, "name": f"photo {i}", "degradation": "noise"} for i, x in enumerate(images)]
    data = rank_layers(network, items, n_steps=2).dataset
    assert data["sample"].values.tolist() == ["photo 0", "photo 1", "photo 2"]
    assert set(data["degradation"].values.tolist()) == {"noise"}


def test_images_of_different_sizes_are_ranked_together(network):
    data = rank_layers(network, [torch.rand(1, 8, 8), torch.rand(1, 6, 12)], n_steps=2).dataset
    assert data["width"].values.tolist() == [8, 12]


def test_the_ranking_is_sorted_and_carries_sizes(importance):
    table = importance.ranking()
    assert table["score"].is_monotonic_decreasing
    assert table["rank"].tolist() == [1, 2, 3, 4]
    assert table.set_index("layer").loc["middle", "parameters"] == 3


@pytest.mark.filterwarnings("ignore:top .* at random:UserWarning")
def test_top_takes_the_floor_and_at_least_one_layer(importance):
    assert importance.top(0.5).layers == tuple(importance.ranking()["layer"][:2])
    assert len(importance.top(0.7).layers) == 2
    assert importance.top(0.2).layers == importance.top(0.01).layers == (importance.ranking()["layer"][0],)
    with pytest.raises(ValueError, match=r"`fraction` must lie in \(0, 1\], got 10\.0"):
        importance.top(10.0)


def test_a_selection_is_the_same_with_and_without_the_network(importance, network, tmp_path):
    importance.save(tmp_path / "a.nc")
    rule = SelectionRule(count=58, by="parameters")
    told = LayerImportance.load(tmp_path / "a.nc").select(rule)
    assert told.layers == importance.select(rule, network).layers
    assert told.parameters == told.mask().apply(network).trained


def test_a_ranking_of_another_network_is_refused(importance, network):
    network.last = nn.Conv2d(3, 1, 5)
    with pytest.raises(ValueError, match="'last' has 76 parameters in the model and 28 in the ranking"):
        importance.layer_table(network)


def test_saving_and_loading_loses_nothing(importance, tmp_path):
    importance.save(tmp_path / "a.nc")
    loaded = LayerImportance.load(tmp_path / "a.nc").dataset
    np.testing.assert_array_equal(loaded["score"], importance.dataset["score"])
    assert loaded.attrs["model_sha256"] == importance.dataset.attrs["model_sha256"]
    assert loaded["alias_of"].values.tolist() == importance.dataset["alias_of"].values.tolist()


def test_a_foreign_file_is_no_ranking(tmp_path):
    (tmp_path / "a.nc").write_text("no netcdf")
    with pytest.raises(ValueError, match="cannot be read as a ranking"):
        LayerImportance.load(tmp_path / "a.nc")


def test_the_provenance_says_how_it_was_measured(importance):
    attrs = importance.dataset.attrs
    assert (attrs["method"], attrs["r"], attrs["n_steps"], attrs["gate"]) == ("mac", 0.5, 8, "fade")
    assert attrs["evaluations"] == 3 * 2 * 9
    assert "eps=1e-06" in attrs["objective"]


def test_other_weights_have_another_hash(network, images, importance):
    with torch.no_grad():
        network.first.bias[0] += 1e-3
    assert (
        rank_layers(network, images, n_steps=2).dataset.attrs["model_sha256"]
        != importance.dataset.attrs["model_sha256"]
    )


def test_seeds_decide_the_orders(network, images, importance):
    other = rank_layers(network, images, n_steps=8, orders=2, seed=1)
    assert not np.array_equal(other.dataset["score"], importance.dataset["score"])


def test_the_model_s_reference_input_is_the_default(network, images):
    explicit = rank_layers(network, images, n_steps=4, baselines=0.3)
    network.reference_input = torch.tensor(0.3)
    np.testing.assert_array_equal(rank_layers(network, images, n_steps=4).dataset["score"], explicit.dataset["score"])


def test_a_layer_that_never_runs_is_left_out_with_a_warning(network, images):
    network.idle = nn.Linear(2, 2)
    with pytest.warns(UserWarning, match="left out 1 layers that do not run or return no real tensor: idle"):
        ranked = rank_layers(network, images, n_steps=2)
    assert "idle" not in ranked.dataset["layer"].values


def test_a_second_name_of_weights_that_run_is_left_out_without_a_word(network, images):
    network.idle = nn.Module()
    network.idle.weight = network.first.weight  # as the shared embedding of an encoder with a decoder
    assert "idle" not in rank_layers(network, images, n_steps=2).dataset["layer"].values


def test_finished_images_survive_a_bad_one(network, images):
    broken = images[2].clone()
    broken[0, 0, 0] = torch.nan
    with pytest.raises(
        RankingInterrupted, match=r"the model's input is not finite.* It happened after 2 finished images"
    ) as caught:
        rank_layers(network, [images[0], images[1], broken], n_steps=2)
    assert caught.value.finished.dataset.sizes["sample"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "nonsense"}, "no method 'nonsense'; there are mac, "),
        ({"reduction": "max"}, "`reduction` must be one of mean_abs"),
        ({"orders": 0}, "`orders` must be at least 1, got 0"),
        ({"n_steps": 0}, "`n_steps` must be at least 1, got 0"),
        ({"r": 1.5}, r"`r` must lie in \(0, 1\], got 1.5"),
        ({"method": "conductance", "gate": "fade"}, "`gate` = fade has no effect on the ranking by 'conductance'"),
        ({"method": "conductance", "r": 0.5}, "`r` = 0.5 has no effect on the ranking by 'conductance'"),
        ({"method": "conductance", "orders": 2}, "`orders` = 2 has no effect on the ranking by 'conductance'"),
        ({"method": "internal_influence", "r": 1.5}, r"`r` must lie in \(0, 1\], got 1.5"),
        ({"orders": torch.arange(64)[None], "seed": 3}, "`seed` = 3 has no effect on the ranking by 'mac'"),
        ({"path": "lines"}, "`path` must be one of mask, line, tail, blur, restore, tokens or a function, got 'lines'"),
        ({"layers": "frist"}, "no layer 'frist'; did you mean 'first'"),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_bad_arguments_are_explained(network, images, arguments, message):
    with pytest.raises(ValueError, match=message):
        rank_layers(network, images, **arguments)


def test_integer_images_are_refused(network):
    with pytest.raises(ValueError, match=r"sample 0 must be a float tensor .*got torch.uint8"):
        rank_layers(network, [torch.zeros(1, 8, 8, dtype=torch.uint8)])


def test_no_image_is_refused(network):
    with pytest.raises(ValueError, match="`inputs` holds no image"):
        rank_layers(network, [])


@pytest.mark.parametrize("method", ["conductance", "internal_influence"])
def test_other_methods_walk_the_straight_line(network, images, method):
    data = rank_layers(network, images, method=method, n_steps=8, objective=OutputSum()).dataset
    kind = {"conductance": LayerConductance, "internal_influence": InternalInfluence}[method]
    interval = (0.0, 1.0) if method == "conductance" else (0.5, 1.0)
    path = LinearPath((images[:1],), (torch.zeros_like(images[:1]),), interval)
    attribution = kind(network, "first")
    expected = attribution.attribute(images[:1], n_steps=8, method="trapezoid", path=path, objective=OutputSum())
    # Two runs of the same float32 sums of terms up to one.
    np.testing.assert_allclose(data["score"].sel(layer="first")[0, 0], expected.abs().mean(), rtol=1e-5, atol=1e-7)
    assert ("gate" in data.attrs, "r" in data.attrs) == (False, method == "internal_influence")


def test_a_generator_can_be_watched(network, images, capsys):
    rank_layers(network, (image for image in images), n_steps=2, show_progress=True)
    assert "image 2" in capsys.readouterr().err


def test_the_heat_map_of_a_network_without_blocks_shows_every_layer_in_a_single_panel(importance, tmp_path):
    figure = importance.plot_heatmap(tmp_path / "a.png")
    (axes,) = figure.axes
    points = sum(len(collection.get_offsets()) for collection in axes.collections if len(collection.get_offsets()))
    assert points >= 4
    assert (tmp_path / "a.png").stat().st_size > 10_000
