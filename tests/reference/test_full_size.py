"""The full networks have the names, shapes and layers of the authors' ones, without being filled with numbers."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from macattr.layers.resolve import resolve_layers
from ram_models.networks.promptir import PromptIR
from ram_models.networks.rgb import RGBPromptIR, RGBSwinIR
from ram_models.networks.swinir import SwinIR


@dataclass(frozen=True)
class Official:
    """What the authors' network consists of."""

    name: str
    classes: tuple[type[nn.Module], type[nn.Module]]
    entries: int
    layers: int
    parameters: int


NETWORKS = pytest.mark.parametrize(
    "official",
    [
        Official("swinir", (SwinIR, RGBSwinIR), entries=545, layers=263, parameters=11_512_131),
        Official("promptir", (PromptIR, RGBPromptIR), entries=542, layers=445, parameters=35_376_967),
    ],
    ids=lambda official: official.name,
)


@pytest.fixture(params=[0, 1], ids=["bare", "rgb"])
def network(official, request):
    with torch.device("meta"):
        return official.classes[request.param]()


def stored_shapes(data_folder, official):
    lines = (data_folder / f"ram_{official.name}_shapes.txt").read_text().splitlines()
    return {name: tuple(map(int, shape.split("x"))) for name, shape in map(str.split, lines)}


def stored_layers(data_folder, official):
    return (data_folder / f"ram_{official.name}_layers.txt").read_text().split()


@NETWORKS
def test_state_dict_has_the_official_names_and_shapes(official, network, data_folder):
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes == stored_shapes(data_folder, official)
    assert len(shapes) == official.entries


@NETWORKS
def test_layers_are_the_official_ones_in_their_order(official, network, data_folder):
    layers = list(resolve_layers(network))
    assert layers == stored_layers(data_folder, official)
    assert len(layers) == official.layers


@NETWORKS
def test_number_of_parameters_is_the_official_one(official, network):
    assert sum(parameter.numel() for parameter in network.parameters()) == official.parameters
