"""Denormal weights: counted, said once, taken for 0 where that is wanted, and there again afterwards."""

import warnings

import pytest
import torch
from torch import nn

from macattr import rank_layers
from macattr.sweep.denormals import denormal_share, without_denormals


@pytest.fixture
def network():
    """A quarter of its weights are denormal."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3, padding=1, bias=False)).eval()
    with torch.no_grad():
        net[0].weight.view(-1)[:54] = torch.tensor([1e-39, -3e-45] * 27)
    return net


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        (torch.float32, 1e-39, 1.0), (torch.float32, -1e-45, 1.0), (torch.float32, 0.0, 0.0),
        (torch.float32, -0.0, 0.0), (torch.float32, 1.2e-38, 0.0), (torch.float32, float("inf"), 0.0),
        (torch.float32, float("nan"), 0.0), (torch.float64, 1e-39, 0.0), (torch.float64, 1e-310, 1.0),
        (torch.float16, 1e-7, 0.0),
    ],
)  # fmt: skip
def test_the_share_of_denormal_weights(dtype, value, expected):
    layer = nn.Linear(3, 2, bias=False, dtype=dtype)
    with torch.no_grad():
        layer.weight.fill_(value)
    assert denormal_share(layer) == expected


def test_a_network_without_weights_has_none():
    assert denormal_share(nn.ReLU()) == 0


@pytest.mark.parametrize("inference", [False, True])
def test_weights_are_there_again(network, inference):
    with torch.inference_mode(inference):
        net = nn.Sequential(nn.Linear(2, 2)) if inference else network
        next(net.parameters()).data.view(-1)[0] = 1e-40
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    with without_denormals(net):
        assert denormal_share(net) == 0
    assert denormal_share(net) > 0
    with pytest.raises(KeyError), without_denormals(net):
        raise KeyError
    for name, weight in net.state_dict().items():
        assert torch.equal(weight.view(torch.int32), before[name].view(torch.int32))
    assert float(torch.tensor([1e-40]) * torch.ones(1)) != 0


def test_a_slow_network_is_said_once_with_the_remedy(network):
    images = [torch.rand(3, 8, 8) for _ in range(2)]
    with pytest.warns(UserWarning, match=r"0\.25 of the weights are denormal .* pass `flush_denormals=True`") as found:
        slow = rank_layers(network, images, n_steps=4)
    assert sum("denormal" in str(warning.message) for warning in found) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = rank_layers(network, images, n_steps=4, flush_denormals=True)
    torch.testing.assert_close(torch.tensor(fast.values), torch.tensor(slow.values), rtol=1e-5, atol=1e-9)
    assert fast.dataset.attrs["model_sha256"] == slow.dataset.attrs["model_sha256"]


def test_methods_that_run_nothing_say_nothing(network):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rank_layers(network, method="magnitude")
