"""Command lines: help without markup, one line for bad input and errors in the user's code, exit codes."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import ModuleType
from typing import Literal

import pytest

from macattr.cli import COMMANDS as MACATTR
from macattr.cli import main as run_macattr
from macattr.cli.command import Command, Program
from ram_models.cli import COMMANDS as RAM
from ram_models.cli import main as run_ram

ROOT = Path(__file__).parents[3]


def trial(
    names: list[str],
    out: Path = Path("out"),
    n_steps: int | None = None,
    layers: list[str] | None = None,
    dry_run: bool = False,
    numbers: dict[str, dict[str, float]] | None = None,
    pace: Literal["slow", "fast"] = "slow",
    side: Literal["left", "right"] | None = None,
    seed: int = 0,
    fraction: float | None = None,
) -> None:
    """Try a command of :mod:`macattr`.

    A second paragraph with ``code``.

    Args:
        names: Names of things.
        out: Folder for ``results``.
        n_steps: Number of steps.
        layers: Names of layers.
        dry_run: Whether nothing is written.
        numbers: Numbers by name.
        pace: Speed, slow or fast.
        side: Where to begin.
        seed: Number.
        fraction: Share.
    """


@pytest.fixture
def calls(monkeypatch):
    """Options of every call of `prog try`."""
    received = []
    module = ModuleType("tried_command")
    module.trial = trial
    monkeypatch.setitem(sys.modules, "tried_command", module)
    monkeypatch.setattr("macattr.cli.command.execute", lambda function, options: received.append(options) or 0)
    return received


PROGRAM = Program(
    "prog", "Try things.", {"try": Command("tried_command", "try a thing", "prog try a", function="trial")}
)


def refused(capsys, *arguments):
    assert PROGRAM.run(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a"], {"names": ["a"]}),
        (["a", "b,c", "--dry-run"], {"names": ["a", "b,c"], "dry_run": True}),
        (["a", "--dry_run", "false"], {"dry_run": False}),
        (["a", "--layers", "conv_first"], {"layers": ["conv_first"]}),
        (["a", "--layers=conv_first,conv_last"], {"layers": ["conv_first", "conv_last"]}),
        (["a", "--layers", '["x,y"]'], {"layers": ["x,y"]}),
        (["a", "--n-steps=3"], {"n_steps": 3}),
        (["a", "--numbers", "{noise: {sigma: 2}}"], {"numbers": {"noise": {"sigma": 2.0}}}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_are_spelled_as_they_are_typed(calls, arguments, expected):
    assert PROGRAM.run(["try", *arguments]) == 0
    assert {name: calls[0][name] for name in expected} == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["try"], "the following arguments are required: names"),
        (["try", "a", "--n-stps", "3"], "no option '--n-stps'; did you mean '--n-steps'?"),
        (["try", "a", "--dryrun"], "no option '--dryrun'; did you mean '--dry-run'?"),
        (["try", "a", "--qqq"], "no option '--qqq'."),
        (["try", "a", "--n-steps", "2.5"], "`--n-steps` must be a whole number or null, got 2.5"),
        (["try", "a", "--n-steps", "2,5"], "`--n-steps` must be a whole number or null, got 2,5 (see"),
        (["try", "a", "--fraction", "10%"], "`--fraction` must be a number or null, got 10%: write 0.1 (see"),
        (["try", "a", "--fraction", "0,125"], "`--fraction` must be a number or null, got 0,125: write 0.125 (see"),
        (["try", "a", "--fraction", "1,000"], "`--fraction` must be a number or null, got 1,000 (see"),
        (["try", "a", "--fraction", "ten"], "`--fraction` must be a number or null, got ten (see"),
        (["try", "a", "--dry-run", "x"], "nothing takes 'x'"),
        (["try", "a", "--n-steps"], "`--n-steps` needs a value"),
        (["try", "a", "--out", ""], "`--out` is empty: name a path, '.' for the current folder"),
        (["try", "a", "--out", "o\udcff"], "`--out` holds bytes that are not UTF-8: rename"),
        (["try", "a", "--out="], "`--out` is empty: name a path, '.' for the current folder"),
        (["try", ""], "`names` is empty"),
        (["try", "a", "--layers", "b,,c"], "`--layers` is empty"),
        (["try", "a", "--config", "none.yaml"], "there is no file 'none.yaml'"),
        (["tri", "a"], "no command 'tri': did you mean `prog try`?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_with_its_near_match(calls, capsys, arguments, message):
    assert message in refused(capsys, *arguments)
    assert not calls


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "holds more than 10000 values"),
        ("values: &v {a: *v}\n", "holds more than 10000 values"),
        ("out: ''\n", "`--out` is empty: name a path"),
        ("out: 3\n", "`--out` must be a path, got 3"),
        ("n_steps: 3\nout: a\nn_steps: 4\n", "gives 'n_steps' twice: keep one"),
        ("numbers: {a: {b: 1}}\nnumbers: {c: {b: 2}}\n", "gives 'numbers' twice: keep one"),
        ("numbers: {a: {b: 1, b: 2}}\n", "gives 'numbers.a.b' twice: keep one"),
        ("n_stps: 3\n", "has no option 'n_stps'; did you mean 'n_steps'?"),
        ("- a\n- b\n", "holds no options"),
        ("# nothing yet\n", "holds no options"),
        ("a: [1\n", "is not a YAML file"),
        ("n_steps: !!python/object/apply:os.system [ls]\n", "could not determine a constructor"),
        ("[" * 5000, "is not a YAML file"),
    ],
    ids=[
        "alias_bomb",
        "endless",
        "empty_path",
        "number_as_path",
        "twice",
        "group_twice",
        "nested_twice",
        "unknown_key",
        "list",
        "comments",
        "broken",
        "object",
        "deep",
    ],
)
def test_bad_configuration_files_are_one_line(calls, capsys, tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    started = time.perf_counter()
    assert message in refused(capsys, "try", "a", "--config", str(tmp_path / "a.yaml"))
    assert time.perf_counter() - started < 10  # seconds, on a busy machine: the bomb would take hours


def test_help_shows_the_whole_description_without_markup(calls, capsys):
    with pytest.raises(SystemExit, match="0"):
        PROGRAM.run(["try", "--help"])
    printed = capsys.readouterr().out
    assert "A second paragraph with code." in printed
    assert "NAMES ..." in printed
    assert "--dry-run " in printed
    assert not re.search(r"``|:\w+:`|_run|\{true", printed)


@pytest.mark.parametrize(("program", "commands"), [("macattr", 6), ("ram", 8)])
def test_help_of_both_programs_has_an_example_of_every_command(program, commands, capsys):
    {"macattr": run_macattr, "ram": run_ram}[program](["--help"])
    printed = capsys.readouterr().out
    listed = {"macattr": MACATTR, "ram": RAM}[program]
    assert len(listed) == commands
    assert all(command.example in printed and command.summary in printed for command in listed.values())
    assert "`" not in printed.replace(f"`{program} COMMAND --help`", "").replace("`--debug`", "")


@pytest.mark.parametrize(
    ("program", "command"), [*(("macattr", name) for name in MACATTR), *(("ram", name) for name in RAM)]
)
def test_help_of_a_command_shows_words_and_no_types(program, command, capsys):
    with pytest.raises(SystemExit, match="0"):
        {"macattr": run_macattr, "ram": run_ram}[program]([*command.split(), "--help"])
    printed = capsys.readouterr().out
    assert not re.search(r"``|:\w+:`|<class|Literal|Union|Optional|list\[|type: |\| null|In Python|%\(", printed)
    example = {"macattr": MACATTR, "ram": RAM}[program][command].example
    assert printed.endswith(f"example:\n  {example}\n")


@pytest.mark.parametrize("command", [name for name in MACATTR if MACATTR[name].headings])
def test_every_option_of_a_long_help_stands_below_one_heading(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        run_macattr([command, "--help"])
    parts = re.split(r"^(\S.*):$", capsys.readouterr().out, flags=re.MULTILINE)
    printed = dict(zip(parts[1::2], parts[2::2], strict=True))
    options = {title: re.findall(r"^  (?:-h, )?--([\w-]+)", text, re.MULTILINE) for title, text in printed.items()}
    headings = {title: [name.replace("_", "-") for name in names] for title, names in MACATTR[command].headings.items()}
    assert options["options"] == ["help", "config"]
    assert {title: options[title] for title in headings} == headings  # in this order
    assert list(headings) == [title for title in printed if title in headings]
    named = [name for names in headings.values() for name in names]
    assert len(named) == len(set(named))


def test_help_names_choices_once_and_defaults_as_they_are_typed(calls, capsys):
    with pytest.raises(SystemExit, match="0"):
        PROGRAM.run(["try", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "--pace PACE Speed, slow or fast. (default: slow)" in printed
    assert "--side SIDE Where to begin. (one of left, right)" in printed
    assert "--seed SEED Number. (default: 0)" in printed
    assert "--n-steps N_STEPS Number of steps. --layers" in printed


def test_a_command_gets_its_own_words_where_none_are_given(calls):
    command = Command("tried_command", "try", "prog try a", function="trial", bare=("all",))
    program = Program("prog", "Try things.", {"try": command})
    assert program.run(["try"]) == program.run(["try", "a"]) == 0
    assert [options["names"] for options in calls] == [["all"], ["a"]]


@pytest.mark.parametrize("module", ["macattr", "ram_models.cli"])
def test_help_comes_before_anything_slow_is_imported(module):
    script = (
        f"import sys, runpy; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module({module!r}, run_name='__main__')\nexcept SystemExit as stop: assert not stop.code\n"
        "print(sorted({'torch', 'numpy', 'jsonargparse', 'matplotlib', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"


MODULE = """
from torch import nn
class make(nn.Module):
    def __init__(self):
        super().__init__(); self.layer = nn.Conv2d(3, 3, 1)
    def forward(self, {arguments}):
        return {value}
"""
USERS = {
    "type": ("def make():\n    return None + 1\n", "TypeError: unsupported operand", 2),
    "key": ("def make():\n    return {}['weights']\n", "KeyError: 'weights'", 2),
    "attribute": ("import os\ndef make():\n    return os.nothing\n", "AttributeError: module 'os' has no", 3),
    "assertion": ("def make():\n    assert 1 == 2\n", "AssertionError", 2),
    "syntax": ("def make():\n    return (1\n", "SyntaxError: '(' was never closed", 2),
    "value": ("def make():\n    raise ValueError('no such size')\n", "ValueError: no such size", 2),
    "import": ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'", 1),
    "exit": ("def make():\n    raise SystemExit(3)\n", "the code ended the program with exit code 3", 2),
    "argument": ("def make(size):\n    return size\n", "is called without arguments, but needs size", 0),
    "class": (
        "from torch import nn\nclass make(nn.Module):\n    def __init__(self, size):\n        pass\n",
        "is called without arguments, but needs size",
        0,
    ),
    "forward": (
        MODULE.format(arguments="image, mask", value="self.layer(image)"),
        "TypeError: make.forward() missing 1 required",
        6,
    ),
    "in_forward": (MODULE.format(arguments="image", value="self.layer(image)['x']"), "Error: ", 7),
    "in_forward_key": (MODULE.format(arguments="image", value="{}[self.layer(image).ndim]"), "KeyError: 4", 7),
}


@pytest.mark.parametrize("kind", USERS)
@pytest.mark.usefixtures("as_users_run_it")
def test_an_error_in_the_users_code_is_one_line_with_its_place(kind, tmp_path, capsys, monkeypatch):
    from macattr.cli import main

    monkeypatch.setattr(sys, "path", list(sys.path))
    text, message, line = USERS[kind]
    file = tmp_path / f"users_{kind}.py"
    file.write_text(text + "\n\ndef photos():\n    import torch\n    return [torch.rand(3, 8, 8)]\n")
    options = ["rank", "--model", f"{file}:make", "--images", "photos", "--n-steps", "2", "--out", str(tmp_path / "o")]
    with pytest.raises(SystemExit, match="2"):
        main(options)
    (error,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("macattr")]
    assert message in error
    assert not line or re.search(rf"\(.*users_{kind}\.py, line {line}\b", error)


def test_debug_shows_the_traceback_too(tmp_path, capsys, monkeypatch):
    from macattr.cli import main

    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "users_debugged.py").write_text("def make():\n    return {}['weights']\n")
    with pytest.raises(SystemExit, match="2"):
        main(["rank", "--model", f"{tmp_path / 'users_debugged.py'}:make", "--images", "a", "--debug"])
    printed = capsys.readouterr().err
    assert "Traceback (most recent call last)" in printed
    assert printed.splitlines()[-1].startswith("macattr rank: error: KeyError: 'weights' (")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["terminated", "ctrl_c"]
)
def test_a_signal_ends_macattr_with_its_exit_code(tmp_path, number, code):
    (tmp_path / "slow.py").write_text(
        textwrap.dedent("""
        import signal, time
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
        def make():
            print("ready", flush=True)
            time.sleep(60)
        """)
    )
    command = [sys.executable, "-m", "macattr", "rank", "--model", f"{tmp_path / 'slow.py'}:make", "--images", "a"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        error = process.communicate()[1]
    assert process.returncode == code
    assert len(error.splitlines()) == 1
