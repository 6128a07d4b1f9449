import pytest
from torch import nn

from macattr.layers.resolve import resolve_layers
from macattr.layers.table import LayerTable, describe_layers


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
