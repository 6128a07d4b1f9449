"""Scores after a warm-up: the ends alone have moved, on a copy."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from macattr.methods import warm_up
from macattr.methods.parameter_scores import adam_gain
from macattr.methods.samples import iterate_samples
from macattr.methods.task import Options
from macattr.methods.warm_up import warmed_up
from macattr.ranking.rank import rank_layers, task_of


class Blocks(nn.Module):
    """Ends and two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.blocks = nn.ModuleList(nn.ModuleDict({"fc": nn.Linear(4, 4)}) for _ in range(2))
        self.last = nn.Linear(4, 2)

    def forward(self, image):
        hidden = self.first(image)
        for block in self.blocks:
            hidden = hidden + block["fc"](hidden).tanh()
        return self.last(hidden)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Blocks().double().eval()


@pytest.fixture
def pairs():
    draw = torch.rand(6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return [{"image": row[None, :3], "target": 3 + row[None, 3:]} for row in draw]


def warm(network, pairs):
    return warmed_up(task_of(network, None, Options()), list(iterate_samples(pairs, network)), "a test")


@torch.no_grad()
def error(network, pairs):
    return float(sum((network(pair["image"]) - pair["target"]).abs().mean() for pair in pairs))


def test_the_ends_of_a_copy_move_and_the_network_stays(network, pairs):
    before = copy.deepcopy(network.state_dict())
    found = warm(network, pairs).model.state_dict()
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert {name for name in before if not torch.equal(before[name], found[name])} == {
        "first.weight",
        "first.bias",
        "last.weight",
        "last.bias",
    }


def test_the_warm_up_lowers_the_loss(network, pairs):
    assert error(warm(network, pairs).model, pairs) < error(network, pairs)


def test_layers_of_the_task_are_those_of_the_copy(network, pairs):
    task = warm(nn.DataParallel(network), pairs)
    assert list(task.layers) == ["first", "blocks.0.fc", "blocks.1.fc", "last"]
    assert all(layer in set(task.model.modules()) for layer in task.layers.values())


def test_scores_are_adams_gain_at_the_warmed_up_point(network, pairs):
    copied = warm(network, pairs).model
    samples = list(iterate_samples(pairs, network))
    expected = adam_gain(task_of(copied, None, Options()), samples)
    assert rank_layers(network, pairs, "adam_gain_warm").scores().values.tolist() == pytest.approx(expected, rel=1e-12)


def test_every_image_is_seen_in_every_pass(network, pairs, monkeypatch):
    monkeypatch.setattr(warm_up, "PASSES", 1)
    names = []

    def loss(output, target):
        names.append(float(target.sum()))
        return (output - target).abs().mean()

    task = task_of(network, None, Options(loss=loss))
    warmed_up(task, list(iterate_samples(pairs, network)), "a test")
    assert sorted(names) == pytest.approx(sorted(float(pair["target"].sum()) for pair in pairs))


def test_a_network_without_blocks_warms_up_its_first_and_last_layer(pairs):
    flat = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)).double().eval()
    before = copy.deepcopy(flat.state_dict())
    after = warm(flat, pairs).model.state_dict()
    assert {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])} == {"0", "2"}


def test_a_network_of_nothing_but_blocks_warms_up_the_first_and_the_last_layer(pairs):
    network = nn.Sequential()
    network.blocks = nn.Sequential(*(nn.Linear(*sizes) for sizes in ((3, 4), (4, 4), (4, 2)))).double().eval()
    before, after = network.state_dict(), warm(network, pairs).model.state_dict()
    assert {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])} == {"0", "2"}


@pytest.mark.parametrize(
    "norm",
    [nn.utils.weight_norm, lambda layer: prune.l1_unstructured(layer, "weight", 0.5)],
    ids=["weight_norm", "prune"],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_weights_that_a_hook_computes_are_copied(network, pairs, norm):
    norm(network.first)
    before = error(network, pairs)
    assert error(warm(network, pairs).model, pairs) < before
    assert error(network, pairs) == before
