"""The command line: ``macattr rank | report | compare | select | methods | check``."""

__all__ = ["main"]

import importlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping

from jsonargparse import auto_cli

COMMANDS = ("rank", "report", "compare", "select", "methods", "check")
"""Every command is the function of its name in the module of its name."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point; bad input ends with one line and exit code 2."""
    given = sys.argv[1:] if arguments is None else arguments
    commands = {name: getattr(importlib.import_module(f"macattr.cli.{name}"), name) for name in COMMANDS}
    spelled = _spell(given, commands[given[0]]) if given and given[0] in commands else given
    try:
        auto_cli(commands, as_positional=False, args=spelled, description=__doc__)
    except (ValueError, RuntimeError, ImportError, OSError) as error:
        print(f"macattr: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("macattr: interrupted", file=sys.stderr)
        sys.exit(130)


def _spell(arguments: list[str], command: Callable[..., object]) -> list[str]:
    """Arguments without an option's name as the command's first option; dashes as underscores; flags without value."""
    parameters = inspect.signature(command).parameters
    name, *rest = arguments
    count = next((i for i, argument in enumerate(rest) if argument.startswith("-")), len(rest))
    first = next(iter(parameters.values()), None)
    leading: list[str] = []
    if count and first is not None:
        several = first.annotation == list[str]
        value, left = (json.dumps(rest[:count]), []) if several else (rest[0], rest[1:count])
        leading = [f"--{first.name}={value}", *left]
    return [name, *leading, *(_option(argument, parameters) for argument in rest[count:])]


def _option(argument: str, parameters: Mapping[str, inspect.Parameter]) -> str:
    """One option as jsonargparse spells it."""
    if not argument.startswith("--"):
        return argument
    option, equals, value = argument[2:].partition("=")
    option = option.replace("-", "_")
    flag = parameters.get(option)
    if flag is not None and flag.annotation is bool and not equals:
        return f"--{option}=true"
    return f"--{option}{equals}{value}"
