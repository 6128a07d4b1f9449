"""The select command prints what it selects, writes what it prints, and refuses what it cannot do in one line."""

import shutil

import pytest
import torch
from torch import nn

from macattr import LayerImportance, SelectionRule, rank_layers
from macattr.cli import main
from macattr.selection.exports import match_parameters, read_json, read_patterns
from macattr.selection.official import write_official_ranking

NETWORK = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(1, 8), nn.Conv2d(8, 3, 1)
    )

def other():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, 4, 3), nn.GroupNorm(1, 8), nn.Conv2d(8, 3, 1))
"""


@pytest.fixture
def model(tmp_path, request) -> str:
    name = f"select_network_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(NETWORK)
    return f"{tmp_path / name}.py:network"


@pytest.fixture
def network() -> nn.Module:
    space: dict[str, object] = {}
    exec(NETWORK, space)
    return space["network"]()


@pytest.fixture
def importance(network, tmp_path) -> str:
    rank_layers(network, torch.rand(1, 3, 8, 8), n_steps=2).save(tmp_path / "importance.nc")
    return str(tmp_path / "importance.nc")


def refused(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit, match="2"):
        main(["select", *arguments])
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.strip().splitlines()[-1]


def test_layers_count_parameters_and_share_are_printed(importance, network, capsys):
    main(["select", importance, "--fraction", "0.5"])
    printed = capsys.readouterr()
    first, second = LayerImportance.load(importance).ranking()["layer"][:2]
    layers = [line.split()[:2] for line in printed.out.splitlines()[1:3]]
    assert layers == [["1", first], ["2", second]]
    trained = sum(p.numel() for name in (first, second) for p in network.get_submodule(name).parameters())
    total = sum(parameter.numel() for parameter in network.parameters())
    share = f"2 of 4 layers, {trained} of {total} parameters ({trained / total:.1%})"
    assert f"top 50 % of the layers: {share} of the ranked layers" in printed.out


@pytest.mark.parametrize("form", ["json", "spectrum"])
def test_an_export_holds_what_was_selected(importance, network, model, tmp_path, form, capsys):
    out = tmp_path / "new" / "export"
    options = ["--count", "2", "--exclude", "3", "--whole-modules", "--model", model, "--export", form]
    main(["select", importance, *options, "--out", str(out)])
    read = {
        "json": lambda: read_json(out).parameter_names(network),
        "spectrum": lambda: match_parameters(read_patterns(out), network),
    }[form]()
    rule = SelectionRule(count=2, exclude=("3",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("macattr.selection.rules._warn_if_uneven", lambda _: None)
        expected = LayerImportance.load(importance).select(rule, network)
    assert sorted(read) == sorted(expected.mask().parameter_names(network))
    assert f"written: {out} (read back; its 4 parameter tensors are in the network)" in capsys.readouterr().out


def test_peft_exports_are_applied(importance, model, tmp_path, capsys):
    pytest.importorskip("peft", reason="needs peft: pip install 'macattr[peft]'")
    options = ["--count", "4", "--export", "peft", "--out", str(tmp_path / "peft"), "--lora-rank", "2"]
    main(["select", importance, "--model", model, *options])
    assert "applied: 3 layers with adapters, 1 trained in full" in capsys.readouterr().out


def test_uneven_selections_warn_in_one_line(model, tmp_path, capsys):
    write_official_ranking({"2": 3.0, "0": 2.0, "3": 1.0, "4": 0.5}, ["0", "2", "3", "4"], tmp_path / "lists")
    main(["select", str(tmp_path / "lists"), "--count", "1", "--model", model])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: top 1 layers: 1 of 4 layers, 584 of 851 parameters (68.6%): 2.7 x the 213 that")


def test_lists_of_names_are_written_as_json(importance, capsys):
    main(["select", importance, "--count", "2", "--include", '["0", "4"]'])
    assert "top 2 layers, with 0 4: 2 of 4 layers" in capsys.readouterr().out


def test_official_lists_are_selected_from_with_the_network(model, tmp_path, capsys):
    write_official_ranking({"4": 3.0, "0": 2.0, "2": 1.0, "3": 0.5}, ["0", "2", "3", "4"], tmp_path / "lists")
    main(["select", str(tmp_path / "lists"), "--count", "2", "--model", model])
    assert "2 of 4 layers, 251 of 851 parameters (29.5%)\n" in capsys.readouterr().out
    assert "give the network as --model" in refused(capsys, str(tmp_path / "lists"), "--count", "2")


def test_the_folder_of_a_ranking_stands_for_it(importance, tmp_path, capsys):
    main(["select", importance, "--count", "2"])
    of_file = capsys.readouterr().out
    (tmp_path / "ranking").mkdir()
    shutil.copy(importance, tmp_path / "ranking" / "importance.nc")
    main(["select", str(tmp_path / "ranking"), "--count", "2"])
    assert capsys.readouterr().out == of_file


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give one of `fraction`, `count`, `threshold`; got none"),
        (["--count", "0"], "`count` must be at least 1, got 0"),
        (["--count", "9", "--over", "0.1"], "`over` has no effect on this rule"),
        (["--fraction", "1.1"], "`fraction` must lie in (0, 1], got 1.1"),
        (["--count", "1", "--include", "conv"], "no layer 'conv'"),
        (["--count", "1", "--export", "json"], "`export` and `out` belong together"),
        (["--count", "1", "--bare", "skip"], "`bare` = skip has no effect without --export peft"),
        (["--count", "1", "--export", "peft", "--out", "out"], "the format 'peft' needs the `model`"),
        (["--count", "1", "--model", "nowhere.py:network"], "there is no file 'nowhere.py'"),
    ],
    ids=["nothing", "none", "budget", "fraction", "unknown", "no out", "bare", "no model", "no file"],
)
def test_bad_options_end_with_one_line(importance, capsys, options, message):
    assert message in refused(capsys, importance, *options)


def test_a_ranking_of_another_network_is_refused(importance, model, capsys):
    error = refused(capsys, importance, "--count", "1", "--model", model.replace(":network", ":other"))
    assert "'2' has 292 parameters in the model and 584 in the ranking" in error


@pytest.mark.parametrize("content", [None, b"layer,score\n", b"\x89HDF\r\n\x1a\nbroken"], ids=["missing", "csv", "cut"])
def test_files_that_are_no_ranking_are_refused(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "a.nc").write_bytes(content)
    assert "a.nc' cannot be read as a ranking" in refused(capsys, str(tmp_path / "a.nc"), "--count", "1")


@pytest.fixture
def wrapped(network, tmp_path) -> str:
    """A ranking of the network inside of a wrapper."""
    rank_layers(nn.ModuleDict({"net": network}), method="magnitude").save(tmp_path / "wrapped.nc")
    return str(tmp_path / "wrapped.nc")


@pytest.mark.filterwarnings("ignore:top 2 layers:UserWarning")
@pytest.mark.parametrize("given", [[], ["--prefix", "net."]], ids=["found", "given"])
def test_names_of_a_wrapper_fit_the_network_inside(wrapped, model, network, tmp_path, capsys, given):
    out = tmp_path / "layers.json"
    options = ["--count", "2", "--model", model, "--export", "json", "--out", str(out)]
    main(["select", wrapped, *options, *given])
    assert set(read_json(out).layers) <= {name for name, _ in network.named_modules()}
    said = (
        "the ranked names begin with 'net.', as of a wrapper; without it all fit the network" in capsys.readouterr().err
    )
    assert said == (not given)


def test_a_prefix_that_does_not_fit_is_refused(wrapped, model, capsys):
    error = refused(capsys, wrapped, "--count", "1", "--model", model, "--prefix", "model.")
    assert "4 of 4 layers do not begin with `prefix` = 'model.', such as 'net.0'" in error


def test_a_ranking_without_its_prefix_is_that_of_the_network_inside(network, wrapped):
    inside = LayerImportance.load(wrapped).without_prefix("net.").dataset
    expected = rank_layers(network, method="magnitude").dataset
    for name in ("layer", "alias_of", "block", "role", "type", "parameters", "score"):
        assert inside[name].values.tolist() == expected[name].values.tolist()


def test_scores_of_other_tools_are_selected_from(model, tmp_path, capsys):
    (tmp_path / "scores.json").write_text('{"net.0": 1, "net.2": 3, "net.3": 2, "net.4": 0}')
    main(["select", str(tmp_path / "scores.json"), "--count", "2", "--model", model])
    printed = capsys.readouterr()
    assert [line.split()[1] for line in printed.out.splitlines()[1:3]] == ["2", "3"]
    assert "without it all fit" in printed.err


def test_budgets_are_met_as_near_as_layers_go_with_the_cause(importance, model, capsys):
    main(["select", importance, "--fraction", "0.05", "--by", "parameters", "--model", model])
    printed = capsys.readouterr()
    assert "1 of 4 layers" in printed.out or "2 of 4 layers" in printed.out
    main(["select", importance, "--count", "9", "--by", "parameters", "--over", "0"])
    assert "a budget of 9 parameters is smaller than the smallest layer '3'" in capsys.readouterr().err


def test_help_teaches(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["select", "--help"])
    assert "Names or globs of layers that are always in" in capsys.readouterr().out


def test_small_layers_come_first_and_others_by_score_per_parameter(importance, network, model, capsys):
    main(["select", importance, "--fraction", "0.6", "--by", "parameters", "--small-first", "0.5", "--model", model])
    printed = capsys.readouterr().out
    assert "by score per parameter, with 3 4" in printed  # GroupNorm of 16 and the last convolution of 27 parameters
    assert {"3", "4"} < {line.split()[1] for line in printed.splitlines()[1:4]}


def test_small_layers_are_known_by_the_network_alone(importance, capsys):
    error = refused(capsys, importance, "--fraction", "0.6", "--by", "parameters", "--small-first", "0.5")
    assert "`small_first` needs the network" in error


def test_names_that_fit_have_no_prefix_taken_off(tmp_path, capsys):
    file = tmp_path / "nested.py"
    file.write_text(
        "from torch import nn\n\n"
        "def net():\n"
        "    return nn.Sequential(nn.Sequential(nn.ReLU(), nn.Conv2d(3, 3, 1)), nn.Conv2d(3, 3, 1))\n"
    )
    (tmp_path / "scores.json").write_text('{"0.1": 1.0}')
    main(["select", str(tmp_path / "scores.json"), "--count", "1", "--model", f"{file}:net"])
    assert "0.1" in capsys.readouterr().out


def test_an_option_that_is_given_twice_is_refused(importance, model, capsys):
    twice = ["--include", "0", "--include", "2"]
    assert "'--include' is given twice" in refused(capsys, importance, "--count", "1", *twice, "--model", model)


def test_a_prefix_needs_no_dot(importance, capsys, tmp_path):
    ranking = LayerImportance.load(importance)
    names = [f"net.{name}" for name in ranking.dataset["layer"].values.tolist()]
    wrapped = LayerImportance(ranking.dataset.assign_coords(layer=names, alias_of=("layer", names)))
    for prefix in ("net", "net."):
        assert wrapped.without_prefix(prefix).ranking()["layer"].tolist() == ranking.ranking()["layer"].tolist()
    with pytest.raises(ValueError, match=r"do not begin with `prefix` = 'ne\.'"):
        wrapped.without_prefix("ne")


def test_small_first_and_whole_modules_exclude_each_other(importance, model, capsys):
    options = ["--fraction", "0.5", "--by", "parameters", "--small-first", "0.5", "--whole-modules"]
    assert "exclude each other" in refused(capsys, importance, *options, "--model", model)
