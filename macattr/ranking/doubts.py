"""What speaks against a ranking: sums that are not complete, scores that do not differ, and a path without effect."""

__all__ = ["doubts", "without_gradients", "without_scores"]

from collections.abc import Mapping, Sequence

import numpy as np

INCOMPLETE = 0.1
"""Input residual, in the median over images and orders, above which a sum counts as incomplete."""

SMALL = 0.02
"""The same error as a share of the path's total variation, below which the net change is merely small."""

ALIKE = 0.02
"""Spread of the scores, relative to the largest, below which they count as equal if no step error is known."""

FLAT = 1e-5
"""Ups and downs of an objective along the path, relative to its value, below which they are rounding errors."""


def doubts(measured: Mapping[str, np.ndarray], n_steps: int) -> list[str]:
    """Reasons to doubt a ranking along a path, each with what to do about it.

    Args:
        measured: ``score`` and ``step_error`` (sample, order, layer), ``input_residual``, ``objective_start``,
            ``objective_end`` and ``objective_variation`` (sample, order).
        n_steps: Steps of the path.
    """
    if words := _flat(measured):
        return [words]
    found = [_incomplete(measured, n_steps), _alike(measured)]
    return [words for words in found if words]


def without_scores(scores: np.ndarray) -> list[str]:
    """Words on scores that are all 0, by any method; none where one is not.

    Args:
        scores: (sample, order, layer).
    """
    if scores.any():
        return []
    return [
        f"no ranking: the scores of all {scores.shape[-1]} layers are 0, as where the last layer is still zero. Load "
        "trained weights, or choose another method, objective, path or loss."
    ]


def without_gradients(scores: np.ndarray, layers: Sequence[str], parameters: np.ndarray) -> list[str]:
    """Words on layers that hold parameters and score 0 by a method of the loss; none where there are no such layers.

    Args:
        scores: By a method of the loss, (sample, order, layer).
        layers: Their names.
        parameters: Number of parameters of each, (layer).
    """
    silent = (scores == 0).all((0, 1)) & (parameters > 0)
    still = [layer for layer, is_silent in zip(layers, silent, strict=True) if is_silent]
    if not still:
        return []
    count = "1 layer with parameters scores" if len(still) == 1 else f"{len(still)} layers with parameters score"
    return [
        f"{count} 0 on every image, such as {still[0]!r}, as where the loss does not depend on them. If it should, the "
        "network may use what it computed from them in an earlier call; `model.train()` and then `model.eval()` drops "
        "such a cache in timm's networks."
    ]


def _flat(measured: Mapping[str, np.ndarray]) -> str:
    """Words on an objective that stays as it is along the path."""
    size = np.maximum(np.abs(measured["objective_start"]), np.abs(measured["objective_end"]))
    changes = measured["objective_variation"] / np.maximum(size, 1e-300)
    if np.isnan(changes).all() or (median := float(np.nanmedian(changes))) > FLAT:
        return ""
    return (
        f"no ranking: the objective changes by no more than {median:.1g} of its value along the path, which is "
        "rounding error; the norm behind a layer norm is such a constant. Choose another `objective` or `output`."
    )


def _incomplete(measured: Mapping[str, np.ndarray], n_steps: int) -> str:
    """Words on a sum over the input that misses the change of the objective."""
    residual = np.abs(measured["input_residual"])
    if np.isnan(residual).all() or (median := float(np.nanmedian(residual))) <= INCOMPLETE:
        return ""
    if (measured["input_residual"] == -1).all():
        return (
            "no gradient reaches the input, although the objective changes: the network detaches or rounds on the way. "
            "Layers before that point get 0, whatever they do."
        )
    change = np.abs(measured["objective_end"] - measured["objective_start"])
    variation = measured["objective_variation"]
    share = float(np.nanmedian(residual * change / np.maximum(variation, 1e-300)))
    if share <= SMALL:
        return (
            f"the input residual is {median:.0%} in the median, but only {share:.1%} of all the objective's ups and "
            "downs along the path: the net change is small, and the sums are good."
        )
    return (
        f"the sums along the path are not complete: attributions of the input miss {median:.0%} of the objective's "
        f"change in the median ({share:.0%} of its ups and downs). Scores hold an error of that kind: raise `n_steps`, "
        f"which is {n_steps}, or start from another reference (`baselines`)."
    )


def _alike(measured: Mapping[str, np.ndarray]) -> str:
    """Words on scores that do not differ."""
    scores = measured["score"].mean((0, 1))
    largest = float(np.abs(scores).max(initial=0.0))
    if len(scores) < 3 or not largest > 0 or np.isnan(measured["input_residual"]).all():
        return ""
    errors = measured["step_error"].mean((0, 1))
    error = ALIKE * largest if np.isnan(errors).any() else max(float(errors.max()), 1e-6 * largest)
    spread = float(np.ptp(scores))
    if spread > error:
        return ""
    return (
        f"no ranking: the scores of all {len(scores)} layers lie within {spread / largest:.1%} of the largest, which "
        "the finite number of steps explains. On a chain of layers every sum is the whole change: choose another "
        "`reduction` or method."
    )
