"""Notebooks are stored with the outputs of their full setting and of the code that they show."""

import importlib.util
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

_spec = importlib.util.spec_from_file_location("execute", ROOT / "notebooks" / "execute.py")
execute = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(execute)


@pytest.fixture(params=NOTEBOOKS, ids=lambda file: file.stem)
def notebook(request) -> nbformat.NotebookNode:
    return nbformat.read(request.param, as_version=4)


def test_stored_outputs_are_those_of_the_full_setting(notebook):
    assert notebook.metadata["outputs"]["setting"] == "full", "run `make notebooks`"


def test_stored_outputs_are_those_of_the_code_that_is_shown(notebook):
    assert notebook.metadata["outputs"]["sources"] == execute.hash_sources(notebook), "run `make notebooks`"


def test_notebooks_need_nothing_outside_the_repository(notebook):
    assert not [cell.source for cell in notebook.cells if "../../" in cell.source]


@pytest.mark.parametrize(("setting", "stored"), [("full", "full"), ("small", "small"), (None, "small")])
def test_a_run_stores_its_setting_and_the_hash_of_its_code(tmp_path, monkeypatch, setting, stored):
    monkeypatch.delenv("MACATTR_NOTEBOOKS", raising=False)
    if setting:
        monkeypatch.setenv("MACATTR_NOTEBOOKS", setting)
    monkeypatch.setattr(execute.NotebookClient, "execute", lambda client, env: None)
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])
    nbformat.write(made, tmp_path / "made.ipynb")
    execute.execute(tmp_path / "made.ipynb")
    kept = nbformat.read(tmp_path / "made.ipynb", as_version=4)
    assert kept.metadata["outputs"] == {"setting": stored, "sources": execute.hash_sources(kept)}
    kept.cells[0].source = "1 + 2"
    assert kept.metadata["outputs"]["sources"] != execute.hash_sources(kept)
