"""Run notebooks and write their outputs back, without what would differ at every run (``make notebooks``)."""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def execute(file: Path) -> None:
    """Run a notebook in its own folder, with a fresh kernel, and store its outputs in it."""
    notebook = nbformat.read(file, as_version=4)
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=None, record_timing=False, coalesce_streams=True,
        resources={"metadata": {"path": str(file.parent)}},
    )  # fmt: skip
    client.execute()
    notebook.metadata.pop("language_info", None)  # names the version of Python
    nbformat.write(notebook, file)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(argument, flush=True)
        execute(Path(argument))
