"""Every export reads back as the selection that was written, and fails where a name fits nothing."""

import json
import re

import pytest
import torch
import yaml
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

from macattr.layers.table import LayerTable
from macattr.selection.exports import export, match_parameters, read_csv, read_json, read_patterns
from macattr.selection.official import read_official_ranking
from macattr.selection.rules import Selection, SelectionRule, select
from macattr.selection.trainable import TrainableMask, train_only
from ram_models import ram_swinir_tiny

pytestmark = [
    pytest.mark.filterwarnings("ignore:top .* at random:UserWarning"),
    pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning"),
]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(nn.Linear(2, 3).weight.detach())
        self.proj = nn.Linear(3, 3)


@pytest.fixture
def network() -> nn.Module:
    """Names that are prefixes, suffixes and look-alikes of each other."""
    names = ("fc", "fc2", "a-b", "a_b")
    return nn.ModuleDict({name: nn.Linear(3, 3) for name in names} | {"attn": Attention(), "x": nn.ModuleDict()})


def chosen(network: nn.Module, ranking: list[str], count: int, **options: bool) -> Selection:
    scores = {name: 1.0 / rank for rank, name in enumerate(ranking, start=1)}
    return select(scores, LayerTable.of(network, **options), SelectionRule(count=count), {"method": "mac", "seed": 0})


def spectrum(path, network) -> list[str]:
    return match_parameters(read_patterns(path), network)


READERS = {
    "json": lambda path, network: read_json(path).parameter_names(network),
    "csv": lambda path, network: read_csv(path).parameter_names(network),
    "official": lambda path, network: TrainableMask(tuple(read_official_ranking(path))[:9]).parameter_names(network),
    "spectrum": spectrum,
}


@pytest.mark.parametrize("form", READERS)
def test_the_parameters_of_ram_swinir_come_back(form, tmp_path):
    network = ram_swinir_tiny()
    names = list(LayerTable.of(network).names)
    selection = chosen(network, names[::-1], 9)
    said = export(selection, tmp_path / "new" / "export", form, network)
    read = READERS[form](tmp_path / "new" / "export", network)
    assert sorted(read) == sorted(selection.mask().parameter_names(network))
    assert f"{len(read)} parameter tensors" in said
    applied = train_only(network, read)
    own = dict(network.named_parameters())
    assert applied.trained == selection.parameters == sum(own[name].numel() for name in read)
    assert applied.total == selection.table.total == sum(parameter.numel() for parameter in own.values())


@pytest.mark.parametrize("form", ["json", "csv", "spectrum"])
@pytest.mark.parametrize(
    ("names", "whole", "parameters"),
    [
        (["attn"], False, ["attn.table"]),
        (["attn"], True, ["attn.table", "attn.proj.weight", "attn.proj.bias"]),
        (["fc"], False, ["fc.weight", "fc.bias"]),
        (["fc"], True, ["fc.weight", "fc.bias"]),
        (["a-b"], False, ["a-b.weight", "a-b.bias"]),
    ],
    ids=["table", "whole attention", "prefix", "whole prefix", "look-alike"],
)
def test_a_name_stands_for_its_own_parameters_alone(network, form, names, whole, parameters, tmp_path):
    export(chosen(network, names, 1, whole_modules=whole), tmp_path / "export", form, network)
    assert READERS[form](tmp_path / "export", network) == parameters


def test_patterns_mean_the_same_to_readers_that_escape_dots(network, tmp_path):
    export(chosen(network, ["attn", "attn.proj", "a-b"], 3), tmp_path / "export.yaml", "spectrum")
    patterns = yaml.safe_load((tmp_path / "export.yaml").read_text())["unfrozen_parameters"]
    escaped = [re.sub(r"\.(?!\+)", r"\\.", pattern) for pattern in patterns]  # as Axolotl does before compiling
    assert all(pattern.startswith("^") and pattern.endswith("$") for pattern in patterns)
    assert match_parameters(escaped, network) == match_parameters(patterns, network)
    assert len(match_parameters(patterns, network)) == 5


def test_json_says_how_the_selection_was_made(network, tmp_path):
    export(chosen(network, ["fc", "attn"], 1), tmp_path / "a.json", "json")
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["ranking"] == {"method": "mac", "seed": 0}
    assert (content["how"], content["parameters"], content["total"]) == ("top 1 layers", 12, 66)
    assert content["layers"] == [{"name": "fc", "score": 1.0, "parameters": 12}]


def test_an_export_that_no_network_was_held_against_says_so(network, tmp_path):
    assert export(chosen(network, ["fc"], 1), tmp_path / "a.csv", "csv") == "read back; no network to check against"


@pytest.mark.parametrize("form", READERS)
def test_names_that_are_not_in_the_network_are_refused_before_anything_is_written(network, form, tmp_path):
    other = nn.ModuleDict({"fc": nn.Linear(3, 3)})
    with pytest.raises(ValueError, match="no layer 'a-b'"):
        export(chosen(network, ["fc", "a-b"], 2), tmp_path / "export", form, other)
    assert not (tmp_path / "export").exists()


def test_the_official_lists_hold_the_first_of_a_ranking_only(network, tmp_path):
    names = ["fc", "attn", "fc2"]
    table = LayerTable.of(network)
    ranking = {name: 3.0 - rank for rank, name in enumerate(names)}
    export(select(ranking, table, SelectionRule(count=2)), tmp_path, "official")
    assert read_official_ranking(tmp_path) == ranking
    others = {
        "excluded": select(ranking, table, SelectionRule(count=1, exclude=("fc",))),
        "without scores": select(names, table, SelectionRule(count=1)),
        "whole": select(ranking, LayerTable.of(network, whole_modules=True), SelectionRule(count=1)),
    }
    for selection in others.values():
        with pytest.raises(ValueError, match="this selection is not the first of its ranking"):
            export(selection, tmp_path, "official")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "yaml"}, "`form` must be one of axolotl, csv, diffusers, .*, got 'yaml'"),
        ({"form": "csv", "rank": 4}, "`rank` = 4 has no effect on 'csv'"),
        ({"form": "json", "bare": "skip"}, "`bare` = 'skip' has no effect on 'json'"),
        ({"form": "peft"}, "the format 'peft' needs the `model`"),
    ],
    ids=["form", "rank", "bare", "model"],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_options_that_cannot_be_meant_are_refused(network, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        export(chosen(network, ["fc"], 1), tmp_path / "export", **options)


@pytest.mark.parametrize(
    ("reader", "text", "message"),
    [
        (read_json, "{", "cannot be read as an exported selection"),
        (read_json, '{"layers": ["fc"]}', "cannot be read as an exported selection"),
        (read_json, '{"layers": [], "whole_modules": false}', "selects no layer"),
        (read_csv, "name\nfc\n", "cannot be read as an exported selection: KeyError"),
        (read_csv, "layer,trains\n", "selects no layer"),
        (read_patterns, "layers: [fc]", "cannot be read as a list of `unfrozen_parameters`: KeyError"),
        (read_patterns, "unfrozen_parameters: ['(']", "cannot be read as a list of `unfrozen_parameters`"),
        (read_patterns, "unfrozen_parameters: [", "cannot be read as a list of `unfrozen_parameters`"),
        (read_patterns, "unfrozen_parameters: 3", "cannot be read as a list of `unfrozen_parameters`"),
        (read_patterns, "unfrozen_parameters: []", "names no parameter"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_files_that_are_no_export_are_refused(reader, text, message, tmp_path):
    (tmp_path / "file").write_text(text)
    with pytest.raises(ValueError, match=message):
        reader(tmp_path / "file")


@pytest.mark.parametrize("reader", [read_json, read_csv, read_patterns])
def test_missing_files_are_named(reader, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere' cannot be read .*FileNotFoundError"):
        reader(tmp_path / "nowhere")


def test_expressions_that_match_nothing_are_refused(network):
    with pytest.raises(ValueError, match=r"1 of 2 expressions match no parameter of ModuleDict, e\.g\. '\^fc3"):
        match_parameters(["^fc[.].+$", "^fc3[.].+$"], network)


@pytest.mark.filterwarnings("ignore::FutureWarning:transformers")
def test_peft_configurations_follow_the_scores_and_say_what_they_train(network, tmp_path):
    pytest.importorskip("peft", reason="needs peft: pip install 'macattr[peft]'")
    said = export(chosen(network, ["fc", "a-b", "attn"], 2), tmp_path / "peft", "peft", network, rank=2)
    # scores 1 and 1/2: sqrt-ranks 2.3 and 1.7 around a mean of 2, both rounded to 2; each adapter 2 x (3 + 3)
    assert said == (
        "read back and applied: 2 layers with adapters, 0 trained in full: 24 parameters in addition to the network's "
        "66 (36.4%)"
    )
    with pytest.raises(ValueError, match="'attn' holds parameters of its own"):
        export(chosen(network, ["fc", "attn"], 2), tmp_path / "other", "peft", network)
    assert not (tmp_path / "other").exists()
    export(chosen(network, ["fc", "attn"], 2), tmp_path / "other", "peft", network, bare="skip")
    assert (tmp_path / "other" / "adapter_config.json").is_file()


class Positions(nn.Linear):
    def __init__(self) -> None:
        super().__init__(3, 3)
        self.table = nn.Parameter(torch.ones(7), requires_grad=False)


@pytest.mark.parametrize("form", ["json", "csv", "official", "spectrum"])
@pytest.mark.parametrize(
    ("layer", "parameters"),
    [
        (lambda: parametrizations.weight_norm(nn.Linear(3, 3)), 3 + 9 + 3),
        (lambda: parametrizations.orthogonal(nn.Linear(3, 3, bias=False)), 9),
        (lambda: weight_norm(nn.Linear(3, 3)), 3 + 9 + 3),
        (Positions, 9 + 3),
    ],
    ids=["weight_norm", "orthogonal", "old weight_norm", "constant"],
)
def test_all_parameters_of_a_layer_come_back_and_no_constant(form, layer, parameters, tmp_path):
    network = nn.ModuleDict({"a": layer(), "b": nn.Linear(3, 3)})
    selection = chosen(network, ["a", "b"], 1)
    export(selection, tmp_path / "export", form, network)
    reader = {
        "official": lambda path, model: TrainableMask(tuple(read_official_ranking(path))[:1]).parameter_names(model)
    }
    assert train_only(network, (READERS | reader)[form](tmp_path / "export", network)).trained == parameters


def test_patterns_without_the_network_hold_parametrised_weights(tmp_path):
    network = nn.ModuleDict({"a": parametrizations.weight_norm(nn.Linear(3, 3)), "b": nn.Linear(3, 3)})
    export(chosen(network, ["a", "b"], 2), tmp_path / "export", "spectrum")
    assert spectrum(tmp_path / "export", network) == [name for name, _ in network.named_parameters()]


@pytest.mark.parametrize("form", ["llama-factory", "ms-swift", "axolotl", "spectrum", "json"])
def test_what_lay_there_survives_an_export_that_fails(network, form, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("my own")
    other = nn.ModuleDict({"fc": nn.Linear(3, 3)})
    with pytest.raises(ValueError, match="'a-b'"):
        export(chosen(network, ["fc", "a-b"], 2), mine, form, other)
    assert mine.read_text() == "my own"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_is_no_file_and_a_file_no_folder(network, tmp_path):
    selection = chosen(network, ["fc"], 1)
    with pytest.raises(ValueError, match="is a folder: json writes a file, name one"):
        export(selection, tmp_path, "json")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file: official writes a folder, name another"):
        export(selection, tmp_path / "file", "official")
