"""Controls match what they say they match, every allowed set is equally likely, and a seed gives the same again."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from macattr.layers.table import LayerTable
from macattr.selection.controls import convolutions, random_layers, random_parameters, shuffled_layers
from macattr.selection.rules import SelectionRule, select

pytestmark = pytest.mark.filterwarnings("ignore:top .* at random:UserWarning")


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, width)
        self.out = nn.Linear(width, width)


class Net(nn.Module):
    """Two stages of three blocks, of different widths, between two ends."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.narrow = nn.ModuleList(Block(4) for _ in range(3))
        self.wide = nn.ModuleList(Block(6) for _ in range(3))
        self.middle = nn.Conv2d(4, 6, 3)
        self.last = nn.Conv2d(6, 3, (3, 3))
        self.flat = nn.Conv2d(6, 6, (1, 3))


@pytest.fixture
def table() -> LayerTable:
    network = Net()
    return LayerTable.of(network, alias_of={n: n.replace("norm", "fc") for n in LayerTable.of(network).names})


@pytest.fixture
def selection(table):
    ranking = ["last", "wide.0.fc", "narrow.2.norm", "narrow.0.out", "wide.1.out", "wide.2.out", "first"]
    return select(ranking + [name for name in table.names if name not in ranking], table, SelectionRule(count=6))


@pytest.fixture(params=["numpy", "torch"])
def generator(request):
    make = {"numpy": np.random.default_rng, "torch": lambda seed: torch.Generator().manual_seed(seed)}
    return make[request.param]


CONTROLS = {"layers": random_layers, "parameters": random_parameters, "shuffled": shuffled_layers}


@pytest.mark.parametrize("control", CONTROLS.values(), ids=CONTROLS)
def test_a_seed_gives_the_same_control_again_and_another_seed_another(control, selection, generator):
    draws = [control(selection, generator(seed)).layers for seed in (1, 1, 2, 3)]
    assert draws[0] == draws[1]
    assert len(set(draws)) > 1


@pytest.mark.parametrize("control", CONTROLS.values(), ids=CONTROLS)
def test_controls_are_in_module_order_and_say_what_they_match(control, selection, generator):
    made = control(selection, generator(0))
    assert list(made.layers) == [name for name in made.table.names if name in made.layers]
    assert "[top 6 layers]: " in str(made)
    assert not made.scores


def test_every_layer_is_equally_likely(selection, generator):
    source = generator(0)
    draws = 2000
    counts = Counter(name for _ in range(draws) for name in random_layers(selection, source).layers)
    probability = len(selection.layers) / len(selection.pool)
    sd = (draws * probability * (1 - probability)) ** 0.5
    assert set(counts) == set(selection.table.names)
    assert max(abs(count - draws * probability) for count in counts.values()) < 5 * sd  # 22 layers: p < 2e-5


def test_the_mean_over_draws_is_the_stated_one(selection):
    source = np.random.default_rng(0)
    sizes = [random_layers(selection, source).parameters for _ in range(2000)]
    assert np.mean(sizes) == pytest.approx(selection.random_mean, abs=4 * np.std(sizes) / len(sizes) ** 0.5)


def test_outputs_are_drawn_whole(table, generator):
    chosen = select(list(table.names), table, SelectionRule(count=4, by="outputs"))
    control = random_layers(chosen, generator(0))
    assert len(control.chosen) == 4
    assert all(("norm" in name) <= (name.replace("norm", "fc") in control.layers) for name in control.layers)


@pytest.mark.parametrize("control", CONTROLS.values(), ids=CONTROLS)
def test_what_had_to_be_in_or_out_stays_so(control, table):
    rule = SelectionRule(count=6, include=("wide.0.norm",), exclude=("middle",))
    chosen = select(list(table.names), table, rule)
    source = np.random.default_rng(0)
    for _ in range(20):
        layers = control(chosen, source).layers
        assert "wide.0.norm" in layers
        assert "middle" not in layers


@pytest.mark.parametrize("same_number", [False, True])
def test_parameters_are_matched_from_below(selection, generator, same_number):
    source = generator(0)
    for _ in range(20):
        control = random_parameters(selection, source, same_number=same_number)
        assert 0.95 * selection.parameters <= control.parameters <= selection.parameters
        assert len(control.layers) == 6 or not same_number


def test_parameters_that_cannot_be_matched_are_refused(table):
    chosen = select(["last"], table, SelectionRule(count=1))
    largest = select(["middle", *table.names[:1]], table, SelectionRule(count=1))
    assert random_parameters(largest, np.random.default_rng(0)).layers == ("middle",)
    impossible = select(list(table.names), table, SelectionRule(count=3))
    with pytest.raises(ValueError, match="none of 50 random draws trains 100% to 100 % of"):
        random_parameters(impossible, np.random.default_rng(0), fill=1.0, draws=50, same_number=True)
    with pytest.raises(ValueError, match="`skips` = 1 has no effect with `same_number`"):
        random_parameters(chosen, np.random.default_rng(0), skips=1, same_number=True)


@pytest.mark.parametrize("stages", [True, False], ids=["stage", "all"])
def test_shuffling_keeps_number_parameters_roles_and_ends(selection, generator, stages):
    def kinds(layers):
        described = [selection.table[name] for name in layers]
        return Counter((layer.role, layer.parameters, layer.stage if stages else "") for layer in described)

    source = generator(0)
    for _ in range(20):
        control = shuffled_layers(selection, source, stages=stages)
        assert kinds(control.layers) == kinds(selection.layers)
        assert control.parameters == selection.parameters
        assert "last" in control.layers


def test_shuffling_reaches_every_block_of_the_stage(selection):
    source = np.random.default_rng(0)
    drawn = Counter(name for _ in range(60) for name in shuffled_layers(selection, source).layers)
    assert {name for name in drawn if name.endswith("fc")} == {f"wide.{number}.fc" for number in range(3)}
    assert {name for name in drawn if name.endswith("norm")} == {f"narrow.{number}.norm" for number in range(3)}


@pytest.mark.parametrize("stages", [True, False], ids=["stage", "all"])
def test_stages_of_one_width_are_mixed_only_when_told(stages):
    network = nn.ModuleDict({name: nn.ModuleList(Block(4) for _ in range(3)) for name in ("early", "late")})
    table = LayerTable.of(network)
    chosen = select(["early.0.fc", "early.1.fc", *table.names[5:]], table, SelectionRule(count=2))
    source = np.random.default_rng(0)
    drawn = {name for _ in range(30) for name in shuffled_layers(chosen, source, stages=stages).layers}
    assert {name.partition(".")[0] for name in drawn} == ({"early"} if stages else {"early", "late"})


def test_a_shuffle_that_changes_nothing_is_refused(table):
    chosen = select(["last", "narrow.0.fc", "narrow.1.fc", "narrow.2.fc"], table, SelectionRule(count=4))
    with pytest.raises(ValueError, match="takes all or none of every role in a stage; try stages=False"):
        shuffled_layers(chosen, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("first", "middle", "last", "flat")),
        ({"ends": False}, ("middle", "last")),
        ({"size": 1, "ends": False}, ("first",)),
    ],
)
def test_convolutions_are_those_of_one_kernel_side(options, expected):
    assert convolutions(Net(), **options).layers == expected


def test_without_such_a_convolution_there_is_no_control():
    with pytest.raises(ValueError, match="no convolution whose kernel has the side 7"):
        convolutions(Net(), 7)
