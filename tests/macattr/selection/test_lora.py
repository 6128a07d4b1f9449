"""What peft makes of a selection is what was selected, counted from the network's own parameters."""

import copy
import subprocess
import sys
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, weight_norm

from macattr.layers.table import LayerTable
from macattr.selection.rules import SelectionRule, select
from macattr.selection.trainable import TrainableMask
from ram_models import ram_swinir_tiny

peft = pytest.importorskip("peft", reason="needs peft: pip install 'macattr[peft]'")

from macattr.selection.lora import adapted_layers, lora_config, read_lora_config  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers"),
    pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning"),
]


class Attention(nn.Module):
    """Holds a table of its own beside two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(3, 4))
        self.qkv = nn.Linear(4, 12)
        self.proj = nn.Linear(4, 4)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4)
        self.attn = Attention()
        self.outer = nn.ModuleDict({"norm": nn.LayerNorm(4), "conv": nn.Conv2d(4, 4, 1)})
        self.norm = nn.LayerNorm(4)
        self.mha = nn.MultiheadAttention(4, 2)


def low_rank(weight: torch.Tensor, rank: int) -> int:
    """Parameters of an adapter: rank x (rows + columns) of the weight as a matrix."""
    return rank * (weight.shape[0] + weight[0].numel())


def trained_by_peft(network: nn.Module, config) -> dict[str, int]:
    """What a user's own get_peft_model trains, by the name of the parameter without peft's additions."""
    adapted = peft.get_peft_model(network, config)
    return {name: parameter.numel() for name, parameter in adapted.named_parameters() if parameter.requires_grad}


def test_linear_layers_and_convolutions_are_adapted_and_the_rest_is_trained_in_full():
    network = Net()
    config = lora_config(TrainableMask(("conv", "attn.qkv", "depthwise", "mha.out_proj")), network, rank=2)
    found = adapted_layers(config, network)
    assert found.adapted == {"conv": 2, "attn.qkv": 2}
    assert found.saved == ("depthwise", "mha.out_proj")
    own = {name: parameter.numel() for name, parameter in network.named_parameters()}
    full = sum(size for name, size in own.items() if name.startswith(found.saved))
    adapters = low_rank(network.conv.weight, 2) + low_rank(network.attn.qkv.weight, 2)
    assert (found.trained, found.total) == (adapters + full, sum(own.values()))
    assert sum(trained_by_peft(network, config).values()) == found.trained


def test_looking_at_a_configuration_leaves_the_network_alone():
    network = Net()
    before = OrderedDict((name, value.clone()) for name, value in network.state_dict().items())
    modules = [type(module) for module in network.modules()]
    lora_config(TrainableMask(("conv", "norm", "outer.norm")), network)
    assert modules == [type(module) for module in network.modules()]
    assert all(parameter.requires_grad for parameter in network.parameters())
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("power", "expected"), [(0.0, [4, 4, 4]), (0.5, [6, 4, 2]), (1.0, [8, 3, 1])], ids=["equal", "root", "proportional"]
)
def test_ranks_of_equal_layers_follow_the_scores_with_the_given_mean(power, expected):
    network = nn.ModuleDict({name: nn.Linear(20, 20) for name in "abc"})
    config = lora_config(
        TrainableMask(("a", "b", "c")), network, rank=4, scores={"a": 9.0, "b": 4.0, "c": 1.0}, power=power
    )
    assert list(adapted_layers(config, network).adapted.values()) == expected


SIZES = {"small": (8, 12), "wide": (16, 100), "large": (64, 64), "conv": (32, 8)}


def of_all_sizes() -> nn.Module:
    layers = {name: nn.Linear(*reversed(sides)) for name, sides in SIZES.items() if name != "conv"}
    return nn.ModuleDict(layers | {"conv": nn.Conv2d(8, 32, 3)})


def adapters_cost(network, config) -> int:
    return sum(low_rank(network[name].weight, r) for name, r in adapted_layers(config, network).adapted.items())


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("scores", [(1.0, 1.0, 1.0, 1.0), (9.0, 1.0, 4.0, 2.0), (0.0, 0.0, 1.0, 5e-324)], ids=str)
def test_ranks_by_score_cost_what_equal_ranks_would(power, scores):
    network, mask = of_all_sizes(), TrainableMask(tuple(SIZES))
    equal = adapters_cost(network, lora_config(mask, network, rank=4))
    config = lora_config(mask, network, rank=4, scores=dict(zip(SIZES, scores, strict=True)), power=power)
    ranks = adapted_layers(config, network).adapted
    spent = adapters_cost(network, config)
    full = all(ranks[name] in (1, min(network[name].weight.flatten(1).shape)) for name in SIZES)
    smallest = min(low_rank(layer.weight, 1) for layer in network.values())
    largest = max(low_rank(layer.weight, 1) for layer in network.values())
    assert spent <= equal
    assert full or spent > equal - largest  # one more rank somewhere would not fit
    assert smallest < largest


def test_ranks_by_score_are_goras_shares():
    network, mask = of_all_sizes(), TrainableMask(tuple(SIZES))
    scores = {"small": 1.0, "wide": 2.0, "large": 3.0, "conv": 2.0}
    ranks = adapted_layers(lora_config(mask, network, rank=6, scores=scores, power=1.0), network).adapted
    roots = {name: low_rank(network[name].weight, 1) ** 0.5 for name in SIZES}
    goras = {name: scores[name] / sum(scores.values()) * 6 * sum(roots.values()) / roots[name] for name in SIZES}
    ratios = [ranks[name] / goras[name] for name in SIZES]
    # One factor for all, which holds the parameters: up to whole ranks of about 6.
    assert max(ratios) / min(ratios) < 1.35


def test_a_budget_of_parameters_is_shared_out_without_scores_too():
    network, mask = of_all_sizes(), TrainableMask(tuple(SIZES))
    config = lora_config(mask, network, parameters=2_000)
    assert 2_000 - 60 < adapters_cost(network, config) <= 2_000
    ranks = adapted_layers(config, network).adapted.values()
    assert max(ranks) - min(ranks) <= 1


def test_the_full_rank_of_a_quantised_weight_is_that_of_its_layer():
    layer = nn.Linear(8, 12)
    layer.weight = nn.Parameter(torch.zeros(48, 1, dtype=torch.uint8), requires_grad=False)  # two values a byte
    config = lora_config(TrainableMask(("a",)), nn.ModuleDict({"a": layer}), rank=4)
    assert config.rank_pattern == {"^a": 4}


def test_every_adapter_has_the_scale_one():
    network = nn.ModuleDict({name: nn.Linear(20, 20) for name in "ab"})
    config = lora_config(TrainableMask(("a", "b")), network, rank=4, scores={"a": 9.0, "b": 1.0})
    adapted = peft.get_peft_model(network, config)
    scales = [m.scaling["default"] for m in adapted.modules() if isinstance(m, peft.tuners.lora.LoraLayer)]
    assert scales == [1.0, 1.0]


def test_no_rank_exceeds_that_of_the_weight():
    network = nn.ModuleDict({"a": nn.Linear(3, 20), "b": nn.Conv2d(1, 30, 3)})
    assert adapted_layers(lora_config(TrainableMask(("a", "b")), network, rank=50), network).adapted == {"a": 3, "b": 9}


def test_a_name_is_matched_whole():
    network = nn.ModuleDict({name: nn.Linear(3, 3) for name in ("fc", "fc2", "xfc")} | {"in": nn.ModuleDict()})
    network["in"]["fc"] = nn.Linear(3, 3)
    assert list(adapted_layers(lora_config(TrainableMask(("fc",)), network), network).adapted) == ["fc"]


def test_full_copies_that_peft_would_make_of_other_layers_are_refused():
    with pytest.raises(ValueError, match=r"takes names by their ends and would also train or leave out outer\.norm"):
        lora_config(TrainableMask(("conv", "norm")), Net())
    applied = adapted_layers(lora_config(TrainableMask(("conv", "norm", "outer.norm")), Net()), Net())
    assert applied.saved == ("outer.norm", "norm")


def test_bare_parameters_beside_unselected_modules_are_refused_unless_told_what_to_do():
    network, mask = Net(), TrainableMask(("conv", "attn", "attn.proj"))
    with pytest.raises(ValueError, match="'attn' holds parameters of its own next to modules or constants that"):
        lora_config(mask, network)
    with pytest.warns(UserWarning, match="bare='whole' trains all of 'attn' in full, and with it 'attn.proj', without"):
        whole = adapted_layers(lora_config(mask, network, bare="whole"), network)
    assert (list(whole.adapted), whole.saved) == (["conv"], ("attn",))
    skipped = adapted_layers(lora_config(mask, network, bare="skip"), network)
    assert (list(skipped.adapted), skipped.saved) == (["conv", "attn.proj"], ())


@pytest.mark.parametrize(
    "mask",
    [TrainableMask(("conv", "attn"), whole_modules=True), TrainableMask(("conv", "attn", "attn.qkv", "attn.proj"))],
)
def test_a_module_that_is_selected_whole_is_trained_whole(mask):
    network = Net()
    found = adapted_layers(lora_config(mask, network, rank=2), network)
    assert (list(found.adapted), found.saved) == (["conv"], ("attn",))


def test_attention_of_torch_is_refused_in_part_and_trained_whole():
    network = Net()
    with pytest.raises(ValueError, match="'mha' holds parameters of its own"):
        lora_config(TrainableMask(("conv", "mha")), network)
    found = adapted_layers(lora_config(TrainableMask(("conv", "mha", "mha.out_proj")), network), network)
    assert found.saved == ("mha",)
    adapted = peft.get_peft_model(network, lora_config(TrainableMask(("conv", "mha.out_proj")), network))
    attended, _ = adapted.base_model.model.mha(*[torch.rand(5, 2, 4)] * 3)
    attended.sum().backward()
    name = "base_model.model.mha.out_proj.modules_to_save.default.weight"
    assert adapted.get_parameter(name).grad.abs().sum() > 0  # what is counted as trained does train


def test_the_transformer_of_torch_warns_of_the_path_past_the_adapters():
    network = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False
    )
    table = LayerTable.of(network)
    mask = TrainableMask(table.names)
    with pytest.warns(UserWarning, match=r"weights of 4 layers like 'layers\.0\.linear1' past .*set_fastpath_enabled"):
        config = lora_config(mask, network, rank=2)
    found = adapted_layers(config, network)
    assert list(found.adapted) == [f"layers.{i}.linear{j}" for i in (0, 1) for j in (1, 2)]
    full = sum(p.numel() for n, p in network.named_parameters() if "linear" not in n)
    assert found.trained == full + sum(low_rank(network.get_parameter(f"{name}.weight"), 2) for name in found.adapted)
    assert sum(trained_by_peft(network, config).values()) == found.trained


def test_the_warning_is_true_and_its_remedy_works():
    network = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    config = peft.LoraConfig(target_modules="linear1", init_lora_weights=False)
    inputs = torch.rand(2, 3, 8)
    plain = network(inputs).detach()
    adapted = peft.get_peft_model(network, config).base_model.model.eval()
    with torch.no_grad():
        torch.testing.assert_close(adapted(inputs), plain)
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            assert (adapted(inputs) - plain).abs().max() > 1e-2
        finally:
            torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.filterwarnings("ignore:top .* at random:UserWarning")
@pytest.mark.parametrize("by", ["layers", "parameters"])
def test_ram_swinir_is_adapted_as_selected(by):
    network = ram_swinir_tiny()
    table = LayerTable.of(network)
    ranking = [name for name in table.names if name.count(".") < 3 or name.endswith(("fc2", "norm2", "attn.proj"))]
    chosen = select(ranking, table, SelectionRule(0.3, by=by))
    own = {name: parameter.numel() for name, parameter in network.named_parameters()}
    config = lora_config(chosen.mask(), network, rank=4)
    found = adapted_layers(config, network)
    modules = dict(network.named_modules())
    linear = [name for name in chosen.layers if isinstance(modules[name], nn.Linear | nn.Conv2d)]
    assert sorted(found.adapted) == sorted(linear)
    assert sorted(found.saved) == sorted(set(chosen.layers) - set(linear))
    expected = sum(low_rank(network.get_parameter(f"{name}.weight"), rank) for name, rank in found.adapted.items())
    expected += sum(size for name, size in own.items() if name.rpartition(".")[0] in found.saved)
    assert (found.trained, found.total) == (expected, sum(own.values()))
    assert sum(trained_by_peft(network, config).values()) == expected


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            bos_token_id=0,
            eos_token_id=1,
        )
    )


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(vocab_size=32, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=1)
    )


@pytest.mark.parametrize(
    ("build", "saved"),
    [(llama, ("model.layers.0.input_layernorm", "model.norm")), (gpt2, ("transformer.h.0.ln_1", "transformer.ln_f"))],
    ids=["llama", "gpt2, its linear layers transposed and its head tied"],
)
def test_transformers_are_adapted_as_selected(build, saved, tmp_path):
    torch.manual_seed(0)
    network = build()
    table = LayerTable.of(network)
    own = {name: parameter.numel() for name, parameter in network.named_parameters()}
    assert table.total == sum(own.values()) == table.count(table.names)
    deep = [name for name in table.names if ".1." in name and "norm" not in name and "ln_" not in name]
    mask = TrainableMask((*deep, *saved))
    assert mask.apply(network).trained == table.count(mask.layers)
    config = lora_config(mask, network, rank=3)
    config.save_pretrained(str(tmp_path))
    read = read_lora_config(tmp_path)
    found = adapted_layers(read, network)
    assert (set(found.adapted), found.saved) == (set(deep), saved)
    expected = sum(low_rank(network.get_parameter(f"{name}.weight"), 3) for name in deep)
    expected += sum(size for name, size in own.items() if name.rpartition(".")[0] in saved)
    assert found.trained == expected == sum(trained_by_peft(network, read).values())


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        (("norm", "outer.norm"), {}, "no selected layer is a plain linear layer or convolution"),
        (("module.conv",), {}, "no layer 'module.conv'; did you mean 'conv'"),
        (("conv",), {"rank": 0}, "`rank` must be at least 1, got 0"),
        (("conv", "attn.qkv"), {"scores": {"conv": 1.0}}, r"every adapted layer, .* got none for 'attn\.qkv'"),
        (
            ("conv",),
            {"scores": {"conv": -1.0}},
            "finite and not negative, got -1.0 for 'conv': ranks cannot follow such scores",
        ),
        (("conv",), {"rank": 2, "parameters": 100}, "`rank` = 2 and `parameters` = 100 exclude each other"),
        (("conv",), {"parameters": 30}, "`parameters` = 30 is less than the 31 of adapters of rank 1 on 1 layers"),
        (("conv",), {"scores": {"conv": 0.0}}, "`scores` of all adapted layers are 0"),
    ],
    ids=["nothing to adapt", "unknown", "rank", "score missing", "score negative", "two budgets", "small", "zero"],
)
def test_what_cannot_be_adapted_is_explained(layers, options, message):
    with pytest.raises(ValueError, match=message):
        lora_config(TrainableMask(layers), Net(), **options)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"target_modules": "conv", "rank_pattern": {"^gone": 2}}, r"names 1 layers that are not adapted: '\^gone'"),
        ({"target_modules": "conv", "modules_to_save": ["gone"]}, "names 1 layers that are not adapted: 'gone'"),
        ({"target_modules": "gone"}, "peft cannot apply this configuration to Net: "),
        ({"target_modules": "depthwise", "r": 3}, "peft cannot apply this configuration to Net: .*groups=4"),
    ],
    ids=["rank", "copy", "nothing", "groups"],
)
def test_a_configuration_that_does_not_fit_the_network_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        adapted_layers(peft.LoraConfig(**config), Net())


def test_a_folder_without_a_configuration_is_explained(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file '.*adapter_config\.json'"):
        read_lora_config(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"adapter_config\.json' cannot be read as a configuration of peft"):
        read_lora_config(tmp_path)


def test_without_peft_the_way_to_install_it_is_named(monkeypatch):
    monkeypatch.setattr("macattr.selection.lora.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"adapters need peft, which is not installed: pip install 'macattr\[peft\]'"):
        lora_config(TrainableMask(("conv",)), Net())


def test_importing_macattr_imports_neither_peft_nor_transformers():
    code = "import sys, macattr, macattr.cli; print({'peft', 'transformers'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"


class Standardised(nn.Conv2d):
    """A convolution whose forward pass standardises its weight."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(inputs, (self.weight - self.weight.mean()) / self.weight.std(), self.bias)


class Shifted(nn.Conv2d):
    """A convolution with another constructor."""

    def __init__(self, shift: float) -> None:
        super().__init__(4, 4, 3, padding=1)
        self.shift = shift


def convolution(**options: object) -> nn.Module:
    return nn.Conv2d(4, 4, 3, **{"padding": 1} | options)


LAYERS = {  # and whether it is adapted
    "plain": (lambda: convolution(), True),
    "stride": (lambda: convolution(stride=2), True),
    "same": (lambda: convolution(padding="same"), True),
    "valid": (lambda: convolution(padding="valid", padding_mode="reflect"), True),
    "oblong": (lambda: nn.Conv2d(4, 4, (1, 3), padding=(0, 1)), True),
    "1x1": (lambda: nn.Conv2d(4, 4, 1), True),
    "1x1, dilation": (lambda: nn.Conv2d(4, 4, 1, dilation=2), True),
    "dilation": (lambda: convolution(dilation=2, padding=2), False),
    "dilation of one axis": (lambda: nn.Conv2d(4, 4, 3, dilation=(1, 2), padding=(1, 2)), False),
    "reflect": (lambda: convolution(padding_mode="reflect"), False),
    "circular": (lambda: convolution(padding_mode="circular"), False),
    "replicate, same": (lambda: convolution(padding="same", padding_mode="replicate"), False),
    "groups": (lambda: convolution(groups=2), False),
    "depthwise": (lambda: convolution(groups=4), False),
    "transposed": (lambda: nn.ConvTranspose2d(4, 4, 3, padding=1), False),
    "standardised": (lambda: Standardised(4, 4, 3, padding=1), False),
    "constructor": (lambda: Shifted(0.5), False),
    "weight norm": (lambda: parametrizations.weight_norm(convolution()), False),
    "spectral norm": (lambda: parametrizations.spectral_norm(convolution()), False),
    "orthogonal": (lambda: parametrizations.orthogonal(nn.Conv2d(4, 4, 1)), False),
}


def before_and_after_merging(network: nn.Module, config, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs with adapters and copies at random values, and after the adapters are merged into the weights."""
    tuned = peft.get_peft_model(copy.deepcopy(network), config).eval()
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
        apart = tuned(inputs)
        tuned.merge_adapter()
        return apart, tuned(inputs)


@pytest.mark.parametrize(("make", "is_adapted"), LAYERS.values(), ids=LAYERS)
def test_a_configuration_computes_before_merging_what_it_computes_after(make, is_adapted):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), make(), nn.ReLU(), nn.Conv2d(4, 3, 1)).eval()
    images = torch.rand(2, 3, 12, 12)
    plain = network(images).detach()
    config = lora_config(TrainableMask(("1", "3")), network, rank=2)
    applied = adapted_layers(config, network)
    assert ("1" in applied.adapted, "1" in applied.saved) == (is_adapted, not is_adapted)
    apart, merged = before_and_after_merging(network, config, images)
    assert (apart - plain).abs().max() > 1e-2
    torch.testing.assert_close(apart, merged, rtol=0, atol=1e-5)  # float32, outputs of the order of 1


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv3d])
@pytest.mark.parametrize(("options", "is_adapted"), [({}, True), ({"dilation": 2}, False)], ids=["plain", "dilation"])
def test_convolutions_of_other_dimensions_merge_too(kind, options, is_adapted):
    torch.manual_seed(0)
    network = nn.Sequential(kind(2, 2, 3), kind(2, 2, 3, **options)).eval()
    config = lora_config(TrainableMask(("0", "1")), network, rank=2)
    assert list(adapted_layers(config, network).adapted) == (["0", "1"] if is_adapted else ["0"])
    sides = [8] * (1 if kind is nn.Conv1d else 3)
    apart, merged = before_and_after_merging(network, config, torch.rand(1, 2, *sides))
    torch.testing.assert_close(apart, merged, rtol=0, atol=1e-5)


def test_a_selection_of_convolutions_that_peft_cannot_adapt_is_copied():
    network = nn.Sequential(convolution(dilation=2, padding=2), nn.ReLU()).eval()
    config = lora_config(TrainableMask(("0",)), network)
    applied = adapted_layers(config, network)
    assert (dict(applied.adapted), applied.saved) == ({}, ("0",))
    assert applied.trained == 4 * 4 * 9 + 4 == sum(trained_by_peft(network, config).values())


class TiedBlock(nn.Module):
    """Two layers of one weight; the second layer may be the first one itself."""

    def __init__(self, is_shared: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.b.weight = self.a.weight
        if is_shared:
            self.b = self.a

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(self.a(inputs)))


class Tied(nn.Module):
    """A layer after such a block."""

    def __init__(self, is_shared: bool) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.block = TiedBlock(is_shared)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.first(self.block(inputs))


@pytest.mark.parametrize("layers", [("block.a",), ("first", "block.b"), ("block.a", "first")])
def test_weights_tied_to_others_are_refused_by_name(layers):
    message = r"'block\.[ab]' has tied weights: block\.a\.weight = block\.b\.weight.* which trains all of 'block'"
    with pytest.raises(ValueError, match=message):
        lora_config(TrainableMask(layers), Tied(is_shared=False))


def test_tied_weights_without_a_common_module_cannot_be_trained_whole():
    network = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    network["b"].weight = network["a"].weight
    for bare in ("refuse", "whole"):
        with pytest.raises(ValueError, match=r"a\.weight = b\.weight\. .*, or choose bare='skip'\."):
            lora_config(TrainableMask(("a",)), network, bare=bare)


@pytest.mark.parametrize("layer", ["block.a", "block.b"])
def test_tied_weights_are_skipped_with_a_warning(layer):
    network = Tied(is_shared=False)
    with pytest.warns(UserWarning, match=rf"'{layer}' is left out, .*block\.a\.weight = block\.b\.weight"):
        config = lora_config(TrainableMask(("first", layer)), network, bare="skip")
    assert list(adapted_layers(config, network).adapted) == ["first"]


@pytest.mark.filterwarnings("ignore:'block.a' is left out:UserWarning")
def test_a_selection_of_tied_weights_alone_cannot_be_skipped():
    with pytest.raises(ValueError, match="leaves out every selected layer"):
        lora_config(TrainableMask(("block.a",)), Tied(is_shared=False), bare="skip")


@pytest.mark.parametrize("is_shared", [False, True], ids=["weight", "module"])
def test_tied_weights_are_trained_together_as_a_whole(is_shared):
    torch.manual_seed(0)
    network = Tied(is_shared).eval()
    config = lora_config(TrainableMask(("first", "block.a")), network, rank=2, bare="whole")
    assert adapted_layers(config, network).saved == ("block",)
    tuned = peft.get_peft_model(copy.deepcopy(network), config)
    block = tuned.base_model.model.block.modules_to_save["default"]
    assert block.a.weight is block.b.weight
    apart, merged = before_and_after_merging(network, config, torch.rand(2, 4))
    torch.testing.assert_close(apart, merged, rtol=0, atol=1e-5)


def test_a_module_that_is_selected_with_all_its_ties_is_copied_whole():
    network = Tied(is_shared=False)
    config = lora_config(TrainableMask(("first", "block"), whole_modules=True), network)
    applied = adapted_layers(config, network)
    assert (list(applied.adapted), applied.saved) == (["first"], ("block",))


def test_a_copy_that_would_separate_tied_weights_is_refused():
    network = Net()
    network.conv2 = nn.Linear(4, 4)
    network.conv2.weight = network.attn.proj.weight
    with pytest.raises(ValueError, match=r"'attn' holds tied weights: attn\.proj\.weight = conv2\.weight"):
        lora_config(TrainableMask(("conv", "attn")), network, bare="whole")


@pytest.mark.parametrize(
    "hook",
    [weight_norm, lambda layer: prune.l1_unstructured(layer, "weight", 0.5)],
    ids=["old weight norm", "pruned"],
)
def test_weights_that_a_hook_computes_are_refused_with_a_remedy(hook):
    network = nn.Sequential(hook(nn.Linear(4, 4)), nn.Linear(4, 4))
    with pytest.raises(ValueError, match=r"'0' computes its weight by a hook .*: use torch\.nn\.utils\.param"):
        lora_config(TrainableMask(("0", "1")), network)
    assert list(adapted_layers(lora_config(TrainableMask(("1",)), network), network).adapted) == ["1"]


@pytest.mark.filterwarnings("ignore:bare='whole' trains:UserWarning")
@pytest.mark.parametrize("layers", [("attn", "attn.qkv"), ("attn", "attn.qkv", "attn.proj"), ("attn.proj", "attn")])
def test_linear_layers_under_a_saved_parent_are_trained_in_its_copy(layers):
    network = Net()
    config = lora_config(TrainableMask(layers), network, bare="whole")
    applied = adapted_layers(config, network)
    assert (dict(applied.adapted), applied.saved) == ({}, ("attn",))
    expected = {f"base_model.model.attn.modules_to_save.default.{name}" for name in network.attn.state_dict()}
    assert trained_by_peft(network, config).keys() == expected


@pytest.mark.filterwarnings("ignore:bare='whole' trains:UserWarning")
def test_a_configuration_of_copies_alone_is_read_back(tmp_path):
    network = Net()
    lora_config(TrainableMask(("attn", "attn.qkv")), network, bare="whole").save_pretrained(str(tmp_path))
    assert adapted_layers(read_lora_config(tmp_path), network).saved == ("attn",)


class Experts(nn.Module):
    """Experts in one tensor, as transformers stores them; its biases are no matrices."""

    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        self.num_experts = 3
        self.up = nn.Parameter(torch.ones(3, 8, 4))
        if bias:
            self.up_bias = nn.Parameter(torch.ones(3, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("eoi,bi->bo", self.up, x)


def mixture(*, bias: bool) -> nn.Module:
    return nn.ModuleDict({"experts": Experts(bias=bias), "q": nn.Linear(4, 4, bias=False), "q2": nn.Linear(4, 4)})


def test_experts_in_one_tensor_get_adapters_each():
    network = mixture(bias=False)
    config = lora_config(TrainableMask(("experts", "q")), network, rank=2)
    assert set(config.target_parameters) == {"experts.up"}
    applied = adapted_layers(config, network)
    assert (dict(applied.adapted), applied.saved) == ({"experts.up": 2, "q": 2}, ())
    assert applied.trained == 2 * 3 * (8 + 4) + 2 * (4 + 4)


def test_ranks_of_experts_follow_the_score_of_their_layer_within_the_budget():
    network = mixture(bias=False)
    config = lora_config(TrainableMask(("experts", "q")), network, parameters=96, scores={"experts": 9.0, "q": 1.0})
    applied = adapted_layers(config, network)
    # shares 3 / sqrt(36) and 1 / sqrt(8) of a rank that costs 36 and 8: 2.30 and 1.63, of which q is rounded up
    assert dict(applied.adapted) == {"experts.up": 2, "q": 2}
    assert applied.trained == 2 * 36 + 2 * 8


def test_biases_next_to_experts_are_refused_skipped_or_copied():
    network, mask = mixture(bias=True), TrainableMask(("experts", "q"))
    with pytest.raises(ValueError, match=r"'experts\.up_bias' lies next to tensors of experts"):
        lora_config(mask, network)
    assert set(lora_config(mask, network, bare="skip").target_parameters) == {"experts.up"}
    assert lora_config(mask, network, bare="whole").modules_to_save == ["experts"]


@pytest.mark.parametrize("layers", [("model.layers.1.self_attn.q_proj",), ("model.layers.0.mlp.experts",)])
def test_mixtures_of_transformers_keep_the_names(layers):
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'macattr[hf]'")
    network = transformers.MixtralForCausalLM(
        transformers.MixtralConfig(
            vocab_size=9,
            hidden_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=8,
            num_local_experts=2,
        )
    )
    applied = adapted_layers(lora_config(TrainableMask(layers), network), network)
    assert {name for name in applied.adapted if name.startswith(layers)} == set(applied.adapted)
