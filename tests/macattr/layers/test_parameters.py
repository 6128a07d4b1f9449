import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm
from torch.nn.utils.parametrize import register_parametrization

from macattr.layers.parameters import layer_of
from macattr.layers.resolve import resolve_layers
from macattr.layers.table import LayerTable, describe_layers
from macattr.selection.trainable import TrainableMask


class Low(nn.Module):
    """A parametrisation with a layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 4, bias=False)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return self.mix(weight)


def own_parametrisation(layer: nn.Linear) -> nn.Module:
    return register_parametrization(layer, "weight", Low())


def twice(layer: nn.Linear) -> nn.Module:
    return parametrizations.weight_norm(parametrizations.weight_norm(layer), "bias", dim=None)


PARAMETRISED = {  # number of parameters of a layer with a 4 x 4 weight and a bias
    "weight_norm": (parametrizations.weight_norm, 4 + 16 + 4),
    "spectral_norm": (parametrizations.spectral_norm, 16 + 4),
    "orthogonal": (parametrizations.orthogonal, 16 + 4),
    "own layers": (own_parametrisation, 16 + 4 + 16),
    "weight and bias": (twice, 4 + 16 + 1 + 4),
    "old weight_norm": (weight_norm, 4 + 16 + 4),
    "old spectral_norm": (spectral_norm, 16 + 4),
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
@pytest.mark.parametrize(("norm", "size"), PARAMETRISED.values(), ids=PARAMETRISED)
def test_a_parametrised_weight_belongs_to_its_layer(norm, size):
    network = nn.ModuleDict({"first": nn.Linear(4, 4), "body": nn.Sequential(norm(nn.Linear(4, 4)), nn.ReLU())})
    layers = resolve_layers(network)
    assert list(layers) == ["first", "body.0"]
    assert [layer.parameters for layer in describe_layers(layers)] == [20, size]
    table = LayerTable.of(network)
    assert table.count(["body.0"]) == size == TrainableMask(("body.0",)).apply(network).trained
    assert table.count(table.names) == table.total
    assert {layer_of(name) for name, _ in network.named_parameters()} == {"first", "body.0"}


def test_globs_and_classes_find_no_parts_of_a_weight():
    network = nn.Sequential(own_parametrisation(nn.Linear(4, 4)), nn.Linear(4, 4))
    assert list(resolve_layers(network, nn.Linear)) == ["0", "1"]
    assert list(resolve_layers(network, "*[01]")) == ["0", "1"]
    for part in ("0.parametrizations.weight", "0.parametrizations.weight.0.mix", network[0].parametrizations.weight):
        with pytest.raises(ValueError, match="is part of the weight of the layer '0': name that layer"):
            resolve_layers(network, part)


class MeanShift(nn.Conv2d):
    """The constant convolution at the ends of super-resolution networks."""

    def __init__(self) -> None:
        super().__init__(3, 3, 1)
        self.requires_grad_(False)


class Scale(nn.Module):
    """A factor that is kept as a parameter."""

    def __init__(self, factor: torch.Tensor) -> None:
        super().__init__()
        self.factor = nn.Parameter(factor, requires_grad=False)


class Positions(nn.Linear):
    """Trains its weight, and keeps a constant table next to it."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.table = nn.Parameter(torch.ones(7), requires_grad=False)


@pytest.mark.parametrize(
    "constant",
    [MeanShift(), Scale(torch.ones(3)), Scale(torch.arange(3)), nn.Embedding(3, 2).requires_grad_(False)],
    ids=["mean shift", "factor", "integers", "embedding"],
)
def test_constants_are_candidates_only_by_name(constant):
    network = nn.ModuleDict({"constant": constant, "last": nn.Linear(4, 4)})
    assert list(resolve_layers(network)) == ["last"] == list(LayerTable.of(network).names)
    assert list(resolve_layers(network, ["constant"])) == ["constant"]


def test_a_constant_that_is_named_is_trained():
    network = nn.ModuleDict({"constant": MeanShift(), "last": nn.Linear(4, 4)})
    assert (
        TrainableMask(("constant",)).apply(network).trained
        == 12
        == LayerTable.of(network, ["constant"]).count(["constant"])
    )


@pytest.mark.parametrize("whole", [False, True])
def test_a_constant_next_to_a_weight_stays_frozen(whole):
    network = nn.ModuleDict({"fc": Positions(), "last": nn.Linear(4, 4)})
    table = LayerTable.of(network, whole_modules=whole)
    for layers, trained in ((("last",), 20), (("fc",), 20), (("fc", "last"), 40)):
        assert TrainableMask(layers, whole).apply(network).trained == trained == table.count(layers)
        assert not network["fc"].table.requires_grad


def test_a_network_that_is_frozen_as_a_whole_has_all_its_layers():
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).requires_grad_(False)
    assert list(resolve_layers(network)) == ["0", "1"]
    assert TrainableMask(("1",)).apply(network).trained == 6


def test_layers_that_a_mask_has_frozen_stay_candidates():
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1), MeanShift())
    for layer in ("0", "1"):
        TrainableMask((layer,)).apply(network)
        assert list(resolve_layers(network)) == ["0", "1"]
