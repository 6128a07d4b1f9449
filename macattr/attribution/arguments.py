"""What Captum's arguments mean: inputs, baselines, targets, paths and nodes as the library takes them."""

__all__ = [
    "OF_SAMPLES",
    "Baselines",
    "Inputs",
    "Tensors",
    "as_inputs",
    "as_masked_fraction",
    "as_objective",
    "as_order",
    "as_partition",
    "as_path",
    "as_tag",
    "ends_of",
    "with_later_arguments",
]

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from macattr.arguments import as_tuple, whole_number
from macattr.paths.inputs import LinearPath, Path, Reference, random_order, resolve_reference
from macattr.paths.objectives import PLAIN_OBJECTIVES, Objective, PlainObjectiveName, Target, TargetType
from macattr.paths.partitions import CaptumMethod, Partition, Tag, captum_nodes, tagged_partition
from macattr.paths.presets import DEFAULT, MacTag
from macattr.paths.tokens import Token, TokenMaskPath
from macattr.sweep.places import Place, token_path, token_value

TAGS: Mapping[CaptumMethod | MacTag, MacTag] = {
    "left": "left",
    "right": "right",
    "trapezoid": "trapezoid",
    "riemann_left": "left",
    "riemann_right": "right",
    "riemann_trapezoid": "trapezoid",
    "riemann_middle": "riemann_middle",
    "gausslegendre": "gausslegendre",
}
"""Where the gradient is taken, by our name or the one that Captum gives the sum."""

Tensors = Tensor | tuple[Tensor, ...]
"""One tensor or several."""

Inputs = Tensors | Mapping[str, Any]
"""Inputs of a model by position, or all of them by name."""

Baselines = Reference | Token | tuple[Reference, ...] | None
"""Where a line starts: one for all inputs, or one for each."""


def as_inputs(inputs: Tensors) -> tuple[Tensor, ...]:
    """Model inputs as a tuple.

    Args:
        inputs: A tensor (B, ...), or a tuple of tensors.

    Raises:
        ValueError: If they are anything else.
    """
    ends = as_tuple(inputs)
    if not ends or not all(isinstance(end, Tensor) for end in ends):
        kinds = ", ".join(type(end).__name__ for end in ends) or "none"
        raise ValueError(f"`inputs` must be a tensor (B, ...), or a tuple of tensors, got {kinds}.")
    return ends


def as_masked_fraction(r: object) -> float:
    """The masked fraction as a number; its range is checked with the other options.

    Args:
        r: A number.

    Raises:
        ValueError: If it is none.
    """
    if isinstance(r, bool | np.bool_) or not isinstance(r, int | float | np.number):
        raise ValueError(f"`r` must lie in (0, 1], got {r!r}: it is the masked fraction at the start of the path.")
    return float(r)


def as_order(order: object) -> Tensor:
    """A reveal order as a tensor; lists and arrays are meant as such.

    Args:
        order: Indices of pixels, (H*W,) or (B, H*W).

    Raises:
        ValueError: If it is of another type or shape.
    """
    if not isinstance(order, Tensor | np.ndarray | Sequence) or isinstance(order, str):
        raise ValueError(f"`order` must be a tensor of pixel indices, (H*W,) or (B, H*W), got {type(order).__name__}.")
    try:
        tensor = order if isinstance(order, Tensor) else torch.as_tensor(order, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"`order` must hold pixel indices, (H*W,) or (B, H*W): {error}.") from None
    if tensor.dim() not in (1, 2) or not tensor.numel() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise ValueError(
            f"`order` must hold pixel indices, (H*W,) or (B, H*W), got shape {tuple(tensor.shape)} of {tensor.dtype}."
        )
    return tensor


OF_SAMPLES: Mapping[str, str] = {
    "class": "give the number of the class as `target`",
    "similarity": "give `macattr.paths.objectives.Similarity(reference)`, with the output for the whole input",
    "loss": (
        'with `output="loss"` give "sum" for the loss that the network computes itself, else a function of the output '
        "to one loss a sample, such as `lambda out: torch.nn.functional.cross_entropy(out, labels, reduction='none')`"
    ),
    "masked_loss": "give `macattr.paths.objectives.HiddenDistance(clean, hidden)` or `CrossEntropy(labels)`",
}
"""What to give here in place of the objectives that :func:`macattr.ranking.rank.rank_layers` makes of a sample."""


def as_objective(target: TargetType, objective: Objective | PlainObjectiveName | None) -> Objective:
    """The objective, also by its name, or the output selected by a target.

    Args:
        target: As in Captum; None without one.
        objective: A function of the output, (B, ...) to (B,), or a name of
            :data:`macattr.paths.objectives.PLAIN_OBJECTIVES`; None without one.

    Raises:
        ValueError: If both are given, or the objective is no function and has an unknown name.
    """
    if target is not None and objective is not None:
        raise ValueError("`target` and `objective` exclude each other: a target is an objective.")
    if isinstance(objective, str):
        if objective not in PLAIN_OBJECTIVES:
            remedy = OF_SAMPLES.get(objective, "for others give a function of the output")
            raise ValueError(f"no objective {objective!r}: the names here are {', '.join(PLAIN_OBJECTIVES)}; {remedy}.")
        return PLAIN_OBJECTIVES[objective]()
    if objective is not None and not callable(objective):
        raise ValueError(f"`objective` must be a function from (B, ...) to (B,), got {type(objective).__name__}.")
    return Target(target) if objective is None else objective


def ends_of(place: Place, inputs: Inputs) -> tuple[Tensor, ...]:
    """What a path ends at: all tensors that are given by position, or the one of the place.

    Args:
        place: What the path walks.
        inputs: What the user gave.

    Raises:
        ValueError: If they are no tensors.
    """
    if place.words or isinstance(inputs, Mapping):
        return (place.tensor,) if place.tensor is not None else ()
    return as_inputs(inputs)


def with_later_arguments(place: Place, inputs: Inputs) -> Place:
    """The place with the arguments that come after what a path walks: all that end at the inputs walk all of them.

    Args:
        place: What the path walks.
        inputs: What the user gave.

    Raises:
        ValueError: As :func:`ends_of`.
    """
    return replace(place, arguments=place.arguments[len(ends_of(place, inputs)) - 1 :])


def as_path(
    place: Place, keywords: Mapping[str, Any], inputs: Inputs, baselines: Baselines, path: Path | TokenMaskPath | None
) -> Path:
    """The straight line from the baselines, or the given path if it ends at the inputs.

    Args:
        place: What the path walks.
        keywords: Keyword arguments of the model.
        inputs: What the user gave.
        baselines: Start of the line; None for 0, and where the path has a start of its own.
        path: Path to walk instead; None for the line.

    Raises:
        ValueError: If there are too few or too many baselines, they would have no effect, or the path is none or does
            not end at the inputs.
    """
    ends = ends_of(place, inputs)
    if isinstance(baselines, Token):
        baselines = token_value(place, baselines, place.arguments, keywords)
    if isinstance(path, TokenMaskPath):
        if path.token is not None:
            if baselines is not None:
                raise ValueError("`baselines` has no effect when `path` names a token: leave one of them out.")
            baselines = token_value(place, Token(path.token), place.arguments, keywords)
        reference = resolve_reference(baselines, ends[0])  # type: ignore[arg-type]
        return token_path(place, path, random_order(ends[0].shape[1], 0), reference, keywords, DEFAULT.n_groups)
    if path is None:
        starts = as_tuple(baselines) if isinstance(baselines, tuple) else (baselines,) * len(ends)
        if len(starts) != len(ends):
            raise ValueError(f"{len(ends)} inputs need as many baselines, got {len(starts)}.")
        return LinearPath(ends, tuple(resolve_reference(s, e) for s, e in zip(starts, ends, strict=True)))
    if baselines is not None:
        raise ValueError("`baselines` has no effect when `path` is given: the path has its own start.")
    if not isinstance(path, Path):
        raise ValueError(f"`path` must have an interval, groups and a method `at`, got {type(path).__name__}.")
    own = getattr(path, "inputs", None)
    last = path.at(torch.tensor(path.interval[1:], dtype=torch.float64, device="cpu")) if own is None else as_tuple(own)
    if len(last) != len(ends) or not all(
        a.shape == b.shape and torch.allclose(a, b.to(a)) for a, b in zip(last, ends, strict=True)
    ):
        raise ValueError("`path` does not end at `inputs`: build it from the same tensors.")
    return path


def as_tag(method: CaptumMethod | MacTag | None) -> MacTag | None:
    """Where the gradient is taken, by our name or the one that Captum gives the sum; None stays None.

    Args:
        method: The name.

    Raises:
        ValueError: If there is no such name.
    """
    if method is None:
        return None
    if method not in TAGS:
        raise ValueError(f"`method` must be one of {', '.join(TAGS)}, got {method!r}.")
    return TAGS[method]


def as_partition(path: Path, n_steps: object, method: str, extra: int) -> Partition:
    """Nodes by our tags, or by Captum's names.

    Args:
        path: Path that the nodes lie on.
        n_steps: Number of increments.
        method: One of our tags, or Captum's name of a sum.
        extra: Nodes beyond ``n_steps`` where Captum's name is given.

    Raises:
        ValueError: If the number is none, or there is no such name.
    """
    steps = whole_number("n_steps", n_steps)
    if method in get_args(Tag):
        return tagged_partition(path.interval, steps, method, path.groups)  # type: ignore[arg-type]
    return captum_nodes(path.interval, steps + extra, method)  # type: ignore[arg-type]
