"""The site builds without a warning and explains every public name."""

import ast
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INTERNAL = {"ram_models.degradations.checks", "ram_models.degradations.convolution"}


def public_names() -> dict[str, set[str]]:
    """``__all__`` of every module that has one, without the command lines."""
    names = {}
    for file in [*(ROOT / "macattr").rglob("*.py"), *(ROOT / "ram_models").rglob("*.py")]:
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        if file.stem.startswith("__") or ".cli" in module or module in INTERNAL:
            continue
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names[module] = set(ast.literal_eval(node.value))
    return names


def test_every_module_with_public_names_stands_on_one_page_of_the_reference() -> None:
    pages = "\n".join(page.read_text() for page in sorted((ROOT / "docs" / "reference").glob("*.md")))
    shown = re.findall(r"^\.\. automodule:: (\S+)$", pages, re.MULTILINE)
    assert len(shown) == len(set(shown)), "no module stands on two pages"
    missing = sorted(module for module, names in public_names().items() if names and module not in shown)
    assert not missing, "put these modules on a page in docs/reference"


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_explains_every_public_name(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(tmp_path / "doctrees")]
    built = subprocess.run(
        [*command, "-c", str(ROOT / "docs"), str(ROOT), str(tmp_path / "html")], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    inventory = (tmp_path / "html" / "objects.inv").read_bytes().split(b"\n", 4)[4]
    listed = {line.split(" ")[0] for line in zlib.decompress(inventory).decode().splitlines()}
    every = {f"{module}.{name}" for module, names in public_names().items() for name in names}
    assert not sorted(every - listed), "put their modules on a page in docs/reference, or give data a docstring"
