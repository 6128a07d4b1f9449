import pytest
from torch import nn

from macattr.layers import LayerTable, describe_layers, resolve_layers


@pytest.fixture
def net():
    block = nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 1))
    return nn.ModuleDict({"first": nn.Conv2d(1, 2, 3), "blocks": nn.ModuleList([block]), "norm": nn.LayerNorm(2)})


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
    with pytest.raises(ValueError, match="no module inside Sequential owns a parameter: name the `layers`"):
        resolve_layers(nn.Sequential(nn.ReLU()))


@pytest.mark.parametrize(
    ("name", "block", "role"),
    [
        ("layers.1.residual_group.blocks.0.attn.qkv", "layers.1.residual_group.blocks.0", "attn.qkv"),
        ("layers.1.conv", "layers.1", "conv"),
        ("conv_first", "", "conv_first"),
        ("patch_embed.norm", "", "patch_embed.norm"),
        ("body.0", "", "body.0"),
        ("3", "", "3"),
    ],
)
def test_block_ends_at_the_last_number_and_role_is_the_rest(name, block, role):
    description = describe_layers({name: nn.ReLU()})[0]
    assert (description.block, description.role) == (block, role)


def test_descriptions_count_own_parameters_in_order(net):
    descriptions = describe_layers(resolve_layers(net))
    assert [d.parameters for d in descriptions] == [20, 38, 6, 4]
    assert [d.depth for d in descriptions] == [0, 1, 2, 3]
    assert [d.type for d in descriptions] == ["Conv2d", "Conv2d", "Conv2d", "LayerNorm"]


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("layers.2.residual_group.blocks.5.mlp.fc2", "layers.2.residual_group.blocks"),
        ("layers.2.conv", "layers"),
        ("encoder_level1.0.attn.qkv", "encoder_level1"),
        ("conv_first", ""),
    ],
)
def test_a_stage_is_the_sequence_that_a_block_is_one_of(name, stage):
    assert describe_layers({name: nn.ReLU()})[0].stage == stage


def test_a_table_counts_as_the_network_does(net):
    net.blocks[0].register_parameter("scale", nn.Parameter(nn.Linear(2, 1).weight.detach()))
    table = LayerTable.of(net)
    assert table.total == sum(parameter.numel() for parameter in net.parameters()) == table.count(table.names)
    assert LayerTable.of(net, whole_modules=True).count(["blocks.0"]) == sum(p.numel() for p in net.blocks.parameters())


@pytest.mark.parametrize("whole", [False, True])
def test_a_table_from_descriptions_is_that_of_the_network(net, whole):
    net.blocks[0].register_parameter("scale", nn.Parameter(nn.Linear(2, 1).weight.detach()))
    here, told = (
        LayerTable.of(net, whole_modules=whole),
        LayerTable.described(describe_layers(resolve_layers(net)), whole_modules=whole),
    )
    assert (here.names, here.total) == (told.names, told.total)
    assert [here.count([name]) for name in here.names] == [told.count([name]) for name in told.names]
