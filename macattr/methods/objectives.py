"""Objectives by name: those that need the sample, its target or its path, and those that do not."""

__all__ = [
    "OBJECTIVES",
    "hidden_loss",
    "objective_of",
]

from collections.abc import Callable, Mapping
from typing import get_args

import torch
from torch import Tensor

from macattr.methods.task import ObjectiveName, Trial
from macattr.paths.inputs import MaskAttributePath, Path
from macattr.paths.objectives import (
    PLAIN_OBJECTIVES,
    CrossEntropy,
    HiddenDistance,
    Objective,
    OutputSum,
    Similarity,
    Target,
)
from macattr.paths.tokens import TokenPath
from macattr.sweep.entry import LOSS
from macattr.sweep.guard import undisturbed
from macattr.sweep.nodes import repeat_rows
from macattr.sweep.places import Place


def _whole_output(trial: Trial, place: Place, path: Path) -> Tensor:
    """The model's output at the end of the path."""
    (end,) = path.at(torch.tensor(path.interval[1:], dtype=torch.float64, device="cpu"))
    with undisturbed(trial.task.model), torch.no_grad():
        return place.entry(*repeat_rows((end, *place.arguments), 1, 1)).detach()


def _class(trial: Trial, place: Place, path: Path) -> Objective:
    """The score of the label, which is the target or ``labels``; without one, of the class that wins at the end."""
    output = _whole_output(trial, place, path)
    if output.dim() != 2:
        raise ValueError(
            f"the objective 'class' needs scores (B, classes), got an output {tuple(output.shape)}: choose one "
            "position with `output=`, such as `lambda out: out.logits[:, -1]` for the next word."
        )
    for label in (trial.sample.clean, trial.sample.keywords.get("labels")):
        if isinstance(label, Tensor) and not label.is_floating_point() and label.numel() == 1:
            return Target(int(label))
    return Target(int(output.argmax()))


def _loss(trial: Trial, place: Place, path: Path) -> Objective:
    """The loss of the sample as one number, or the model's own."""
    if place.entry.output == LOSS:
        return OutputSum()
    loss = trial.task.sample_loss(trial.sample, "the objective 'loss'")
    return lambda output: one if (one := loss(output)).dim() else one[None]


def _masked_loss(trial: Trial, place: Place, path: Path) -> Objective:
    """The loss on what is hidden at the start of the path: the error of pixels, or the cross-entropy of tokens."""
    if isinstance(path, MaskAttributePath):
        return hidden_loss(trial, path, trial.sample.clean if isinstance(trial.sample.clean, Tensor) else trial.tensor)
    if not isinstance(path, TokenPath):
        raise ValueError("the objective 'masked_loss' needs hidden pixels or tokens: walk the path 'mask' or 'tokens'.")
    hidden = path.hidden()
    labels = _labels(trial)
    if place.patch is None or labels is not None:
        if labels is None:
            raise ValueError(
                f"the objective 'masked_loss' needs tokens or labels (1, n), {trial.sample.name!r} has none."
            )
        return CrossEntropy(torch.where(hidden, labels, -1))
    picture = trial.sample.image
    if picture is None:
        raise ValueError("the objective 'masked_loss' of a masked-image model needs its image.")
    rows, columns = (-(-size // side) for size, side in zip(picture.shape[-2:], place.patch, strict=True))
    grid = hidden.reshape(-1, rows, columns).to(picture)
    pixels = grid.repeat_interleave(place.patch[0], 1).repeat_interleave(place.patch[1], 2)
    clean = trial.sample.clean
    return HiddenDistance(
        clean if isinstance(clean, Tensor) else picture, pixels[:, : picture.shape[-2], : picture.shape[-1]]
    )


def _labels(trial: Trial) -> Tensor | None:
    """Labels of the tokens, (1, n): the target, ``labels``, or the text itself."""
    sample = trial.sample
    for value in (sample.clean, sample.keywords.get("labels"), sample.keywords.get("input_ids"), *sample.fixed):
        if isinstance(value, Tensor) and not value.is_floating_point() and value.dim() == 2:
            return value
    return None


def hidden_loss(trial: Trial, path: MaskAttributePath, clean: Tensor) -> Objective:
    """Mean absolute error over the pixels that are hidden at the start of a path.

    Args:
        trial: Sample and options.
        path: Its mask path.
        clean: What the model should return; as large as the image, or a whole number of times larger.

    Raises:
        ValueError: If it has another size.
    """
    hidden = path.hidden()
    factors = [large / small for large, small in zip(clean.shape[2:], hidden.shape[1:], strict=False)]
    if clean.dim() != 4 or not all(factor.is_integer() for factor in factors):
        raise ValueError(
            f"the loss on hidden pixels needs a clean image as large as {tuple(hidden.shape[1:])}, or a whole number "
            f"of times larger, got a target {tuple(clean.shape)} for {trial.sample.name!r}."
        )
    rows, columns = map(int, factors)
    larger = hidden.repeat_interleave(rows, 1).repeat_interleave(columns, 2)
    return HiddenDistance(clean, larger)


def _plain(make: Callable[[], Objective]) -> Callable[[Trial, Place, Path], Objective]:
    """An objective that looks at nothing but the output, for any trial."""
    return lambda trial, place, path: make()


OBJECTIVES: Mapping[str, Callable[[Trial, Place, Path], Objective]] = {
    **{name: _plain(make) for name, make in PLAIN_OBJECTIVES.items()},
    "class": _class,
    "similarity": lambda trial, place, path: Similarity(_whole_output(trial, place, path)),
    "loss": _loss,
    "masked_loss": _masked_loss,
}
"""Objectives by name: edges and texture of images; sum, mean and norm of the output; the score of the label or of the
class that wins; the cosine similarity to the output of the whole input; the loss to the target, or the model's own; the
loss on what the path hides at its start."""

if OBJECTIVES.keys() != set(get_args(ObjectiveName)):
    raise ImportError("the names of objectives and their table differ.")


def objective_of(trial: Trial, place: Place, path: Path) -> Objective:
    """What of the output is attributed on a trial: a named objective, a user's function, or the preset's.

    Args:
        trial: Sample and options.
        place: What the path walks.
        path: The path.

    Raises:
        ValueError: If a named objective needs what the sample does not have.
    """
    name = trial.task.objective_name
    return trial.task.preset.objective if name is None else OBJECTIVES[name](trial, place, path)
