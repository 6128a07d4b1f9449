"""Run notebooks and write their outputs back, without what would differ at every run (``make notebooks``)."""

import os
import re
import resource
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def execute(file: Path) -> None:
    """Run a notebook in its own folder, with a fresh kernel; store its outputs, and in its first cell what it took."""
    notebook = nbformat.read(file, as_version=4)
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=None, record_timing=False, coalesce_streams=True,
        resources={"metadata": {"path": str(file.parent)}},
    )  # fmt: skip
    before = _processor_minutes()
    # tqdm asks for widgets on import; no progress is shown here.
    client.execute(env={**os.environ, "PYTHONWARNINGS": "ignore:IProgress not found"})
    first = notebook.cells[0]
    first.source = re.sub(r"[\d.]+(?= minutes of one core)", f"{_processor_minutes() - before:.1f}", first.source)
    notebook.metadata.pop("language_info", None)  # names the version of Python
    nbformat.write(notebook, file)


def _processor_minutes() -> float:
    """Processor time of all kernels that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) / 60


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(argument, flush=True)
        execute(Path(argument))
