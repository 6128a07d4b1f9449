"""Networks whose weights are those of their initialisation are recognised, and no trained ones are taken for them."""

from pathlib import Path

import pytest
import torch
from torch import nn

from macattr import rank_layers
from macattr.cli import main
from macattr.ranking.untrained import UNTRAINED, looks_untrained
from ram_models import ram_swinir_tiny
from ram_models.networks.checkpoints import create


def convolutions(initialise=None):
    """A small chain with norms; biases of torch's own, or 0 beside weights that ``initialise`` draws."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 3, 3, padding=1)]
    net = nn.Sequential(*layers)
    for module in net:
        if initialise is not None and isinstance(module, nn.Conv2d):
            initialise(module.weight)
            nn.init.zeros_(module.bias)
    return net


def transformer():
    """Embeddings, attention and norms, as transformers initialise them: normal with 0.02."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(50, 16), nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True))
    for parameter in net.parameters():
        if parameter.dim() > 1:
            nn.init.trunc_normal_(parameter, std=0.02)
    return net


FRESH = {
    "torch's own": convolutions,
    "He": lambda: convolutions(nn.init.kaiming_normal_),
    "Glorot": lambda: convolutions(nn.init.xavier_uniform_),
    "orthogonal": lambda: convolutions(nn.init.orthogonal_),
    "zero": lambda: convolutions(nn.init.zeros_),
    "transformer": transformer,
    "RAM-SwinIR": lambda: create("ram-swinir-tiny"),
    "half precision": lambda: convolutions().half(),
}


@pytest.mark.parametrize("build", FRESH.values(), ids=FRESH)
def test_networks_as_they_are_initialised_are_recognised(build):
    assert looks_untrained(build())


@pytest.mark.parametrize("optimiser", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("build", [convolutions, lambda: convolutions(nn.init.kaiming_normal_)], ids=["torch's", "He"])
def test_ten_steps_of_training_are_enough_to_look_trained(build, optimiser):
    net = build().eval()  # running statistics stay 0 and 1
    optimise = optimiser(net.parameters(), lr=1e-4)
    for _ in range(10):
        optimise.zero_grad()
        net(torch.rand(2, 3, 8, 8)).square().mean().backward()
        optimise.step()
    assert not looks_untrained(net)


def seen():
    net = convolutions()
    net(torch.rand(2, 3, 8, 8))  # in training mode: running statistics move
    return net


def heavy_tails():
    net = convolutions(nn.init.kaiming_normal_)
    with torch.no_grad():
        net[0].weight.mul_(net[0].weight.abs())
    return net


@pytest.mark.parametrize(
    "build",
    [ram_swinir_tiny, seen, heavy_tails, lambda: nn.Sequential(nn.Linear(40, 40, bias=False)), nn.ReLU],
    ids=["bundled", "running statistics", "long tails", "matrices alone", "no parameter"],
)
def test_trained_networks_and_those_that_do_not_tell_are_not(build):
    assert not looks_untrained(build())


def test_constants_that_no_training_changes_do_not_count():
    shift = nn.Conv2d(3, 3, 1).requires_grad_(False)
    with torch.no_grad():
        shift.bias.copy_(torch.tensor([0.4488, 0.4371, 0.4040]))
    assert looks_untrained(nn.Sequential(shift, *convolutions()))


@pytest.mark.parametrize("method", ["mac", "magnitude", "fisher"])
def test_a_ranking_by_any_method_says_it(method):
    item = {"image": torch.rand(3, 8, 8), "clean": torch.rand(3, 8, 8)}
    found = rank_layers(convolutions().eval(), [item], method)
    assert found.doubts[0] == UNTRAINED
    assert UNTRAINED in repr(found)


def test_the_command_line_says_it_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text("from torch import nn\n\nnet = nn.Sequential(nn.Linear(20, 20), nn.LayerNorm(20))\n")
    main(["rank", "--model", "net.py:net", "--method", "magnitude"])
    lines = capsys.readouterr().out.splitlines()
    assert lines.index(UNTRAINED) == 1


def test_pictures_in_bytes_are_said_once():
    images = [255 * torch.rand(3, 8, 8) for _ in range(2)]
    with pytest.warns(UserWarning, match=r"'image 0' holds values up to 25\d.*divide by 255") as caught:
        rank_layers(ram_swinir_tiny(), images, layers="conv_first", n_steps=2)
    assert len(caught) == 1


@pytest.mark.parametrize(
    "image",
    [torch.rand(3, 8, 8), 4 * torch.randn(3, 8, 8), 60 * torch.randn(3, 8, 8).clamp(-1, 1)],
    ids=["plain", "normalised", "centred"],
)
def test_other_pictures_are_not(image):
    rank_layers(ram_swinir_tiny(), [image], layers="conv_first", n_steps=2)
