"""The command `ram`: finds recipes, teaches, and answers bad input with one line."""

import importlib
import os
import signal
import subprocess
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import ram_models
from macattr.cli.command import Command
from ram_models import cli
from ram_models.cli import COMMANDS, main


@dataclass(frozen=True)
class Optimiser:
    """Optimiser.

    Args:
        lr: Learning rate.
        use_ema: Whether to average.
    """

    lr: float = 1e-3
    use_ema: bool = False


@dataclass(frozen=True)
class Config:
    """What is tried.

    Args:
        source: Where from.
        out: Where to.
        max_steps: How many.
        twins: Whether twice.
        optim: How.
    """

    source: Path
    out: Path
    max_steps: int = 3
    twins: bool = False
    optim: Optimiser = field(default_factory=Optimiser)


@pytest.fixture
def recipe(monkeypatch):
    """A recipe that keeps its configurations, under the commands `try` (positional) and `data try` (not)."""
    module = types.ModuleType("tried_recipe")
    module.Config, module.calls = Config, []
    module.main = lambda config: module.calls.append(config)
    monkeypatch.setitem(sys.modules, "tried_recipe", module)
    commands = {
        "try": Command("tried_recipe", "try a thing", "ram try IN OUT"),
        "data try": Command("tried_recipe", "try it otherwise", "ram data try --source IN --out OUT", False),
    }
    monkeypatch.setattr(cli, "COMMANDS", commands)
    return module


def raising(error):
    """A recipe of this project, not a user's function, that raises an error."""
    names = {"error": error}
    file = f"{ram_models.__path__[0]}/tried.py"
    exec(compile("def fail(*_, **__):\n    raise error", file, "exec"), names)
    return names["fail"]


def refused(capsys, *arguments: str) -> str:
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_fields_without_default_are_given_by_place(recipe):
    assert main(["try", "in", "out", "--max-steps", "7"]) == 0
    assert recipe.calls == [Config(Path("in"), Path("out"), 7)]


def test_or_as_options_where_the_command_says_so(recipe):
    assert main(["data", "try", "--out", "out", "--source", "in"]) == 0
    assert recipe.calls == [Config(Path("in"), Path("out"))]


@pytest.mark.parametrize(
    ("arguments", "twins", "ema"),
    [
        (["--twins"], True, False),
        (["--twins", "--optim.use-ema"], True, True),
        (["--twins", "false", "--optim.use_ema", "true"], False, True),
        (["--twins=true"], True, False),
    ],
)
def test_flags_need_no_value(recipe, arguments, twins, ema):
    assert main(["try", *arguments, "in", "out"]) == 0
    assert (recipe.calls[0].twins, recipe.calls[0].optim.use_ema) == (twins, ema)


def test_options_come_from_a_file_and_the_command_line_wins(recipe, tmp_path):
    (tmp_path / "a.yaml").write_text("max_steps: 5\noptim:\n  lr: 0.5\n")
    assert main(["try", "in", "out", "--config", str(tmp_path / "a.yaml"), "--max_steps", "6"]) == 0
    assert recipe.calls == [Config(Path("in"), Path("out"), 6, optim=Optimiser(0.5))]


def test_the_exit_code_is_that_of_the_recipe(recipe):
    recipe.main = lambda config: 1
    assert main(["try", "in", "out"]) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_without_arguments_names_what_it_needs_in_one_line(name, capsys):
    assert main(name.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    missing = "`data` must be a folder with" if name == "bench" else "the following arguments are required: "
    assert line.startswith(f"ram {name}: error: {missing}")


@pytest.mark.parametrize("error", [ValueError("`r` is odd:\n  got 3."), OSError("`r` is odd:   got 3.")])
def test_errors_of_a_recipe_become_one_line(recipe, capsys, error):
    recipe.main = raising(error)
    assert refused(capsys, "try", "in", "out") == "ram try: error: `r` is odd: got 3."


def test_an_interruption_ends_with_130(recipe, capsys):
    recipe.main = raising(KeyboardInterrupt())
    assert main(["try", "in", "out"]) == 130
    assert capsys.readouterr().err == "ram try: error: interrupted; what was written before is kept\n"


def test_termination_ends_with_143(recipe, capsys):
    recipe.main = lambda config: os.kill(os.getpid(), signal.SIGTERM)
    assert main(["try", "in", "out"]) == 143
    assert capsys.readouterr().err == "ram try: error: terminated; what was written before is kept\n"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize(("module", "extra"), [("accelerate.utils", "train"), ("transformers", "hf")])
@pytest.mark.parametrize("where", ["import", "run"])
def test_a_missing_extra_names_the_command_that_installs_it(recipe, capsys, monkeypatch, where, module, extra):
    miss = raising(ModuleNotFoundError(f"No module named {module!r}", name=module))
    if where == "import":
        monkeypatch.setattr(importlib, "import_module", miss)
    recipe.main = miss
    expected = f"ram try: error: needs {module}, which is not installed: pip install 'macattr[{extra}]'"
    assert refused(capsys, "try", "in", "out") == expected


def test_a_broken_import_is_not_taken_for_a_missing_extra(recipe, capsys):
    recipe.main = raising(ModuleNotFoundError("No module named 'nowhere'", name="nowhere"))
    assert refused(capsys, "try", "in", "out") == "ram try: error: No module named 'nowhere'"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["try", "in"], "the following arguments are required: out"),
        (["try", "in", "out", "--max-steps", "many"], "`--max-steps` must be a whole number, got many"),
        (["try", "in", "out", "--max-step", "3"], "no option '--max-step'; did you mean '--max-steps'?"),
        (["try", "in", "out", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["tri"], "no command 'tri': did you mean `ram try`?"),
        (["data", "fly"], "no command 'data fly': did you mean `ram data try`?"),
        (["xyz"], "no command 'xyz': `ram --help` lists them."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_answered_with_one_line(recipe, capsys, arguments, message):
    assert message in refused(capsys, *arguments)


def test_a_wrong_key_in_a_file_is_refused(recipe, capsys, tmp_path):
    (tmp_path / "a.yaml").write_text("max_step: 5\n")
    message = refused(capsys, "try", "in", "out", "--config", str(tmp_path / "a.yaml"))
    assert message.endswith("a.yaml' has no option 'max_step'; did you mean 'max_steps'?")
    assert recipe.calls == []


def test_help_lists_every_command_with_an_example(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert name in printed
        assert command.summary in printed
        assert command.example in printed


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_explains_its_options(capsys, name):
    with pytest.raises(SystemExit, match="0"):
        main([*name.split(), "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert COMMANDS[name].example in printed
    assert f"usage: ram {name} " in printed


@pytest.mark.parametrize("name", COMMANDS)
def test_every_field_of_every_command_is_documented(name):
    module = importlib.import_module(COMMANDS[name].module)
    undocumented = [
        field for field in module.Config.__dataclass_fields__ if f"\n        {field}: " not in module.Config.__doc__
    ]
    assert undocumented == []


def test_help_does_not_wait_for_torch():
    """Nor for anything else that is slow to import."""
    script = (
        "import sys; from ram_models.cli import main; main(['--help']); "
        "print(sorted({'torch', 'numpy', 'jsonargparse', 'matplotlib'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == "[]"


def test_a_configuration_of_the_package_goes_by_its_name(capsys):
    assert main(["reproduce", "table5", "--config", "tiny"]) == 2
    assert "`data` must be a folder with train/ and test/ in it, got None" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "named", "not_named"),
    [("pretrain", ["tiny-swinir", "pairwise"], ["denoising", "paper"]), ("evaluate", [], ["tiny"])],
    ids=["some", "none"],
)
def test_help_names_the_configurations_that_the_command_takes(capsys, command, named, not_named):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    text = " ".join(capsys.readouterr().out.split("--config CONFIG  ")[-1].split("--out OUT")[0].split())
    assert ("bundled one" in text) == bool(named)
    words = text.rstrip(".").split("bundled one: ")[-1].split(", ")
    assert set(named) <= set(words)
    assert not set(not_named) & set(words)


@pytest.mark.parametrize("arguments", [["--config", "tyny"], ["--config=tyny"]], ids=["apart", "together"])
def test_a_configuration_that_is_not_there_has_its_near_match_named(arguments, capsys):
    assert main(["reproduce", "table5", *arguments]) == 2
    assert "no configuration of that name: did you mean 'tiny'?" in capsys.readouterr().err
