"""Settings of the site that no warning guards."""

import runpy
from pathlib import Path

from pygments.token import STANDARD_TYPES, Comment

SETTINGS = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "conf.py"))


def test_comments_survive_the_copy_button() -> None:
    dropped = {selector.strip().removeprefix(".") for selector in SETTINGS["copybutton_exclude"].split(",")}
    assert not dropped & {name for token, name in STANDARD_TYPES.items() if token in Comment}


def test_the_readme_is_a_page_of_the_site() -> None:
    assert "README.md" in SETTINGS["include_patterns"]
