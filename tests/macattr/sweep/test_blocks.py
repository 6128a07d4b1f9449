"""Blocks that run again in the backward pass: equal sums within a memory budget, on networks of every awkward kind."""

import gc
import weakref
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from macattr.layers.resolve import resolve_layers
from macattr.paths.inputs import LinearPath
from macattr.paths.objectives import OutputSum
from macattr.paths.partitions import every_nth_node, tagged_partition
from macattr.paths.sums import ActivationSum, EveryNth, GradientSum, StieltjesSum
from macattr.sweep.blocks import find_blocks
from macattr.sweep.guard import undisturbed
from macattr.sweep.memory import Plan
from macattr.sweep.nodes import Forward, leaves_at
from macattr.sweep.survey import Surveys, survey
from macattr.sweep.trace import trace

ROUNDING = {"rtol": 1e-10, "atol": 1e-12}
"""float64 sums of nine terms of order one, batched differently."""

N_STEPS = 8


class Block(nn.Module):
    """A residual block that keeps several tensors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x, *, scale=1.0):
        hidden = self.up(x).tanh()
        return x + scale * self.down(hidden * hidden.sigmoid()).sin()


class Blocks(nn.Module):
    """Four blocks between two layers; subclasses do something odd with them."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.first = nn.Linear(4, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(4))
        self.last = nn.Linear(width, 3)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = self.step(block, x)
        return self.last(x)

    def step(self, block, x):
        return block(x)


class Keywords(Blocks):
    """Keywords that are no tensors."""

    def step(self, block, x):
        return block(x, scale=0.5)


class SharedBlock(Blocks):
    """One block that runs several times."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([self.blocks[0]] * 4)

    def step(self, block, x):
        return self.blocks[0](x)


class HiddenInput(Blocks):
    """Blocks that read a tensor which is no argument."""

    class Reader(Block):
        def forward(self, x):
            return super().forward(x) * self.owner[0].skip

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(self.Reader(6) for _ in range(4))
        for block in self.blocks:
            block.owner = [self]

    def forward(self, x):
        self.skip = x.sum(-1, keepdim=True).cos()
        return super().forward(x)


class Unused(Blocks):
    """A block without influence on the output, and one whose gradient stops."""

    def step(self, block, x):
        if block is self.blocks[1]:
            block(x)
            return x
        return block(x).detach() + x if block is self.blocks[2] else block(x)


class NoSaved(Blocks):
    """Blocks of which autograd keeps nothing before the last layer, whose values nobody asks for again."""

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Identity()

        def forward(self, x):
            return self.inner(x + 1) + x

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(6), self.Sum(), Block(6), self.Sum()])


class InPlace(Blocks):
    """Activations that overwrite what came before them inside of a block."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(6, 9), nn.ELU(inplace=True), nn.Linear(9, 6), nn.Sigmoid()) for _ in range(4)
        )


class UNet(nn.Module):
    """Convolutions down and up with skips, which are taken from a list."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(self.convs(i, o) for i, o in ((1, 4), (4, 8)))
        self.up = nn.ModuleList(self.convs(i, o) for i, o in ((16, 4), (8, 4)))
        self.mid, self.last = self.convs(8, 8), nn.Conv2d(4, 1, 1)

    @staticmethod
    def convs(i, o):
        return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.GELU(), nn.Conv2d(o, o, 3, padding=1), nn.SiLU())

    def forward(self, x):
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = nn.functional.avg_pool2d(x, 2)
        x = self.mid(x)
        for block in self.up:
            x = nn.functional.interpolate(x, scale_factor=2)
            x = block(torch.cat([x, skips.pop()], 1))
        return self.last(x)


class Recurrent(nn.Module):
    """A block and an LSTM cell that run at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.lstm, self.block = nn.Linear(4, 5), nn.LSTMCell(5, 5), Block(5)

    def forward(self, x):
        state = None
        for step in range(x.shape[1]):
            state = self.lstm(self.block(self.first(x[:, step])), state)
        return state[0]


class Attention(nn.Module):
    """Attention and a perceptron, each with a norm before it."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(8), nn.LayerNorm(8)
        self.mix, self.join, self.block = nn.Linear(8, 24), nn.Linear(8, 8), Block(8)

    def forward(self, x):
        query, key, value = self.mix(self.before(x)).chunk(3, -1)
        x = x + self.join((query @ key.transpose(-1, -2)).softmax(-1) @ value)
        return self.block(self.after(x)) + x


def transformer():
    return nn.Sequential(*(Attention() for _ in range(3)))


NETWORKS = {
    "blocks": (Blocks, (4,)),
    "keywords": (Keywords, (4,)),
    "shared": (SharedBlock, (4,)),
    "hidden_input": (HiddenInput, (4,)),
    "unused": (Unused, (4,)),
    "nothing_saved": (NoSaved, (4,)),
    "in_place": (InPlace, (4,)),
    "unet": (UNet, (1, 8, 8)),
    "recurrent": (Recurrent, (6, 4)),
    "transformer": (transformer, (5, 8)),
}


@pytest.fixture(params=NETWORKS)
def case(request):
    """A network in float64, and a line from 0 to one sample."""
    make, shape = NETWORKS[request.param]
    net = make().double()
    end = torch.rand(1, *shape, dtype=torch.float64)
    return net, LinearPath((end,), (torch.zeros_like(end),))


def sweep(net, path, sums=None, at_input=False, **options):
    """Sums of all layers by site, and the trace."""
    partition = tagged_partition(path.interval, N_STEPS, "trapezoid")
    made = [StieltjesSum("trapezoid")] if sums is None else sums(partition)
    layers = resolve_layers(net)
    result = trace(net, layers, path, partition, OutputSum(), made, at_input=at_input, **options)
    return {tensor.site: [s.value(tensor.site) for s in made] for tensor in result.survey.distinct}, result


@pytest.fixture
def forced(monkeypatch):
    """Makes the next sweeps use blocks, or overlapping chunks of three nodes, whatever they take."""

    def force(with_blocks: bool, overlaps: bool, count: int) -> None:
        def plan(survey, sums, n_nodes, rows, budget, find):
            found = find()
            assert found.modules, found.reason
            blocks = found.modules if with_blocks else {}
            return Plan([survey.distinct], count, found.node_bytes, 0, blocks, overlaps)

        monkeypatch.setattr("macattr.sweep.trace.plan_sweeps", plan)

    return force


@pytest.mark.parametrize("at_input", [False, True], ids=["outputs", "inputs"])
@pytest.mark.parametrize(
    ("with_blocks", "overlaps", "count"),
    [(True, False, 1), (True, False, 2), (True, True, 3), (False, True, 5)],
    ids=["blocks", "blocks_two_nodes", "blocks_overlap", "overlap"],
)
def test_blocks_and_overlaps_never_change_a_sum(case, forced, with_blocks, overlaps, count, at_input):
    net, path = case
    plain, whole = sweep(net, path, at_input=at_input, internal_batch_size=1)
    before = [dict(vars(module)) for module in net.modules()]
    forced(with_blocks, overlaps, count)
    got, result = sweep(net, path, at_input=at_input)
    assert bool(result.recomputed) == with_blocks
    torch.testing.assert_close(got, plain, **ROUNDING)
    torch.testing.assert_close(result.input_attribution, whole.input_attribution, **ROUNDING)
    torch.testing.assert_close(result.objective_variation, whole.objective_variation, **ROUNDING)
    assert result.cuts == whole.cuts
    assert [dict(vars(module)) for module in net.modules()] == before


def test_chunks_do_not_overlap_where_another_process_evaluates_nodes_alone(monkeypatch):
    def plan(survey, sums, n_nodes, rows, budget, find):
        return Plan([survey.distinct], rows or 5, 0, 0, {}, overlaps=rows is None)

    net = Blocks().double()
    path = LinearPath((torch.rand(1, 4, dtype=torch.float64),), (torch.zeros(1, 4, dtype=torch.float64),))
    plain, _ = sweep(net, path)
    monkeypatch.setattr("macattr.sweep.trace.plan_sweeps", plan)
    monkeypatch.setattr("macattr.sweep.trace.smallest_of_all", lambda number, roots: 1)
    got, result = sweep(net, path)
    assert result.nodes_per_batch == 1
    torch.testing.assert_close(got, plain, **ROUNDING)


class Position(Blocks):
    """Blocks that add a table of positions, which no gradient links to the input and which all nodes share."""

    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.values = nn.Parameter(torch.rand(1, 6))

        def forward(self):
            return self.values * 2

    class Adding(Block):
        def __init__(self, width):
            super().__init__(width)
            self.table = Position.Table()

        def forward(self, x):
            return super().forward(x + self.table())

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(self.Adding(6) for _ in range(4))


class Checkpointed(Blocks):
    """Blocks that the user lets run again."""

    def step(self, block, x):
        return checkpoint(block, x, use_reentrant=False)


class OverwritesInput(Blocks):
    """Blocks whose first layer overwrites what they are given."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 6)) for _ in range(4)
        )


class TakesGradients(Blocks):
    """Blocks that take gradients in their forward pass."""

    class Slope(Block):
        def forward(self, x):
            with torch.enable_grad():
                inner = x.detach().requires_grad_()
                (slope,) = torch.autograd.grad(self.down(self.up(inner).tanh()).sum(), inner)
            return super().forward(x) + slope

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(self.Slope(6) for _ in range(4))


class UserHooks(Blocks):
    """Hooks of the user that change what blocks and layers take and return."""

    def __init__(self):
        super().__init__()
        self.blocks[1].register_forward_hook(lambda _, args, output: output * args[0].cos())
        self.blocks[2].up.register_forward_pre_hook(lambda _, args: (args[0].sin(),))
        self.blocks[3].register_full_backward_hook(lambda module, given, taken: (given[0] * 0.5,))


class StateFirst(Blocks):
    """An LSTM, whose states do not have the batch first, so that nodes are evaluated alone."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(6, 6, batch_first=True)

    def step(self, block, x):
        return block(x) + self.lstm(x[:, None])[0][:, 0]


ODD = {
    "state_first": StateFirst,
    "position": Position,
    "checkpointed": Checkpointed,
    "overwrites_input": OverwritesInput,
    "takes_gradients": TakesGradients,
    "user_hooks": UserHooks,
    "compiled": lambda: torch.compile(Blocks().double(), backend="eager"),
}


@pytest.mark.filterwarnings("ignore:`memory_budget` splits the layers", "ignore:layer lstm.* evaluated one at a time")
@pytest.mark.parametrize("share", [0.6, 0.8], ids=["tight", "some_room"])
@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_odd_networks_have_the_same_sums_within_a_budget(make, share):
    net = make().double()
    end = torch.rand(1, 4, dtype=torch.float64)
    path = LinearPath((end,), (torch.zeros_like(end),))
    plain, whole = sweep(net, path, internal_batch_size=1)
    got, result = sweep(net, path, memory_budget=share * whole.estimated_bytes)
    assert result.recomputed or result.evaluations > whole.evaluations
    torch.testing.assert_close(got, plain, **ROUNDING)
    torch.testing.assert_close(result.input_attribution, whole.input_attribution, **ROUNDING)


@pytest.mark.parametrize("is_finite", [True, False], ids=["finite", "not finite, before the backward pass"])
def test_the_graph_keeps_no_sums_where_blocks_run_again(forced, is_finite):
    """Neither do the blocks that wait to run again."""

    def swept(made):
        objective = OutputSum() if is_finite else lambda y: y.sum(1) / 0
        with nullcontext() if is_finite else pytest.raises(ValueError, match="the objective is"):
            trace(net, resolve_layers(net), path, partition, objective, [made])
        return weakref.ref(made)

    net, end = Blocks().double(), torch.rand(1, 4, dtype=torch.float64)
    path = LinearPath((end,), (torch.zeros_like(end),))
    partition = tagged_partition(path.interval, N_STEPS, "trapezoid")
    forced(True, False, 1)
    reference = swept(StieltjesSum("trapezoid"))
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("count", [1, 3], ids="{}_nodes".format)
def test_a_sweep_that_ends_at_its_layers_has_the_same_sums_with_blocks(forced, count):
    net = Blocks().double()
    end = torch.rand(1, 4, dtype=torch.float64)
    path = LinearPath((end,), (torch.zeros_like(end),))
    plain, _ = sweep(net, path, internal_batch_size=1, with_input=False)
    forced(True, count > 1, count)
    got, _ = sweep(net, path, with_input=False)
    torch.testing.assert_close(got, plain, **ROUNDING)


def test_blocks_alone_keep_every_bit(forced):
    net = Blocks()
    path = LinearPath((torch.rand(1, 4),), (torch.zeros(1, 4),))
    plain, _ = sweep(net, path, internal_batch_size=1)
    forced(True, False, 1)
    got, _ = sweep(net, path)
    torch.testing.assert_close(got, plain, rtol=0, atol=0)


def test_every_kind_of_sum_takes_a_repeated_node_once(forced):
    def sums(partition):
        half = every_nth_node(partition, (0.0, 1.0), 1)
        fine = [GradientSum(partition.weights), ActivationSum(partition.weights)]
        return [*fine, EveryNth(StieltjesSum("trapezoid")), EveryNth(GradientSum(half.weights))]

    net = Blocks().double()
    end = torch.rand(1, 4, dtype=torch.float64)
    path = LinearPath((end,), (torch.zeros_like(end),))
    plain, _ = sweep(net, path, sums, internal_batch_size=1)
    forced(True, True, 3)
    got, result = sweep(net, path, sums)
    assert result.evaluations == 12  # nine nodes, three of them at two borders' sides
    torch.testing.assert_close(got, plain, **ROUNDING)


@pytest.mark.parametrize(("overlaps", "count", "runs"), [(False, 1, 18), (True, 3, 24)], ids=["blocks", "overlap"])
def test_a_block_runs_twice_for_every_node_that_is_evaluated(forced, overlaps, count, runs):
    net = Blocks().double()
    end = torch.rand(1, 4, dtype=torch.float64)
    path = LinearPath((end,), (torch.zeros_like(end),))
    seen = 0

    def count_rows(module, args):
        nonlocal seen
        seen += len(args[0])

    known = Surveys()
    forced(True, overlaps, count)
    sweep(net, path, surveys=known)  # the survey and the rehearsal are made once
    handle = net.blocks[1].up.register_forward_pre_hook(count_rows)
    sweep(net, path, surveys=known)
    handle.remove()
    assert seen == runs + 1  # the check at the end runs once more


class Counter(Blocks):
    """Blocks whose output depends on how often they ran."""

    class Counting(Block):
        count = 0

        def forward(self, x):
            self.count += 1
            return super().forward(x) * self.count

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(self.Counting(6) for _ in range(4))


class Consumer(Blocks):
    """Blocks that take a list apart."""

    class Taker(Block):
        def forward(self, x, rest=()):
            return super().forward(x) * rest.pop()

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(self.Taker(6) for _ in range(4))

    def step(self, block, x):
        return block(x, [2.0])


def blocks_of(net):
    """The blocks that can run again."""
    end = torch.rand(1, 4, dtype=torch.float64)
    path = LinearPath((end,), (torch.zeros_like(end),))
    layers = resolve_layers(net)
    looked = survey(net, layers, path, tagged_partition(path.interval, N_STEPS, "trapezoid"))
    with undisturbed(net) as rewind:
        forward = Forward(net, layers, path, rewind)
        return find_blocks(forward, leaves_at(path, torch.zeros(1, dtype=torch.float64)), looked)


@pytest.mark.parametrize(("make", "wrong"), [(Counter, "Counting"), (Consumer, "Taker")], ids=["state", "list"])
def test_blocks_that_would_compute_something_else_are_no_blocks(make, wrong):
    net = make().double()
    found = blocks_of(net)
    assert all(type(module).__name__ not in (wrong, make.__name__) for module in found.modules.values())


def test_the_blocks_of_a_deep_network_are_its_blocks():
    net = Blocks()
    net.blocks = nn.ModuleList(Block(6) for _ in range(12))
    assert {f"blocks.{number}" for number in range(12)} <= blocks_of(net.double()).modules.keys()
