"""A stand-in for torchvision where its wheel is missing, or is of another build than torch and does not load.

timm and spandrel import names of it when they are imported, for networks that no test builds. Each is an empty class.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
from contextlib import contextmanager, suppress
from types import ModuleType


class Empty(type):
    """The type of classes that hold classes of every name."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Empty(name, (), {})


class EmptyModule(ModuleType):
    """A module with classes of every name."""

    __getattr__ = Empty.__getattr__


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds torchvision and whatever is in it."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return EmptyModule(spec.name)

    def exec_module(self, module):
        pass


def torchvision_loads():
    """Whether the real package is there and fits torch."""
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError):
        return False
    return True


@contextmanager
def torchvision_or_stand_in():
    """The real package if it loads, else the stand-in, which other libraries do not see afterwards."""
    if torchvision_loads():
        yield
        return
    with suppress(ImportError):  # it remembers its first answer
        importlib.import_module("transformers.utils").is_torchvision_available()
    finder = Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
