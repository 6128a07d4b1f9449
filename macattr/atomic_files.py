"""Files that are written whole or not at all, and folders with one writer at a time."""

__all__ = ["sole_writer", "sync_folder", "write_atomically", "write_text"]

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: folders have no lock there
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
"""Name of the file that the writer of a folder holds locked."""


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Fill a file so that a crash leaves either the old or the new one, whole.

    Processes that write the same file do not disturb each other. A link stays a link: the file that it points to is
    written. Devices and pipes, such as /dev/stdout, are written into. The permissions of an old file are kept.

    Args:
        path: File to write.
        write: Called with the opened file to fill.

    Raises:
        OSError: If the file cannot be written, for example on a full disk; the old file is unchanged.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "note.txt"
        >>> write_atomically(file, lambda opened: opened.write(b"whole"))
        >>> file.read_text(), len(list(file.parent.iterdir()))
        ('whole', 1)
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            with path.open("wb") as stream:
                write(stream)
        else:
            _replace(Path(os.path.realpath(path)), write)
    except (OSError, RuntimeError) as error:  # torch.save reports a failed write as a RuntimeError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        raise OSError(f"{str(path)!r} could not be written: {reason}. What was saved before is intact.") from error


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8 so that a crash leaves either the old or the new file, whole; see :func:`write_atomically`.

    Args:
        path: File to write.
        text: Its new content.
    """
    write_atomically(path, lambda opened: opened.write(text.encode()))


def _replace(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Fill a new file beside the old one, then put it in its place."""
    own = f"{os.getpid()}.{threading.get_ident()}"
    temporary = path.with_name(f".{path.name[:40]}.{own}.part")  # shorter than the longest name
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            temporary.chmod(path.stat().st_mode & 0o7777)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where folders can be opened (not on Windows)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Make a folder if needed, and hold it so that no other process takes it for its own results.

    The system releases it when the process ends, even when it is killed.

    Args:
        folder: Folder for results.

    Raises:
        ValueError: If another process holds it.
        OSError: If the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("a+")
    except OSError as error:
        raise OSError(f"the folder {str(folder)!r} cannot be written: {error.strerror}.") from error
    with lock:
        if fcntl is not None:
            _lock(lock.fileno(), folder)
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield


def _lock(descriptor: int, folder: Path) -> None:
    """Lock an open file; raise ValueError if another process has."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = (folder / LOCK).read_text() or "another process"
        raise ValueError(
            f"{str(folder)!r} is in use by {holder}: wait until it ends, or choose another folder."
        ) from error
    except OSError:  # a file system without locks
        return
