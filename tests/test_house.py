"""The shape of the code: few files at the top, short functions, calls that name their arguments."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = [file for package in ("macattr", "ram_models") for file in sorted((ROOT / package).rglob("*.py"))]
AT_THE_TOP, LINES, POSITIONAL = 8, 60, 6
TREES = {str(file.relative_to(ROOT)): ast.parse(file.read_text()) for file in FILES}


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every function and method, with the place it stands at."""
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{file}:{node.lineno} {node.name}", node


def code_lines(function: ast.FunctionDef) -> int:
    """Lines of the body that hold code, without the docstring, comments and empty lines."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return len({line for node in body for part in ast.walk(node) for line in lines_of(part)})


def lines_of(node: ast.AST) -> range:
    """Lines from the first to the last of a node; none for nodes without a place, such as ``Load``."""
    return range(node.lineno, node.end_lineno + 1) if hasattr(node, "lineno") else range(0)


def test_few_files_stand_at_the_top_of_macattr():
    files = [file.name for file in (ROOT / "macattr").glob("*.py")]
    assert len(files) <= AT_THE_TOP, files


def test_no_function_is_long():
    long = [f"{place}: {code_lines(node)} lines" for place, node in functions() if code_lines(node) > LINES]
    assert not long, "\n".join(long)


def test_no_call_has_many_arguments_by_position():
    calls = [
        f"{file}:{node.lineno} {ast.unparse(node.func)}: {len(node.args)} arguments by position"
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and len(node.args) > POSITIONAL
    ]
    assert not calls, "\n".join(calls)


def test_the_formatter_skips_nothing():
    skipped = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in FILES
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if re.search(r"#\s*fmt:\s*(skip|off)", line)
    ]
    assert not skipped, "\n".join(skipped)


def exported(tree: ast.Module) -> set[str]:
    """What a module lists in ``__all__``."""
    listed = [node.value for node in tree.body if isinstance(node, ast.Assign) and "__all__" in ast.unparse(node)]
    return set(ast.literal_eval(listed[0])) if listed else set()


def test_what_another_module_imports_is_listed_in_all():
    files = {file.removesuffix(".py").removesuffix("/__init__").replace("/", "."): file for file in TREES}
    missing = {
        f"{node.module}: {alias.name}"
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in files and exported(TREES[files[node.module]])
        for alias in node.names
        if alias.name not in exported(TREES[files[node.module]]) and f"{node.module}.{alias.name}" not in files
    }
    assert not missing, "\n".join(sorted(missing))
