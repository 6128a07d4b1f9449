"""The table of layouts in docs/datasets.md is that of the library."""

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
TOOL = runpy.run_path(str(DOCS / "layouts_table.py"))


def test_the_page_of_data_sets_is_up_to_date(tmp_path):
    page = DOCS / "datasets.md"
    (copy := tmp_path / "datasets.md").write_text(page.read_text())
    TOOL["write_table"](copy)
    assert copy.read_text() == page.read_text(), "rewrite it: python docs/layouts_table.py"
    assert TOOL["layouts_table"]() in page.read_text()


def test_a_page_without_marks_is_refused_and_kept(tmp_path):
    (page := tmp_path / "page.md").write_text("<!-- layouts -->\n")
    with pytest.raises(ValueError, match="has no lines '<!-- layouts -->' and '<!-- end of layouts -->'"):
        TOOL["write_table"](page)
    assert page.read_text() == "<!-- layouts -->\n"
