"""The task of a ranking (network, layers, options) and its trials: one image along one pixel order each."""

__all__ = ["Loss", "ObjectiveName", "Options", "Orders", "PathLike", "PathName", "Task", "Trial"]

import difflib
import inspect
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from macattr.arguments import as_tuple, checked_budget, checked_seed, whole_number
from macattr.layers.resolve import is_glob, resolve_layers
from macattr.layers.wrappers import own_attribute
from macattr.methods.provenance import hash_tensors
from macattr.methods.reductions import REDUCTIONS
from macattr.methods.samples import Sample
from macattr.paths.inputs import Gate, Path, Reference, random_order, resolve_reference
from macattr.paths.objectives import CrossEntropy, Distance, Objective
from macattr.paths.presets import RANKING, MacTag, Preset, as_preset
from macattr.paths.tokens import Token, TokenMaskPath, TokenPath
from macattr.statistics.stopping import StableTop
from macattr.sweep.calls import CallsName, check_calls
from macattr.sweep.entry import LOSS, forward_parameters
from macattr.sweep.nodes import repeat_rows
from macattr.sweep.outputs import OutputChoice, own_loss, read_output
from macattr.sweep.places import Place, find_place, refuse_nowhere, takes_mask, token_path, token_value
from macattr.sweep.survey import Surveys

PathName = Literal["mask", "line", "tail", "blur", "restore", "tokens"]
"""Names of the paths that the option ``path`` takes."""

PathLike = PathName | TokenMaskPath | Callable[[Tensor], Path]
"""A path by its name, a mask path over tokens, or a function from an image (1, C, H, W) to a path."""

ObjectiveName = Literal["gradient_magnitude", "sum", "mean", "class", "norm", "similarity", "loss", "masked_loss"]
"""Names of objectives; see :data:`macattr.methods.objectives.OBJECTIVES`."""

Loss = Callable[..., Tensor]
"""A loss: a function of (output) or (output, target) to one number a sample, or to one number."""

Orders = int | Tensor | Callable[[Tensor], Tensor]
"""Number of random pixel orders, the orders (orders, H*W), or a function from an image (1, C, H, W) to one order."""


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
    objective: Objective | ObjectiveName | None = None
    preset: Preset | str | None = None
    baselines: Reference | Token | None = None
    path: PathLike | None = None
    orders: Orders = 1
    patch_size: int = 1
    seed: int | None = None
    reduction: str = "mean_abs"
    loss: Loss | None = None
    start_weights: Mapping[str, Tensor] | None = None
    additional_forward_args: Any = ()
    internal_batch_size: int | None = None
    memory_budget: float | None = None
    flush_denormals: bool = False
    until: StableTop | None = None
    tolerance: float | None = None
    step_error: bool = False
    with_input_residual: bool = True
    parts: FilePath | str | None = None
    show_progress: bool = False
    output: OutputChoice = None
    at: str | nn.Module | None = None
    calls: CallsName = "sum"
    prefix: str = ""

    def __post_init__(self) -> None:
        for name in ("r", "delta", "tolerance"):
            self._set(name, _as_number(name, getattr(self, name)))
        for name in ("n_steps", "groups", "patch_size", "internal_batch_size"):
            if (value := getattr(self, name)) is not None:
                self._set(name, whole_number(name, value))
        self._set("memory_budget", checked_budget(self.memory_budget))
        self._set("seed", None if self.seed is None else checked_seed(self.seed))
        if self.until is not None and not isinstance(self.until, StableTop):
            raise ValueError(f"`until` must be a StableTop, got {self.until!r}.")
        if self.reduction not in REDUCTIONS:
            raise ValueError(f"`reduction` must be one of {', '.join(REDUCTIONS)}, got {self.reduction!r}.")
        if self.tolerance is not None and self.n_steps is not None:
            raise ValueError("`tolerance` and `n_steps` exclude each other: a tolerance chooses the steps.")
        check_calls(self.calls)
        _check_objective(self.objective)
        self._set("orders", _as_orders(self.orders))
        self._set("preset", as_preset(self.preset))
        self._set("additional_forward_args", as_tuple(self.additional_forward_args))
        self.resolve()

    def _set(self, name: str, value: object) -> None:
        """Replace a field by its checked value."""
        object.__setattr__(self, name, value)

    def resolve(self) -> Preset:
        """The preset with every field that was given in place of its own.

        Raises:
            ValueError: If one of them is out of range or has no effect.
        """
        base = as_preset(self.preset) or RANKING
        names = ("r", "n_steps", "gate", "delta", "groups", "include_end", "tag", "objective")
        given = {name: getattr(self, name) for name in names}
        return base.override(**given | ({"objective": None} if isinstance(self.objective, str) else {}))

    def given(self) -> dict[str, object]:
        """The fields that differ from their defaults, by name."""
        defaults = Options.__dataclass_fields__
        return {
            name: value
            for name, value in vars(self).items()
            if not (value is defaults[name].default or (_is_plain(value) and value == defaults[name].default))
        }


def _check_objective(objective: object) -> None:
    """Raise for the name of no objective."""
    names = get_args(ObjectiveName)
    if objective is not None and not isinstance(objective, str) and not callable(objective):
        raise ValueError(f"`objective` must be a function or one of {', '.join(names)}, got {objective!r}.")
    if isinstance(objective, str) and objective not in names:
        near = difflib.get_close_matches(objective, names, 1)
        hint = f"did you mean {near[0]!r}? There are" if near else "it must be a function or one of"
        raise ValueError(f"no objective {objective!r}; {hint} {', '.join(names)}.")


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


def _as_orders(orders: object) -> Orders:
    """Pixel orders: their number, a tensor (orders, H*W) or a function."""
    if callable(orders):
        return orders
    if isinstance(orders, np.ndarray | list | tuple):
        orders = torch.from_numpy(np.asarray(orders))
    if isinstance(orders, Tensor):
        if orders.dim() not in (1, 2) or not orders.numel():
            raise ValueError(f"`orders` must have the shape (orders, H*W), got {tuple(orders.shape)}.")
        return orders if orders.dim() == 2 else orders[None]
    if isinstance(orders, bool) or not isinstance(orders, int | np.integer):
        raise ValueError(f"`orders` must be a number, a tensor (orders, H*W) or a function, got {orders!r}.")
    if orders < 1:
        raise ValueError(f"`orders` must be at least 1, got {orders}.")
    return int(orders)


@dataclass(frozen=True)
class Task:
    """Everything that does not depend on the image.

    Args:
        model: Network, in eval mode.
        layers: Modules by name.
        options: How they are ranked.
        surveys: What sweeps have found out about the network.
        droppable: Names of layers that are left out if they do not run: those that no entry of ``layers`` names.
    """

    model: nn.Module
    layers: Mapping[str, nn.Module]
    options: Options = Options()
    droppable: Collection[str] = ()
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
    def reference(self) -> Reference | Token:
        """The reference input: the option ``baselines``, else the model's own, else 0."""
        own: Reference = own_attribute(self.model, "reference_input", 0.0)
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
        """Positional arguments of the model for a sample, after what a path walks."""
        return (*sample.fixed, *self.options.additional_forward_args, *sample.forward_args)

    def call_arguments(self, sample: Sample) -> tuple[tuple[object, ...], dict[str, object]]:
        """All arguments of the model for a sample, by position and by keyword: copies, which it may write into."""
        arguments, keywords = self.arguments(sample), dict(sample.keywords)
        if sample.image is not None:
            if key := self.key_of(sample):
                keywords[key] = sample.image
            else:
                arguments = (sample.image, *arguments)
        own: tuple[tuple[object, ...], dict[str, object]] = repeat_rows((arguments, keywords), 1, 1)
        return own

    def key_of(self, sample: Sample) -> str:
        """Keyword of what a path walks; '' where it stands first, before further positional arguments.

        Args:
            sample: The sample.
        """
        is_first = bool(self.arguments(sample)) and sample.key == next(iter(forward_parameters(self.model)[0]), "")
        return "" if is_first else sample.key

    @cached_property
    def layer_of_path(self) -> tuple[str, nn.Module] | None:
        """The layer at which paths run, by name: that of the option ``at``; None for the model's input.

        Raises:
            ValueError: If the option names no layer, or several.
        """
        at = self.options.at
        if at is None:
            return None
        if is_glob(at):
            raise ValueError(f"`at` must name one layer, got {at!r}.")
        return next(iter(resolve_layers(self.model, at, self.options.prefix).items()))

    @property
    def objective_name(self) -> str | None:
        """The name of the objective; None where it is a function, or the preset's."""
        chosen = self.options.objective
        if isinstance(chosen, str):
            return chosen
        return "loss" if chosen is None and self.options.output == LOSS else None

    @property
    def attributes_loss(self) -> bool:
        """Whether the objective is the option ``loss``, or what the target means, and not the model's own loss."""
        return self.objective_name == "loss" and self.options.output != LOSS

    def output(self, sample: Sample) -> OutputChoice:
        """Which output of the model is read: the option, or the model's own loss where that is the objective."""
        is_loss = self.objective_name == "loss" and sample.clean is None and self.options.loss is None
        return LOSS if is_loss and self.options.output is None else self.options.output

    def sample_loss(self, sample: Sample, user: str) -> Objective:
        """Loss of a sample as a function of the output: the option ``loss``, else the one that its target means.

        That is the cross-entropy for labels of integers, else the mean absolute error.

        Args:
            sample: The sample.
            user: Name of what needs the loss, for the error message.

        Raises:
            ValueError: If there is neither a loss nor a target.
        """
        loss = self.options.loss
        if loss is not None and not _takes_target(loss):
            return loss
        if sample.clean is None:
            needs, or_loss = (user, ", or a `loss` without one") if loss is None else ("`loss`", "")
            raise ValueError(
                f"{sample.name!r} has no target, which {needs} needs: give mappings with `clean` (an image) or "
                f"`target` (such as a label){or_loss}."
            )
        if loss is None:
            target = sample.require_clean(user)
            return Distance(target) if target.is_floating_point() else CrossEntropy(target)
        return lambda output: loss(output, sample.clean)

    def loss_of(self, output: Any, sample: Sample, user: str) -> Tensor:
        """Loss of a sample, one number, from whatever the model returned.

        It is the model's own where the sample has no target and the options no loss.

        Args:
            output: Output of the model.
            sample: The sample.
            user: Name of what needs the loss, for the error message.

        Raises:
            ValueError: If there is no target, or it is a label that the output has not.
        """
        own = own_loss(output)
        is_own = self.options.output == LOSS or (self.options.loss is None and sample.clean is None)
        if is_own and own is not None:
            return own.float() if own.element_size() < 4 else own
        tensor, _ = read_output(output, self.options.output)
        wide = tensor.float() if tensor.element_size() < 4 else tensor
        try:
            return self.sample_loss(sample, user)(wide).sum()
        except IndexError as error:
            raise ValueError(f"the loss refuses the target of {sample.name!r}: {error}") from error


TARGETS = ("target", "targets", "label", "labels")
"""Names of the second argument of a loss that takes the target although it has a default."""


def _takes_target(loss: Loss) -> bool:
    """Whether a loss takes the target: as a second argument without a default, or as one that is called so."""
    try:  # that of a module takes anything
        parameters = inspect.signature(loss.forward if isinstance(loss, nn.Module) else loss).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if not positional:
        return any(p.kind is p.VAR_POSITIONAL for p in parameters)
    return any(p.default is p.empty or p.name in TARGETS for p in positional[1:2])


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
        order = orders[self.index] if isinstance(orders, Tensor) else orders(self.tensor)
        if not isinstance(order, Tensor):
            raise ValueError(
                f"the function `orders` must return a tensor (H*W,), got {type(order).__name__} for "
                f"{self.sample.name!r}."
            )
        return order

    @cached_property
    def place(self) -> Place:
        """What a path walks: the sample's input, or the output of a layer."""
        return self._find_place(tokens=False)

    @cached_property
    def token_place(self) -> Place:
        """What a path over tokens walks: the model's own mask if it has one, else :attr:`place`."""
        walks_mask = self.task.layer_of_path is None and self.sample.image is not None and takes_mask(self.task.model)
        return self._find_place(tokens=True) if walks_mask else self.place

    def _find_place(self, *, tokens: bool) -> Place:
        """What a path walks, or a path over tokens."""
        task, sample = self.task, self.sample
        found = find_place(
            task.model,
            sample.image,
            task.arguments(sample),
            sample.keywords,
            key=task.key_of(sample),
            layer=task.layer_of_path,
            tokens=tokens,
            prefix=task.options.prefix,
        )
        return found.reading(task.output(sample))

    @property
    def tensor(self) -> Tensor:
        """What the path walks, at its end, (1, ...).

        Raises:
            ValueError: If the sample holds nothing that a path can walk.
        """
        if self.place.tensor is None:
            raise refuse_nowhere(self.sample.name, self.task.model)
        return self.place.tensor

    @property
    def rows(self) -> int | None:
        """Rows of one forward pass: one where the output is the model's own loss."""
        return 1 if self.place.entry.output == LOSS else self.task.options.internal_batch_size

    @cached_property
    def reference(self) -> Tensor:
        """The reference input, in the shape of what the path walks: 0 at a layer if the options give none."""
        given = self.task.reference
        if isinstance(given, Token):
            return self._token_value(given)
        is_own = self.task.options.baselines is None
        return resolve_reference(0.0 if is_own and self.place.words else given, self.tensor)

    def mask_path(self, twin: bool = False) -> Path:
        """The mask path of an image; at a layer with tokens (1, n, D), that over the tokens.

        Args:
            twin: Whether pixels are revealed in the reversed order; see
                :meth:`macattr.paths.inputs.MaskAttributePath.reversed`.
        """
        if self.place.words and self.tensor.dim() == 3:
            return self.token_path(TokenMaskPath(self.task.preset.r), at_place=self.place, twin=twin)
        path = self.task.preset.path(
            self.tensor, self.reference, self.order, seed=self.seed, patch_size=self.task.options.patch_size
        )
        return path.reversed() if twin else path

    def token_path(self, path: TokenMaskPath, at_place: Place | None = None, twin: bool = False) -> TokenPath:
        """The mask path over the tokens of the sample.

        Args:
            path: Share that is hidden, and what stands in its place.
            at_place: Where it runs; None: :attr:`token_place`.
            twin: Whether tokens are revealed in the reversed order.

        Raises:
            ValueError: If there are no tokens.
        """
        place = self.token_place if at_place is None else at_place
        if place.tensor is None:
            raise refuse_nowhere(self.sample.name, self.task.model)
        count = place.tensor.shape[1] if place.tensor.dim() > 1 else 0
        order = random_order(count, self.seed) if self.order is None else self.order
        reference = None
        if place.hidden_value is None:
            reference = self.reference if path.token is None else self._token_value(Token(path.token))
        groups = self.task.preset.n_groups
        return token_path(place, path, order.flip(-1) if twin else order, reference, self.sample.keywords, groups)

    def _token_value(self, token: Token) -> Tensor:
        """What the layer of the path returns where every token is one and the same."""
        return token_value(self.place, token, *self.task.call_arguments(self.sample))

    @property
    def digest(self) -> str:
        """SHA-256 of the sample, its target, its order and its arguments, first 16 digits."""
        sample = self.sample
        order = None if callable(self.task.options.orders) and sample.image is None else self.order
        more = (sample.keywords, sample.fixed) if sample.keywords or sample.fixed else ()
        return hash_tensors(sample.image, sample.clean, order, *sample.forward_args, *more)
