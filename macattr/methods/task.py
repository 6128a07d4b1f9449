"""The task of a ranking (network, layers, options) and its trials: one image along one pixel order each."""

__all__ = ["Options", "Orders", "PathLike", "PathName", "Task", "Trial"]

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path as FilePath
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from macattr.methods.provenance import hash_tensors
from macattr.methods.reductions import REDUCTIONS
from macattr.methods.samples import Sample
from macattr.paths import presets
from macattr.paths.inputs import Gate, MaskAttributePath, Path, Reference, resolve_reference
from macattr.paths.objectives import Distance, Objective
from macattr.paths.presets import RANKING, MacTag, Preset
from macattr.statistics.stopping import StableTop
from macattr.sweep.survey import Surveys

PathName = Literal["mask", "line", "tail", "blur", "restore"]
"""Names of the paths that the option ``path`` takes."""


PathLike = PathName | Callable[[Tensor], Path]
"""A path by its name, or a function from an image (1, C, H, W) to one."""

Orders = int | Tensor | Callable[[Tensor], Tensor]
"""Number of random pixel orders, the orders (orders, H*W), or a function from an image (1, C, H, W) to one order."""

LARGEST_SEED = 2**63 - 1
"""The largest seed: files hold 64-bit integers."""


@dataclass(frozen=True)
class Options:
    """How layers are ranked: the arguments of :func:`macattr.rank_layers`, where each is explained."""

    r: float | None = None
    n_steps: int | None = None
    gate: Gate | None = None
    delta: float | None = None
    groups: int | None = None
    include_end: bool | None = None
    tag: MacTag | None = None
    objective: Objective | None = None
    preset: Preset | str | None = None
    baselines: Reference | None = None
    path: PathLike | None = None
    orders: Orders = 1
    patch_size: int = 1
    seed: int | None = None
    reduction: str = "mean_abs"
    loss: Objective | None = None
    start_weights: Mapping[str, Tensor] | None = None
    additional_forward_args: tuple[object, ...] = ()
    internal_batch_size: int | None = None
    memory_budget: float | None = None
    until: StableTop | None = None
    tolerance: float | None = None
    step_error: bool = False
    parts: FilePath | str | None = None
    show_progress: bool = False

    def __post_init__(self) -> None:
        for name in ("r", "delta", "tolerance", "memory_budget"):
            self._set(name, _as_number(name, getattr(self, name)))
        for name in ("n_steps", "groups", "patch_size", "internal_batch_size"):
            self._set(name, _as_count(name, getattr(self, name)))
        if self.seed is not None and (_as_whole("seed", self.seed) < 0 or self.seed > LARGEST_SEED):
            raise ValueError(f"`seed` must be a whole number from 0 to 2**63 - 1, got {self.seed}.")
        if self.reduction not in REDUCTIONS:
            raise ValueError(f"`reduction` must be one of {', '.join(REDUCTIONS)}, got {self.reduction!r}.")
        if self.tolerance is not None and self.n_steps is not None:
            raise ValueError("`tolerance` and `n_steps` exclude each other: a tolerance chooses the steps.")
        self._set("orders", _as_orders(self.orders))
        self._set("preset", _as_preset(self.preset))
        self._set("additional_forward_args", _as_arguments(self.additional_forward_args))
        self.resolve()

    def _set(self, name: str, value: object) -> None:
        """Replace a field by its checked value."""
        object.__setattr__(self, name, value)

    def resolve(self) -> Preset:
        """The preset with every field that was given in place of its own.

        Raises:
            ValueError: If one of them is out of range or has no effect.
        """
        base = RANKING if self.preset is None else self.preset
        if isinstance(base, str):
            base = _as_preset(base) or RANKING
        names = ("r", "n_steps", "gate", "delta", "groups", "include_end", "tag", "objective")
        return base.override(**{name: getattr(self, name) for name in names})

    def given(self) -> dict[str, object]:
        """The fields that differ from their defaults, by name."""
        defaults = Options.__dataclass_fields__
        return {
            name: value
            for name, value in vars(self).items()
            if not (value is defaults[name].default or (_is_plain(value) and value == defaults[name].default))
        }


def _is_plain(value: object) -> bool:
    """Whether ``==`` compares a value as a whole."""
    return isinstance(value, int | float | str | tuple) and not (isinstance(value, tuple) and value)


def _as_number(name: str, value: object) -> float | None:
    """A finite number, also where it is written as text."""
    if value is None:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError(f"`{name}` must be a finite number, got {value!r}.")
    return value if isinstance(value, int | float) else number


def _as_whole(name: str, value: object) -> int:
    """A whole number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer) or value != int(value):
        raise ValueError(f"`{name}` must be a whole number, got {value!r}.")
    return int(value)


def _as_count(name: str, value: object) -> int | None:
    """A whole number of at least 1."""
    if value is None:
        return None
    if (count := _as_whole(name, value)) < 1:
        raise ValueError(f"`{name}` must be at least 1, got {value}.")
    return count


def _as_orders(orders: object) -> Orders:
    """Pixel orders: their number, a tensor (orders, H*W) or a function."""
    if callable(orders):
        return orders
    if isinstance(orders, np.ndarray | list | tuple):
        orders = torch.as_tensor(np.asarray(orders))
    if isinstance(orders, Tensor):
        if orders.dim() not in (1, 2) or not orders.numel():
            raise ValueError(f"`orders` must have the shape (orders, H*W), got {tuple(orders.shape)}.")
        return orders if orders.dim() == 2 else orders[None]
    if isinstance(orders, bool) or not isinstance(orders, int | np.integer):
        raise ValueError(f"`orders` must be a number, a tensor (orders, H*W) or a function, got {orders!r}.")
    if orders < 1:
        raise ValueError(f"`orders` must be at least 1, got {orders}.")
    return int(orders)


def _as_preset(preset: object) -> Preset | None:
    """A preset, also by its name."""
    if preset is None or isinstance(preset, Preset):
        return preset
    names = [name.lower() for name, value in vars(presets).items() if isinstance(value, Preset)]
    if not isinstance(preset, str) or preset.lower() not in names:
        raise ValueError(f"`preset` must be a Preset or one of {', '.join(names)}, got {preset!r}.")
    named: Preset = getattr(presets, preset.upper())
    return named


def _as_arguments(arguments: object) -> tuple[object, ...]:
    """Further positional arguments as a tuple."""
    return tuple(arguments) if isinstance(arguments, tuple | list) else (arguments,)


@dataclass(frozen=True)
class Task:
    """Everything that does not depend on the image.

    Args:
        model: Network, in eval mode.
        layers: Modules by name.
        options: How they are ranked.
        surveys: What sweeps have found out about the network.
    """

    model: nn.Module
    layers: Mapping[str, nn.Module]
    options: Options = Options()
    surveys: Surveys = field(default_factory=Surveys, compare=False, repr=False)

    @cached_property
    def preset(self) -> Preset:
        """Nodes, mask path and objective, with the options in place of the preset's fields."""
        return self.options.resolve()

    @property
    def seed(self) -> int:
        """Seed of everything random."""
        return self.options.seed or 0

    @property
    def order_count(self) -> int:
        """Pixel orders for every image."""
        orders = self.options.orders
        if isinstance(orders, int):
            return orders
        return len(orders) if isinstance(orders, Tensor) else 1

    @property
    def reference(self) -> Reference:
        """The reference input: the option ``baselines``, else the model's own, else 0."""
        own: Reference = getattr(self.model, "reference_input", 0.0)
        return own if self.options.baselines is None else self.options.baselines

    def with_steps(self, n_steps: int) -> "Task":
        """The same task with another number of steps."""
        return replace(self, options=replace(self.options, n_steps=n_steps, tolerance=None))

    def trial(self, sample: Sample, number: int, index: int) -> "Trial":
        """The trial of an image along one of its pixel orders.

        Args:
            sample: The image.
            number: Number of the image in the run; with ``index`` it decides the random order.
            index: Number of the pixel order.
        """
        seed = np.random.SeedSequence([self.seed, number, index]).generate_state(1)[0]
        return Trial(self, sample, index=index, seed=int(seed))

    def arguments(self, sample: Sample) -> tuple[object, ...]:
        """Further positional arguments of the model for an image."""
        return (*self.options.additional_forward_args, *sample.forward_args)

    def sample_loss(self, sample: Sample, user: str) -> Objective:
        """Loss of an image: the option ``loss``, else the mean absolute error to the clean image.

        Args:
            sample: The image.
            user: Name of what needs the loss, for the error message.

        Raises:
            ValueError: If there is neither.
        """
        if self.options.loss is not None:
            return self.options.loss
        return Distance(sample.require_clean(user, "give a mapping with `clean`, or a `loss`"))


@dataclass(frozen=True)
class Trial:
    """One image along one pixel order.

    Args:
        task: Network, layers and options.
        sample: The image.
        index: Number of the pixel order.
        seed: Seed of a random order.
    """

    task: Task
    sample: Sample
    index: int = 0
    seed: int = 0

    @cached_property
    def order(self) -> Tensor | None:
        """The pixel order that the options give, (H*W,); None: a random one from the seed.

        Raises:
            ValueError: If a function returns no order.
        """
        orders = self.task.options.orders
        if isinstance(orders, int):
            return None
        order = orders[self.index] if isinstance(orders, Tensor) else orders(self.sample.image)
        if not isinstance(order, Tensor):
            raise ValueError(
                f"the function `orders` must return a tensor (H*W,), got {type(order).__name__} for "
                f"{self.sample.name!r}."
            )
        return order

    @property
    def arguments(self) -> tuple[object, ...]:
        """Further positional arguments of the model."""
        return self.task.arguments(self.sample)

    @property
    def reference(self) -> Tensor:
        """The reference input, in the shape of the image."""
        return resolve_reference(self.task.reference, self.sample.image)

    def mask_path(self, twin: bool = False) -> MaskAttributePath:
        """The mask path of the image.

        Args:
            twin: Whether pixels are revealed in the reversed order: at r = 0.5, what one path hides at its start the
                other shows.
        """
        path = self.task.preset.path(
            self.sample.image, self.reference, self.order, seed=self.seed, patch_size=self.task.options.patch_size
        )
        return path.reversed() if twin else path

    @property
    def digest(self) -> str:
        """SHA-256 of the image, its clean image, its order and its arguments, first 16 digits."""
        sample = self.sample
        return hash_tensors(sample.image, sample.clean, self.order, *sample.forward_args)
