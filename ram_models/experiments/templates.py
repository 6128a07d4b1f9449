"""Pages in Markdown, from templates that lie beside the code that fills them."""

__all__ = ["render"]

import re
from pathlib import Path

import jinja2


def render(template: Path, page: object) -> str:
    """The text of a page.

    Args:
        template: Its template, which finds what it shows in ``page``.
        page: What is shown.

    Returns:
        Without more than one empty line in a row, but for code, which stays as it is.

    Raises:
        jinja2.UndefinedError: If the template asks for what there is not.
    """
    folder = jinja2.FileSystemLoader(template.parent)
    environment = jinja2.Environment(loader=folder, undefined=jinja2.StrictUndefined, autoescape=False)
    text = environment.get_template(template.name).render(page=page)
    parts = re.split(r"(```.*?```)", text, flags=re.DOTALL)
    shown = (part if part.startswith("```") else re.sub(r"\n{3,}", "\n\n", part) for part in parts)
    return "".join(shown).rstrip() + "\n"
