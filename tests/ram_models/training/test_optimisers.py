"""Which optimiser trains what: every parameter moves as torch's own optimisers would move it."""

import copy

import pytest
import torch
from torch import nn

from ram_models.training.optimisers import MuonAndAdam, optimiser

BETAS = (0.9, 0.99)


class Small(nn.Module):
    """A linear layer, a convolution, and a table that is a matrix but no map."""

    def __init__(self):
        super().__init__()
        self.linear, self.conv = nn.Linear(4, 6), nn.Conv2d(6, 3, 3, padding=1)
        self.table = nn.Parameter(torch.randn(5, 4))


@pytest.fixture
def network():
    return Small()


def give_gradients(network, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_muon_moves_the_matrices_and_adam_the_rest(network):
    expected = {name: nn.Parameter(parameter.detach().clone()) for name, parameter in network.named_parameters()}
    alone = [
        torch.optim.Muon([expected["linear.weight"]], 0.02, weight_decay=0.0),
        torch.optim.Adam([p for name, p in expected.items() if name != "linear.weight"], 1e-3, BETAS),
    ]
    both = MuonAndAdam(network, 1e-3, BETAS, 0.02)
    for seed in range(3):
        give_gradients(network, seed)
        for name, parameter in network.named_parameters():
            expected[name].grad = parameter.grad.clone()
        for one in (*alone, both):
            one.step()
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, expected[name]), name


def test_without_muon_it_is_adam_on_what_requires_a_gradient(network):
    network.conv.requires_grad_(False)
    made = optimiser(network, 1e-3, BETAS, None)
    assert type(made) is torch.optim.Adam
    assert {id(p) for group in made.param_groups for p in group["params"]} == {
        id(p) for p in network.parameters() if p.requires_grad
    }


def test_frozen_parameters_stay(network):
    network.linear.bias.requires_grad_(False)
    before = network.linear.bias.clone()
    made = optimiser(network, 1e-3, BETAS, 0.02)
    give_gradients(network, 0)
    made.step()
    assert torch.equal(network.linear.bias, before)


@pytest.mark.parametrize(("muon", "expected"), [(None, {1.0}), (0.02, {20.0, 1.0})])
def test_groups_know_their_rate_relative_to_adams(network, muon, expected):
    assert {group["relative_lr"] for group in optimiser(network, 1e-3, BETAS, muon).param_groups} == expected


def test_a_stored_state_goes_on_bit_by_bit(network):
    made = optimiser(network, 1e-3, BETAS, 0.02)
    give_gradients(network, 0)
    made.step()
    other, state = copy.deepcopy((network, made.state_dict()))
    continued = optimiser(other, 1e-3, BETAS, 0.02)
    continued.load_state_dict(state)
    for group in (*made.param_groups, *continued.param_groups):  # they are still those that the steps are taken with
        group["lr"] = 0.5 * group["lr"]
    for trained, one in ((network, made), (other, continued)):
        give_gradients(trained, 1)
        one.step()
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, dict(other.named_parameters())[name]), name


def test_gradients_are_cleared(network):
    made = optimiser(network, 1e-3, BETAS, 0.02)
    give_gradients(network, 0)
    made.zero_grad()
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("kept", ["conv", "linear"])
def test_too_little_to_train_is_refused(network, kept):
    network.requires_grad_(False)
    getattr(network, kept).weight.requires_grad_(True)
    with pytest.raises(ValueError, match=r"`optim\.muon` needs linear layers and other parameters to train"):
        optimiser(network, 1e-3, BETAS, 0.02)


def test_a_torch_without_muon_is_refused(network, monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ValueError, match=r"`optim\.muon` needs torch 2\.9 or later"):
        optimiser(network, 1e-3, BETAS, 0.02)


def test_a_closure_is_refused(network):
    with pytest.raises(ValueError, match="closure"):
        optimiser(network, 1e-3, BETAS, 0.02).step(lambda: 0.0)
