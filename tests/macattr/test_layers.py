import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm
from torch.nn.utils.parametrize import register_parametrization

from macattr.layers import LayerTable, describe_layers, layer_of, resolve_layers
from macattr.selection.trainable import TrainableMask


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
    with pytest.raises(ValueError, match="no module inside Sequential owns a parameter that can be trained: name the"):
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


class Low(nn.Module):
    """A parametrisation with a layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 4, bias=False)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return self.mix(weight)


def own_parametrisation(layer: nn.Linear) -> nn.Module:
    return register_parametrization(layer, "weight", Low())


def twice(layer: nn.Linear) -> nn.Module:
    return parametrizations.weight_norm(parametrizations.weight_norm(layer), "bias", dim=None)


PARAMETRISED = {  # number of parameters of a layer with a 4 x 4 weight and a bias
    "weight_norm": (parametrizations.weight_norm, 4 + 16 + 4),
    "spectral_norm": (parametrizations.spectral_norm, 16 + 4),
    "orthogonal": (parametrizations.orthogonal, 16 + 4),
    "own layers": (own_parametrisation, 16 + 4 + 16),
    "weight and bias": (twice, 4 + 16 + 1 + 4),
    "old weight_norm": (weight_norm, 4 + 16 + 4),
    "old spectral_norm": (spectral_norm, 16 + 4),
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
@pytest.mark.parametrize(("norm", "size"), PARAMETRISED.values(), ids=PARAMETRISED)
def test_a_parametrised_weight_belongs_to_its_layer(norm, size):
    network = nn.ModuleDict({"first": nn.Linear(4, 4), "body": nn.Sequential(norm(nn.Linear(4, 4)), nn.ReLU())})
    layers = resolve_layers(network)
    assert list(layers) == ["first", "body.0"]
    assert [layer.parameters for layer in describe_layers(layers)] == [20, size]
    table = LayerTable.of(network)
    assert table.count(["body.0"]) == size == TrainableMask(("body.0",)).apply(network).trained
    assert table.count(table.names) == table.total
    assert {layer_of(name) for name, _ in network.named_parameters()} == {"first", "body.0"}


def test_globs_and_classes_find_no_parts_of_a_weight():
    network = nn.Sequential(own_parametrisation(nn.Linear(4, 4)), nn.Linear(4, 4))
    assert list(resolve_layers(network, nn.Linear)) == ["0", "1"]
    assert list(resolve_layers(network, "*[01]")) == ["0", "1"]
    for part in ("0.parametrizations.weight", "0.parametrizations.weight.0.mix", network[0].parametrizations.weight):
        with pytest.raises(ValueError, match="is part of the weight of the layer '0': name that layer"):
            resolve_layers(network, part)


class MeanShift(nn.Conv2d):
    """The constant convolution at the ends of super-resolution networks."""

    def __init__(self) -> None:
        super().__init__(3, 3, 1)
        self.requires_grad_(False)


class Scale(nn.Module):
    """A factor that is kept as a parameter."""

    def __init__(self, factor: torch.Tensor) -> None:
        super().__init__()
        self.factor = nn.Parameter(factor, requires_grad=False)


class Positions(nn.Linear):
    """Trains its weight, and keeps a constant table next to it."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.table = nn.Parameter(torch.ones(7), requires_grad=False)


@pytest.mark.parametrize(
    "constant",
    [MeanShift(), Scale(torch.ones(3)), Scale(torch.arange(3)), nn.Embedding(3, 2).requires_grad_(False)],
    ids=["mean shift", "factor", "integers", "embedding"],
)
def test_constants_are_candidates_only_by_name(constant):
    network = nn.ModuleDict({"constant": constant, "last": nn.Linear(4, 4)})
    assert list(resolve_layers(network)) == ["last"] == list(LayerTable.of(network).names)
    assert list(resolve_layers(network, ["constant"])) == ["constant"]


def test_a_constant_that_is_named_is_trained():
    network = nn.ModuleDict({"constant": MeanShift(), "last": nn.Linear(4, 4)})
    assert (
        TrainableMask(("constant",)).apply(network).trained
        == 12
        == LayerTable.of(network, ["constant"]).count(["constant"])
    )


@pytest.mark.parametrize("whole", [False, True])
def test_a_constant_next_to_a_weight_stays_frozen(whole):
    network = nn.ModuleDict({"fc": Positions(), "last": nn.Linear(4, 4)})
    table = LayerTable.of(network, whole_modules=whole)
    for layers, trained in ((("last",), 20), (("fc",), 20), (("fc", "last"), 40)):
        assert TrainableMask(layers, whole).apply(network).trained == trained == table.count(layers)
        assert not network["fc"].table.requires_grad


def test_a_network_that_is_frozen_as_a_whole_has_all_its_layers():
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).requires_grad_(False)
    assert list(resolve_layers(network)) == ["0", "1"]
    assert TrainableMask(("1",)).apply(network).trained == 6


def test_layers_that_a_mask_has_frozen_stay_candidates():
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1), MeanShift())
    for layer in ("0", "1"):
        TrainableMask((layer,)).apply(network)
        assert list(resolve_layers(network)) == ["0", "1"]


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


def wrapped(kind: str, network: nn.Module) -> nn.Module:
    """A network inside of one of torch's wrappers."""
    if kind == "parallel":
        return nn.DataParallel(network)
    if kind == "compiled":
        return torch.compile(network, backend="eager")
    if kind == "a compiled part":
        network[0] = torch.compile(network[0], backend="eager")
        return network
    return nn.DataParallel(torch.compile(network, backend="eager"))


@pytest.mark.parametrize("kind", ["parallel", "compiled", "a compiled part", "both"])
def test_wrappers_of_torch_leave_no_trace_in_names(kind):
    network = wrapped(kind, nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.Linear(2, 1)))
    full = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    assert list(resolve_layers(network)) == ["0.0", "1"]
    assert list(resolve_layers(network, full)) == ["0.0", "1"]
    assert TrainableMask(("0.0",)).apply(network).trained == 6


def test_a_prefix_of_ones_own_is_taken_off():
    network = nn.ModuleDict({"net": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), "extra": nn.Linear(1, 1)})
    assert (
        list(resolve_layers(network, prefix="net"))
        == list(resolve_layers(network, None, "net."))
        == ["0", "1", "extra"]
    )
    assert list(resolve_layers(network, ["net.0", "1"], "net")) == ["0", "1"]
    with pytest.raises(ValueError, match="`prefix` = 'body': no module is called so; the model holds 'net', 'extra'"):
        resolve_layers(network, None, "body")


def test_a_prefix_that_merges_two_names_is_refused():
    network = nn.ModuleDict({"net": nn.ModuleDict({"extra": nn.Linear(2, 2)}), "extra": nn.Linear(1, 1)})
    with pytest.raises(ValueError, match="`prefix` = 'net' gives two modules the name 'extra'"):
        resolve_layers(network, None, "net")


def test_globs_do_not_match_the_network_itself():
    assert "" not in resolve_layers(nn.Sequential(nn.Linear(2, 2)), "*")


def test_a_list_of_layers_is_answered_with_what_is_inside(net):
    for layers in ("blocks", net["blocks"], ["first", "blocks"]):
        with pytest.raises(ValueError, match=r"'blocks' is a ModuleList, which holds layers .* such as 'blocks\.\*'"):
            resolve_layers(net, layers)
