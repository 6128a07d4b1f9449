"""What other tools train in full, by their own rules: exactly the selection, or no file."""

import re
import shlex

import pytest
import yaml
from torch import nn

from macattr.layers.table import LayerTable
from macattr.selection.exports import export
from macattr.selection.freeze_lists import FREEZE_LISTS, first_names
from macattr.selection.rules import Selection, SelectionRule, select

pytestmark = pytest.mark.filterwarnings("ignore:top .* at random:UserWarning")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.ModuleDict({"q": nn.Linear(2, 2), "k": nn.Linear(2, 2)})
        self.mlp = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)


class Config:
    num_hidden_layers = 4


class Model(nn.Module):
    """A language model in names: embedding, four blocks, a norm, and a head that shares the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.config = Config()
        self.model = nn.ModuleDict(
            {"embed": nn.Embedding(3, 2), "layers": nn.ModuleList(Block() for _ in range(4)), "norm": nn.LayerNorm(2)}
        )
        self.head = nn.Linear(2, 3, bias=False)
        self.head.weight = self.model["embed"].weight


def chosen(network: nn.Module, layers: list[str], **options: bool) -> Selection:
    table = LayerTable.of(network, **options)
    return select(
        {name: 1 / rank for rank, name in enumerate(layers, start=1)}, table, SelectionRule(count=len(layers))
    )


def block(index: int, *parts: str) -> list[str]:
    return [f"model.layers.{index}.{part}" for part in parts or ("attn.q", "attn.k", "mlp", "norm")]


def parameters(network: nn.Module, layers: list[str]) -> set[str]:
    owned = (f"{layer}.{name}" for layer in layers for name, _ in network.get_submodule(layer).named_parameters())
    return set(first_names(owned, network))


@pytest.mark.parametrize("form", FREEZE_LISTS)
@pytest.mark.parametrize(
    "layers",
    [[*block(3), *block(2)], block(0), [*block(0, "mlp"), *block(1, "mlp")], [*block(3), "head"]],
    ids=["last", "first", "modules", "tied head"],
)
def test_the_tool_trains_what_was_selected(form, layers, tmp_path):
    network = Model()
    said = export(chosen(network, layers), tmp_path / "new" / "file", form, network)
    expected = parameters(network, layers)
    assert set(FREEZE_LISTS[form].read(tmp_path / "new" / "file", network)) == expected
    assert said == f"read back by the rules of {form}; its {len(expected)} parameter tensors are in the network"


@pytest.mark.parametrize(
    ("layers", "content"),
    [
        ([*block(3), *block(2)], {"freeze_trainable_layers": 2, "freeze_trainable_modules": "all"}),
        (block(0), {"freeze_trainable_layers": -1, "freeze_trainable_modules": "all"}),
        (
            [*block(3, "mlp", "norm"), "head"],
            {"freeze_trainable_layers": 1, "freeze_trainable_modules": "mlp,norm", "freeze_extra_modules": "embed"},
        ),
    ],
    ids=["last", "first", "outside"],
)
def test_llama_factory_counts_blocks_from_an_end(layers, content, tmp_path):
    network = Model()
    export(chosen(network, layers), tmp_path / "file", "llama-factory", network)
    assert yaml.safe_load((tmp_path / "file").read_text()) == {"finetuning_type": "freeze"} | content
    assert (tmp_path / "file").read_text().startswith("# top ")


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([*block(1), *block(2)], r"blocks at one end of a network, and this selection has the blocks \[1, 2\] of 4"),
        ([*block(0), *block(3)], r"has the blocks \[0, 3\] of 4: ms-swift and spectrum"),
        (["model.norm"], r"has the blocks \[\] of 4"),
        (block(3, "attn.q"), "would gain or lose 2 parameter tensors such as 'model.layers.3.attn.k.bias'"),
        ([*block(3, "mlp"), *block(2, "norm")], "would gain or lose 4 parameter tensors"),
        ([*block(3, "mlp"), "model.norm"], "would gain or lose 8 parameter tensors such as 'model.layers.0.norm.bias'"),
    ],
    ids=["middle", "both ends", "no block", "half a module", "unlike blocks", "a norm is every norm"],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_llama_factory_is_refused_what_it_cannot_train_and_nothing_is_left(layers, message, tmp_path):
    network = Model()
    with pytest.raises(ValueError, match=message):
        export(chosen(network, layers), tmp_path / "file", "llama-factory", network)
    assert not (tmp_path / "file").exists()


def test_networks_without_a_number_of_blocks_are_no_language_models(tmp_path):
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(ValueError, match="reads the number of blocks from the `config`"):
        export(chosen(network, ["0"]), tmp_path / "file", "llama-factory", network)


def test_swift_gets_arguments_and_nothing_else(tmp_path):
    network = Model()
    export(chosen(network, block(1, "mlp")), tmp_path / "file", "ms-swift", network)
    ratio, freeze, flag, pattern = shlex.split((tmp_path / "file").read_text())
    assert (ratio, freeze, flag) == ("--freeze_parameters_ratio", "1", "--trainable_parameters_regex")
    assert [name for name, _ in network.named_parameters() if re.search(pattern, name)] == [
        "model.layers.1.mlp.weight",
        "model.layers.1.mlp.bias",
    ]


def test_layers_thaw_by_rank_in_the_network_itself_and_as_the_attribute_model(tmp_path):
    network = Model()
    export(chosen(network, [*block(1, "mlp"), "head"]), tmp_path / "file", "finetuning-scheduler", network)
    phases = yaml.safe_load((tmp_path / "file").read_text())
    assert list(phases) == [0, 1]
    assert re.match(phases[0]["params"][0], "model.layers.1.mlp.weight")
    assert re.match(phases[0]["params"][0], "model.model.layers.1.mlp.weight")
    assert not re.match(phases[0]["params"][0], "other.model.layers.1.mlp.weight")


@pytest.mark.parametrize(
    ("form", "text", "message"),
    [
        ("llama-factory", "finetuning_type: lora", "`finetuning_type` must be freeze"),
        ("llama-factory", "[1]", "it holds no mapping"),
        ("ms-swift", "--trainable_parameters_regex a", "ratio must be 1"),
        ("ms-swift", "--lora_rank 8", "cannot be read as arguments of ms-swift"),
        ("ms-swift", "--freeze_parameters_ratio 0.5 --trainable_parameters_regex a", "ratio must be 1"),
        ("finetuning-scheduler", "1: {params: [head]}", "phases are numbered from 0"),
        ("finetuning-scheduler", "0: {params: []}", "phase 0 has no `params`"),
        ("finetuning-scheduler", "0: {params: [nowhere]}", "'nowhere' of phase 0 matches no parameter"),
        ("finetuning-scheduler", "0: {params: [model]}\n1: {params: [model]}", "a parameter of an earlier one"),
    ],
)
def test_files_that_mean_something_else_are_refused(form, text, message, tmp_path):
    (tmp_path / "file").write_text(text)
    with pytest.raises(ValueError, match=message):
        FREEZE_LISTS[form].read(tmp_path / "file", Model())


@pytest.mark.parametrize("form", FREEZE_LISTS)
def test_the_network_is_needed(form, tmp_path):
    with pytest.raises(ValueError, match=f"the format '{form}' needs the `model`"):
        export(chosen(Model(), block(3)), tmp_path / "file", form)
