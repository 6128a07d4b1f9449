"""Guard of the user's model: one thread at a time, no training-mode surprises, and everything as before afterwards."""

__all__ = [
    "Rewind",
    "modules_of",
    "refuse_random_draws",
    "same_state",
    "undisturbed",
    "without_autocast_cache",
    "without_gradients",
]

import copy
import functools
import inspect
import operator
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from threading import RLock
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from macattr.sweep.checkpoints import plain_checkpoints
from macattr.weights.processes import keep_sharded
from macattr.weights.values import dense_parts, missing_values, refuse_hidden

STOCHASTIC = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)

BATCH_MIXING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

Rewind = Callable[[], AbstractContextManager[None]]
"""Puts the model's state back to where it was, before the forward pass inside the context."""


@contextmanager
def undisturbed(model: Callable[..., Any], layers: Iterable[nn.Module] = ()) -> Iterator[Rewind]:
    """Gradients on, weights without gradients, and everything as before afterwards.

    Weights' flags and gradients, buffers and plain attributes by identity and by value, hooks, training mode and random
    states survive whatever runs inside. Another thread that wants the same modules waits. Checkpointed blocks run
    without checkpointing; see :func:`macattr.sweep.checkpoints.plain_checkpoints`. What torch.compile has compiled runs
    uncompiled, because it would compile anew for the hooks of every forward pass. Attention runs as it does with
    gradients, because torch's fast path returns other values at padding, and nested tensors inside. Recurrent layers on
    a GPU run without cuDNN.

    Args:
        model: Network, or a function that calls one.
        layers: Modules of the network, which a function may hide.

    Yields:
        A context for every forward pass: it puts buffers and attributes back before, and takes the hooks away after,
        that the model has given itself in that pass. So each of them starts from the same state.

    Raises:
        ValueError: If the model is stochastic or mixes the batch by its training mode, or has no values.
    """
    modules = modules_of(model, layers)
    _refuse(modules)
    with ExitStack() as stack:
        for lock in _locks(modules):
            stack.enter_context(lock)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(without_autocast_cache())
        run_uncompiled = _Uncompiled(stack)
        run_uncompiled()
        stack.enter_context(_same_random_states(modules))
        stack.enter_context(plain_checkpoints())
        stack.enter_context(_shared("attention", _without_fast_path))
        stack.enter_context(_recurrent_gradients(modules))
        stack.enter_context(_normal_tensors(modules))
        keep_sharded(modules.values())
        state = stack.enter_context(same_state(modules))
        stack.callback(keep_sharded, modules.values())  # FSDP must know that shards are what is put back
        stack.enter_context(without_gradients(modules))

        @contextmanager
        def rewind() -> Iterator[None]:
            run_uncompiled()
            state.rewind()
            with state.same_hooks():
                yield

        yield rewind


def modules_of(model: Callable[..., Any], layers: Iterable[nn.Module] = ()) -> dict[str, nn.Module]:
    """All modules by name: of a network, or those that a function reaches, and the layers.

    A function reaches the modules that it closes over, that it names as globals, that it is a method of, and that it
    was given as partial arguments.
    """
    named: dict[str, nn.Module] = {}
    known: set[int] = set()
    for root in (*_roots(model), *layers):
        for name, module in root.named_modules():
            if id(module) not in known:
                known.add(id(module))
                named[name if name not in named else f"{name} ({len(named)})"] = module
    return named


def _roots(function: object, depth: int = 2) -> Iterator[nn.Module]:
    """Outermost modules that a function reaches."""
    if isinstance(function, nn.Module):
        yield function
    elif depth and isinstance(function, functools.partial):
        for part in (function.func, *function.args, *function.keywords.values()):
            yield from _roots(part, depth)
    elif depth and inspect.ismethod(function):
        yield from _roots(function.__self__, depth)
        yield from _roots(function.__func__, depth)
    elif depth and inspect.isfunction(function):
        names = inspect.getclosurevars(function)
        for part in (*names.nonlocals.values(), *names.globals.values()):
            yield from _roots(part, depth - 1)
    elif depth and not isinstance(function, type | ModuleType) and hasattr(function, "__dict__"):
        for part in vars(function).values():
            yield from _roots(part, depth - 1)


def _refuse(modules: dict[str, nn.Module]) -> None:
    """Raise where training mode would make the path noise instead of a curve, and where there are no values."""
    refuse_hidden(modules)
    for name, module in modules.items():
        kind = type(module).__name__
        drops = isinstance(module, STOCHASTIC) and module.p > 0
        mixes = isinstance(module, BATCH_MIXING)
        if mixes and not module.training and module.running_mean is None:
            raise ValueError(f"{kind} {name!r} has no running statistics: it mixes the batch.")
        if module.training and (drops or mixes):
            effect = "draws random numbers" if drops else "mixes the batch"
            raise ValueError(f"the model is in training mode and its {kind} {name!r} {effect}: call `model.eval()`.")
        if own := missing_values(module):
            raise ValueError(
                f"{own!r} of {kind} {name!r} is on the meta device, without values: load weights with "
                "`model.to_empty(device=...)` and `load_state_dict`, or with `load_state_dict(..., assign=True)`."
            )


_LOCKS: "WeakIdKeyDictionary" = WeakIdKeyDictionary()

_REGISTRY = RLock()


def _locks(modules: dict[str, nn.Module]) -> list[AbstractContextManager[bool]]:
    """A lock for every module and parameter, in an order that all threads share."""
    keys = [*modules.values(), *_parameters(modules)]
    with _REGISTRY:
        return [_LOCKS.setdefault(key, RLock()) for key in sorted(keys, key=id)]


def _parameters(modules: dict[str, nn.Module]) -> list[nn.Parameter]:
    """Every parameter once."""
    every = [parameter for module in modules.values() for parameter in module.parameters(recurse=False)]
    return list({id(parameter): parameter for parameter in every}.values())


@dataclass
class _Uncompiled:
    """Makes what torch.compile has compiled run uncompiled until a stack is closed.

    Asking for it imports torch's compiler, which takes longer than a sweep of a small network. Nothing is compiled
    before something else has imported it, a forward pass at the earliest.
    """

    stack: ExitStack
    is_set: bool = False

    def __call__(self) -> None:
        """Take effect if that is needed and did not happen yet."""
        if not self.is_set and "torch._dynamo" in sys.modules:
            self.stack.enter_context(_shared("compiler", lambda: torch.compiler.set_stance("force_eager")))
            self.is_set = True


@contextmanager
def _same_random_states(modules: dict[str, nn.Module]) -> Iterator[None]:
    """The default generators of torch, numpy and random continue as if nothing had been drawn."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(_cuda_devices(modules)):
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


@contextmanager
def refuse_random_draws(model: Callable[..., Any]) -> Iterator[None]:
    """Raise if the default generators of torch or numpy move while the model runs.

    That of ``random`` says nothing: type checkers that sample draw from it too.

    Args:
        model: Network, or a function that calls one.

    Raises:
        ValueError: If one of them moves.
    """
    devices = _cuda_devices(modules_of(model))
    before = _random_states(devices)
    yield
    if _random_states(devices) != before:
        raise ValueError("the model draws random numbers: call `model.eval()`, and switch off what still is random.")


def _random_states(devices: list[int]) -> list[object]:
    """States of the default generators, comparable by value."""
    states = [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]
    words = np.random.get_state(legacy=False)["state"]
    return [*(state.numpy().tobytes() for state in states), words["key"].tobytes(), words["pos"]]


def _cuda_devices(modules: dict[str, nn.Module]) -> list[int]:
    """GPUs that the modules live on."""
    return sorted({p.device.index for p in _parameters(modules) if p.device.type == "cuda"})


_SHARED: dict[str, tuple[int, ExitStack]] = {}
"""Settings of the whole process that guards have changed: by name, how many guards hold each, and what puts it back."""


@contextmanager
def _shared(name: str, change: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
    """A setting of the whole process, for guards in any thread: the first one changes it, the last one puts it back."""
    with _REGISTRY:
        guards, setting = _SHARED.get(name, (0, ExitStack()))
        if not guards:
            setting.enter_context(change())
        _SHARED[name] = guards + 1, setting
    try:
        yield
    finally:
        with _REGISTRY:
            guards, setting = _SHARED[name]
            _SHARED[name] = guards - 1, setting
            if guards == 1:
                setting.close()


@contextmanager
def _without_fast_path() -> Iterator[None]:
    """Attention without torch's fast path."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _without_cudnn() -> Iterator[None]:
    """Everything without cuDNN."""
    before, torch.backends.cudnn.enabled = torch.backends.cudnn.enabled, False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before


@contextmanager
def without_autocast_cache() -> Iterator[None]:
    """Inside, autocast casts weights in every pass: it would go on with those that it cast before an optimiser's step.

    It would also keep a cast of every copy of the weights until the user's context ends.
    """
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


@contextmanager
def _recurrent_gradients(modules: dict[str, nn.Module]) -> Iterator[None]:
    """Networks with recurrent layers run without cuDNN, which has no backward pass for these in eval mode."""
    recurrent = [m for m in modules.values() if isinstance(m, nn.RNNBase) and not m.training]
    if not any(parameter.is_cuda for module in recurrent for parameter in module.parameters(recurse=False)):
        yield
        return
    with _shared("cuDNN", _without_cudnn):
        yield


@contextmanager
def _normal_tensors(modules: dict[str, nn.Module]) -> Iterator[None]:
    """Tensors made in inference mode, which no backward pass can keep, are replaced by copies.

    They may be parameters, buffers, or attributes such as a cache of positions that an earlier call has filled.
    """
    copies: dict[int, Tensor] = {}
    replaced: list[tuple[Any, Any, Tensor]] = []
    for module in modules.values():
        attributes = vars(module)
        for entries in (attributes, *(value for value in attributes.values() if isinstance(value, dict | list))):
            for name, tensor in list(entries.items() if isinstance(entries, dict) else enumerate(entries)):
                if isinstance(tensor, Tensor) and tensor.is_inference():
                    if id(tensor) not in copies:
                        values = tensor.detach().clone()
                        is_weight = isinstance(tensor, nn.Parameter)
                        copies[id(tensor)] = nn.Parameter(values, requires_grad=False) if is_weight else values
                    replaced.append((entries, name, tensor))
                    entries[name] = copies[id(tensor)]
    try:
        yield
    finally:
        for entries, name, tensor in replaced:
            entries[name] = tensor


@contextmanager
def without_gradients(modules: dict[str, nn.Module]) -> Iterator[None]:
    """Weights without gradients; afterwards flags and gradients as before.

    Args:
        modules: Modules by name, as :func:`modules_of` finds them.
    """
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in _parameters(modules)]
    try:
        for parameter, _, _ in before:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, required, gradient in before:
            parameter.requires_grad_(required)
            if parameter.grad is not gradient:
                parameter.grad = gradient


@contextmanager
def same_state(modules: dict[str, nn.Module]) -> Iterator["_State"]:
    """What the modules hold besides the values of their parameters, put back afterwards.

    Args:
        modules: Modules by name, as :func:`modules_of` finds them.
    """
    state = _State(modules)
    try:
        yield state
    finally:
        state.restore()


FIXED = ("_parameters", "_modules")
"""Attributes of every module that are put back at the end alone, as hooks are: probes are hooks themselves."""

GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
"""Generators that a module may keep."""


class _State:
    """Attributes, buffers and hooks of some modules: entries by identity, tensors by value.

    Plain attributes count too, and the entries of those that are a list, dict or set. Parameters are not copied, for
    their size: a forward pass that writes to them is not covered.
    """

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        self._moving: list[tuple[Any, Any]] = []
        self._fixed: list[tuple[Any, Any]] = []
        self._hooks: list[dict[Any, Any]] = []
        values: list[Any] = []
        for module in modules.values():
            values.extend(module.buffers(recurse=False))
            attributes = vars(module)
            self._moving.append((attributes, dict(attributes)))
            for name, value in attributes.items():
                if isinstance(value, dict) and "_hooks" in name:
                    self._hooks.append(value)
                if isinstance(value, dict | list | set):
                    fixed = name in FIXED or "_hooks" in name
                    (self._fixed if fixed else self._moving).append((value, copy.copy(value)))
                values.extend(value.values() if isinstance(value, dict) else value if type(value) is list else (value,))
        distinct = {id(value): value for value in values}.values()
        plain = (t for t in distinct if type(t) is Tensor and not t.is_meta and not t.is_nested)
        self._tensors = [(t, t._version, t.detach().clone()) for t in plain]
        self._generators = [(g, _generator_state(g)) for g in distinct if isinstance(g, GENERATORS)]

    def rewind(self) -> None:
        """Undo assignments, and writes that autograd counts."""
        for container, entries in self._moving:
            _put_back(container, entries)
        for index, (tensor, version, values) in enumerate(self._tensors):
            if tensor._version != version:
                _write(tensor, values)
                self._tensors[index] = tensor, tensor._version, values

    @contextmanager
    def same_hooks(self) -> Iterator[None]:
        """Take hooks away that are set inside. Who sets them once notes that in an attribute, which is put back."""
        before = {id(hooks): dict(hooks) for hooks in self._hooks if hooks}
        count = sum(map(len, self._hooks))
        try:
            yield
        finally:
            if sum(map(len, self._hooks)) != count:
                for hooks in self._hooks:
                    _put_back(hooks, before.get(id(hooks), {}))

    def restore(self) -> None:
        """Put everything back. Native kernels write without counting, so that all values are compared."""
        for container, entries in (*self._moving, *self._fixed):
            _put_back(container, entries)
        for tensor, _, values in self._tensors:
            if tensor.shape != values.shape or not _equal(tensor, values):
                _write(tensor, values)
        for generator, state in self._generators:
            _set_generator_state(generator, state)


def _put_back(container: Any, entries: Any) -> None:
    """Give a dict, list or set its former entries, unless it holds the very same ones."""
    if isinstance(container, dict):
        same = container.keys() == entries.keys() and all(map(operator.is_, container.values(), entries.values()))
        if not same:
            container.clear()
            container.update(entries)
    elif isinstance(container, list):
        if len(container) != len(entries) or not all(map(operator.is_, container, entries)):
            container[:] = entries
    elif container ^ entries:
        container.clear()
        container.update(entries)


def _equal(tensor: Tensor, values: Tensor) -> bool:
    """Whether two tensors of one shape hold the same values, sparse ones in the same places."""
    pairs = zip(dense_parts(tensor), dense_parts(values), strict=True)
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


def _write(tensor: Tensor, values: Tensor) -> None:
    """Former values, also where the tensor was resized."""
    with torch.no_grad():
        if tensor.shape != values.shape:
            tensor.resize_(values.shape)
        tensor.copy_(values)


def _generator_state(generator: Any) -> Any:
    """State of a generator of torch, numpy or random."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.get_state() if isinstance(generator, np.random.RandomState) else generator.getstate()


def _set_generator_state(generator: Any, state: Any) -> None:
    """Let a generator continue from a state."""
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, torch.Generator | np.random.RandomState):
        generator.set_state(state)
    else:
        generator.setstate(state)
