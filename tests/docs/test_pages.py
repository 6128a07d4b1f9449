"""Whatever a page shows as code runs as it stands, but with a smaller bundled network and few, tiny photographs.

Shell lines that start with ``macattr`` or ``ram`` are executed in this process; those that say ``# needs ...``, and
those of ``torchrun``, are read by the real command line only.
"""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image
from sybil.document import Document
from sybil.example import Example
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

import macattr.cli
import ram_models.cli
import ram_models.data.crops
import ram_models.networks.checkpoints
from macattr.methods.catalogue import METHODS
from ram_models.experiments.layerbench.methods import METHODS as BENCHED
from ram_models.networks.rgb import RGBSwinIR

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"python", "shell", "text", "bibtex", "{eval-rst}", "{toctree}"}
NETWORK = """
from torch import nn


def my_network():
    layers = [nn.Conv2d(3, 8, 3, padding=1), *[nn.Conv2d(8, 8, 3, padding=1) for _ in range(10)]]
    return nn.Sequential(*layers, nn.GELU(), nn.Conv2d(8, 3, 3, padding=1))
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A working folder with what the pages speak of: photographs, pairs, a package with a network, its weights."""
    generator = np.random.default_rng(0)
    for name in ("photo.jpg", *(f"{folder}/{n}.png" for folder in ("PHOTOS", "photos") for n in range(3))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pixels = generator.integers(0, 256, (3, 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((24, 24), Image.Resampling.BICUBIC).save(tmp_path / name)
    for side in ("degraded", "clean"):
        (tmp_path / "DATA" / "noise" / side).mkdir(parents=True)
        (tmp_path / "DATA" / "noise" / side / "0.png").write_bytes((tmp_path / "PHOTOS" / "0.png").read_bytes())
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "models.py").write_text(NETWORK)
    exec(NETWORK, names := {})
    torch.save({"params_ema": names["my_network"]().state_dict()}, tmp_path / "net_g_latest.pth")
    (tmp_path / "ram_models").mkdir()
    (tmp_path / "ram_models" / "configs").symlink_to(ROOT / "ram_models" / "configs")
    few = ram_models.data.crops.sample(16)[:2]
    small = RGBSwinIR(img_size=16, embed_dim=12, depths=(2, 2), num_heads=(2, 2)).eval()
    monkeypatch.setattr(ram_models.data.crops, "sample", lambda: few)
    monkeypatch.setattr(ram_models.networks.checkpoints, "ram_swinir_tiny", lambda: small)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    methods, benched = dict(METHODS), dict(BENCHED)
    mpl.use("Agg")
    yield
    for registered, before in ((METHODS, methods), (BENCHED, benched)):
        registered.clear()
        registered.update(before)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mypackage", "models")]:
        del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.usefixtures("desk", "as_users_run_it")
@pytest.mark.filterwarnings("ignore:.*as many at random train on average:UserWarning")
@pytest.mark.filterwarnings("ignore:.*keep statistics that move in training mode:UserWarning")
def test_code_on_pages_runs(page: Path) -> None:
    fences = re.findall(r"^```(\S*)[^\n]*\n.*?^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    assert set(fences) <= LANGUAGES, "every block says what it is, so that none escapes"
    for example in Document.parse(str(page), PythonCodeBlockParser(), CodeBlockParser("shell", run_shell)).examples():
        example.evaluate()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_on_pages_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE)) <= targets


def run_shell(example: Example) -> None:
    """Check every command of a block."""
    for line in str(example.parsed).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] == "torchrun":
            module = words.index("-m") + 1
            parse({"macattr": "macattr", "ram_models.cli": "ram"}[words[module]], words[module + 1 :])
        elif words and words[0] in ("macattr", "ram"):
            (parse if "# needs " in line else execute)(words[0], words[1:])
        else:
            assert not words or words[0] in ("make", "."), f"who checks {line!r}?"


def parse(program: str, arguments: list[str]) -> None:
    """The program's own reading of its arguments, without the work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(macattr.cli.command, "execute", lambda function, options: 0)
        execute(program, arguments)


def execute(program: str, arguments: list[str]) -> None:
    """Run a program in this process."""
    main = {"macattr": macattr.cli.main, "ram": ram_models.cli.main}[program]
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert not code, f"{program} {shlex.join(arguments)}: exit code {code}"


def test_a_wrong_command_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    for program, arguments in (("macattr", ["rank", "--modle", "a:b"]), ("ram", ["restore", "a", "b", "--twin"])):
        with pytest.raises(AssertionError, match="exit code 2"):
            parse(program, arguments)
    assert "modle" in capsys.readouterr().err
