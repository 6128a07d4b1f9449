"""Texts with classes: what the source of four packages says about its own functions, read without importing it."""

__all__ = ["CLASSES", "PACKAGES", "Example", "by_package", "by_section"]

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ram_models.networks.wheels import files_of

PACKAGES = ("numpy", "pandas", "scipy", "torch")
"""Packages whose docstrings are read."""

SECTIONS = ("Summary", "Parameters", "Returns", "Notes")
"""Parts of a docstring in NumPy's style."""

CLASSES = 4
"""Classes of either task."""

TELLS = re.compile(
    r"\b(?:numpy|np|pandas|pd|scipy|torch|pytorch|tensors?|ndarrays?|dataframes?|series|index)\b", re.IGNORECASE
)
"""Words that give a package away; its texts are shown without them."""

HEADING = re.compile(r"^(\w[\w ]*)\n-{3,}$", re.MULTILINE)

MARKUP = re.compile(r"``?|:\w+(?::\w+)*:|\*\*|~")

LENGTHS = range(4, 41)
"""Words that a text may have."""


@dataclass(frozen=True)
class Example:
    """A text with its class.

    Args:
        text: One sentence.
        label: Number of its class.
        owner: Name of the function or class that it is about.
    """

    text: str
    label: int
    owner: str


@cache
def by_package() -> tuple[Example, ...]:
    """First sentences of docstrings; the class is the package."""
    return _distinct(
        Example(TELLS.sub("", sentence), label, owner)
        for label, package in enumerate(PACKAGES)
        for owner, text in _docstrings(package)
        for sentence in _sentences(_sections(text)["Summary"])[:1]
    )


@cache
def by_section() -> tuple[Example, ...]:
    """Sentences of docstrings in NumPy's style; the class is the part that they stand in."""
    return _distinct(
        Example(sentence, label, owner)
        for package in PACKAGES[:3]
        for owner, text in _docstrings(package)
        for label, section in enumerate(SECTIONS)
        for sentence in _sentences(_sections(text).get(section, ""))[:3]
    )


def _distinct(examples: Iterator[Example]) -> tuple[Example, ...]:
    """Every text of fitting length once, unless it stands in two classes."""
    labels: dict[str, set[int]] = {}
    found: dict[str, Example] = {}
    for example in examples:
        if len(example.text.split()) in LENGTHS:
            labels.setdefault(example.text, set()).add(example.label)
            found.setdefault(example.text, example)
    return tuple(example for text, example in found.items() if len(labels[text]) == 1)


def _sentences(paragraphs: str) -> list[str]:
    """Sentences of plain text; of a list of parameters, its descriptions."""
    indented = re.findall(r"(?:^ +\S.*\n?)+", paragraphs, re.MULTILINE)  # below the name and type of a parameter
    text = "\n\n".join(indented) if indented else paragraphs
    flat = (" ".join(MARKUP.sub("", paragraph).split()) for paragraph in re.split(r"\n\s*\n", text))
    return [sentence for paragraph in flat for sentence in re.findall(r"[A-Z][^.!?]*[.!?](?= |$)", paragraph)]


def _sections(docstring: str) -> dict[str, str]:
    """Parts of a docstring by their headings."""
    parts = HEADING.split(docstring)
    return {"Summary": parts[0].split("\n\n")[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


@cache
def _docstrings(package: str) -> tuple[tuple[str, str], ...]:
    """Names and docstrings of the public functions, methods and classes in a package's source."""
    folder = files_of(package, package)
    files = sorted(file for file in folder.rglob("*.py") if _is_public(file.relative_to(folder)))
    return tuple(pair for file in files for pair in _read(file))


def _is_public(file: Path) -> bool:
    """Whether a file holds what users see."""
    return not any(part.startswith("test") or part in ("testing", "_inductor", "_vendor") for part in file.parts)


def _read(file: Path) -> Iterator[tuple[str, str]]:
    """Names and docstrings in a file."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            text = ast.get_docstring(node)
            if text:
                yield node.name, text
