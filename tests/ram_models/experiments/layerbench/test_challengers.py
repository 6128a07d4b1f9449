"""What the challengers choose: small parts always, never more than the budget, matrices by score per parameter."""

import pytest
import torch
from torch import nn

from ram_models.experiments.layerbench import challengers
from ram_models.experiments.layerbench.methods import METHODS, choose
from ram_models.experiments.layerbench.problems import Problem
from ram_models.experiments.layerbench.training import Training

NAMES = [*challengers.SMALL_FIRST, challengers.KERNEL_GREEDY]


def network() -> nn.Module:
    """Five convolutions: ends of 80 and 73 parameters, 584 in each of the others; 1,905 in all."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3, padding=1), *(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))]
    return nn.Sequential(*layers, nn.Conv2d(8, 1, 3, padding=1)).eval()


@pytest.fixture
def problem() -> Problem:
    pairs = torch.rand(4, 2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    samples = [{"image": degraded[None], "clean": clean[None]} for degraded, clean in pairs]
    return Problem(
        "net",
        "shift",
        0,
        build=network,
        samples=samples,
        batch=lambda step: (pairs[:, 0], pairs[:, 1]),
        training=Training(2, precision="float32"),
    )


@pytest.mark.parametrize("budget", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("name", NAMES)
def test_a_challenger_stays_within_the_budget(problem, name, budget):
    choice = choose(METHODS[name], problem, budget, None)
    assert choice is not None
    assert 0 < choice.apply(network()) <= budget * problem.total


@pytest.mark.parametrize("name", challengers.SMALL_FIRST)
def test_ends_and_biases_come_first_and_matrices_fill_the_rest(problem, name):
    choice = choose(METHODS[name], problem, 0.5, None)
    assert {"0.weight", "4.weight", *(f"{layer}.bias" for layer in range(5))} < set(choice.parameters)
    assert sum(parameter.endswith("weight") for parameter in choice.parameters) == 3
    assert choice.kind == "layers"


@pytest.mark.parametrize("name", challengers.SMALL_FIRST)
def test_without_room_for_a_matrix_the_small_parts_are_trained_alone(problem, name):
    choice = choose(METHODS[name], problem, 0.15, None)
    assert {parameter for parameter in choice.parameters if parameter.endswith("weight")} == {"0.weight", "4.weight"}
    assert choice.kind == "layers", "the ends hold matrices, which diverge at the rate of vectors"


@pytest.mark.parametrize("name", challengers.SMALL_FIRST)
def test_biases_alone_are_trained_where_the_ends_have_no_room(problem, name):
    choice = choose(METHODS[name], problem, 0.03, None)
    assert set(choice.parameters) == {f"{layer}.bias" for layer in range(5)}
    assert choice.kind == "affine"


def test_nothing_is_chosen_where_nothing_fits(problem):
    assert [choose(METHODS[name], problem, 0.01, None) for name in NAMES] == [None] * 3
