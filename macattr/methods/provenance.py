"""How a ranking was measured, in words and hashes that are the same in every process."""

__all__ = ["UNIDENTIFIED", "describe", "hash_network", "hash_parameters", "hash_tensors"]

import hashlib
import types
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import partial
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from macattr.weights.processes import own_class
from macattr.weights.values import named_values

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
        return str(value.tolist()) if value.numel() <= LISTED else f"{tuple(value.shape)}, sha256 {hash_tensors(value)}"
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
        return describe(torch.as_tensor(value))
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
    """Everything that decides what a function returns: its code, defaults, captured values and globals."""
    if id(function) in seen:
        return function.__qualname__
    seen.add(id(function))
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell is not None]
    used = [function.__globals__[name] for name in sorted(_names(function.__code__)) if name in function.__globals__]
    parts = [_code(function.__code__), describe(function.__defaults__), describe(function.__kwdefaults__)]
    for value in (*cells, *used):
        if isinstance(value, types.FunctionType):
            parts.append(_content(value, seen))
        elif isinstance(value, types.ModuleType | type):
            parts.append(str(getattr(value, "__name__", "")))
        else:
            parts.append(describe(value))
    return "\n".join(parts)


def _names(code: types.CodeType) -> set[str]:
    """Names that a code object and those inside it look up."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _code(code: types.CodeType) -> str:
    """The instructions and constants of a function, without where they stand in a file."""
    constants = [_code(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return f"{code.co_code.hex()} {constants} {code.co_names} {code.co_varnames}"


def _digest(text: str) -> str:
    """SHA-256 of a text, first 16 digits; the mark of an unidentified value is kept."""
    mark = f" ({UNIDENTIFIED})" if UNIDENTIFIED in text else ""
    return hashlib.sha256(text.encode()).hexdigest()[:16] + mark


def _bytes_of(tensor: Tensor) -> bytes:
    """The bytes of a tensor."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


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
    for name, module in model.named_modules():
        cls = own_class(module)
        digest.update(f"{name} {cls.__module__}.{cls.__qualname__} {module.extra_repr()}".encode())
        digest.update(_code_of_class(cls).encode())
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


def _code_of_class(cls: type) -> str:
    """Code of a class of a user's own, with that of its bases; library classes are known by their names."""
    parts = []
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] not in OURS:
            functions = (value for value in vars(base).values() if isinstance(value, types.FunctionType))
            parts += [_code(function.__code__) for function in functions]
    return _digest("\n".join(parts))
