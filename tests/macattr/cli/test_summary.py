"""What `macattr rank` prints at its end: the answer first, then how sure it is, then the agreement in three rows."""

import shlex

import numpy as np
import pandas as pd
import pytest
from torch import nn

from macattr.cli import main
from macattr.cli.summary import describe_agreement, describe_certainty, describe_top, print_summary
from macattr.statistics.agreement import measure_agreement

NAMES = [str(place) for place in range(12)]


@pytest.fixture
def model() -> nn.Module:
    """Twelve layers of 12 parameters, and one that is not ranked."""
    return nn.Sequential(*(nn.Linear(3, 3) for _ in NAMES), nn.Linear(3, 19))


@pytest.fixture
def importance(made_up):
    return made_up(NAMES, sizes=dict.fromkeys(NAMES, 12))


@pytest.mark.parametrize(
    ("fraction", "rows", "cut"), [(0.1, 8, 1), (0.25, 8, 3), (0.5, 9, 6), (0.8, 12, 9), (1.0, 12, 12)]
)
def test_at_least_eight_rows_and_three_below_the_cut_are_shown(importance, model, fraction, rows, cut):
    lines = describe_top(importance, model, fraction).splitlines()
    marks = [place for place, line in enumerate(lines) if "chosen above" in line]
    assert marks == ([cut + 2] if rows > cut else [])  # after the heading and the names of the columns
    names = [line.split()[1] for line in lines[2:] if "chosen above" not in line]
    assert names == importance.ranking()["layer"].tolist()[:rows]


def test_the_share_is_of_the_network(importance, model):
    total = sum(parameter.numel() for parameter in model.parameters())
    assert f"3 of 12 layers, {36 / total:.1%}".replace("%", " %") in describe_top(importance, model, 0.25)


def test_certainty_counts_the_layers_that_stay_in_the_resamples(importance, made_up):
    chosen = importance.probability_in_top(0.5)[importance.ranking()["layer"][:6]]
    sure = int((chosen >= 0.95).sum())
    assert 0 < sure < 6
    assert describe_certainty(importance, 0.5).startswith(f"{sure} of the 6 chosen layers stay")
    assert describe_certainty(importance, 1.0).startswith("all the 12 chosen layers stay")
    sure = float(importance.probability_in_top(0.1)[importance.ranking()["layer"][0]]) >= 0.95
    assert describe_certainty(importance, 0.1).startswith(f"the chosen layer {'stays' if sure else 'does not stay'} ch")
    assert "no intervals" in describe_certainty(made_up(NAMES, images=1), 0.5)


def pairs(number: int) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(number, 2, 30))
    tables = [
        measure_agreement(a, b, 3).assign(a=f"first{place}", b=f"second{place}") for place, (a, b) in enumerate(scores)
    ]
    return pd.concat(tables, ignore_index=True)


@pytest.mark.parametrize("number", [1, 3, 4, 10])
def test_agreement_takes_three_rows_for_any_number_of_methods(number):
    table = pairs(number)
    _, names, *rows = describe_agreement(table).splitlines()
    assert len(rows) == 3
    correlations = table.loc[table["measure"] == "spearman", "value"]
    shown = [float(number) for number in rows[0].split(")")[1].split()][:-1]
    if number <= 3:
        assert shown == pytest.approx(correlations, abs=0.006)  # two digits
        assert names.split()[-1] == "unrelated"
    else:
        extremes = [correlations.min(), correlations.median(), correlations.max()]
        assert shown == pytest.approx(extremes, abs=0.006)


def test_the_answer_comes_before_doubts_and_agreement(importance, model, tmp_path, capsys):
    pairs(1).to_csv(tmp_path / "agreement.csv", index=False)
    print_summary({"mac": importance}, model, 0.25, tmp_path / "agreement.csv")
    printed = capsys.readouterr().out
    places = [printed.index(part) for part in ("chosen above", "how sure:", "6 images are few", "agreement of the")]
    assert places == sorted(places)


def test_what_holds_for_several_methods_is_said_once(importance, model, capsys):
    print_summary({"mac": importance, "drift": importance}, model, 0.25)
    assert capsys.readouterr().out.count("6 images are few") == 1


def test_an_unknown_stability_is_said_once(made_up, model, capsys):
    words = "The stability of the top 1 of 12 layers is unknown: 3 of 3 images were measured."
    print_summary({"mac": made_up(NAMES, sizes=dict.fromkeys(NAMES, 12), stability=words)}, model, 0.1)
    assert capsys.readouterr().out.count(words) == 1


@pytest.fixture
def _own(tmp_path, monkeypatch):
    """A module with a network and photographs, in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(
        "import torch\nfrom torch import nn\n\ndef net():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3)).eval()\n\n"
        "def photos():\n    return list(torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("_own")
def test_what_is_suggested_runs_and_replaces_nothing(tmp_path, capsys):
    arguments = ["rank", "--model", "own:net", "--images", "photos", "--n-steps", "2", "--fraction", "0.5"]
    main([*arguments, "--limit", "1", "--out", "a ranking"])
    command = suggested(capsys, "select")
    assert command[:4] == ["select", "a ranking/importance.nc", "--model", "own:net"]
    assert command[command.index("--fraction") + 1] == "0.5"
    main(command)
    assert (tmp_path / "a ranking" / "layers.json").is_file()
    capsys.readouterr()
    main([*arguments, "--limit", "1", "--out", "a ranking"])
    printed = capsys.readouterr().out
    assert "a ranking/layers-2.json" in printed
    assert "--images photos --method mac --limit 1 --n-steps 2 --fraction 0.5 --out" in printed


@pytest.mark.usefixtures("_own")
def test_the_suggested_check_has_the_options_of_its_method_alone(capsys):
    options = ["--n-steps", "2", "--seed", "3", "--r", "0.4", "--objective", "norm"]
    main(["rank", "--model", "own:net", "--images", "photos", "--method", "magnitude,mac", *options, "--out", "two"])
    command = suggested(capsys, "check")
    assert "--method magnitude" in shlex.join(command)
    assert not {"--n-steps", "--r", "--objective"} & set(command)
    main(command)
    assert "all parameters random: Spearman" in capsys.readouterr().out


def suggested(capsys, name: str) -> list[str]:
    """Arguments of a suggested command."""
    lines = capsys.readouterr().out.partition("next:")[2].splitlines()
    return shlex.split(next(line for line in lines if f"macattr {name}" in line))[1:]
