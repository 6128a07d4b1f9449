"""Run notebooks and write their outputs back, without what would differ at every run (``make notebooks``)."""

import hashlib
import os
import re
import resource
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def execute(file: Path) -> None:
    """Run a notebook in its own folder with a fresh kernel, and store its outputs.

    The first cell gets the processor time, the metadata the setting and the hash of the code that ran.
    """
    notebook = nbformat.read(file, as_version=4)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=None,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(file.parent)}},
    )
    before = _processor_minutes()
    # tqdm asks for widgets on import; no progress is shown here.
    client.execute(env={**os.environ, "PYTHONWARNINGS": "ignore:IProgress not found"})
    first = notebook.cells[0]
    first.source = re.sub(r"[\d.]+(?= minutes of one core)", f"{_processor_minutes() - before:.1f}", first.source)
    notebook.metadata.pop("language_info", None)  # names the version of Python
    notebook.metadata["outputs"] = {
        "setting": os.environ.get("MACATTR_NOTEBOOKS", "small"),
        "sources": hash_sources(notebook),
    }
    nbformat.write(notebook, file)


def hash_sources(notebook: nbformat.NotebookNode) -> str:
    """SHA-256 of the code cells, in hexadecimal; text may be edited without another run."""
    code = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()


def _processor_minutes() -> float:
    """Processor time of all kernels that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) / 60


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(argument, flush=True)
        execute(Path(argument))
