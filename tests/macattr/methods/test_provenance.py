"""The identity of what was measured: it differs wherever results could differ, and only there."""

import functools
import importlib.util
import operator
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn

from macattr.methods.provenance import UNIDENTIFIED, describe, hash_network


class Scaled(nn.Module):
    """A convolution, BatchNorm, an activation, and a number that is no parameter."""

    def __init__(self, factor=1.0, activation=nn.ReLU):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.activation = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), activation()
        self.factor = factor

    def forward(self, x):
        return self.factor * self.activation(self.norm(self.conv(x)))


class Renamed(Scaled):
    """The same state, another forward pass."""

    def forward(self, x):
        return self.factor * self.activation(self.norm(self.conv(x))) + 1


def with_statistics(network, value):
    network.norm.running_var.fill_(value)
    return network


def with_plain_tensor(network, value):
    network.shift = torch.full((3,), value)
    return network


@pytest.mark.parametrize(
    "other",
    [
        lambda: with_statistics(Scaled(), 2.0),
        lambda: Scaled(activation=nn.Tanh),
        lambda: Scaled(factor=2.0),
        lambda: Scaled().double(),
        lambda: Scaled().eval(),
        lambda: Scaled(activation=functools.partial(nn.LeakyReLU, 0.3)),
        lambda: Renamed(),
        lambda: with_plain_tensor(Scaled(), 1.0),
    ],
    ids=["buffers", "activation", "factor", "dtype", "mode", "slope", "forward", "tensor"],
)
def test_networks_that_could_differ_have_other_hashes(other):
    assert hash_network(Scaled()) == hash_network(Scaled())
    assert hash_network(other()) != hash_network(Scaled())


def scaled_by(factor):
    return lambda output: factor * output.sum((1, 2, 3))


WEIGHT = 1.0


def weighted(output):
    return WEIGHT * output.sum((1, 2, 3))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda output: output.sum((1, 2, 3)), lambda output: output.mean((1, 2, 3))),
        (scaled_by(1.0), scaled_by(2.0)),
        (functools.partial(torch.sum, dim=1), functools.partial(torch.sum, dim=2)),
        (lambda output, power=1: output**power, lambda output, power=2: output**power),
        (operator.itemgetter(0), operator.itemgetter(1)),
    ],
    ids=["code", "captured", "partial", "default", "getter"],
)
def test_functions_that_could_differ_are_described_differently(first, second):
    assert describe(first) == describe(first)
    assert describe(first) != describe(second)


def test_a_global_that_a_function_reads_belongs_to_its_identity(monkeypatch):
    before = describe(weighted)
    monkeypatch.setitem(weighted.__globals__, "WEIGHT", 2.0)
    assert describe(weighted) != before


def test_the_same_code_elsewhere_in_a_file_is_the_same_function():
    functions = []
    for _ in range(2):
        functions.append(scaled_by(3.0))
    assert describe(functions[0]) == describe(functions[1])


class Stateful:
    """An object without a comparable state."""

    def __init__(self):
        self.file = object()

    def __call__(self, output):
        return output.sum((1, 2, 3))


def test_an_object_that_cannot_be_compared_says_so():
    assert UNIDENTIFIED in describe(Stateful())
    stateful = Stateful()
    assert UNIDENTIFIED in describe(lambda output: stateful(output))
    assert UNIDENTIFIED in describe(weakref.ref(stateful))


OWN_CODE = """
from torch import nn
import torch

SCALE = 2.0

def act(y):
    return torch.relu(y)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Linear(3, 3)

    @torch.autocast("cpu", enabled=False)
    def forward(self, x):
        if x.dim() in {1, 2} and type(x).__name__ in {"Tensor", "Parameter", "Buffer", "Other"}:
            return self.scaled(act(self.a(x)))

    @staticmethod
    def scaled(x):
        return SCALE * x

    @property
    def half(self):
        return 0.5
"""


def hash_of(code, tmp_path, monkeypatch):
    """Hash of the network in a module of this code."""
    file = tmp_path / "own_network.py"
    file.write_text(code)
    spec = importlib.util.spec_from_file_location("own_network", file)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "own_network", module)
    exec(compile(code, str(file), "exec"), vars(module))
    return hash_network(module.Net())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return torch.relu(y)", "return torch.tanh(3 * y)"),
        ("SCALE = 2.0", "SCALE = 3.0"),
        ("return SCALE * x", "return x + SCALE"),
        ("return 0.5", "return 0.25"),
        ("if x.dim() in {1, 2} and", "if x.dim() in {1, 3} and"),
    ],
    ids=["function", "constant", "static method", "property", "decorated forward"],
)
def test_a_networks_hash_follows_all_that_its_code_uses(tmp_path, monkeypatch, old, new):
    before = hash_of(OWN_CODE, tmp_path, monkeypatch)
    assert hash_of(f"\n\n{OWN_CODE}", tmp_path, monkeypatch) == before
    assert old in OWN_CODE
    assert hash_of(OWN_CODE.replace(old, new), tmp_path, monkeypatch) != before


def test_a_networks_hash_is_the_same_in_every_process(tmp_path):
    (tmp_path / "own_network.py").write_text(OWN_CODE)
    script = "import own_network; from macattr.methods.provenance import hash_network as h; print(h(own_network.Net()))"
    root = Path(__file__).parents[3]
    hashes = [
        subprocess.run(
            [sys.executable, "-B", "-c", script],
            env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{root}", "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert hashes[0] == hashes[1] != ""
