"""Files that are written whole or not at all."""

__all__ = ["sync_folder", "write_atomically"]

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Fill a file so that a crash leaves either the old or the new one, whole.

    Processes that write the same file do not disturb each other.

    Args:
        path: The file.
        write: Called with the opened file to fill.

    Raises:
        OSError: If it cannot be written (a full disk, for one); the old file is then as it was.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "note.txt"
        >>> write_atomically(file, lambda opened: opened.write(b"whole"))
        >>> file.read_text(), len(list(file.parent.iterdir()))
        ('whole', 1)
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch.save reports a failed write as a RuntimeError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        raise OSError(f"{str(path)!r} could not be written: {reason}. What was saved before is intact.") from error
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
