"""Uses that look right to somebody who has not read the source: they give the right numbers, or say what to change."""

import argparse
import copy
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune

from macattr import LayerConductance, LayerImportance, SelectionRule, TrainableMask, rank_layers, rank_methods
from macattr.layers.table import LayerTable
from macattr.methods.provenance import hash_network
from macattr.methods.reductions import REDUCTIONS, reduce_neurons
from macattr.paths.presets import Preset
from macattr.selection.trainable import train_only


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3, padding=1)).eval()


@pytest.fixture
def images():
    return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def scores(network, inputs, method="conductance", **options):
    return rank_layers(network, inputs, method, **{"n_steps": 4} | options).scores().values


class Own(nn.Module):
    """A loss of a user's own."""

    def forward(self, output, target):
        return (output - target).square().mean()


@pytest.mark.parametrize(
    ("loss", "function"),
    [
        (nn.MSELoss(), F.mse_loss),
        (nn.L1Loss(), F.l1_loss),
        (Own(), F.mse_loss),
        (lambda output, target=None: F.mse_loss(output, target), F.mse_loss),
        (lambda *both: F.l1_loss(*both), F.l1_loss),
    ],
    ids=["MSELoss", "L1Loss", "own", "default", "star"],
)
def test_losses_of_any_make_get_the_target(net, images, loss, function):
    pairs = [(image[None], image[None] / 2) for image in images]
    found, expected = (scores(net, pairs, "fisher", n_steps=None, loss=each) for each in (loss, function))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_module_is_a_loss_of_labels_too(images):
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval()
    labelled = [(images, torch.tensor([0, 2, 1]))]
    found, expected = (
        scores(classifier, labelled, "fisher", n_steps=None, loss=loss)
        for loss in (nn.CrossEntropyLoss(), F.cross_entropy)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@dataclass
class Settings:
    """Settings in a data class."""

    k: object = 1.0


class Plain:
    """Settings in a class of one's own."""

    def __init__(self, k):
        self.k = k


class Kind(Enum):
    """A choice."""

    ONE, TWO = 1, 2


class Configured(nn.Module):
    """A network whose settings are an object."""

    def __init__(self, settings):
        super().__init__()
        self.settings = settings
        self.layer = nn.Conv2d(3, 3, 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda k: {"k": k},
        lambda k: {"deep": {"k": [k]}},
        lambda k: SimpleNamespace(k=k),
        lambda k: argparse.Namespace(k=k),
        Settings,
        Plain,
        lambda k: Plain(Plain({"k": k})),
        lambda k: {Kind(int(k))},
        lambda k: Kind(int(k)),
        lambda k: np.array([k]),
        lambda k: (torch.tanh, torch.relu)[int(k) - 1],
        lambda k: (nn.ReLU, nn.GELU)[int(k) - 1],
    ],
    ids=[
        "dict",
        "nested",
        "namespace",
        "argparse",
        "dataclass",
        "class",
        "classes",
        "set",
        "enum",
        "array",
        "builtin",
        "type",
    ],
)
def test_settings_in_any_object_tell_networks_apart(make):
    torch.manual_seed(0)
    one = Configured(make(1.0))
    same, other = copy.deepcopy(one), copy.deepcopy(one)
    same.settings, other.settings = make(1.0), make(2.0)
    assert hash_network(one) == hash_network(same) != hash_network(other)


def test_where_a_module_lies_is_no_setting():
    one = Configured(torch.device("cpu"))
    other = copy.deepcopy(one)
    other.settings = torch.device("meta")
    assert hash_network(one) == hash_network(other)


def test_objects_that_hold_more_than_settings_are_no_settings():
    one, other = Configured(Plain(iter(()))), Configured(Plain(open))
    cyclic = Plain(None)
    cyclic.k = cyclic
    other.load_state_dict(one.state_dict())
    for each in (one, other):
        each.settings = cyclic
    assert hash_network(one) == hash_network(other)


@pytest.mark.parametrize(
    ("layer", "units"),
    [
        (nn.Conv2d(3, 4, 1), 4),
        (nn.ConvTranspose2d(16, 3, 2), 3),
        (nn.Linear(7, 2), 2),
        (nn.Embedding(50, 8), 8),
        (nn.LSTM(8, 5), 5),
        (nn.LSTM(8, 5, bidirectional=True, proj_size=2), 4),
        (nn.GRUCell(8, 5), 5),
        (nn.MultiheadAttention(5, 1), 5),
        (nn.BatchNorm2d(6), 6),
        (nn.LayerNorm((6,)), 6),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_units_are_output_channels_or_features(layer, units):
    assert reduce_neurons("per_unit", torch.ones(1, 12), layer) == pytest.approx(12 / units)


class Dead(nn.Module):
    """A network with a branch of zeros."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 1)
        nn.init.zeros_(self.b.weight)
        nn.init.zeros_(self.b.bias)

    def forward(self, image):
        return self.c(self.a(image) + self.b(image))


@pytest.mark.parametrize(
    ("method", "options"),
    [("drift", {}), *((method, {"reduction": name}) for method in ("mac", "grad_x_activation") for name in REDUCTIONS)],
    ids=str,
)
def test_a_layer_of_zeros_has_a_finite_score(images, method, options):
    importance = rank_layers(Dead().eval(), images, method, **options)
    assert np.isfinite(importance.scores().values).all()
    assert len(importance.select(SelectionRule(count=2)).layers) == 2


def test_magnitude_is_that_of_the_weights_in_use(net):
    prune.l1_unstructured(net[0], "weight", 0.5)
    parametrizations.weight_norm(net[2])
    found = scores(net, None, "magnitude", n_steps=None)
    expected = [torch.cat([part.weight.flatten(), part.bias]).abs().mean().item() for part in (net[0], net[2])]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.filterwarnings("error")
def test_a_small_constant_is_left_out_without_a_word(images):
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 300, 3), nn.Conv2d(300, 3, 1)).eval()
    net[0].requires_grad_(False)  # 12 of 9,315 parameters, such as a shift of the mean
    assert "0" not in rank_layers(net, images, "conductance", n_steps=2).ranking()["layer"].values


@pytest.mark.filterwarnings("error")
def test_frozen_layers_are_left_out_with_a_warning(net, images):
    net[0].requires_grad_(False)
    with pytest.warns(
        UserWarning, match=r"left out 1 layers with 50% of the parameters, .*: '0'. To rank them too, call"
    ):
        rank_layers(net, images, "conductance", n_steps=4)
    assert list(rank_layers(net, images, "conductance", ["0", "2"], n_steps=4).ranking()["layer"])
    net[0].requires_grad_(True)
    TrainableMask(("0",)).apply(net)
    rank_layers(net, images, "conductance", n_steps=4)  # what a mask froze is ranked


@pytest.mark.usefixtures("as_users_run_it")
def test_one_name_is_a_name_and_no_list_of_letters():
    net = nn.Sequential(*[nn.Conv2d(3, 3, 1) for _ in range(12)])
    table = LayerTable.of(net)
    assert table.match("10") == {"10"}
    assert table.count("10") == table.count(["10"]) == 12
    assert train_only(net, "10.weight").trained == 9
    assert SelectionRule(1.0, exclude="10") == SelectionRule(1.0, exclude=("10",))
    assert SelectionRule(count=1, include=["11"]).include == ("11",)
    assert table.match(SelectionRule(1.0, exclude="1*").exclude) == {"1", "10", "11"}
    assert TrainableMask("11").parameter_names(net) == ["11.weight", "11.bias"]
    assert list(rank_methods(net, None, "magnitude")) == ["magnitude"]


@pytest.mark.parametrize(
    "give",
    [
        set,
        np.array,
        iter,
        lambda names: dict.fromkeys(names).keys(),
        lambda names: __import__("pandas").Series(names),
    ],
    ids=["set", "array", "iterator", "keys", "series"],
)
def test_layers_come_in_any_collection(net, images, give):
    assert set(rank_layers(net, images, "conductance", give(["0", "2"]), n_steps=4).ranking()["layer"]) == {"0", "2"}
    found = LayerConductance(net, give(["0", "2"])).attribute(images, n_steps=4, objective="sum")
    assert sorted(map(len, found)) == [3, 3]


@pytest.mark.parametrize(
    ("names", "expected"),
    [([Path("a.png"), Path("b.png")], ["a.png", "b.png"]), (torch.tensor([7, 8]), ["7", "8"]), ((7, 8), ["7", "8"])],
    ids=["paths", "tensor", "numbers"],
)
def test_names_need_not_be_texts(net, images, names, expected):
    items = {"image": images[:2], "name": names, "degradation": 1}
    dataset = rank_layers(net, items, "conductance", n_steps=4).dataset
    assert dataset["sample"].values.tolist() == expected
    assert dataset["degradation"].values.tolist() == ["1", "1"]


def test_arguments_for_all_go_with_an_input_by_name(images):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, points, scale):
            return torch.tanh(self.layer(points) * scale)

    torch.manual_seed(0)
    network, points = Scaled().eval(), torch.rand(1, 5, 4)
    options = {"objective": "sum"}
    for_all = scores(network, [{"points": points}], additional_forward_args=(0.5,), **options)
    own = scores(network, [{"points": points, "forward_args": (0.5,)}], **options)
    keyword = scores(network, [{"points": points, "scale": 0.5}], **options)
    np.testing.assert_allclose(for_all, own, rtol=1e-6)
    np.testing.assert_allclose(for_all, keyword, rtol=1e-6)


def test_inputs_have_the_dtype_of_most_weights(net, images):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))
            self.net = net

        def forward(self, image):
            return self.net(image) * self.scale.float()

    np.testing.assert_allclose(scores(Scaled().eval(), images), scores(net, images), rtol=1e-6)


def test_rankings_of_unnamed_images_cannot_be_merged_and_say_why(net, images):
    parts = [rank_layers(net, some, n_steps=4) for some in (images[:1], images[1:2])]
    with pytest.raises(ValueError, match="Different images need names: give each a `name`"):
        LayerImportance.merge(parts)
    uneven = [rank_layers(net, some, n_steps=4) for some in (images[:1], images[1:])]
    with pytest.raises(ValueError, match="Different images need names"):
        LayerImportance.merge(uneven)


class Inference(nn.Module):
    """A network that switches gradients off for good."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)

    @torch.inference_mode()
    def forward(self, image):
        return self.layer(image)


class Image:
    """A stand-in for a picture of PIL."""


Image.__module__ = "PIL.Image"


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": float("nan")}, "`n_steps` must be a whole number, got nan"),
        ({"n_steps": float("inf")}, "`n_steps` must be a whole number, got inf"),
        ({"groups": float("nan")}, "`groups` must be a whole number, got nan"),
        ({"patch_size": float("nan")}, "`patch_size` must be a whole number, got nan"),
        ({"seed": float("nan")}, "`seed` must be a whole number, got nan"),
        ({"until": 5}, "`until` must be a StableTop, got 5"),
        ({"objective": 3}, "`objective` must be a function or one of"),
        ({"include_end": "no"}, "`include_end` must be True or False, got 'no'"),
        ({"path": lambda image: image}, "`path` must return a path, .* got a Tensor"),
        ({"layers": 5}, "`layers` must be names, globs, modules or classes of modules, got 5 of type int"),
        ({"layers": ["0", 2]}, "`layers` must be names, .* got 2 of type int"),
        ({"method": None}, "`method` must be a name or several, got None"),
        ({"memory_budget": 100.0}, "`memory_budget` of 9.54e-05 MiB is too small: one node keeps 0.0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_options_of_the_wrong_kind_are_named(net, images, options, message):
    with pytest.raises((ValueError, RuntimeError), match=message):
        rank_layers(net, images, **{"n_steps": 4} | options)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.rand(1, 3, 0, 6), r"has a side of length 0, got \(1, 3, 0, 6\)"),
        (torch.rand(1, 4, 6, 6), r"It takes three channels: pass `image\[:3\]`"),
        (torch.rand(1, 1, 6, 6), r"It takes three channels: pass `image.expand\(3, -1, -1\)`"),
        (Image(), "A PIL image becomes one by"),
        ([Image()], "A PIL image becomes one by"),
        ({"image": torch.rand(2, 3, 6, 6), "name": ["one"]}, "must hold a text for each of several samples"),
    ],
    ids=["empty", "alpha", "grey", "pil", "pils", "names"],
)
def test_inputs_that_do_not_fit_are_refused_with_a_remedy(net, inputs, message):
    with pytest.raises((ValueError, RuntimeError), match=message):
        rank_layers(net, inputs, n_steps=4)


def test_a_network_without_gradients_is_refused_with_the_reason(images):
    with pytest.raises((ValueError, RuntimeError), match=r"layer layer runs under `torch.inference_mode`"):
        rank_layers(Inference().eval(), images, n_steps=4)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 2.5}, "`count` must be a whole number, got 2.5"),
        ({"count": True}, "`count` must be a whole number, got True"),
        ({"count": "2"}, "`count` must be a whole number, got '2'"),
        ({"fraction": "0.1"}, "`fraction` must be a finite number, got '0.1'"),
        ({"fraction": True}, "`fraction` must be a finite number, got True"),
        ({"threshold": "x"}, "`threshold` must be a finite number, got 'x'"),
        ({"fraction": 0.1, "by": "parameters", "skips": float("nan")}, "`skips` must be a whole number, got nan"),
        ({"fraction": 0.1, "exclude": 5}, "`exclude` must be a name or several, got 5"),
    ],
    ids=str,
)
def test_rules_of_the_wrong_kind_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SelectionRule(**options)


@pytest.mark.usefixtures("as_users_run_it")
def test_whole_counts_may_be_floats():
    assert SelectionRule(count=2.0) == SelectionRule(count=2)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("value", ["max", "Sum"])
def test_a_preset_refuses_other_ways_to_combine_images(value):
    with pytest.raises(ValueError, match=f"`across_images` must be one of mean, sum, got '{value}'"):
        Preset().override(across_images=value)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("options", "name"), [({"lr": float("nan")}, "lr"), ({"lr": 1, "power": float("nan")}, "power")]
)
def test_learning_rates_are_numbers(net, options, name):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        TrainableMask(("0",)).parameter_groups(net, scores={"0": 1.0}, **options)
