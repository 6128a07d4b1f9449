"""A selection trains exactly its layers, or fails loudly."""

import pytest
from torch import nn

from macattr.selection import TrainableMask


class Attention(nn.Module):
    """Owns a parameter and contains a layer that owns others."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(nn.init.ones_(nn.Linear(1, 4).weight.detach().clone()))
        self.proj = nn.Linear(4, 4)


@pytest.fixture
def network() -> nn.Module:
    return nn.ModuleDict({"first": nn.Linear(2, 3), "attn": Attention(), "last": nn.Linear(3, 1, bias=False)})


def trainable(network: nn.Module) -> list[str]:
    return [name for name, parameter in network.named_parameters() if parameter.requires_grad]


def test_only_the_selected_layers_are_trained(network):
    applied = TrainableMask(("first", "last")).apply(network)
    assert trainable(network) == ["first.weight", "first.bias", "last.weight"]
    assert (applied.trained, applied.total) == (6 + 3 + 3, 12 + 4 + 20)
    assert str(applied) == "training 2 layers: 12 of 36 parameters (33.3%)"


def test_a_module_unlocks_its_own_parameters_only(network):
    TrainableMask(("attn",)).apply(network)
    assert trainable(network) == ["attn.scale"]


def test_a_module_unlocks_everything_inside_if_told(network):
    TrainableMask(("attn",), whole_modules=True).apply(network)
    assert trainable(network) == ["attn.scale", "attn.proj.weight", "attn.proj.bias"]


def test_restore_brings_back_what_was(network):
    network["last"].requires_grad_(False)
    before = trainable(network)
    TrainableMask(("last",)).apply(network).restore()
    assert trainable(network) == before


def test_a_foreign_name_fails_and_changes_nothing(network):
    before = trainable(network)
    with pytest.raises(ValueError, match=r"no layer 'module\.first'; did you mean 'first'\? A 'module\.' prefix"):
        TrainableMask(("module.first",)).apply(network)
    assert trainable(network) == before


def test_a_selection_without_parameters_fails(network):
    network["idle"] = nn.ReLU()
    with pytest.raises(ValueError, match="own no parameter: idle"):
        TrainableMask(("idle",)).apply(network)
