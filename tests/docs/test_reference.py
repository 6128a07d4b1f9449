"""The reference has one place for every module."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
INTERNAL = {"ram_models.degradations.checks", "ram_models.degradations.convolution"}


def documented_modules() -> list[str]:
    """Modules of both packages that the reference explains: all but command lines and internals."""
    files = [*(ROOT / "macattr").rglob("*.py"), *(ROOT / "ram_models").rglob("*.py")]
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files if not file.stem.startswith("__")]
    return sorted(name for name in names if ".cli" not in name and name not in INTERNAL)


def test_every_module_stands_in_the_reference_once() -> None:
    pages = [page.read_text() for page in sorted((ROOT / "docs" / "reference").glob("*.md"))]
    listed = Counter(name for page in pages for name in re.findall(r"automodule:: (\S+)", page))
    assert sorted(listed) == documented_modules()
    assert [name for name, count in listed.items() if count > 1] == []
