"""The page ``docs/layerbench.md``: what came out of the bench."""

__all__ = ["write_page"]

from pathlib import Path


def write_page(results: Path, docs: Path) -> list[Path]:
    """Write the page and its figure from the tables; the files written.

    Args:
        results: Folder of the tables.
        docs: Where the page goes; the figure into images/.
    """
    return []
