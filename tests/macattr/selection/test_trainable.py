"""A mask trains exactly its layers, at the rates of their scores, or fails loudly."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm

from macattr.selection.trainable import TrainableMask, train_only


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


def test_only_the_named_parameters_are_trained(network):
    applied = train_only(network, ["attn.proj.bias", "last.weight"])
    assert trainable(network) == ["attn.proj.bias", "last.weight"]
    assert (applied.layers, applied.trained, applied.total) == (2, 4 + 3, 36)


@pytest.mark.parametrize(
    ("names", "message"),
    [([], "`parameters` is empty"), (["last.weight", "x.y"], r"no parameter 'x\.y' \(1 of 2 are unknown\)")],
    ids=["none", "unknown"],
)
def test_parameters_that_are_not_there_fail_and_change_nothing(network, names, message):
    before = trainable(network)
    with pytest.raises(ValueError, match=message):
        train_only(network, names)
    assert trainable(network) == before


@pytest.mark.parametrize(
    ("power", "rates"), [(0.0, [0.1, 0.1, 0.1]), (0.5, [0.05, 0.1, 0.0]), (1.0, [0.025, 0.1, 0.0])]
)
def test_learning_rates_follow_the_scores(network, power, rates):
    mask = TrainableMask(("first", "attn", "last"))
    groups = mask.parameter_groups(network, 0.1, {"first": 2.0, "attn": 8.0, "last": 0.0}, power)
    assert [group["name"] for group in groups] == ["first", "attn", "last"]
    assert [group["lr"] for group in groups] == pytest.approx(rates)


def test_groups_hold_exactly_the_selected_parameters_and_train_them(network):
    mask = TrainableMask(("first", "last"))
    mask.apply(network)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimiser = torch.optim.SGD(mask.parameter_groups(network, 1.0, {"first": 4.0, "last": 1.0}), lr=99.0)
    network["last"](network["first"](torch.ones(1, 2))).sum().backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    optimiser.step()
    rates = {"first.weight": 1.0, "first.bias": 1.0, "last.weight": 0.25}
    for name, parameter in network.named_parameters():
        change = torch.zeros(()) if name not in rates else -rates[name] * gradients[name]
        torch.testing.assert_close(parameter.detach(), before[name] + change)


def test_without_scores_there_is_one_group(network):
    (group,) = TrainableMask(("first", "last")).parameter_groups(network, 0.1)
    assert (group["lr"], len(group["params"])) == (0.1, 3)


def test_tied_parameters_stand_in_one_group(network):
    network["last"].weight = network["attn"].scale
    groups = TrainableMask(("attn", "last")).parameter_groups(network, 0.1, {"attn": 1.0, "last": 2.0})
    assert [group["name"] for group in groups] == ["attn"]
    torch.optim.SGD(groups)  # refuses a parameter in two groups


@pytest.mark.parametrize(
    ("lr", "scores", "message"),
    [
        (0.0, None, "`lr` must be positive and finite, got 0.0"),
        (0.1, {"first": 1.0}, "`scores` lacks 1 selected layers: last"),
        (0.1, {"first": -1.0, "last": 1.0}, "finite and not negative, got -1.0 for 'first'"),
        (0.1, {"first": float("inf"), "last": 1.0}, "finite and not negative, got inf for 'first'"),
        (0.1, {"first": 0.0, "last": 0.0}, "all selected layers are 0"),
    ],
    ids=["lr", "missing", "negative", "infinite", "zero"],
)
def test_scores_that_give_no_learning_rate_are_refused(network, lr, scores, message):
    with pytest.raises(ValueError, match=message):
        TrainableMask(("first", "last")).parameter_groups(network, lr, scores)


class RunningScale(nn.Module):
    """A norm of the user's own, with running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_scale", torch.ones(()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.running_scale.lerp_(inputs.detach().std(), 0.1)
        return inputs / self.running_scale


STATISTICS = {
    "batch norm": lambda: nn.BatchNorm2d(4),
    "batch norm without parameters": lambda: nn.BatchNorm2d(4, affine=False),
    "batch norm of cumulative means": lambda: nn.BatchNorm2d(4, momentum=None),
    "instance norm": lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
    "synchronised batch norm": lambda: nn.SyncBatchNorm(4),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Conv2d(4, 4, 3, padding=1)),
    "old spectral norm": lambda: spectral_norm(nn.Conv2d(4, 4, 3, padding=1)),
    "norm of the user": RunningScale,
    "norm inside a block": lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())),
}


def train_a_step(network: nn.Module) -> None:
    """One step of stochastic gradient descent on images that are far from the network's statistics."""
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1)
    network(3 * torch.rand(2, 3, 8, 8) + 5).square().mean().backward()
    optimiser.step()


@pytest.mark.parametrize("make", STATISTICS.values(), ids=STATISTICS)
def test_frozen_layers_compute_after_training_as_before(make):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), make(), nn.ReLU(), nn.Conv2d(4, 3, 3))
    images, mask = torch.rand(2, 3, 8, 8), TrainableMask(("3",))
    before = network.eval()[:3](images).detach()
    with pytest.warns(UserWarning, match=r"1 frozen layers keep statistics .* call mask\.train_mode\(model\)"):
        mask.apply(network)
    if isinstance(network[1], nn.SyncBatchNorm):  # it computes on GPUs alone while it trains
        assert not mask.train_mode(network)[1].training
        return
    assert mask.train_mode(network) is network
    train_a_step(network)
    torch.testing.assert_close(network.eval()[:3](images), before, rtol=0, atol=0)


def test_without_the_mode_of_the_mask_they_would_move():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3)).train()
    before = network[1].running_mean.clone()
    train_a_step(network)
    assert (network[1].running_mean - before).abs().max() > 0.01


@pytest.mark.parametrize(
    ("layers", "whole", "training"),
    [
        (("1",), False, [True, False]),
        (("2.0",), False, [False, True]),
        (("2",), True, [False, True]),
        (("1", "2.0"), False, [True, True]),
    ],
)
def test_selected_norms_train_their_statistics(layers, whole, training):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4)))
    TrainableMask(layers, whole).train_mode(network.eval())
    assert [network[1].training, network[2][0].training] == training


def test_dropout_and_norms_without_statistics_run_as_in_training():
    network = nn.Sequential(
        nn.Linear(3, 3), nn.Dropout(), nn.BatchNorm1d(3, track_running_stats=False), nn.Linear(3, 3)
    )
    TrainableMask(("3",)).apply(network)  # a warning would be an error here
    assert all(module.training for module in TrainableMask(("3",)).train_mode(network.eval()).modules())


def test_a_selected_spectral_norm_goes_on_with_its_iteration():
    network = nn.Sequential(parametrizations.spectral_norm(nn.Linear(3, 3)), nn.Linear(3, 3))
    TrainableMask(("0",)).train_mode(network.eval())
    assert all(module.training for module in network.modules())


def test_parameters_without_a_gradient_are_refused_and_nothing_changes():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[0].weight = nn.Parameter(torch.ones(2, 2, dtype=torch.int8), requires_grad=False)
    before = copy.deepcopy(trainable(network))
    with pytest.raises(ValueError, match=r"'0\.weight' holds int8 values, .* low-rank adapters on quantised weights"):
        train_only(network, ["0.weight"])
    assert trainable(network) == before
