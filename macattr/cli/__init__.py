"""The command line ``macattr``: rank, report, compare, select, check and list methods."""

__all__ = ["main"]

import sys
from collections.abc import Sequence
from types import MappingProxyType

from macattr.cli.command import Command, Program
from macattr.cli.headings import CHECK, RANK, SELECT

COMMANDS = MappingProxyType(
    {
        "rank": Command(
            "macattr.cli.rank",
            "rank the layers of a network on images",
            "macattr rank --model ram_models:ram_swinir_tiny --images sample --limit 4 --out ranking",
            positional=False,
            function="rank",
            headings=RANK,
        ),
        "report": Command(
            "macattr.cli.report",
            "write rankings as one HTML page",
            "macattr report ranking/importance.nc --out report.html",
            function="report",
        ),
        "compare": Command(
            "macattr.cli.compare",
            "measure how far rankings agree",
            "macattr compare mac/importance.nc drift/importance.nc",
            function="compare",
        ),
        "select": Command(
            "macattr.cli.select",
            "select layers from a ranking and export them",
            "macattr select ranking/importance.nc --fraction 0.1",
            function="select",
            headings=SELECT,
        ),
        "methods": Command(
            "macattr.cli.methods",
            "list the methods by what they need, or explain some",
            "macattr methods mac fisher",
            function="methods",
            bare=("all",),
        ),
        "check": Command(
            "macattr.cli.check",
            "test whether a ranking depends on the trained weights",
            "macattr check --model ram_models:ram_swinir_tiny --images sample --limit 2",
            positional=False,
            function="check",
            headings=CHECK,
        ),
    }
)
"""All commands, in the order of the work."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; see :class:`macattr.cli.command.Program` for how it ends.

    Args:
        arguments: Default those of the process.

    Raises:
        SystemExit: With the exit code, unless it is 0.
    """
    purpose = "Which layers of a network to fine-tune: rank them, see how sure the ranking is, select from it."
    if code := Program("macattr", purpose, COMMANDS).run(arguments):
        sys.exit(code)
