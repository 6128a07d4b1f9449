"""Walks: the paths that methods can take, by name; all that is known of a path stands in its row of the table."""

__all__ = ["WALKS", "Walk", "walk_of"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from macattr.methods.provenance import describe
from macattr.methods.task import PathLike, Trial
from macattr.paths.inputs import BlurPath, LinearPath, Path
from macattr.paths.tokens import TokenMaskPath
from macattr.sweep.places import Place

BLUR_SIGMA = 1.2
"""Width in pixels at the start of the blur path: that of LAM (Gu & Dong 2021)."""

MASK_OPTIONS = frozenset({"r", "gate", "delta", "groups", "patch_size", "orders", "seed", "baselines"})
"""Options that place the mask path."""

TOKEN_OPTIONS = frozenset({"groups", "orders", "seed", "baselines"})
"""Options that place a mask path over tokens, besides the share."""


@dataclass(frozen=True)
class Walk:
    """A path by name.

    Args:
        name: Name in options and results.
        words: Where it runs, for readers; ``{r}`` stands for the masked fraction.
        path: From a trial to its path.
        options: Names of the options that have an effect on the path.
        is_ordered: Whether it depends on a pixel order.
        ends_at_image: Whether it ends at the whole image.
        is_offered: Whether the option ``path`` takes its name.
        place: From a trial to what the path walks.
    """

    name: str
    words: str
    path: Callable[[Trial], Path] = field(compare=False)
    options: frozenset[str] = frozenset()
    is_ordered: bool = False
    ends_at_image: bool = True
    is_offered: bool = True
    place: Callable[[Trial], Place] = field(default=lambda trial: trial.place, compare=False)


def _line(trial: Trial) -> Path:
    """Straight line from the reference input to the image."""
    return LinearPath((trial.tensor,), (trial.reference,))


def _tail(trial: Trial) -> Path:
    """The last share r of that line."""
    return LinearPath((trial.tensor,), (trial.reference,), (1 - trial.task.preset.r, 1.0))


def _restore(trial: Trial) -> Path:
    """Straight line from the degraded to the clean image."""
    return LinearPath((trial.sample.require_clean("the path 'restore'", same_shape=True),), (trial.tensor,))


def _tokens(trial: Trial) -> Path:
    """The mask path over tokens, with the share that the options give."""
    return trial.token_path(TokenMaskPath(trial.task.preset.r))


WALKS: Mapping[str, Walk] = {
    walk.name: walk
    for walk in (
        Walk(
            name="mask",
            words="from an image with {r} of its pixels hidden to the whole image",
            path=Trial.mask_path,
            options=MASK_OPTIONS,
            is_ordered=True,
        ),
        Walk(
            name="twin",
            words="from the same image with pixels hidden in the reversed order to the whole image",
            path=partial(Trial.mask_path, twin=True),
            options=MASK_OPTIONS,
            is_ordered=True,
            is_offered=False,
        ),
        Walk(
            name="line",
            words="in a straight line from the reference input to the image",
            path=_line,
            options=frozenset({"baselines"}),
        ),
        Walk(
            name="tail",
            words="along the last {r} of the straight line from the reference input to the image",
            path=_tail,
            options=frozenset({"baselines", "r"}),
        ),
        Walk(
            name="blur",
            words="from the blurred to the sharp image",
            path=lambda trial: BlurPath(trial.tensor, BLUR_SIGMA),
        ),
        Walk(
            name="restore",
            words="in a straight line from the degraded to the clean image",
            path=_restore,
            ends_at_image=False,
        ),
        Walk(
            name="tokens",
            words="from {r} of the tokens hidden to all of them",
            path=_tokens,
            options=TOKEN_OPTIONS | {"r"},
            is_ordered=True,
            ends_at_image=False,
            place=lambda trial: trial.token_place,
        ),
    )
}
"""All walks by name. A new path is a new row."""


def walk_of(path: PathLike | str) -> Walk:
    """The walk of a name, or of a function from an image (1, C, H, W) to a path.

    Args:
        path: Name or function.

    Raises:
        ValueError: If no walk has that name.
    """
    if isinstance(path, TokenMaskPath):
        return _walk_over_tokens(path)
    if callable(path):
        return _walk_along(path)
    if path not in WALKS:
        offered = ", ".join(walk.name for walk in WALKS.values() if walk.is_offered)
        raise ValueError(f"`path` must be one of {offered} or a function, got {path!r}.")
    return WALKS[path]


def _walk_along(function: Callable[[Tensor], Path]) -> Walk:
    """The walk of a user's function."""
    name = describe(function)

    def walked(trial: Trial) -> Path:
        path = function(trial.tensor)
        if not isinstance(path, Path):
            raise ValueError(
                f"the function `path` must return a path, with `interval`, `groups` and `at`, got a "
                f"{type(path).__name__}: see macattr.paths.inputs."
            )
        return path

    return Walk(name, f"along {name}", walked, ends_at_image=False)


def _walk_over_tokens(path: TokenMaskPath) -> Walk:
    """The walk of a mask path over tokens that a user describes."""
    decided = {"groups": path.groups, "baselines": path.token}
    return Walk(
        describe(path),
        f"from {path.r:.0%} of the tokens hidden to all of them",
        lambda trial: trial.token_path(path),
        TOKEN_OPTIONS - {name for name, value in decided.items() if value is not None},
        is_ordered=True,
        ends_at_image=False,
        place=lambda trial: trial.token_place,
    )
