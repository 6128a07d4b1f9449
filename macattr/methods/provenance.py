"""How a ranking was measured, in words and hashes that are the same in every process."""

__all__ = ["UNIDENTIFIED", "describe", "hash_network", "hash_parameters", "hash_tensors"]

import hashlib
import site
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cached_property, partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from macattr.weights.processes import own_class
from macattr.weights.values import dense_parts, named_values

LISTED = 16
"""Numbers of a tensor that provenance lists; a longer one appears as a hash."""

UNIDENTIFIED = "not identified"
"""Part of the description of a value that two processes could not compare."""

PLAIN = (bool, int, float, complex, str, bytes, tuple, list, set, frozenset, np.ndarray, np.generic, Enum, Tensor)
"""Types of values that count as settings."""

CODE = (torch.dtype, torch.device, type, types.FunctionType, types.BuiltinFunctionType, partial)
"""Types of values that a setting may name."""

DEPTH = 4
"""Levels of mappings and objects in each other that count as settings."""

REGISTRIES = (
    "_parameters",
    "_buffers",
    "_modules",
    "_forward",
    "_backward",
    "_state",
    "_load",
    "_fsdp",
    "__composable_api",
)
"""Beginnings of the attributes in which torch keeps what makes a module, and how it is sharded."""

MARKS = (
    "_is_fsdp_managed_module",
    "_distribute_module_applied",
    "_hf_hook",
    "_old_forward",
    "hf_device_map",
    "to",
    "cuda",
    "xpu",
)
"""Attributes by which torch and accelerate mark modules whose weights they place: where they lie changes no result."""

INSTALLED = frozenset(
    map(
        Path,
        [
            sysconfig.get_path("stdlib"),
            sysconfig.get_path("purelib"),
            *site.getsitepackages(),
            site.getusersitepackages(),
        ],
    )
)
"""Folders of installed packages and of Python's own."""

_BEING_HASHED: ContextVar[frozenset[int]] = ContextVar("_BEING_HASHED", default=frozenset())
"""Identities of the modules whose hash is under way: a module may hold a function that leads back to it."""

OURS = ("macattr", "torch", "captum", "numpy", "builtins")
"""Packages whose functions are identified by their names: the versions stand in the results."""


def describe(value: object) -> str:
    """A setting in words that are the same in every process and differ where results could.

    Functions of a user's own are described by their name and a hash of their code, defaults and captured values;
    tensors by their values; networks by :func:`hash_network`; objects that hold nothing but such values by these. Other
    objects have :data:`UNIDENTIFIED` in their words.

    Example:
        >>> describe(torch.ones(2)), describe(0.5), describe(describe)
        ('[1.0, 1.0]', '0.5', 'macattr.methods.provenance.describe')
    """
    if isinstance(value, Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if isinstance(value, str):
        return value
    if isinstance(value, Tensor):
        if value.is_meta:
            return f"{tuple(value.shape)} without values"
        is_short = value.numel() <= LISTED and value.layout is torch.strided
        return str(value.tolist()) if is_short else f"{tuple(value.shape)}, sha256 {hash_tensors(value)}"
    if isinstance(value, nn.Module):
        known = "hashed around it" if id(value) in _BEING_HASHED.get() else f"sha256 {hash_network(value)}"
        return f"{own_class(value).__qualname__}, {known}"
    if is_dataclass(value) and not isinstance(value, type):
        inner = ", ".join(f"{field.name}={describe(getattr(value, field.name))}" for field in fields(value))
        return f"{type(value).__name__}({inner})"
    if callable(value):
        return _describe_callable(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{describe(key)}: {describe(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple | list | set | frozenset):
        items = sorted(map(describe, value)) if isinstance(value, set | frozenset) else map(describe, value)
        return f"{type(value).__name__}({', '.join(items)})"
    if isinstance(value, np.ndarray):
        return describe(torch.as_tensor(value, device="cpu"))
    if value is None or isinstance(value, int | float | complex | bytes | np.generic | torch.dtype | torch.device):
        return repr(value)
    if _is_data(value):
        return f"{type(value).__module__}.{type(value).__qualname__}({describe(vars(value))})"
    return f"{type(value).__module__}.{type(value).__qualname__} ({UNIDENTIFIED})"


def _describe_callable(function: object) -> str:
    """Name of a function, with a hash of its content where the name is not enough."""
    if isinstance(function, partial):
        parts = (function.func, function.args, function.keywords)
        return f"partial({', '.join(map(describe, parts))})"
    if isinstance(function, types.MethodType):
        return f"{describe(function.__func__)} of {describe(function.__self__)}"
    module = str(getattr(function, "__module__", "") or "")
    name = getattr(function, "__qualname__", None)
    if name is None:  # an object with __call__
        return f"{type(function).__module__}.{type(function).__qualname__}({_describe_state(function)})"
    if module.partition(".")[0] in OURS or not isinstance(function, types.FunctionType):
        return f"{module}.{name}"
    return f"{module}.{name}, sha256 {_digest(_content(function, set()))}"


def _describe_state(function: object) -> str:
    """What an object with ``__call__`` holds: its attributes, or what pickles it where it has none, as itemgetter."""
    if hasattr(function, "__dict__"):
        return describe(vars(function))
    try:
        return describe(function.__reduce__())
    except TypeError:  # a weak reference, such as those of recurrent layers to their weights
        return UNIDENTIFIED


def _content(function: types.FunctionType, seen: set[int]) -> str:
    """Everything that decides what a function returns: its code, defaults, captured values and globals.

    Of a function of an installed package globals are left out: registries and caches, which change while it runs.
    """
    if id(function) in seen:
        return function.__qualname__
    seen.add(id(function))
    used = [value for cell in function.__closure__ or () for value in _contents(cell)]
    if _is_own(function):
        names = sorted(_names(function.__code__))
        used += [function.__globals__[name] for name in names if name in function.__globals__]
    parts = [_code(function.__code__), describe(function.__defaults__), describe(function.__kwdefaults__)]
    return "\n".join([*parts, *(_used(value, seen) for value in used)])


def _contents(cell: types.CellType) -> tuple[object, ...]:
    """What a captured variable holds; nothing before it is assigned."""
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def _used(value: object, seen: set[int]) -> str:
    """A value that a function uses: functions and classes of a user's own by their content."""
    if isinstance(value, type):
        return _content_of_class(value, seen) if _is_own(value) else value.__qualname__
    if isinstance(value, types.ModuleType):
        return value.__name__
    functions = [f for f in _functions(value) if (f.__module__ or "").partition(".")[0] not in OURS]
    return "\n".join(_content(f, seen) for f in functions) if functions else describe(value)


def _content_of_class(cls: type, seen: set[int]) -> str:
    """The functions of a class and of its bases; those of a user's own with what they use."""
    if id(cls) in seen:
        return cls.__qualname__
    seen.add(id(cls))
    parts = [cls.__qualname__]
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] not in OURS:
            functions = [function for value in vars(base).values() for function in _functions(value)]
            own = _is_own(base)
            parts += [_content(function, seen) if own else _code(function.__code__) for function in functions]
    return "\n".join(parts)


def _functions(attribute: object) -> Iterator[types.FunctionType]:
    """The functions behind an attribute of a class: methods of every kind, properties, and what decorators wrap."""
    if isinstance(attribute, staticmethod | classmethod):
        attribute = attribute.__func__
    if isinstance(attribute, property):
        for accessor in (attribute.fget, attribute.fset, attribute.fdel):
            yield from _functions(accessor)
    if isinstance(attribute, cached_property):
        attribute = attribute.func
    while attribute is not None:
        if isinstance(attribute, types.FunctionType):
            yield attribute
        attribute = getattr(attribute, "__wrapped__", None)


def _is_own(value: types.FunctionType | type) -> bool:
    """Whether a function or class is a user's own: neither one of :data:`OURS` nor of an installed package."""
    module = value.__module__ or ""
    file = getattr(sys.modules.get(module), "__file__", None)
    return module.partition(".")[0] not in OURS and not (file and any(map(Path(file).is_relative_to, INSTALLED)))


def _names(code: types.CodeType) -> set[str]:
    """Names that a code object and those inside it look up."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _code(code: types.CodeType) -> str:
    """The instructions and constants of a function, without where they stand in a file."""
    return f"{code.co_code.hex()} {_constant(code.co_consts)} {code.co_names} {code.co_varnames}"


def _constant(value: object) -> str:
    """A constant of a function, in the same words in every process, whatever the order of its sets."""
    if isinstance(value, types.CodeType):
        return _code(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(_constant, value))})"
    return f"{{{', '.join(sorted(map(repr, value)))}}}" if isinstance(value, frozenset) else repr(value)


def _digest(text: str) -> str:
    """SHA-256 of a text, first 16 digits; the mark of an unidentified value is kept."""
    mark = f" ({UNIDENTIFIED})" if UNIDENTIFIED in text else ""
    return hashlib.sha256(text.encode()).hexdigest()[:16] + mark


def _bytes_of(tensor: Tensor) -> bytes:
    """The bytes of a tensor, of a sparse one those of indices and values."""
    parts = (part.detach().cpu().contiguous() for part in dense_parts(tensor))
    return b"".join(part.reshape(-1).view(torch.uint8).numpy().tobytes() for part in parts)


def hash_tensors(*values: object) -> str:
    """SHA-256 of some values, tensors by their bytes, first 16 digits."""
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
            digest.update(_bytes_of(value))
        else:
            digest.update(describe(value).encode())
    return digest.hexdigest()[:16]


def hash_parameters(model: nn.Module) -> str:
    """SHA-256 of the names and bytes of all parameters, first 16 digits: the weights that a ranking belongs to."""
    digest = hashlib.sha256()
    for name, values in named_values(model):
        digest.update(name.encode())
        digest.update(_bytes_of(values))
    return digest.hexdigest()[:16]


def hash_network(model: nn.Module) -> str:
    """SHA-256 of everything that decides what a network returns, first 16 digits.

    That is parameters and buffers with their dtypes, the classes of all modules with their code, and the modules' own
    settings (numbers, texts, flags, functions, tensors that are neither parameter nor buffer).
    """
    digest = hashlib.sha256()
    token = _BEING_HASHED.set(_BEING_HASHED.get() | set(map(id, model.modules())))
    try:
        _add_network(digest, model)
    finally:
        _BEING_HASHED.reset(token)
    return digest.hexdigest()[:16]


def _add_network(digest: "hashlib._Hash", model: nn.Module) -> None:
    """Feed a digest with the modules, parameters and buffers of a network."""
    codes: dict[type, str] = {}
    for name, module in model.named_modules():
        cls = own_class(module)
        digest.update(f"{name} {cls.__module__}.{cls.__qualname__} {module.extra_repr()}".encode())
        codes[cls] = codes.get(cls) or _digest(_content_of_class(cls, set()))
        digest.update(codes[cls].encode())
        hooked = ("forward",) if "_old_forward" in vars(module) else ()  # accelerate's, in the place of the class's own
        for key, value in sorted(vars(module).items()):
            if key not in hooked and _is_setting(key, value):
                digest.update(f"{key}={describe(value)}".encode())
    for name, tensor in chain(named_values(model), named_values(model, buffers=True)):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes_of(tensor))


def _is_setting(key: str, value: object) -> bool:
    """Whether an attribute of a module is a setting of its own: no registry or mark of a library, and comparable."""
    return (
        not key.startswith(REGISTRIES)
        and key not in MARKS
        and value is not None
        and not isinstance(value, torch.device)  # where a module lies changes no result
        and _is_data(value)
        and UNIDENTIFIED not in describe(value)
    )


def _is_data(value: object, depth: int = DEPTH) -> bool:
    """Whether a value is a setting, or a mapping or object that holds settings alone, such as a configuration."""
    if value is None or isinstance(value, (*PLAIN, *CODE)):
        return True
    if not depth or isinstance(value, nn.Module | types.ModuleType) or callable(value):
        return False
    if isinstance(value, Mapping):
        return all(_is_data(item, depth - 1) for item in value.values())
    return hasattr(value, "__dict__") and all(_is_data(item, depth - 1) for item in vars(value).values())
