"""Docstrings say what their readers need: every argument, every error, every warning; what has units says so."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from docstring_parser import DocstringStyle, parse

ROOT = Path(__file__).parents[2]
SECTIONS = {"Args", "Returns", "Yields", "Raises", "Warns", "Source", "Example"}
FEW = 2
"""Arguments that a first line can explain in a module that is no front door."""


class Documented(NamedTuple):
    """A public function, method or class."""

    where: str
    node: ast.FunctionDef | ast.ClassDef
    prominent: bool


def names_in(tree: ast.Module) -> list[str]:
    """``__all__`` of a module."""
    found = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"]
    return list(ast.literal_eval(found[0])) if found else []


def documented() -> Iterator[Documented]:
    """All public functions, classes and methods."""
    for package in ("macattr", "ram_models"):
        front = set(names_in(ast.parse((ROOT / package / "__init__.py").read_text())))
        for file in sorted((ROOT / package).rglob("*.py")):
            if "cli" in file.with_suffix("").parts:  # help texts of commands
                continue
            tree = ast.parse(file.read_text())
            module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            for node in tree.body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in names_in(tree):
                    yield Documented(f"{module}.{node.name}", node, node.name in front)
                    for method in node.body if isinstance(node, ast.ClassDef) else ():
                        if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                            yield Documented(f"{module}.{node.name}.{method.name}", method, node.name in front)


EVERYTHING = list(documented())
FUNCTIONS = [entry for entry in EVERYTHING if isinstance(entry.node, ast.FunctionDef)]
DATACLASSES = [
    entry
    for entry in EVERYTHING
    if isinstance(entry.node, ast.ClassDef) and any("dataclass" in ast.unparse(d) for d in entry.node.decorator_list)
]
named = {"ids": lambda entry: entry.where}


def text_of(entry: Documented) -> str:
    """The docstring."""
    return ast.get_docstring(entry.node) or ""


def explained(entry: Documented) -> set[str]:
    """Names in the section Args."""
    return {p.arg_name.lstrip("*") for p in parse(text_of(entry), style=DocstringStyle.GOOGLE).params}


@pytest.mark.parametrize("entry", EVERYTHING, **named)
def test_has_a_first_line_and_no_section_of_another_name(entry: Documented) -> None:
    first = text_of(entry).partition("\n\n")[0]
    assert first.rstrip().endswith((".", ":", "`")), "the first line is a sentence that says what comes back"
    assert set(re.findall(r"^([A-Z][a-z]+):$", text_of(entry), re.MULTILINE)) <= SECTIONS


@pytest.mark.parametrize("entry", FUNCTIONS, **named)
def test_explains_its_arguments(entry: Documented) -> None:
    arguments = entry.node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
    names = {a.arg for a in every} - {"self", "cls"}
    assert explained(entry) <= names, "no argument is explained that is not there"
    mentioned = {name for name in names if re.search(rf"``?{name}\b", text_of(entry))}
    elsewhere = re.search(r"(as in|as the|those of|[Ss]ee|like|As) :(meth|func|class|data):", text_of(entry))
    if not elsewhere and (entry.prominent or len(names) > FEW):
        assert names == explained(entry) | mentioned


@pytest.mark.parametrize("entry", DATACLASSES, **named)
def test_explains_the_fields_of_a_dataclass(entry: Documented) -> None:
    fields = {n.target.id for n in entry.node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    if not re.search(r":func:", text_of(entry)):
        assert {name for name in fields if not name.startswith("_")} <= explained(entry)


@pytest.mark.parametrize("entry", FUNCTIONS, **named)
def test_tells_of_errors_and_warnings(entry: Documented) -> None:
    body = list(ast.walk(entry.node))
    sections = {m.args[0] for m in parse(text_of(entry), style=DocstringStyle.GOOGLE).meta}
    text = text_of(entry)
    if any(isinstance(node, ast.Raise) and node.exc is not None for node in body):
        assert "raises" in sections or re.match(r"Raise (if|unless|for)\b", text)
    if any(isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn" for node in body):
        assert "warns" in sections or re.search(r"\bwarn", text, re.IGNORECASE)
