"""Random command lines end with exit code 0, or with 2 and one line: never with a traceback."""

import contextlib
import importlib
import io
from collections.abc import Sequence
from itertools import chain

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from macattr.cli import COMMANDS as MACATTR
from macattr.cli import main as run_macattr
from ram_models.cli import COMMANDS as RAM
from ram_models.cli import main as run_ram

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("as_users_run_it"), pytest.mark.filterwarnings("default")]

WORDS = [
    "1e400",
    "nan",
    "-inf",
    "1.5",
    "null",
    "true",
    "[]",
    "{}",
    "[1,2]",
    "{a:b}",
    "mac",
    "cpu",
    "foo",
    "--",
    "-",
    "ä",
    "*a",
    "!!python/name:os.system",
    "a:b:c",
]
VALUES = st.one_of(
    st.integers(-3, 40).map(str),
    st.sampled_from([*WORDS, str(2**70), "", " ", "&a b", "{a: b}", "a: b: c"]),
    st.text(max_size=6).filter(lambda text: "\0" not in text),
)
NAMES = {
    "macattr": [
        "model",
        "images",
        "n-steps",
        "n_steps",
        "r",
        "seed",
        "layers",
        "dry-run",
        "fraction",
        "out",
        "by",
        "oops",
        "config",
    ],
    "ram": [
        "data.clean",
        "data.crop",
        "optim.lr",
        "optim.steps",
        "out",
        "seed",
        "masks.patch-size",
        "compute.cpu",
        "data",
        "selection.crops",
        "network.name",
        "network.arguments",
        "device",
        "tile",
        "task",
        "parameters.noise.x",
        "oops",
        "optim",
        "config",
        "log.keep",
    ],
}


def end(program: str, arguments: Sequence[str]) -> tuple[int, str]:
    """Exit code and stderr."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = {"macattr": run_macattr, "ram": run_ram}[program](arguments) or 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, errors.getvalue()


def command_lines(program: str) -> st.SearchStrategy[list[str]]:
    """A command, some words, some options."""
    commands = st.sampled_from(list({"macattr": MACATTR, "ram": RAM}[program])).map(str.split)
    option = st.tuples(st.sampled_from(NAMES[program]), VALUES, st.booleans()).map(
        lambda item: [f"--{item[0]}={item[1]}"] if item[2] else [f"--{item[0]}", item[1]]
    )
    options = st.lists(option, max_size=4).map(lambda lists: list(chain.from_iterable(lists)))
    parts = st.tuples(commands, st.lists(VALUES, max_size=3), options)
    return parts.map(lambda drawn: [word for part in drawn for word in part])


def assert_ends_well(program: str, arguments: list[str]) -> None:
    code, errors = end(program, arguments)
    lines = [line for line in errors.splitlines() if line.startswith(f"{program}")]
    assert code in (0, 2), (arguments, errors)
    assert "Traceback" not in errors, arguments
    assert len(lines) == (code == 2), (arguments, errors)


@pytest.mark.parametrize("program", ["macattr", "ram"])
def test_random_command_lines_are_read_or_refused_in_one_line(program, monkeypatch):
    monkeypatch.setattr("macattr.cli.command.execute", lambda function, options: 0)
    for command in ({"macattr": MACATTR, "ram": RAM}[program]).values():
        importlib.import_module(command.module)

    @settings(max_examples=500)
    @given(command_lines(program))
    def check(arguments):
        assert_ends_well(program, arguments)

    check()


NETWORK = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))

def wrong(size):
    return net()
"""
OPTIONS = [
    "r",
    "n-steps",
    "orders",
    "patch-size",
    "seed",
    "crop",
    "limit",
    "fraction",
    "method",
    "device",
    "layers",
    "path",
    "gate",
    "delta",
    "reduction",
    "internal-batch-size",
    "confidence",
]
SETTINGS = st.dictionaries(
    st.sampled_from(OPTIONS),
    st.sampled_from(["0", "1", "2", "-1", "0.5", "1.5", "nan", str(2**70), "mac", "drift", "cpu", "foo", "2", "fade"]),
    max_size=3,
)


def test_rankings_of_random_settings_are_made_or_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fuzzed_net.py").write_text(NETWORK)
    (tmp_path / "images").mkdir()
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(tmp_path / "images" / "a.png")

    @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
    @given(st.sampled_from(["net", "net", "net", "wrong", "none"]), SETTINGS)
    def check(name, options):
        given_options = [f"--{key}={value}" for key, value in ({"n-steps": "2"} | options).items()]
        place = ["--model", f"fuzzed_net.py:{name}", "--images", "images", "--overwrite"]
        assert_ends_well("macattr", ["rank", *place, *given_options])

    check()


def test_degraded_images_of_random_settings_are_made_or_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(tmp_path / "a.png")

    @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
    @given(
        st.dictionaries(
            st.sampled_from(
                ["task", "seed", "sheet-images", "sheet-crop", "parameters.noise.sigma_255", "parameters.x.y"]
            ),
            st.sampled_from(["noise", "noise,haze", "foo", "0", "1", "-1", "nan", str(2**70), "25", ""]),
        ),
        st.sampled_from(["a.png", "none.png", "."]),
    )
    def check(options, source):
        assert_ends_well("ram", ["degrade", source, "out", *(f"--{key}={value}" for key, value in options.items())])

    check()
