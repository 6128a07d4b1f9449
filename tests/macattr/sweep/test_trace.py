"""The sweep on networks of every awkward kind, against conductance computed from its definition."""

import copy
import gc
import itertools
import subprocess
import sys
import weakref
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from macattr.layers.resolve import resolve_layers
from macattr.paths.inputs import LinearPath
from macattr.paths.objectives import GradientMagnitude, OutputSum, Target
from macattr.paths.partitions import captum_nodes, tagged_partition
from macattr.paths.sums import ActivationGradientSum, GradientSum, StieltjesSum
from macattr.sweep.activations import sweep_activations
from macattr.sweep.nodes import evaluate, objective_at
from macattr.sweep.probes import Site
from macattr.sweep.survey import Surveys, survey
from macattr.sweep.trace import trace

ROUNDING = {"rtol": 1e-10, "atol": 1e-12}
"""float64 sums of ten terms of order one, batched differently."""

STEPS = 6


@pytest.fixture
def line():
    """A straight line from 0 to two points."""
    ends = torch.rand(2, 4, dtype=torch.float64)
    return LinearPath((ends,), (torch.zeros_like(ends),))


def run(net, path, layers=None, objective=None, tag="trapezoid", sums=None, n_steps=STEPS, **options):
    """Conductance (or other sums) of some layers by name, and the trace."""
    chosen = resolve_layers(net, layers) if isinstance(net, nn.Module) else layers
    partition = tagged_partition(path.interval, n_steps, tag)
    sums = [StieltjesSum(tag)] if sums is None else sums
    result = trace(net, chosen, path, partition, objective or OutputSum(), sums, **options)
    values = {name: [result.values(layer_sum, name) for layer_sum in sums] for name in chosen}
    return {name: value[0] if len(sums) == 1 else value for name, value in values.items()}, result


def conductance_of(net, path, layer, **options):
    (value,) = run(net, path, layer, **options)[0][layer]
    return value


class Net(nn.Module):
    """Linear layers before and after something odd."""

    def __init__(self, odd: nn.Module, width: int = 4) -> None:
        super().__init__()
        self.first, self.odd, self.last = nn.Linear(4, width), odd, nn.Linear(width, 3)

    def forward(self, x, *extra):
        return self.last(self.odd(self.first(x), *extra)).sin()


class ReLUs(nn.Module):
    def __init__(self, inplace):
        super().__init__()
        self.conv, self.relu, self.narrow = nn.Linear(4, 20), nn.ReLU(inplace), nn.Linear(20, 4)

    def forward(self, x):
        return self.narrow(self.relu(self.conv(x)))


class AddInPlace(nn.Module):
    """Adds to a probed layer's output in place, through a view."""

    def __init__(self, inplace):
        super().__init__()
        self.layer, self.inplace = nn.Linear(4, 4), inplace

    def forward(self, x):
        y = self.layer(x)
        if not self.inplace:
            return torch.cat([y[:, :2] + 1, y[:, 2:]], 1).tanh()
        y[:, :2] += 1
        return y.tanh()


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(self.layer(x).tanh())


class TwoShapes(nn.Module):
    """One activation, called on tensors of different shapes."""

    def __init__(self):
        super().__init__()
        self.act, self.narrow, self.wide = nn.Tanh(), nn.Linear(4, 2), nn.Linear(2, 4)

    def forward(self, x):
        return self.wide(self.act(self.narrow(self.act(x))))


class Fork(nn.Module):
    """Returns two tensors."""

    def __init__(self, container):
        super().__init__()
        self.container, self.a, self.b = container, nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.container(self.a(x).tanh(), self.b(x).tanh())


class Join(nn.Module):
    def __init__(self, container):
        super().__init__()
        self.fork = Fork(container)

    def forward(self, x):
        a, b = tree_leaves(self.fork(x))
        return a * b.sum(1, keepdim=True)


class Wrapped(nn.Module):
    """Two nested modules that return the very same tensor."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4))

    def forward(self, x):
        return self.inner(x).tanh()


class Constant(nn.Module):
    """Adds what a layer makes of a constant, and runs a layer whose output nobody uses."""

    def __init__(self):
        super().__init__()
        self.position, self.unused = nn.Linear(1, 4), nn.Linear(4, 4)

    def forward(self, x):
        self.unused(x)
        return x + self.position(torch.ones(len(x), 1, dtype=x.dtype))


class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.inside = nn.Linear(4, 4)

    def forward(self, x):
        return x + self.inside(x).tanh()


class Windows(nn.Module):
    """A layer that sees two windows of every sample, one after the other, samples slowest."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x.reshape(-1, 2)).tanh().reshape(x.shape)


class SequenceFirst(nn.Module):
    """A layer that sees (tokens, batch, channels)."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x.unflatten(1, (2, 2)).transpose(0, 1)).tanh().transpose(0, 1).flatten(1)


class TwoRows(nn.Module):
    """Runs on two rows and on no more."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x.reshape(2, 4)).tanh()


class TwoSamples(nn.Module):
    """A layer that sees (samples, nodes, channels); what follows it fails on more than two nodes."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x.unflatten(0, (2, -1))).flatten(0, 1)[:4].reshape(x.shape)


class HooksItself(nn.Module):
    """Collects a layer's outputs by a hook that its first forward pass sets."""

    def __init__(self):
        super().__init__()
        self.layer, self.is_hooked, self.collected = nn.Linear(4, 4), False, []

    def forward(self, x):
        if not self.is_hooked:
            self.layer.register_forward_hook(lambda _, __, output: self.collected.append(output))
            self.is_hooked = True
        self.collected = []
        self.layer(x)
        return sum(self.collected).tanh()


class TokensSlowest(nn.Module):
    """A layer that sees (tokens x batch, channels): the size of dim 0 fits, its order does not."""

    def __init__(self):
        super().__init__()
        self.layer = nn.LayerNorm(2, bias=False)

    def forward(self, x):
        tokens = x.unflatten(1, (2, 2)).transpose(0, 1)
        return self.layer(tokens.flatten(0, 1)).unflatten(0, (2, -1)).transpose(0, 1).flatten(1) * x


class Gate(nn.Module):
    """Splits a tensor in two; one part goes through a layer that does nothing."""

    def __init__(self):
        super().__init__()
        self.part, self.split = nn.Identity(), nn.Linear(4, 4)

    def forward(self, x):
        a, b = self.split(x).chunk(2, 1)
        return torch.cat([self.part(a) * b, b], 1)


class Scaled(nn.Module):
    """Takes further arguments: one per sample, one for all, a number, None."""

    def forward(self, x, per_sample, shared, number, nothing=None):
        return x * per_sample * shared + number


@pytest.mark.parametrize("rows", [1, 100], ids=["one_node", "all_nodes"])
@pytest.mark.parametrize("tag", ["left", "right", "trapezoid"])
def test_plain_layers_have_the_conductance_of_the_definition(line, by_definition, tag, rows):
    net = Net(nn.Tanh()).double()
    got, _ = run(net, line, ["first", "odd", "last"], tag=tag, internal_batch_size=rows)
    partition = tagged_partition(line.interval, STEPS, tag)
    for (layer,), name in zip(got.values(), got, strict=True):
        want = by_definition(net, net.get_submodule(name), line, partition, OutputSum())
        torch.testing.assert_close(layer, want, **ROUNDING)


def test_the_layer_that_returns_the_output_is_a_layer_like_any_other(line):
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)).double()
    start, end = (net(point[0]) for point in (line.baselines, line.inputs))
    torch.testing.assert_close(conductance_of(net, line, "1"), end - start, **ROUNDING)


def test_calls_of_a_module_are_added_up(line, by_definition):
    net = Net(Twice()).double()
    partition = tagged_partition(line.interval, STEPS, "trapezoid")
    want = by_definition(net, net.odd.layer, line, partition, OutputSum())
    layer_sum = StieltjesSum("trapezoid")
    values, result = run(net, line, "odd.layer", sums=[layer_sum])
    torch.testing.assert_close(values["odd.layer"][0], want, **ROUNDING)
    assert [site.call for site in result.survey.aliases] == [0, 1]
    # An oracle that knows no calls: the same network with one module for each.
    unrolled = Net(nn.Sequential(net.odd.layer, nn.Tanh(), copy.deepcopy(net.odd.layer))).double()
    unrolled.first, unrolled.last = net.first, net.last
    parts = [conductance_of(unrolled, line, name) for name in ("odd.0", "odd.2")]
    torch.testing.assert_close(values["odd.layer"][0], parts[0] + parts[1], **ROUNDING)


def test_calls_of_different_shapes_cannot_be_added_up(line):
    net = Net(TwoShapes()).double()
    with pytest.raises(ValueError, match=r"'odd.act' is called several times .* \(2, 4\) and \(2, 2\)"):
        run(net, line, "odd.act")


@pytest.mark.parametrize(
    "container",
    [lambda a, b: (a, b), lambda a, b: {"a": a, "b": b}, lambda a, b: [a, {"b": (b,)}]],
    ids=["tuple", "dict", "nested"],
)
def test_layers_with_several_outputs_have_a_value_for_each(line, container):
    net = Join(container).double()
    got, _ = run(net, line, "fork")

    class Single(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Sequential(net.fork.a, nn.Tanh()), nn.Sequential(net.fork.b, nn.Tanh())

        def forward(self, x):
            return self.a(x) * self.b(x).sum(1, keepdim=True)

    want = [conductance_of(Single(), line, name) for name in ("a", "b")]
    torch.testing.assert_close(list(got["fork"]), want, **ROUNDING)


@pytest.mark.parametrize(
    ("build", "layer"),
    [(ReLUs, "odd.conv"), (ReLUs, "odd.relu"), (AddInPlace, "odd.layer")],
    ids=["before_relu", "the_relu", "partly_overwritten"],
)
@pytest.mark.parametrize("at_input", [False, True], ids=["output", "input"])
def test_in_place_operations_change_nothing(line, build, layer, at_input):
    network = Net(build(inplace=True)).double()
    twin = Net(build(inplace=False)).double()
    twin.load_state_dict(network.state_dict())
    got = conductance_of(network, line, layer, at_input=at_input)
    torch.testing.assert_close(got, conductance_of(twin, line, layer, at_input=at_input), **ROUNDING)
    assert got.abs().sum() > 0


def test_an_in_place_module_at_the_very_input_does_not_touch_the_inputs(line):
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 1)).double()
    before = line.inputs[0].clone()
    run(net, line)
    torch.testing.assert_close(line.inputs[0], before, rtol=0, atol=0)


def test_layers_that_return_the_same_tensor_share_one_sum(line):
    net = Net(Wrapped()).double()
    values, result = run(net, line, ["odd.inner", "odd.inner.0", "odd"])
    assert result.survey.alias_groups() == {"odd.inner": "odd.inner.0", "odd.inner.0": "odd.inner.0", "odd": "odd"}
    torch.testing.assert_close(values["odd.inner"], values["odd.inner.0"], rtol=0, atol=0)
    assert len(result.survey.distinct) == 2


def test_equal_values_are_not_the_same_tensor(line):
    net = Net(nn.Sequential(nn.ReLU(), nn.ReLU())).double()  # the second changes nothing
    _, result = run(net, line, ["odd.0", "odd.1"])
    assert result.survey.alias_groups() == {"odd.0": "odd.0", "odd.1": "odd.1"}


@pytest.mark.parametrize("frozen", ["all", "some"])
def test_frozen_parameters_change_nothing(line, frozen):
    net = Net(nn.Tanh()).double()
    want = run(net, line)[0]
    for parameter in itertools.islice(net.parameters(), None, None, 1 if frozen == "all" else 2):
        parameter.requires_grad_(False)
    torch.testing.assert_close(run(net, line)[0], want, **ROUNDING)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_callers_without_gradients_get_the_same_values(line, mode):
    net = Net(nn.Tanh()).double()
    want = run(net, line)[0]
    with mode():
        got = run(net, line)[0]
        assert not torch.is_grad_enabled()
    torch.testing.assert_close(got, want, **ROUNDING)


def test_inputs_made_in_inference_mode_are_fine(line):
    net = Net(Scaled()).double()
    extra = (torch.rand(2, 1, dtype=torch.float64), torch.rand(4, dtype=torch.float64), 0.5)
    want = run(net, line, "first", forward_args=extra)[0]
    with torch.inference_mode():
        made = LinearPath((line.inputs[0].clone(),), (line.baselines[0].clone(),))
        copies = (extra[0].clone(), extra[1].clone(), 0.5)
        got = run(net, made, "first", forward_args=copies)[0]
    torch.testing.assert_close(got, want, **ROUNDING)
    torch.testing.assert_close(run(net, made, "first", forward_args=copies)[0], want, **ROUNDING)


def test_autocast_computes_in_bfloat16_and_sums_in_float32():
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 1, 3, padding=1))
    image = torch.rand(1, 1, 8, 8)
    path = LinearPath((image,), (torch.zeros_like(image),))
    want = run(net, path, ["0", "2"])[0]
    with torch.autocast("cpu", torch.bfloat16):
        got, result = run(net, path, ["0", "2"])
    assert all(tensor.low_precision for tensor in result.survey.tensors)
    assert {values[0].dtype for values in got.values()} == {torch.float32}
    for name, (value,) in got.items():
        # bfloat16 keeps 8 bits: outputs and gradients are each off by up to 0.4 %, increments by six times that.
        assert (value - want[name][0]).norm() < 0.05 * want[name][0].norm()


def test_objectives_are_computed_in_float32_at_least():
    seen = []
    net, path = nn.Linear(4, 3), LinearPath((torch.rand(1, 4),), (torch.zeros(1, 4),))
    with torch.autocast("cpu", torch.bfloat16):
        run(net, path, "", objective=lambda output: (seen.append(output.dtype), output.sum(1))[1])
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize("rows", [1, 8, 100], ids="{}_rows".format)
def test_further_arguments_belong_to_their_samples_at_every_node(line, rows):
    net = Net(Scaled()).double()
    per_sample = torch.rand(2, 1, dtype=torch.float64)
    shared, number = torch.rand(4, dtype=torch.float64), 0.5
    got = conductance_of(net, line, "first", forward_args=(per_sample, shared, number, None), internal_batch_size=rows)
    alone = [
        conductance_of(
            net, LinearPath((line.inputs[0][i : i + 1],), (line.baselines[0][i : i + 1],)), "first",
            forward_args=(per_sample[i : i + 1], shared, number),
        )
        for i in range(2)
    ]  # fmt: skip
    torch.testing.assert_close(got, torch.cat(alone), **ROUNDING)


def test_a_layer_that_does_not_see_the_input_has_no_conductance_but_a_gradient(line, by_definition):
    net = Net(Constant()).double()
    partition = tagged_partition(line.interval, STEPS, "trapezoid")
    sums = [StieltjesSum("trapezoid"), GradientSum(partition.weights), ActivationGradientSum(partition.weights)]
    values, _ = run(net, line, ["odd", "odd.position"], sums=sums)
    (conductance,), (gradient,), (product,) = values["odd.position"]
    assert conductance.abs().max() < ROUNDING["atol"]  # batches of other sizes may round otherwise
    torch.testing.assert_close(gradient, values["odd"][1][0], **ROUNDING)  # it is added to the input of `odd`
    position = net.odd.position(torch.ones(2, 1, dtype=torch.float64))
    torch.testing.assert_close(product, gradient * position, **ROUNDING)


class Embedded(nn.Module):
    """Positions from a table, (4, 1)."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(4, 1)

    def forward(self, x):
        return x * self.table(torch.arange(4))[:, 0]


class BiasMLP(nn.Module):
    """A bias that two layers make of a buffer, as Swin v2 does."""

    def __init__(self):
        super().__init__()
        self.table = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        self.register_buffer("places", torch.arange(8.0).view(4, 2) / 8)

    def forward(self, x):
        return x + self.table(self.places)[:, 0]


class LayerScale(nn.Module):
    """A factor that a module returns without its input, (4,)."""

    class Factor(nn.Module):
        def __init__(self):
            super().__init__()
            self.gamma = nn.Parameter(torch.rand(4))

        def forward(self):
            return self.gamma

    def __init__(self):
        super().__init__()
        self.table = self.Factor()

    def forward(self, x):
        return x * self.table()


class Rotary(nn.Module):
    """Two tables of one call, the first dimension 1."""

    class Tables(nn.Module):
        def forward(self):
            angles = torch.arange(4, dtype=torch.float64)[None]
            return angles.cos(), angles.sin()

    def __init__(self):
        super().__init__()
        self.table = self.Tables()

    def forward(self, x):
        cos, sin = self.table()
        return x * cos + x.flip(1) * sin


SHARED = {"embedding": Embedded, "bias_of_layers": BiasMLP, "layer_scale": LayerScale, "rotary": Rotary}
"""Networks that make one tensor for all rows, whatever the input is."""


@pytest.mark.parametrize("odd", SHARED.values(), ids=SHARED)
def test_a_tensor_that_all_nodes_share_has_no_conductance_and_stops_no_batch(line, odd):
    net = Net(odd()).double()
    layers = ["first", "odd", *(f"odd.{name}" for name, _ in net.odd.named_modules() if name)]
    values, result = run(net, line, layers, internal_batch_size=6)
    assert result.nodes_per_batch == 3
    for name in layers[2:]:
        assert all(float(tensor.abs().max()) == 0 for tensor in values[name])
    alone, _ = run(net, line, layers, internal_batch_size=1)
    torch.testing.assert_close(values, alone, **ROUNDING)


@pytest.mark.parametrize("odd", SHARED.values(), ids=SHARED)
def test_gradients_of_a_tensor_that_all_nodes_share_are_taken_one_node_at_a_time(line, odd):
    net = Net(odd()).double()
    sums = [GradientSum(tagged_partition(line.interval, STEPS, "trapezoid").weights), StieltjesSum("trapezoid")]
    values, result = run(net, line, "odd.table", sums=sums, internal_batch_size=8)
    assert result.nodes_per_batch == 1
    gradients, conductances = values["odd.table"]
    assert all(float(tensor.abs().max()) == 0 for tensor in conductances)
    assert all(float(tensor.abs().min()) > 0 for tensor in gradients)


def test_an_average_over_the_batch_is_no_shared_tensor_even_without_a_gradient(line):
    class Average(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean = nn.Identity()

        def forward(self, x):
            return x + self.mean(x.detach().mean(0, keepdim=True))

    with pytest.warns(UserWarning, match="layer odd.mean does not keep the batch first"):
        run(Net(Average()).double(), LinearPath((line.inputs[0][:1],), (line.baselines[0][:1],)), "odd.mean")


def test_a_layer_whose_output_is_not_used_has_neither(line):
    net = Net(Constant()).double()
    partition = tagged_partition(line.interval, STEPS, "trapezoid")
    values, _ = run(net, line, "odd.unused", sums=[StieltjesSum("trapezoid"), GradientSum(partition.weights)])
    assert all(value.abs().max() == 0 for (value,) in values["odd.unused"])


@pytest.mark.parametrize("rows", [4, 100], ids="{}_rows".format)
def test_windows_may_take_the_place_of_the_batch(line, rows, by_definition):
    net = Net(Windows()).double()
    got = conductance_of(net, line, "odd.layer", internal_batch_size=rows)
    partition = tagged_partition(line.interval, STEPS, "trapezoid")
    want = by_definition(net, net.odd.layer, line, partition, OutputSum())
    assert got.shape == (4, 2)
    torch.testing.assert_close(got, want, **ROUNDING)


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (SequenceFirst, "layer odd.layer: 7 nodes give the shape"),
        (TwoRows, "fails on several nodes at once: shape '.2, 4.' is invalid"),
        (TwoSamples, "layer odd.layer: 7 nodes give the shape"),
        (TokensSlowest, "layer odd.layer does not keep the batch first"),
    ],
    ids=["sequence_first", "two_rows", "two_samples", "tokens_slowest"],
)
def test_layers_that_mix_nodes_in_a_batch_are_evaluated_one_node_at_a_time(line, odd, reason, by_definition):
    net = Net(odd()).double()
    with pytest.warns(UserWarning, match=f"{reason}.*Nodes are evaluated one at a time"):
        got, result = run(net, line, "odd.layer", internal_batch_size=100)
    assert result.nodes_per_batch == 1
    partition = tagged_partition(line.interval, STEPS, "trapezoid")
    want = by_definition(net, net.odd.layer, line, partition, OutputSum())
    torch.testing.assert_close(got["odd.layer"][0], want, **ROUNDING)


def test_rows_that_run_alone_only_are_walked_one_sample_and_node_at_a_time(line):
    net = Net(TwoRows()).double()
    got, _ = run(net, line, "odd.layer", internal_batch_size=1)  # without a warning
    assert got["odd.layer"][0].abs().max() > 0


def test_hooks_that_the_first_pass_sets_are_set_in_every_pass_alike(line, by_definition):
    net = Net(HooksItself()).double()
    got = conductance_of(net, line, "odd.layer")
    assert not net.odd.is_hooked
    assert not net.odd.layer._forward_hooks
    partition = tagged_partition(line.interval, STEPS, "trapezoid")
    want = by_definition(net, net.odd.layer, line, partition, OutputSum())
    torch.testing.assert_close(got, want, **ROUNDING)


def test_one_node_at_a_time_accepts_any_layout_without_a_warning(line, by_definition):
    net = Net(SequenceFirst()).double()
    got = conductance_of(net, line, "odd.layer", internal_batch_size=1)
    partition = tagged_partition(line.interval, STEPS, "trapezoid")
    want = by_definition(net, net.odd.layer, line, partition, OutputSum())
    torch.testing.assert_close(got, want, **ROUNDING)


def snapshot(net):
    return {
        "weights": {name: value.clone() for name, value in net.state_dict().items()},
        "flags": {name: p.requires_grad for name, p in net.named_parameters()},
        "gradients": {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None},
        "training": {name: module.training for name, module in net.named_modules()},
        "hooks": {name: len(module._forward_hooks | module._forward_pre_hooks) for name, module in net.named_modules()},
        "random": torch.get_rng_state(),
        "gradients_on": torch.is_grad_enabled(),
    }


@pytest.fixture
def used_net(line):
    """A network with a history: a frozen layer, gradients, a module in another mode, someone's hook."""
    net = Net(nn.Dropout(0.5)).double()
    net(line.inputs[0]).sum().backward()
    net.first.weight.requires_grad_(False)
    net.odd.eval()
    net.last.register_forward_hook(lambda *_: None)
    return net


@pytest.mark.parametrize("aspect", ["weights", "flags", "gradients", "training", "hooks", "random", "gradients_on"])
def test_the_model_is_left_as_it_was(used_net, line, aspect):
    before = snapshot(used_net)
    run(used_net, line)
    sweep_activations(used_net, resolve_layers(used_net, "first"), line, captum_nodes((0.0, 1.0), 3, "gausslegendre"),
                      OutputSum())  # fmt: skip
    torch.testing.assert_close(snapshot(used_net)[aspect], before[aspect], rtol=0, atol=0)


@pytest.mark.parametrize("aspect", ["weights", "flags", "gradients", "training", "hooks", "random", "gradients_on"])
def test_the_model_is_left_as_it_was_after_an_error(used_net, line, aspect):
    before = snapshot(used_net)
    calls = itertools.count()

    def failing(output):
        if next(calls) == 3:
            raise RuntimeError("objective fails half-way")
        return output.sum(1)

    with pytest.raises(RuntimeError, match="fails half-way"):
        run(used_net, line, objective=failing, internal_batch_size=1)
    torch.testing.assert_close(snapshot(used_net)[aspect], before[aspect], rtol=0, atol=0)


def test_gradients_are_kept_as_the_same_objects(used_net, line):
    before = [parameter.grad for parameter in used_net.parameters()]
    run(used_net, line)
    assert all(p.grad is grad for p, grad in zip(used_net.parameters(), before, strict=True))


class Noisy(nn.Module):
    def forward(self, x):
        return x + 0 * torch.rand_like(x)


@pytest.mark.parametrize("rows", [1, 4], ids="rows_{}".format)
def test_a_model_that_draws_random_numbers_is_refused_and_the_random_state_kept(line, rows):
    net, before = Net(Noisy()).double(), torch.get_rng_state()
    with pytest.raises(ValueError, match=r"the model draws random numbers: call `model\.eval\(\)`"):
        run(net, line, internal_batch_size=rows)
    assert torch.get_rng_state().equal(before)


def test_buffers_that_the_forward_pass_changes_are_restored(line):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return x

    net = Net(Counting()).double()
    run(net, line)
    assert float(net.odd.calls) == 0


def test_batch_norm_without_running_statistics_is_refused(line):
    net = Net(nn.BatchNorm1d(4, track_running_stats=False)).double().eval()
    with pytest.raises(ValueError, match="BatchNorm1d 'odd' has no running statistics: it mixes the batch"):
        run(net, line)


def test_a_layer_with_infinite_outputs_is_named(line):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = nn.Linear(4, 4)

        def forward(self, x):
            return x + self.logits(x).detach().softmax(1)

    class Infinite(nn.Module):
        def forward(self, x):
            return torch.full_like(x, -torch.inf) + 0 * x

    net = Net(nn.Sequential(Masked())).double()
    net.odd[0].logits = Infinite()
    net.odd[0].forward = lambda x: x + net.odd[0].logits(x).exp()
    with pytest.raises(ValueError, match=r"layer odd\.0\.logits has outputs or gradients that are not finite between"):
        run(net, line, ["first", "odd.0.logits"])


def test_cuts_are_the_layers_that_no_connection_goes_around(line):
    _, result = run(Net(Skip()).double(), line, ["first", "odd", "odd.inside", "last"])
    assert result.cuts == {"first", "odd", "last"}


def test_cuts_are_complete(line):
    net = Net(Skip()).double()
    values, result = run(net, line, ["first", "odd", "odd.inside", "last"], n_steps=2000, internal_batch_size=200)
    change = result.objective_end - result.objective_start
    # Second order in 1/2000.
    complete = {n for n, (v,) in values.items() if torch.allclose(v.sum(1), change, rtol=1e-5)}
    assert complete == result.cuts


def test_one_part_of_a_split_is_no_cut(line):
    _, result = run(Net(Gate()).double(), line, ["first", "odd.split", "odd.part", "odd"])
    assert result.cuts == {"first", "odd.split", "odd"}


def test_every_name_of_a_cut_is_a_cut(line):
    _, result = run(Net(Wrapped()).double(), line, ["odd.inner", "odd.inner.0"])
    assert result.cuts == {"odd.inner", "odd.inner.0"}


def test_a_module_called_twice_is_no_cut(line):
    _, result = run(Net(Twice()).double(), line, "odd.layer")
    assert result.cuts == frozenset()


def test_constants_and_unused_layers_are_no_cuts(line):
    _, result = run(Net(Constant()).double(), line, ["odd.position", "odd.unused", "odd"])
    assert result.cuts == {"odd"}


def test_input_residual_is_the_relative_error_of_the_summed_input_attribution(line):
    _, result = run(Net(nn.Tanh()).double(), line, tag="left")
    change = result.objective_end - result.objective_start
    torch.testing.assert_close(result.input_residual, result.input_attribution[0].sum(1) / change - 1, **ROUNDING)
    assert result.input_residual.abs().min() > 1e-4  # left-tagged on a curved function


def test_the_objective_is_reported_at_both_ends(line):
    net = Net(nn.Tanh()).double()
    _, result = run(net, line)
    torch.testing.assert_close(result.objective_start, net(line.baselines[0]).sum(1), **ROUNDING)
    torch.testing.assert_close(result.objective_end, net(line.inputs[0]).sum(1), **ROUNDING)
    torch.testing.assert_close(objective_at(net, line, 0.3, OutputSum()), net(0.3 * line.inputs[0]).sum(1), **ROUNDING)


def test_every_input_has_an_attribution():
    net = nn.Bilinear(2, 3, 1, bias=False).double()
    ends = torch.rand(4, 2, dtype=torch.float64), torch.rand(4, 3, dtype=torch.float64)
    path = LinearPath(ends, tuple(torch.zeros_like(end) for end in ends))
    _, result = run(lambda a, b: net(a, b), path, {"net": net})
    # x^T W z is quadratic along the line: half of the value each, exactly.
    value = net(*ends)[:, 0]
    torch.testing.assert_close(result.input_attribution[0].sum(1), value / 2, **ROUNDING)
    torch.testing.assert_close(result.input_attribution[1].sum(1), value / 2, **ROUNDING)


def test_what_goes_into_a_layer_is_what_came_out_before_it(line):
    net = Net(nn.Tanh()).double()
    torch.testing.assert_close(
        conductance_of(net, line, "last", at_input=True), conductance_of(net, line, "odd"), **ROUNDING
    )


def test_progress_adds_up_to_the_number_of_nodes(line):
    net, done = Net(nn.Tanh()).double(), []
    run(net, line, advance=done.append, internal_batch_size=4)
    assert done == [2, 2, 2, 1]


def test_evaluations_are_one_per_node(line):
    calls = []
    net = Net(nn.Tanh()).double()
    net.register_forward_hook(lambda _, args, __: calls.append(len(args[0])))
    _, result = run(net, line, internal_batch_size=6)
    assert result.evaluations == STEPS + 1
    # The survey, both ends in one pass, all nodes of two samples, three at a time, and a last check.
    assert calls == [2, 4, 6, 6, 2, 2]


def test_a_function_may_stand_for_the_model(line):
    net = Net(nn.Tanh()).double()
    got, _ = run(lambda x: net(x), line, {"mine": net.first})
    torch.testing.assert_close(got["mine"], run(net, line, "first")[0]["first"], **ROUNDING)


def test_survey_leaves_no_activation_behind(line):
    net = nn.Sequential(nn.Linear(4, 3), nn.Sigmoid(), nn.Linear(3, 1)).double()
    outputs = []  # of the sigmoid, whose backward pass keeps it
    net[1].register_forward_hook(lambda _, __, output: outputs.append(weakref.ref(output)))
    survey(net, resolve_layers(net), line, tagged_partition(line.interval, 1, "trapezoid"))
    assert [output() for output in outputs] == [None]


def test_survey_measures_shapes_and_memory_at_one_node(line):
    net = Net(nn.Tanh(), width=5).double()
    partition = tagged_partition(line.interval, STEPS, "left")
    looked = survey(net, resolve_layers(net), line, partition)
    assert [(tensor.site, tensor.shape, tensor.nbytes) for tensor in looked.tensors] == [
        (Site("first", 0, 0), (2, 5), 80), (Site("last", 0, 0), (2, 3), 48)
    ]  # fmt: skip
    assert looked.batch == 2
    assert looked.output_bytes == 128
    # Kept for the backward pass: the tanh's output and the sine's input; weights do not count.
    assert looked.saved_bytes == 80 + 48


def test_sweeping_activations_integrates_along_the_layers_own_line(line):
    net = Net(nn.Tanh()).double()
    partition = captum_nodes((0.0, 1.0), 30, "gausslegendre")
    found = sweep_activations(net, {"odd": net.odd}, line, partition, OutputSum(), internal_batch_size=8)
    gradient, change = found[Site("odd", 0, 0)]
    start, end = (net.odd(net.first(point[0])) for point in (line.baselines, line.inputs))
    torch.testing.assert_close(change, end - start, **ROUNDING)
    # 30 Gauss nodes integrate a sine to machine precision: complete.
    total = (gradient * change).sum(1)
    torch.testing.assert_close(total, (net.last(end).sin() - net.last(start).sin()).sum(1), **ROUNDING)


@pytest.mark.parametrize("layer", ["odd.conv", "odd.relu"])
@pytest.mark.parametrize("at_input", [False, True], ids=["output", "input"])
def test_in_place_operations_do_not_disturb_a_sweep_over_activations(line, layer, at_input):
    network, twin = Net(ReLUs(inplace=True)).double(), Net(ReLUs(inplace=False)).double()
    twin.load_state_dict(network.state_dict())
    nodes = captum_nodes((0.0, 1.0), 4, "gausslegendre")
    got, want = (
        sweep_activations(net, resolve_layers(net, layer), line, nodes, OutputSum(), at_input=at_input)
        for net in (network, twin)
    )
    torch.testing.assert_close(got[Site(layer, 0, 0)], want[Site(layer, 0, 0)], **ROUNDING)


# Bad input.


@pytest.mark.parametrize(
    ("module", "effect"),
    [(nn.Dropout(0.1), "Dropout 'odd' draws random numbers"), (nn.BatchNorm1d(4), "BatchNorm1d 'odd' mixes the batch")],
    ids=["dropout", "batchnorm"],
)
def test_training_mode_is_refused_where_it_matters(line, module, effect):
    net = Net(copy.deepcopy(module)).double().train()
    message = rf"in training mode and its {effect}: call `model.eval\(\)`"
    with pytest.raises(ValueError, match=message):
        run(net, line)
    with pytest.raises(ValueError, match=message):
        sweep_activations(net, {"first": net.first}, line, captum_nodes((0.0, 1.0), 3, "gausslegendre"), OutputSum())


def test_training_mode_is_fine_without_random_or_batch_wide_layers(line):
    net = Net(nn.Sequential(nn.Dropout(0.0), nn.LayerNorm(4))).double().train()
    want = run(net.eval(), line)[0]
    torch.testing.assert_close(run(net.train(), line)[0], want, **ROUNDING)


@pytest.mark.parametrize("rows", [1, 100], ids=["one_node", "all_nodes"])
def test_nan_in_weights_names_the_first_layer_and_alpha(line, rows):
    net = Net(nn.Sequential(nn.Linear(4, 4), nn.Tanh())).double()
    with torch.no_grad():
        net.odd[0].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"output of layer odd\.0 is not finite at alpha = 0: its weights"):
        run(net, line, internal_batch_size=rows)


@pytest.mark.parametrize("rows", [1, 100], ids=["one_node", "all_nodes"])
def test_infinity_on_the_way_names_the_layer_and_alpha(rows):
    class Log(nn.Module):
        def forward(self, x):
            return x.log()

    path = LinearPath((-torch.ones(2, 4, dtype=torch.float64),), (torch.ones(2, 4, dtype=torch.float64),))
    net = nn.Sequential(nn.Identity(), Log(), nn.Linear(4, 1)).double()
    with pytest.raises(ValueError, match=r"output of layer 1 is not finite at alpha = 0\.5: its weights or its input"):
        run(net, path, ["0", "1", "2"], internal_batch_size=rows)


def test_eps_of_zero_on_a_flat_image_is_refused_with_the_remedy():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 1, 1))
    flat = torch.ones(1, 1, 4, 4)
    path = LinearPath((flat,), (torch.zeros_like(flat),))
    with pytest.raises(ValueError, match=r"gradient is not finite at layer 1, alpha = 0 .*pass `objective=GradientMag"):
        run(net, path, objective=GradientMagnitude(0.0))


def test_a_gradient_that_does_not_exist_is_refused_with_layer_and_alpha():
    class SquareRoot(nn.Module):
        def forward(self, x):
            return x.sqrt()

    net = nn.Sequential(nn.Identity(), SquareRoot(), nn.Linear(4, 1))
    path = LinearPath((torch.ones(1, 4),), (torch.zeros(1, 4),))
    with pytest.raises(ValueError, match=r"not finite at layer 0, alpha = 0 \.\.\. 0: there, the network or the obj"):
        run(net, path, ["0", "1", "2"], internal_batch_size=1)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (lambda output: (output / output.mean()).sum(1), "the objective mixes the batch: a sample's value must depend"),
        (lambda output: output.mean(), r"must return one number per sample, shape \(2,\), got \(\)"),
        (lambda output: output, r"must return one number per sample, shape \(2,\), got \(2, 3\)"),
        (lambda output: 0.0, r"must return one number per sample, shape \(2,\), got float"),
        (lambda output: output.sum(1).detach(), "the objective does not depend on the output differentiably"),
        (lambda output: output.sum(1).log() * torch.inf, r"the objective is \[.*\] at alpha = 0\."),
        (Target(7), r"`target` 7 is out of range of outputs of shape \(3,\)"),
    ],
    ids=["mixing", "scalar", "too_many", "number", "detached", "infinite", "target"],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_objectives_of_the_wrong_kind_are_refused(line, objective, message):
    with pytest.raises(ValueError, match=message):
        run(Net(nn.Tanh()).double(), line, objective=objective)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda x: (x, x), "the model must return one tensor, got tuple: wrap it in a torch.nn.Module"),
        (lambda x: x.detach() * 2, "the model's output does not depend on its inputs differentiably"),
        (lambda x: x.sum(), r"the model must return \(B, ...\), got shape \(\) for 2 rows"),
        (lambda x: x[:1], r"the model must return \(B, ...\), got shape \(1, 4\) for 2 rows"),
    ],
    ids=["tuple", "detached", "scalar", "lost_batch"],
)
def test_models_that_do_not_fit_are_refused(line, model, message):
    net = nn.Linear(4, 4).double()
    with pytest.raises(ValueError, match=message):
        run(lambda x: model(net(x)), line, {"net": net}, internal_batch_size=1)


def test_layers_that_never_run_are_refused(line):
    net = Net(nn.Tanh()).double()
    net.head, net.tail = nn.Linear(2, 2), nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"layer 'head' never ran, .* \(nor did 1 others\): leave it out of `layers`"):
        run(net, line)
    with pytest.raises(ValueError, match=r"layer 'head' never ran, .*: leave it out"):
        sweep_activations(net, {"head": net.head}, line, captum_nodes((0.0, 1.0), 3, "gausslegendre"), OutputSum())


def test_layers_that_return_a_single_number_are_refused(line):
    class Temperature(nn.Module):
        def __init__(self):
            super().__init__()
            self.value = nn.Parameter(torch.ones(()))

        def forward(self):
            return self.value.exp()

    class Tempered(nn.Module):
        def __init__(self):
            super().__init__()
            self.temperature = Temperature()

        def forward(self, x):
            return x * self.temperature()

    with pytest.raises(ValueError, match=r"layer odd.temperature returns a single number, .* leave it out of `layers`"):
        run(Net(Tempered()).double(), line)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"memory_budget": 100.0},
            "`memory_budget` of 9.54e-05 MiB is too small: one node keeps 0.0002",
        ),
        ({"internal_batch_size": 0}, "`internal_batch_size` must be at least 1, got 0"),
    ],
    ids=["memory", "batch"],
)
def test_impossible_budgets_are_refused(line, options, message):
    with pytest.raises(ValueError, match=message):
        run(Net(nn.Tanh()).double(), line, **options)


def test_a_path_of_integers_is_refused():
    class Staircase:
        interval, groups = (0.0, 1.0), 1

        def at(self, alpha):
            return ((alpha * 10).round().long()[:, None],)

    net = nn.Embedding(11, 3)
    with pytest.raises(ValueError, match="inputs must be floating-point tensors: integers have no path"):
        run(net, Staircase(), "")


def test_evaluate_wants_the_batch_of_all_nodes():
    output = torch.rand(6, 3, requires_grad=True)
    assert evaluate(OutputSum(), output, batch=2, count=3).shape == (3, 2)


class Branch(nn.Module):
    """Runs its second layer where the mean of the input is small, and once more where it is large."""

    def __init__(self, low, high):
        super().__init__()
        self.first, self.second, self.low, self.high = nn.Linear(4, 4), nn.Linear(4, 4), low, high

    def forward(self, x):
        mean = float(x.detach().mean())
        y = self.first(x).tanh()
        for _ in range(1 + (mean > self.high) - (mean < self.low)):
            y = self.second(y).tanh()
        return y


@pytest.mark.parametrize("internal_batch_size", [2, 4])
def test_layers_that_run_at_some_nodes_only_are_refused(line, internal_batch_size):
    with pytest.raises(ValueError, match=r"layer second \(call 2\) runs once more at alpha = 0\.\d+"):
        run(Branch(-1.0, 0.3).double(), line, internal_batch_size=internal_batch_size)


def test_a_layer_that_stops_running_is_refused(line):
    backwards = LinearPath((torch.zeros_like(line.at(torch.tensor([1.0]))[0]),), (torch.rand(2, 4).double() + 0.5,))
    with pytest.raises(ValueError, match=r"layer second does not run at alpha = .* which layers run must not depend"):
        run(Branch(0.2, 9.0).double(), backwards, internal_batch_size=2)


def test_one_survey_serves_inputs_of_one_shape(line):
    net, rows, surveys = Net(nn.Tanh()).double(), [], Surveys()
    net.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    first, _ = run(net, line, surveys=surveys)
    alone = sum(rows)
    other = LinearPath((torch.rand(2, 4, dtype=torch.float64),), (torch.zeros(2, 4, dtype=torch.float64),))
    rows.clear()
    second, _ = run(net, other, surveys=surveys)
    assert sum(rows) == alone - 2 - 4  # two samples of the survey, two at both ends
    fresh, _ = run(net, other)
    assert second.keys() == fresh.keys() == first.keys()
    for name, values in fresh.items():
        torch.testing.assert_close(second[name], values, **ROUNDING)
    rows.clear()
    wide = LinearPath((torch.rand(3, 4, dtype=torch.float64),), (torch.zeros(3, 4, dtype=torch.float64),))
    run(net, wide, surveys=surveys)
    assert rows[0] == 3  # another shape has a survey of its own


def test_a_survey_of_other_layers_is_not_taken(line):
    net, surveys = Net(nn.Tanh()).double(), Surveys()
    run(net, line, layers=["first"], surveys=surveys)
    assert len(surveys.known) == 1
    run(net, line, surveys=surveys)
    assert len(surveys.known) == 2


@pytest.mark.parametrize("rows", [2, 4, 100], ids="{}_rows".format)
@pytest.mark.parametrize(
    ("odd", "layers"),
    [
        (nn.Tanh, ["last"]),
        (nn.Tanh, ["first", "last"]),
        (partial(nn.ReLU, inplace=True), ["first", "odd"]),
        (Twice, ["odd.layer"]),
        (Constant, ["odd.unused"]),
        (Constant, ["odd.unused", "odd.position", "last"]),
        (Gate, ["odd.part", "odd.split"]),
    ],
    ids=["last", "all", "in-place", "twice", "unused", "constant", "split"],
)
def test_a_sweep_that_ends_at_the_layers_gives_the_same_sums(line, rows, odd, layers):
    net = Net(odd()).double()
    whole, complete = run(net, line, layers, internal_batch_size=rows)
    ended, result = run(net, line, layers, internal_batch_size=rows, with_input=False)
    assert all(torch.equal(a, b) for name in layers for a, b in zip(ended[name], whole[name], strict=True))
    assert (result.cuts, result.input_attribution) == (complete.cuts, ())
    assert torch.equal(result.objective_end, complete.objective_end)
    assert bool(result.input_residual.isnan().all())


def test_a_sweep_that_ends_at_the_layers_keeps_nothing_below_them_after_its_first_pass(line):
    net, kept = Net(nn.Tanh()).double(), []
    handle = net.first.register_forward_hook(lambda _, __, output: kept.append(output.requires_grad))
    run(net, line, ["last"], internal_batch_size=2, with_input=False)
    handle.remove()
    survey_mixing_and_first, check = 3, 1
    assert len(kept) == survey_mixing_and_first + STEPS + check
    assert sum(kept) == survey_mixing_and_first


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here")
@pytest.mark.parametrize("with_input", [True, False], ids=["to_the_input", "to_the_layers"])
def test_a_gpu_gives_the_sums_of_the_cpu(line, with_input):
    net = Net(nn.Tanh()).double()
    want, _ = run(net, line, ["first", "last"])
    there = LinearPath((line.inputs[0].cuda(),), (line.baselines[0].cuda(),))
    got, _ = run(net.cuda(), there, ["first", "last"], with_input=with_input)
    for name, (value,) in got.items():
        torch.testing.assert_close(value.cpu(), want[name][0], **ROUNDING)


class TokensFirst(nn.Module):
    """Layers that see (tokens x batch, width), so that rows of several nodes lie between each other."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x):
        batch, tokens, width = x.shape
        y = self.b(self.a(x.transpose(0, 1).reshape(-1, width)).tanh())
        return y.reshape(tokens, batch, width).transpose(0, 1)


@pytest.mark.filterwarnings("ignore:layer a does not keep the batch first")
def test_layers_that_mix_nodes_run_them_alone_for_every_image():
    """A survey that serves all images shows the layout on the first of them only."""
    net, surveys = TokensFirst().double(), Surveys()
    for _ in range(3):
        end = torch.rand(1, 6, 4, dtype=torch.float64)
        path = LinearPath((end,), (torch.zeros_like(end),), (0.5, 1.0))
        alone, _ = run(net, path, ["a"], internal_batch_size=1)
        together, result = run(net, path, ["a"], surveys=surveys)
        assert result.nodes_per_batch == 1
        torch.testing.assert_close(together, alone, **ROUNDING)


@pytest.mark.parametrize("count", [1, 2])
def test_no_pass_has_more_rows_than_were_asked_for(line, count):
    rows, net = [], Net(nn.Tanh()).double()
    net.first.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    run(net, line, internal_batch_size=2 * count)
    assert max(rows) == 2 * count


class Remembers(nn.Module):
    """Computes its output once in a pass, and returns it at every call."""

    def __init__(self):
        super().__init__()
        self.layer, self.made = nn.Linear(4, 4), None

    def forward(self, x):
        self.made = self.layer(x) if self.made is None else self.made
        return self.made


class AsksTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.remembers = Remembers()

    def forward(self, x):
        self.remembers.made = None
        return (self.remembers(x) + self.remembers(x)).sin()


def test_calls_that_return_the_same_tensor_count_once(line):
    values, result = run(AsksTwice().double(), line, ["remembers", "remembers.layer"])
    torch.testing.assert_close(values["remembers"], values["remembers.layer"], **ROUNDING)
    assert result.cuts == {"remembers", "remembers.layer"}


def test_surveys_of_many_shapes_keep_the_values_of_the_last_one():
    net, surveys = nn.Conv2d(3, 2, 1).double(), Surveys()
    for side in (8, 9, 10):
        end = torch.rand(1, 3, side, side, dtype=torch.float64)
        run(nn.Sequential(net), LinearPath((end,), (torch.zeros_like(end),)), surveys=surveys)
    kept = [(*found.inputs, *([] if found.output is None else [found.output])) for found in surveys.known.values()]
    *others, last = [sum(tensor.untyped_storage().nbytes() for tensor in some) for some in kept]
    assert last == 8 * (3 + 2) * 10 * 10
    assert others == [8, 8]


def is_freed(reference: weakref.ref) -> bool:
    """Whether nothing holds an object any more but what Python can see; the search takes a while."""
    return reference() is None or (gc.collect() >= 0 and reference() is None)


@pytest.mark.parametrize("odd", [nn.Tanh(), Constant(), nn.ReLU(inplace=True)], ids=["plain", "constant", "in-place"])
@pytest.mark.parametrize("rows", [1, 3])
def test_the_graph_keeps_no_sums(line, odd, rows):
    """What waits for gradients must not keep the graph that keeps it: every image would leave all sums behind."""
    made = StieltjesSum("trapezoid")
    reference = weakref.ref(made)
    run(Net(odd).double(), line, sums=[made], internal_batch_size=rows)
    del made
    assert is_freed(reference)


def test_a_sweep_that_fails_leaves_no_sums_behind(line):
    def refused(made):
        with pytest.raises(ValueError, match=r"the objective is \[inf, inf\]"):
            run(Net(nn.Tanh()).double(), line, objective=lambda y: y.sum(1) / 0, sums=[made])
        return weakref.ref(made)

    reference = refused(StieltjesSum("trapezoid"))
    assert is_freed(reference)


def test_a_survey_loads_no_further_packages():
    """torch's compiler and sympy take seconds; only what was compiled needs them."""
    code = (
        "import sys, torch; from torch import nn; import macattr; net = nn.Sequential(nn.Conv2d(3, 3, 1)).eval();"
        "macattr.rank_layers(net, [torch.rand(3, 8, 8)], n_steps=2);"
        "print(sorted({'sympy', 'torch._dynamo'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
