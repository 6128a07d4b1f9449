"""The site builds without a warning and explains every public name."""

import ast
import subprocess
import sys
import zlib
from pathlib import Path

ROOT = Path(__file__).parents[2]
INTERNAL = {"ram_models.degradations.checks", "ram_models.degradations.convolution"}


def public_names() -> set[str]:
    """Every name of ``__all__`` by the module that defines it, without the command lines."""
    found = set()
    for file in [*(ROOT / "macattr").rglob("*.py"), *(ROOT / "ram_models").rglob("*.py")]:
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        if file.stem.startswith("__") or ".cli" in module or module in INTERNAL:
            continue
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                found |= {f"{module}.{name}" for name in ast.literal_eval(node.value)}
    return found


def test_the_site_builds_without_a_warning_and_explains_every_public_name(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(tmp_path / "doctrees")]
    built = subprocess.run(
        [*command, "-c", str(ROOT / "docs"), str(ROOT), str(tmp_path / "html")], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    inventory = (tmp_path / "html" / "objects.inv").read_bytes().split(b"\n", 4)[4]
    listed = {line.split(" ")[0] for line in zlib.decompress(inventory).decode().splitlines()}
    missing = sorted(name for name in public_names() if name not in listed)
    assert not missing, "put their modules on a page in docs/reference, or give data a docstring"
