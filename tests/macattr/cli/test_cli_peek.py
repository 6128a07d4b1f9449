"""Mistyped options are refused from the source files alone, which say the same as the options themselves."""

import importlib
import inspect
import subprocess
import sys
from dataclasses import fields

import pytest

import macattr.cli
import ram_models.cli
from macattr.cli.peek import ALWAYS, _written, refuse_mistyped

COMMANDS = {**macattr.cli.COMMANDS, **ram_models.cli.COMMANDS}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_file_lists_the_options_of_the_command(name):
    command = COMMANDS[name]
    module = importlib.import_module(command.module)
    settings = getattr(module, "Config", None)
    function = getattr(module, command.function)
    options = {field.name for field in fields(settings)} if settings else {*inspect.signature(function).parameters}
    written = _written(command.module, command.function)
    assert written == options | {*ALWAYS}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--modle", r"no option '--modle'; did you mean '--model'\?"),
        ("--n_stepz=3", r"no option '--n-stepz'; did you mean '--n-steps'\?"),
        ("--qqqqqq", r"no option '--qqqqqq'\."),
    ],
)
def test_a_mistyped_option_is_refused(word, message):
    with pytest.raises(ValueError, match=message):
        refuse_mistyped("macattr.cli.rank", "rank", ["--model", "x", word])


@pytest.mark.parametrize(
    "words", [["--n-steps", "3"], ["--n_steps=3"], ["--", "-3"], ["--config=x.yaml"], ["--images+", "x"]]
)
def test_options_that_are_there_pass(words):
    refuse_mistyped("macattr.cli.rank", "rank", words)


def test_a_table_of_options_that_cannot_be_read_leaves_the_words_to_the_reader(tmp_path, monkeypatch):
    (tmp_path / "with_table.py").write_text("def f(a): pass\n@added(**made())\ndef command(b): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    refuse_mistyped("with_table", "command", ["--anything", "x"])
    with pytest.raises(ValueError, match=r"no option '--anything'"):
        refuse_mistyped("with_table", "f", ["--anything", "x"])


def test_what_lies_inside_of_an_option_is_left_to_the_reader():
    refuse_mistyped("ram_models.recipes.pretrain", "main", ["--data.claen", "x"])


@pytest.mark.parametrize("words", [["--help"], ["rank", "--modle", "x"], ["rnak"]])
def test_neither_torch_nor_a_reader_of_options_is_imported(words):
    code = (
        "import sys\nfrom macattr.cli import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'jsonargparse', 'numpy', 'yaml'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
