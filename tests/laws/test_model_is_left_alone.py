"""Whatever is measured, and whether it succeeds or is refused: the user's model is bit for bit as it was before."""

import contextlib
import copy
import itertools
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from macattr.layers.resolve import resolve_layers
from macattr.methods.catalogue import METHODS
from macattr.ranking.rank import rank_layers


class Between(nn.Module):
    """Two convolutions around a module."""

    def __init__(self, odd):
        super().__init__()
        self.first, self.odd, self.last = nn.Conv2d(3, 4, 3, padding=1), odd, nn.Conv2d(4, 3, 1)

    def forward(self, x):
        return self.last(self.odd(self.first(x)))


class Reassigning(nn.Module):
    """Puts a new tensor in place of a registered buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls = self.calls + 1
        return x * self.calls


class Counting(nn.Module):
    """Counts its calls in a plain attribute and a list, and scales by the count."""

    def __init__(self):
        super().__init__()
        self.calls, self.history = 0, []

    def forward(self, x):
        self.calls += 1
        self.history.append(self.calls)
        return x * self.calls


class Hooking(nn.Module):
    """Registers a hook and switches modes while it runs."""

    def __init__(self):
        super().__init__()
        self.act = nn.Tanh()

    def forward(self, x):
        self.act.register_forward_hook(lambda *_: None)
        self.act.train()
        return self.act(x)


class Noisy(nn.Module):
    """Draws from every default generator, without effect."""

    def forward(self, x):
        return x + 0 * (torch.rand(()) + float(np.random.rand()) + random.random())


class OwnGenerator(nn.Module):
    """Draws from a generator of its own."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, x):
        return x + torch.rand(x.shape, generator=self.generator)


class Checkpointed(nn.Module):
    """A block whose activations are computed again in the backward pass, the reentrant way."""

    def __init__(self):
        super().__init__()
        self.block = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return checkpoint(self.block, x, use_reentrant=True)


MODELS = {
    "plain": nn.Tanh,
    "batch_norm": lambda: nn.BatchNorm2d(4),
    "instance_norm_that_tracks": lambda: nn.InstanceNorm2d(4, track_running_stats=True),
    "reassigned_buffer": Reassigning,
    "counter": Counting,
    "hooks_and_modes": Hooking,
    "noise": Noisy,
    "own_generator": OwnGenerator,
    "reentrant_checkpoint": Checkpointed,
    "spectral_norm": lambda: torch.nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 1)),
}


def snapshot(net):
    """Everything that a user could see of a model, as plain values and identities."""
    modules = dict(net.named_modules())
    return {
        "values": {name: value.detach().clone() for name, value in net.state_dict().items()},
        "identities": {name: id(tensor) for name, tensor in (*net.named_parameters(), *net.named_buffers())},
        "flags": {name: (p.requires_grad, id(p.grad)) for name, p in net.named_parameters()},
        "gradients": {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None},
        "modes": {name: module.training for name, module in modules.items()},
        "hooks": {name: (len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in modules.items()},
        "attributes": {name: (getattr(m, "calls", 0), list(getattr(m, "history", []))) for name, m in modules.items()},
        "generators": [m.generator.get_state() for m in modules.values() if hasattr(m, "generator")],
        "random": (torch.get_rng_state(), np.random.get_state()[1].tolist(), np.random.get_state()[2]),
    }


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore:.*Nodes are evaluated one at a time")
def test_the_model_is_left_alone(method, kind, training):
    torch.manual_seed(0)
    net = Between(MODELS[kind]()).train(training)
    next(net.parameters()).requires_grad_(False)
    net.last.weight.grad = torch.ones_like(net.last.weight)
    options = {"n_steps": 2} if method in {"mac", "mac_loss", "conductance", "internal_influence", "layer_ig"} else {}
    if method == "faig":
        options = {"n_steps": 2, "start_weights": {n: 0.5 * p.detach() for n, p in net.named_parameters()}}
    items = [{"image": torch.rand(3, 4, 4), "clean": torch.rand(3, 4, 4)} for _ in range(2)]
    before, python_state = snapshot(net), random.getstate()
    with contextlib.suppress(ValueError):  # some of these networks are refused, which must not move anything either
        rank_layers(net, items, method, **options)
    torch.testing.assert_close(snapshot(net), before, rtol=0, atol=0, equal_nan=True)
    random.setstate(python_state)  # the type checks of the tests draw from it, see test_guard


def test_training_mode_is_refused_by_every_method_before_anything_moves():
    torch.manual_seed(0)
    net, items = Between(nn.BatchNorm2d(4)).train(), [{"image": torch.rand(3, 4, 4), "clean": torch.rand(3, 4, 4)}] * 2
    net.odd.register_forward_hook(lambda *_: pytest.fail("a forward pass ran"))
    for method in itertools.filterfalse("faig".__eq__, METHODS):
        with pytest.raises(ValueError, match=r"BatchNorm2d 'odd' mixes the batch: call `model.eval\(\)`"):
            rank_layers(net, items, method)


@pytest.mark.parametrize("kind", ["reassigned_buffer", "counter"])
def test_every_forward_pass_starts_from_the_same_state(kind):
    torch.manual_seed(0)
    net, images = Between(MODELS[kind]()).eval(), torch.rand(2, 3, 6, 6)
    plain = Between(nn.Identity()).eval()  # the first call multiplies by one
    plain.load_state_dict(net.state_dict(), strict=False)
    want = rank_layers(plain, images, layers=["first", "last"], n_steps=4).values
    got = rank_layers(net, images, layers=["first", "last"], n_steps=4).values
    np.testing.assert_array_equal(got, want)


def test_reentrant_checkpoints_give_the_scores_of_the_plain_network():
    torch.manual_seed(0)
    net, images = Between(Checkpointed()).eval(), torch.rand(2, 3, 6, 6)
    plain = copy.deepcopy(net)
    plain.odd.forward = plain.odd.block.forward
    names = ["first", "last"]
    assert list(resolve_layers(net)) == ["first", "odd.block", "last"]
    got, want = (rank_layers(each, images, layers=names, n_steps=4).values for each in (net, plain))
    np.testing.assert_array_equal(got, want)
    fisher = rank_layers(net, [{"image": images[0], "clean": images[1]}], "fisher").scores()
    assert (fisher > 0).all()
