"""Docstrings explain every argument and field, and announce every error and warning."""

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from docstring_parser import DocstringStyle, parse

ROOT = Path(__file__).parents[2]
SECTIONS = {"Args", "Returns", "Yields", "Raises", "Warns", "Source", "Example"}
FEW = 2
"""Arguments that a first line can explain, except in names of ``import macattr`` and ``import ram_models``."""


class Documented(NamedTuple):
    """A public function, method or class."""

    where: str
    node: ast.FunctionDef | ast.ClassDef
    prominent: bool


def names_in(tree: ast.Module) -> list[str]:
    """``__all__`` of a module."""
    values = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"]
    return list(ast.literal_eval(values[0])) if values else []


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


def text_of(entry: Documented) -> str:
    """The docstring."""
    return ast.get_docstring(entry.node) or ""


def explained(entry: Documented) -> set[str]:
    """Names in the section Args."""
    return {p.arg_name.lstrip("*") for p in parse(text_of(entry), style=DocstringStyle.GOOGLE).params}


def unusual_parts(entry: Documented) -> str:
    """Complaint about the first line or a section's name; empty if there is none."""
    first = text_of(entry).partition("\n\n")[0]
    if not first.rstrip().endswith((".", ":", "`")):
        return "the first line is not a sentence"
    unknown = set(re.findall(r"^([A-Z][a-z]+):$", text_of(entry), re.MULTILINE)) - SECTIONS
    return f"unusual sections {sorted(unknown)}" if unknown else ""


def unexplained_arguments(entry: Documented) -> str:
    """Complaint about arguments that are explained but absent, or present but not explained."""
    arguments = entry.node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
    names = {a.arg for a in every} - {"self", "cls"}
    if absent := explained(entry) - names:
        return f"explains {sorted(absent)}, which it does not take"
    mentioned = {name for name in names if re.search(rf"``?{name}\b", text_of(entry))}
    elsewhere = re.search(r"(as in|as the|those of|[Ss]ee|like|As) :(meth|func|class|data):", text_of(entry))
    missing = names - explained(entry) - mentioned
    needed = not elsewhere and (entry.prominent or len(names) > FEW)
    return f"does not explain {sorted(missing)}" if needed and missing else ""


def unexplained_fields(entry: Documented) -> str:
    """Complaint about public fields of a dataclass that its docstring leaves out."""
    fields = {n.target.id for n in entry.node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    missing = {name for name in fields if not name.startswith("_")} - explained(entry)
    return f"does not explain {sorted(missing)}" if missing and not re.search(r":func:", text_of(entry)) else ""


WARNING = ("warnings.warn", "warn_user")
"""Functions that warn."""


def unannounced_errors(entry: Documented) -> str:
    """Complaint about errors or warnings that the docstring leaves out."""
    body = list(ast.walk(entry.node))
    text = text_of(entry)
    sections = {m.args[0] for m in parse(text, style=DocstringStyle.GOOGLE).meta}
    raises = any(isinstance(node, ast.Raise) and node.exc is not None for node in body)
    warns = any(isinstance(node, ast.Call) and ast.unparse(node.func) in WARNING for node in body)
    if raises and "raises" not in sections and not re.match(r"Raise (if|unless|for)\b", text):
        return "raises an error that it does not announce"
    if warns and "warns" not in sections and not re.search(r"\bwarn", text, re.IGNORECASE):
        return "warns without announcing it"
    return ""


def complaints(entries: Iterable[Documented], rule: Callable[[Documented], str]) -> str:
    """Every breach of a rule, one line each."""
    judged = [(entry.where, rule(entry)) for entry in entries]
    return "\n".join(f"{where}: {complaint}" for where, complaint in judged if complaint)


def test_every_docstring_has_a_first_line_and_the_usual_sections() -> None:
    breaches = complaints(EVERYTHING, unusual_parts)
    assert not breaches, breaches


def test_every_docstring_explains_its_arguments() -> None:
    breaches = complaints(FUNCTIONS, unexplained_arguments)
    assert not breaches, breaches


def test_every_dataclass_explains_its_fields() -> None:
    breaches = complaints(DATACLASSES, unexplained_fields)
    assert not breaches, breaches


def test_every_docstring_announces_errors_and_warnings() -> None:
    breaches = complaints(FUNCTIONS, unannounced_errors)
    assert not breaches, breaches


@pytest.mark.parametrize(
    ("rule", "definition", "complaint"),
    [
        (unusual_parts, 'def f(): "no sentence"', "the first line is not a sentence"),
        (unusual_parts, 'def f():\n    """A sentence.\n\n    Notes:\n        Text.\n    """', "unusual sections"),
        (unexplained_arguments, 'def f(a, b, c): "The ``a`` and ``b``."', r"does not explain \['c'\]"),
        (unexplained_arguments, 'def f():\n    """A.\n\n    Args:\n        a: B.\n    """', r"explains \['a'\], which"),
        (unexplained_fields, 'class C:\n    """A."""\n    a: int', r"does not explain \['a'\]"),
        (unannounced_errors, 'def f():\n    """A."""\n    raise ValueError("no")', "raises an error"),
        (unannounced_errors, 'def f():\n    """A."""\n    warnings.warn("no")', "warns without"),
        (unannounced_errors, 'def f():\n    """A."""\n    warn_user("no")', "warns without"),
    ],
)
def test_a_breach_of_a_rule_is_listed(rule: Callable[[Documented], str], definition: str, complaint: str) -> None:
    entry = Documented("module.name", ast.parse(definition).body[0], prominent=False)
    assert re.match(f"module.name: {complaint}", complaints([entry], rule))
