"""What goes into attribution in weight space and what it leaves alone; tests/laws has its mathematics."""

import copy
import math

import pytest
import torch
from torch import nn

from macattr.methods.weight_paths import (
    adam_states,
    allocate_loss_change,
    by_filter,
    by_layer,
    refine_states,
    straight_weights,
)

X = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)


def energy(call):
    return call(X).square().mean()


def linear():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def own(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def moved(model, by=0.5):
    return {name: parameter + by for name, parameter in own(model).items()}


def everything(model):
    """Parameters, buffers, gradients, modes and what is frozen."""
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    flags = [parameter.requires_grad for parameter in model.parameters()] + [m.training for m in model.modules()]
    return copy.deepcopy((model.state_dict(), grads, flags))


def test_straight_weights_pass_exactly_through_both_ends():
    start, end = {"w": torch.rand(100) ** 3}, {"w": torch.full((100,), 0.485)}
    states = list(straight_weights(start, end, 7))
    assert len(states) == 8
    torch.testing.assert_close([states[0], states[-1]], [start, end], rtol=0, atol=0)


def test_refined_states_keep_the_corners_and_put_equal_increments_between_them():
    corners = [{"w": torch.tensor(value)} for value in (0.0, 4.0, 2.0)]
    assert [float(state["w"]) for state in refine_states(iter(corners), 2)] == [0, 2, 4, 3, 2]


def test_parameters_that_do_not_move_get_nothing():
    net = linear()
    end = own(net) | {"2.bias": torch.ones(2, dtype=torch.float64)}
    [change] = allocate_loss_change(net, straight_weights(own(net), end, 2), [energy])
    assert {name for name, part in change.parts.items() if part.any()} == {"2.bias"}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_the_model_stays_as_it_is(training):
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).double().train(training)
    net[0].requires_grad_(False)
    net[2].weight.grad = torch.ones(1, 4, dtype=torch.float64)
    before = everything(net)
    states = list(adam_states(net, energy, 2, 0.1))
    with torch.no_grad():
        allocate_loss_change(net, states, [energy])
    torch.testing.assert_close(everything(net), before, rtol=0, atol=0)


def test_parts_carry_no_graph_even_if_states_are_the_models_own_parameters():
    net, other = linear(), linear()
    [change] = allocate_loss_change(net, [dict(net.named_parameters()), dict(other.named_parameters())], [energy])
    assert not any(part.requires_grad for part in change.parts.values())


def test_frozen_parameters_are_trained_and_attributed_too():
    net = linear().requires_grad_(False)
    states = list(adam_states(net, energy, 1, 0.1))
    [change] = allocate_loss_change(net, states, [energy])
    assert all(bool((states[1][name] != states[0][name]).any()) for name in states[0])
    assert all(bool(part.any()) for part in change.parts.values())


def test_a_shared_parameter_is_moved_and_attributed_once():
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)).double()
    net[1].weight = net[0].weight
    [change] = allocate_loss_change(net, straight_weights(own(net), moved(net), 200), [energy])
    assert list(change.parts) == ["0.weight"]
    assert abs(change.residual) < 1e-3 * float((change.losses[-1] - change.losses[0]).abs())  # 1/200^2, with room


def test_adam_states_are_those_of_torchs_own_loop():
    net, reference = linear(), linear()
    reference.load_state_dict(net.state_dict())
    states = list(adam_states(net, energy, 3, lr=0.05))
    optimiser = torch.optim.Adam(reference.parameters(), lr=0.05)
    want = [own(reference)]
    for _ in range(3):
        optimiser.zero_grad()
        energy(reference).backward()
        optimiser.step()
        want.append(own(reference))
    torch.testing.assert_close(states, want, rtol=0, atol=1e-12)  # three steps in float64


def test_adam_states_under_autocast_are_those_of_the_weights_of_each_step():
    """Autocast would go on with the weights that it cast before the first step."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.ones_(layer.weight)

    def states():
        made = adam_states(layer, lambda call: call(torch.ones(1, 1)).float().square().sum(), 6, 0.6)
        return [float(state["weight"]) for state in made]

    plain = states()
    with torch.autocast("cpu", torch.bfloat16):
        assert states() == pytest.approx(plain, abs=0.01)


def test_only_the_named_parameters_are_trained():
    net = linear()
    first, *_, last = adam_states(net, energy, 3, 0.1, ["2.bias"])
    assert [name for name in first if not torch.equal(first[name], last[name])] == ["2.bias"]
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_the_rate_may_depend_on_the_step():
    states = list(adam_states(linear(), energy, 2, lambda step: [0.1, 0.0][step]))
    assert bool((states[1]["0.weight"] != states[0]["0.weight"]).all())
    torch.testing.assert_close(states[2], states[1], rtol=0, atol=0)


def test_a_name_that_is_trained_must_be_a_parameter():
    with pytest.raises(ValueError, match="`trained` names 'bias', which is no parameter"):
        adam_states(linear(), energy, 2, 0.1, ["bias"])


def test_adam_states_start_from_the_model_as_it_was_when_asked():
    net = linear()
    start, states = own(net), adam_states(net, energy, 1, 0.1)
    nn.init.zeros_(net[0].weight)
    torch.testing.assert_close(next(states), start, rtol=0, atol=0)


def test_parts_of_low_precision_parameters_are_summed_in_float32():
    net = nn.Linear(3, 2).bfloat16()
    end = {name: parameter + 1 for name, parameter in own(net).items()}
    [change] = allocate_loss_change(net, [own(net), end], [lambda call: call(X.bfloat16()).float().square().mean()])
    assert {part.dtype for part in change.parts.values()} == {torch.float32}


def test_layers_add_up_to_all_parameters_and_filters_to_their_weights():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.GroupNorm(1, 3), nn.Flatten(), nn.Linear(3, 2)).double()
    x = torch.rand(2, 1, 3, 3, dtype=torch.float64)
    [change] = allocate_loss_change(net, [own(net), moved(net)], [lambda call: call(x).square().mean()])
    layers, filters = by_layer(change.parts), by_filter(change.parts)
    assert list(layers) == ["0", "1", "3"]
    assert float(sum(layers.values())) == pytest.approx(sum(float(part.sum()) for part in change.parts.values()))
    assert {name: tuple(part.shape) for name, part in filters.items()} == {"0.weight": (3,), "3.weight": (2,)}
    assert float(filters["0.weight"][1]) == pytest.approx(float(change.parts["0.weight"][1].sum()))


def test_filters_of_vectors_alone_are_refused():
    with pytest.raises(ValueError, match="no weight of two or more dimensions among bias"):
        by_filter({"bias": torch.ones(2)})


def without(state, name):
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: without(s, "0.bias"), r"the parameters of .*: 1 missing \['0.bias'\], 0 too many"),
        (lambda s: s | {"0.mean": torch.ones(2)}, r"0 missing \[\], 1 too many \['0.mean'\]"),
        (lambda s: {f"module.{k}": v for k, v in s.items()}, "4 missing .*, 4 too many .* without .* 'module.' prefix"),
        (lambda s: s | {"0.bias": torch.ones(5).double()}, r"0.bias is \(5,\) of torch.float64 in a state, \(4,\) of"),
        (lambda s: s | {"0.bias": torch.ones(4)}, r"0.bias is \(4,\) of torch.float32 in a state, \(4,\) of torch.flo"),
    ],
    ids=["missing", "unknown", "prefix", "shape", "dtype"],
)
@pytest.mark.parametrize("refined", [False, True], ids=["states", "straight"])
def test_states_that_do_not_fit_are_refused(spoil, message, refined):
    net = linear()
    start, end = own(net), spoil(moved(net))
    with pytest.raises(ValueError, match=message):
        allocate_loss_change(net, straight_weights(start, end, 1) if refined else [start, end], [energy])


def test_a_loss_that_is_not_finite_names_its_state():
    net = linear()
    states = [own(net), moved(net), own(net) | {"0.bias": torch.full((4,), math.nan).double()}]
    with pytest.raises(ValueError, match="the loss is nan at state 2: lower the learning rate, compute in float32"):
        allocate_loss_change(net, states, [energy])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda net: straight_weights(own(net), moved(net), 0), "`n_steps` must be at least 1, got 0"),
        (lambda net: straight_weights({"n": torch.tensor(1)}, {"n": torch.tensor(2)}, 1), r"n is \(\) of torch.int64"),
        (lambda net: list(refine_states([own(net)], 2)), "at least two states"),
        (lambda net: list(refine_states([own(net), {}], 2)), r"the parameters of the state before: 4 missing"),
        (lambda net: adam_states(net, energy, 0, 0.1), "`n_steps` must be at least 1 and `lr` positive, got 0 and 0.1"),
        (lambda net: adam_states(net, energy, 1, -0.1), "`lr` positive, got 1 and -0.1"),
        (lambda net: adam_states(net, energy, 1, math.nan), "`lr` positive, got 1 and nan"),
        (lambda net: list(adam_states(net, lambda call: call(X), 2, 0.1)), r"one number, got shape \(4, 2\)"),
        (lambda net: list(adam_states(net, lambda call: energy(call) / 0, 2, 0.1)), "the loss is inf at state 0"),
        (lambda net: allocate_loss_change(net, [own(net)], [energy]), "needs at least two states, got 1"),
        (lambda net: allocate_loss_change(net, [], [energy]), "needs at least two states, got 0"),
    ],
    ids=[
        "no_step", "integers", "one_corner", "corners_differ", "no_adam_step", "lr", "lr_nan", "vector", "infinite",
        "one_state", "no_state",
    ],
)  # fmt: skip
@pytest.mark.usefixtures("as_users_run_it")
def test_impossible_paths_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build(linear())


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            lambda net: lambda call: call(X),
            r"a loss must return a tensor of one number, got shape \(4, 2\): take its me",
        ),
        (lambda net: lambda call: 1.0, "a loss must return a tensor of one number, got float"),
        (lambda net: lambda call: energy(net), "does not depend on the parameters: compute it with the function"),
        (lambda net: lambda call: energy(call).detach(), "does not depend on the parameters"),
        (
            lambda net: lambda call: (call(X)[0, 0] * 0).sqrt(),
            r"gradient .* with respect to 0.weight is not finite at state 0",
        ),
    ],
    ids=["vector", "number", "own_model", "detached", "gradient"],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_losses_without_a_gradient_are_refused(loss, message):
    net = linear()
    with pytest.raises(ValueError, match=message):
        allocate_loss_change(net, [own(net), moved(net)], [loss(net)])
