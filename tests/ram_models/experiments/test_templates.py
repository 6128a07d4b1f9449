"""Pages from templates: nothing that is missing goes unseen, and no hole is left where nothing is shown."""

from types import SimpleNamespace

import jinja2
import pytest

from ram_models.experiments.templates import render


def test_empty_lines_shrink_to_one_but_in_code(tmp_path):
    template = tmp_path / "page.md.j2"
    template.write_text("# {{ page.title }}\n\n{% if page.more %}more{% endif %}\n\n\nend\n\n```\na\n\n\nb\n```\n\n\n")
    text = render(template, SimpleNamespace(title="<A>", more=False))
    assert text == "# <A>\n\nend\n\n```\na\n\n\nb\n```\n"


def test_what_is_missing_is_an_error(tmp_path):
    template = tmp_path / "page.md.j2"
    template.write_text("{{ page.title }}")
    with pytest.raises(jinja2.UndefinedError, match="title"):
        render(template, SimpleNamespace())
