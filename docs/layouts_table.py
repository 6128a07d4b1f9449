"""The table of layouts in docs/datasets.md, from the library: ``python docs/layouts_table.py`` rewrites it."""

__all__ = ["layouts_table", "write_table"]

from pathlib import Path

from ram_models.data.layouts import LAYOUTS, Form


def layouts_table() -> str:
    """The known layouts as a Markdown table."""
    rows = ["| set | task | recognised by | images in the whole set | source |", "|---|---|---|---|---|"]
    for layout in LAYOUTS.values():
        task = {None: "clean images", "folder": "the folder's name"}.get(layout.task, layout.task)
        forms = "<br>".join(map(_in_words, layout.forms)) or "any image at any depth, if this layout is asked for"
        counts = "<br>".join(f"{split} {count}" for split, count in layout.complete.items()) or "-"
        rows.append(f"| {layout.name} | {task} | {forms} | {counts} | {layout.source} |")
    return "\n".join(rows) + "\n"


def _in_words(form: Form) -> str:
    """A form in words."""
    folder = "in any folder" if form.folder == "*" else f"in `{form.folder}`"
    border = f", {form.border} pixels cut off each side of a larger clean image" if form.border else ""
    degraded = f"`{form.degraded}` with " if form.degraded else ""
    return f"{degraded}`{form.clean}` {folder}{border}"


def write_table(page: Path | str) -> None:
    """Replace the table between the two marks of a Markdown page.

    Raises:
        ValueError: If the page has no such marks.
    """
    text = Path(page).read_text()
    before, start, rest = text.partition("<!-- layouts -->\n")
    _, end, after = rest.partition("<!-- end of layouts -->")
    if not end:
        raise ValueError(f"{str(page)!r} has no lines '<!-- layouts -->' and '<!-- end of layouts -->' around a table.")
    Path(page).write_text(before + start + layouts_table() + end + after)


if __name__ == "__main__":
    write_table(Path(__file__).with_name("datasets.md"))
