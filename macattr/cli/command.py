"""Command lines of this project: how a command is found and run, and how it ends."""

__all__ = ["Command", "Program"]

import difflib
import importlib
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TextIO

from macattr.cli.blame import users_error
from macattr.cli.headings import Headings
from macattr.cli.peek import refuse_mistyped

REFUSED, UNEXPECTED, INTERRUPTED, TERMINATED = 2, 1, 130, 143
"""Exit codes: of bad input, of an error in this project, after Ctrl-C, after SIGTERM."""

EXTRAS = MappingProxyType(
    {"accelerate": "train", "tensorboard": "train", "huggingface_hub": "hub", "peft": "peft", "transformers": "hf"}
)
"""Extra of the package that installs a module which the core does without."""

EXPECTED = (ValueError, RuntimeError, ImportError, OSError)
"""Types of errors whose message explains what to change."""


@dataclass(frozen=True)
class Command:
    """A command of a program.

    Args:
        module: Module that is imported when the command is used. It has a dataclass ``Config`` whose fields are the
            options; without one, the parameters of ``function`` are.
        summary: What it does, in a line.
        example: A call that works as it stands, but for the paths.
        positional: Whether options without default are given by place.
        function: Name of the function in the module, called with a ``Config`` or with the options. It may return an
            exit code.
        bare: Words that the command gets if it is called without any.
        headings: Headings of its help, with the names of the options below each.
    """

    module: str
    summary: str
    example: str
    positional: bool = True
    function: str = "main"
    bare: tuple[str, ...] = ()
    headings: Headings = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """A command line of several commands.

    Args:
        name: Name of the program.
        purpose: What it is for, in a line.
        commands: Commands by name, which may be of two words.
        configs: Folder of bundled configurations, which ``--config`` takes by name; None without any.
    """

    name: str
    purpose: str
    commands: Mapping[str, Command]
    configs: Path | None = field(default=None)

    def run(self, arguments: Sequence[str] | None = None) -> int:
        """Run a command and return its exit code.

        Bad input and errors in the user's own code give one line on stderr and exit code 2, Ctrl-C gives 130, SIGTERM
        143. With ``--debug`` the traceback is printed as well.

        Args:
            arguments: Default those of the process.
        """
        if arguments is None:
            _prepare_streams(self.name)
        given = list(sys.argv[1:] if arguments is None else arguments)
        debug, given = "--debug" in given, [argument for argument in given if argument != "--debug"]
        name = next((name for name in self.commands if given[: len(name.split())] == name.split()), None)
        if name is None:
            return self._overview(given)
        try:
            with _termination_as_exception():
                return self._call(name, given[len(name.split()) :])
        except BaseException as error:
            if debug:
                traceback.print_exception(error)
            return _ending(f"{self.name} {name}", error)

    def _call(self, name: str, arguments: Sequence[str]) -> int:
        """Exit code of a command."""
        command = self.commands[name]
        arguments = arguments or command.bare
        refuse_mistyped(command.module, command.function, arguments)

        from macattr.cli.spelling import parse

        module = importlib.import_module(command.module)
        settings: Callable[..., object] | None = getattr(module, "Config", None)
        function: Callable[..., object] = getattr(module, command.function)
        options = parse(
            settings or function,
            arguments,
            program=f"{self.name} {name}",
            example=command.example,
            positional=command.positional,
            configs=self.configs,
            headings=command.headings,
        )
        return execute(function, {"config": settings(**options)} if settings else options)

    def _overview(self, given: Sequence[str]) -> int:
        """List the commands; an error if something else than that was asked for."""
        if given and given[0] not in ("-h", "--help"):
            group = any(name.startswith(f"{given[0]} ") for name in self.commands)
            words = " ".join(given[: 2 if group else 1])
            close = difflib.get_close_matches(words, self.commands, n=1)
            hint = f"did you mean `{self.name} {close[0]}`?" if close else f"`{self.name} --help` lists them."
            return _complain(self.name, f"no command {words!r}: {hint}", REFUSED)
        width = max(map(len, self.commands))
        print(f"usage: {self.name} COMMAND ...\n\n{self.purpose}\n")
        print("\n".join(f"  {name:<{width}}  {command.summary}" for name, command in self.commands.items()))
        print("\nexamples:\n" + "\n".join(f"  {command.example}" for command in self.commands.values()))
        print(
            f"\n`{self.name} COMMAND --help` explains the options of a command, `--debug` shows where an error arose."
        )
        return 0


def _prepare_streams(program: str) -> None:
    """Streams that a process of its own was started without go nowhere; warnings of ours are one line."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # until the process ends
    plain = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if category is UserWarning and file is None:
            print(f"{program}: warning: {' '.join(str(message).split())}", file=sys.stderr)
        else:
            plain(message, category, filename, lineno, file, line)

    warnings.showwarning = show


def execute(function: Callable[..., object], options: Mapping[str, object]) -> int:
    """Exit code of a function of a command: the number that it returns, else 0."""
    code = function(**options)
    return code if isinstance(code, int) else 0


class Terminated(BaseException):
    """SIGTERM arrived."""


@contextmanager
def _termination_as_exception() -> Iterator[None]:
    """SIGTERM as an exception, so that files are closed and temporary ones removed before the process ends."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def terminate(number: int, frame: object) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _ending(program: str, error: BaseException) -> int:
    """Exit code after an error, which is explained in one line.

    Raises:
        SystemExit: The error itself, if it is one that nobody's code made: ``--help`` ends so.
    """
    if isinstance(error, Terminated):
        return _complain(program, "terminated; what was written before is kept", TERMINATED)
    if isinstance(error, KeyboardInterrupt):
        return _complain(program, "interrupted; what was written before is kept", INTERRUPTED)
    if isinstance(error, BrokenPipeError):
        return _leave_pipe()
    if message := users_error(error):
        return _complain(program, message, REFUSED)
    if isinstance(error, SystemExit):
        raise error
    if isinstance(error, ModuleNotFoundError) and (extra := EXTRAS.get((error.name or "").partition(".")[0])):
        message = f"needs {error.name}, which is not installed: pip install 'macattr[{extra}]'"
        return _complain(program, message, REFUSED)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return _complain(program, f"{str(error.filename)!r} cannot be used: {error.strerror}.", REFUSED)
    if isinstance(error, EXPECTED):
        notes = getattr(error, "__notes__", [])
        return _complain(program, " ".join([str(error) or type(error).__name__, *notes]), REFUSED)
    place = traceback.extract_tb(error.__traceback__)[-1]
    message = (
        f"unexpected {type(error).__name__} in {place.filename}, line {place.lineno}: {error} (--debug shows more)"
    )
    return _complain(program, message, UNEXPECTED)


def _leave_pipe() -> int:
    """End without a word when the reader of the output has gone, as ``macattr methods | head`` does."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def _complain(program: str, message: str, code: int) -> int:
    """Print one line on stderr and give the exit code."""
    print(f"{program}: error: {' '.join(message.split())}", file=sys.stderr)
    return code
