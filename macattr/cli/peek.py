"""Options of a command as its source file lists them: a mistyped one is refused before anything is imported."""

__all__ = ["did_you_mean", "refuse_mistyped"]

import ast
import difflib
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

ALWAYS = ("config", "help")
"""Options that every command has."""


def refuse_mistyped(module: str, function: str, arguments: Sequence[str]) -> None:
    """Refuse options that a command has not, by the part of their name before the first dot.

    Args:
        module: Module with a class ``Config`` whose fields are the options, or with the function.
        function: Function whose parameters are the options otherwise, with those that a decorator adds by keyword.
        arguments: Words after the command's name.

    Raises:
        ValueError: If there is one, with its near match.
    """
    known = _written(module, function)
    if known is None:
        return
    for word in arguments:
        name = word.partition("=")[0][2:].replace("-", "_").rstrip("+")
        if word.startswith("--") and name and "." not in name and name not in known and not name.startswith("print_"):
            raise ValueError(f"no option {word.partition('=')[0].replace('_', '-')!r}{did_you_mean(name, known, '--')}")


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """The end of a complaint about an unknown name: its near match, or a full stop.

    Args:
        name: What was given.
        known: What there is.
        prefix: Beginning of a name as it is typed; ``--`` also turns underscores into dashes.

    Example:
        >>> "no option '--modle'" + did_you_mean("modle", ["model", "images"], "--")
        "no option '--modle'; did you mean '--model'?"
    """
    close = difflib.get_close_matches(name, list(known), n=1)
    if not close:
        return "."
    return f"; did you mean {prefix + (close[0].replace('_', '-') if prefix else close[0])!r}?"


def _written(module: str, function: str) -> set[str] | None:
    """Names of the options in a module's file; None if they do not all stand there."""
    for node in _statements(module):
        if isinstance(node, ast.ImportFrom) and node.module:
            for name in node.names:
                if name.asname == "Config":
                    return _fields(node.module, name.name)
        if isinstance(node, ast.ClassDef) and node.name == "Config":
            return _fields(module, "Config")
        if isinstance(node, ast.FunctionDef) and node.name == function:
            calls = (decorator for decorator in node.decorator_list if isinstance(decorator, ast.Call))
            added = [_added(module, keyword) for call in calls for keyword in call.keywords]
            own = (argument.arg for argument in (*node.args.args, *node.args.kwonlyargs))
            return None if None in added else {*ALWAYS, *own}.union(*filter(None, added))
    return None


def _added(module: str, keyword: ast.keyword) -> frozenset[str] | None:
    """Names of the options that a keyword of a decorator adds, one or those of a mapping; None if not known."""
    if keyword.arg is not None:
        return frozenset([keyword.arg])
    return _keys(module, keyword.value.id) if isinstance(keyword.value, ast.Name) else None


def _keys(module: str, name: str) -> frozenset[str] | None:
    """Keys of a mapping that a module, or the one that it is imported from, writes out; None if none does."""
    for node in _statements(module):
        if isinstance(node, ast.ImportFrom) and node.module and name in (alias.name for alias in node.names):
            return _keys(node.module, name)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            inside = (part for part in ast.walk(node) if isinstance(part, ast.Dict))
            if written := next(inside, None):
                return frozenset(str(key.value) for key in written.keys if isinstance(key, ast.Constant))
    return None


def _fields(module: str, name: str) -> set[str] | None:
    """Names of the fields of a dataclass without a base; None if it is something else."""
    for node in _statements(module):
        if isinstance(node, ast.ClassDef) and node.name == name and not node.bases:
            fields = (field.target for field in node.body if isinstance(field, ast.AnnAssign))
            return {*ALWAYS, *(target.id for target in fields if isinstance(target, ast.Name))}
    return None


def _statements(module: str) -> list[ast.stmt]:
    """Statements of a module's file; none without a file, as of a module that a program made itself."""
    made = module in sys.modules and sys.modules[module].__spec__ is None
    spec = None if made else find_spec(module)
    if spec is None or spec.origin is None:
        return []
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
