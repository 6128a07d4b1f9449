"""Errors that come from the user's own code: their message with file and line."""

__all__ = ["users_error"]

import re
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType

OURS = tuple(str(Path(__file__).resolve().parents[2] / package) for package in ("macattr", "ram_models"))
"""Folders of this project's code."""

LIBRARIES = tuple({sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})
"""Folders of Python's own and of installed code."""

SIGNATURE = re.compile(r"([\w.<>]+)\(\) (?:missing|takes|got) ")
"""Beginning of Python's message about a call that does not fit the function."""


def users_error(error: BaseException) -> str | None:
    """Type, message, file and line of an error in code that is neither this project's nor installed; None for others.

    Args:
        error: As it was caught, with its traceback.
    """
    if isinstance(error, SyntaxError) and error.filename and _is_users(error.filename):
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    frames = list(traceback.walk_tb(error.__traceback__))
    places = [(frame, line) for frame, line in frames if not _is_library(frame.f_code.co_filename)]
    if places and _is_users(places[-1][0].f_code.co_filename):
        frame, line = places[-1]
        return f"{_words(error)} ({frame.f_code.co_filename}, line {line}, in {frame.f_code.co_name})"
    if isinstance(error, TypeError) and frames and (code := _misfit(str(error), frames[-1][0])):
        return f"{_words(error)} ({code.co_filename}, line {code.co_firstlineno})"
    return None


def _words(error: BaseException) -> str:
    """Type and message."""
    if isinstance(error, SystemExit):
        return f"the code ended the program with exit code {error.code}"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _misfit(message: str, frame: FrameType) -> CodeType | None:
    """The user's function that a frame called with arguments that it does not take."""
    match = SIGNATURE.match(message)
    codes = (getattr(function, "__code__", None) for function in _functions(frame) if match)
    return next(
        (code for code in codes if code and match and code.co_qualname == match[1] and _is_users(code.co_filename)),
        None,
    )


def _functions(frame: FrameType) -> Iterator[Callable[..., object]]:
    """Whatever the variables of a frame can be called by."""
    for value in frame.f_locals.values():
        yield value
        yield from (getattr(value, name, None) for name in ("forward", "__init__", "__call__"))  # type: ignore[misc]


def _is_library(filename: str) -> bool:
    """Whether code is Python's own, installed, or made at run time."""
    ours = filename.startswith(OURS)
    return not ours and (filename.startswith(("<", *LIBRARIES)) or "site-packages" in filename)


def _is_users(filename: str) -> bool:
    """Whether code is neither a library's nor this project's."""
    return not filename.startswith(OURS) and not _is_library(filename)
