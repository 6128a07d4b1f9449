"""Files of rankings: NetCDF with a checksum at the end."""

__all__ = ["FILE", "read_dataset", "write_dataset"]

import hashlib
import io
from pathlib import Path

import xarray as xr

from macattr.atomic_files import write_atomically

FILE = "importance.nc"
"""Name of a ranking's file in the folders of ``macattr rank``."""

NEEDED = ("layer", "sample", "type", "block", "role", "depth", "parameters", "alias_of")
NEEDED_ATTRIBUTES = ("model", "method", "unit", "source")
"""Variables and attributes without which a file is no ranking."""

SEALED = "macattr_seal"
"""Attribute of files whose end, after the NetCDF data, is ``SEAL`` and the data's SHA-256."""

SEAL = b"\nmacattr sha256 "
"""Beginning of a file's seal; readers of HDF5 ignore what follows the data."""

LISTED = 3
"""Rankings that are named where another may be meant."""


def write_dataset(dataset: xr.Dataset, path: Path) -> None:
    """Write a ranking's measurements and their checksum, all at once: an interrupted write leaves no broken file."""
    content = bytes(dataset.assign_attrs({SEALED: "SHA-256 at the end"}).to_netcdf(engine="h5netcdf"))
    seal = SEAL + hashlib.sha256(content).hexdigest().encode()
    write_atomically(path, lambda file: file.write(content + seal))


def read_dataset(path: Path) -> xr.Dataset:
    """The measurements that :func:`write_dataset` wrote.

    Args:
        path: File, or the folder of ``macattr rank`` that holds it.

    Raises:
        ValueError: If the file cannot be opened, is damaged or does not hold a ranking.
    """
    file = path / FILE if (path / FILE).is_file() else path
    refused = f"{str(path)!r} cannot be read as a ranking"
    try:
        content = file.read_bytes()
    except OSError as error:
        hint = _rankings_beside(file) or "Rankings are files such as importance.nc."
        raise ValueError(f"{refused}: {error.strerror}. {hint}") from error
    data, seal, digest = content.rpartition(SEAL)
    matches = digest == hashlib.sha256(data).hexdigest().encode() if seal else SEALED.encode() not in content
    if not matches:
        raise ValueError(f"{refused}: it is damaged, its content does not match its checksum. Rank again.")
    try:
        dataset = xr.load_dataset(io.BytesIO(data or content), engine="h5netcdf")
    except Exception as error:  # files that are no rankings raise anything, with the HDF5 library's own text
        hint = _rankings_beside(file) or "Rank again."
        raise ValueError(f"{refused}: it is damaged, cut off or not a NetCDF file. {hint}") from error
    dataset.attrs.pop(SEALED, None)
    if "score" not in dataset or "across_images" not in dataset.attrs:
        raise ValueError(f"{refused}: it has no `score`. LayerImportance.save and macattr rank write rankings.")
    absent = [name for name in NEEDED if name not in dataset]
    absent += [name for name in NEEDED_ATTRIBUTES if name not in dataset.attrs]
    if absent:
        version = dataset.attrs.get("macattr", "another program")
        raise ValueError(f"{refused}: as {version} wrote it, it lacks {', '.join(absent)}. Rank again.")
    return dataset


def _rankings_beside(path: Path) -> str:
    """A question about the rankings in the same folder, or those one below; '' without any."""
    folder = path if path.is_dir() else path.parent
    found = [file for place in ("", "*/") for file in sorted(folder.glob(f"{place}{FILE}")) if file != path]
    more = f" or one of {len(found) - LISTED} more" if len(found) > LISTED else ""
    return f"Did you mean {' or '.join(map(str, found[:LISTED]))}{more}?" if found else ""
