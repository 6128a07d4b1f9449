import pytest
from torch import nn

from macattr.layers.resolve import resolve_layers


def test_default_layers_are_the_direct_owners_of_parameters_in_module_order(net):
    assert list(resolve_layers(net)) == ["first", "blocks.0.0", "blocks.0.2", "norm"]


def test_a_parameter_of_a_container_makes_it_a_layer(net):
    net.blocks[0].register_parameter("scale", nn.Parameter(nn.Linear(1, 1).weight.detach()))
    assert "blocks.0" in resolve_layers(net)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("norm", ["norm"]),
        (["norm", "first"], ["norm", "first"]),
        ("blocks.*.[02]", ["blocks.0.0", "blocks.0.2"]),
        (nn.Conv2d, ["first", "blocks.0.0", "blocks.0.2"]),
        ([nn.ReLU, "norm"], ["blocks.0.1", "norm"]),
        (["norm", "norm"], ["norm"]),
    ],
    ids=["name", "names_in_their_order", "glob", "class", "mixed", "repeated"],
)
def test_layers_are_found_by(net, layers, expected):
    resolved = resolve_layers(net, layers)
    assert list(resolved) == expected
    assert all(module is net.get_submodule(name) for name, module in resolved.items())


def test_a_module_is_found_under_its_name(net):
    assert list(resolve_layers(net, net.blocks[0][2])) == ["blocks.0.2"]


def test_a_shared_module_is_found_under_every_name_and_listed_once(net):
    net["tied"] = net["first"]
    assert list(resolve_layers(net)).count("first") + list(resolve_layers(net)).count("tied") == 1
    assert resolve_layers(net, "tied")["tied"] is net["first"]
    assert list(resolve_layers(net, net["first"])) == ["first"]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("norms", "no layer 'norms'; did you mean 'norm'"),
        ("blocks.0.3", "no layer 'blocks.0.3'; did you mean 'blocks.0.[012]', 'blocks.0"),
        ("module.first", "no layer 'module.first'; did you mean 'first'.* A 'module.' prefix comes from DataParallel"),
        ("xyz", r"no layer 'xyz'\.$"),
        ("heads.*", r"no layer 'heads.\*'"),
        (nn.Linear, "the model has no module of class Linear"),
        (nn.Conv2d(1, 2, 3), "the module Conv2d is not part of the model: pass one of its own modules"),
        ([], "`layers` is empty: pass None for every module that owns a parameter"),
    ],
    ids=["near_match", "near_matches", "module_prefix", "no_match", "glob", "class", "foreign_module", "empty"],
)
def test_a_layer_that_is_not_there_is_refused(net, layers, message):
    with pytest.raises(ValueError, match=message):
        resolve_layers(net, layers)


def test_a_model_without_parameters_needs_named_layers():
    with pytest.raises(ValueError, match="no module inside Sequential owns a parameter that can be trained: name the"):
        resolve_layers(nn.Sequential(nn.ReLU()))


NAMES = ["first", "body.0.conv", "body.1.conv"]


@pytest.mark.parametrize(
    ("name", "names", "message"),
    [
        ("_orig_mod.first", NAMES, "did you mean 'first'.* '_orig_mod.' prefix comes from torch.compile"),
        ("module._orig_mod.first", NAMES, "did you mean 'first'.* prefix comes from DataParallel"),
        ("net.body.0.conv", NAMES, "did you mean 'body.0.conv'"),
        ("0.conv", NAMES, "did you mean 'body.0.conv'"),
        ("first", ["module.first"], "did you mean 'module.first'.* DataParallel: pass the network inside it"),
        ("module.nothing", NAMES, "no layer 'module.nothing'. A 'module.' prefix comes from DataParallel"),
    ],
)
def test_unknown_layers_are_explained_by_wrappers_and_near_matches(name, names, message):
    network = nn.Module()
    for path in names:
        owner = network
        for part in path.split("."):
            if not hasattr(owner, part):
                owner.add_module(part, nn.Module())
            owner = getattr(owner, part)
    with pytest.raises(ValueError, match=message):
        resolve_layers(network, name)


def test_globs_do_not_match_the_network_itself():
    assert "" not in resolve_layers(nn.Sequential(nn.Linear(2, 2)), "*")


def test_a_list_of_layers_is_answered_with_what_is_inside(net):
    for layers in ("blocks", net["blocks"], ["first", "blocks"]):
        with pytest.raises(ValueError, match=r"'blocks' is a ModuleList, which holds layers .* such as 'blocks\.\*'"):
            resolve_layers(net, layers)
