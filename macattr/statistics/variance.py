"""Where the variance of scores comes from: layers, images, pixel orders, steps."""

__all__ = ["relative_error", "variance_components"]

import math
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from macattr.statistics.images import check_scores

Array = np.ndarray


def variance_components(
    scores: Float[Array, "images orders layers"],
    step_errors: Float[Array, "*any layers"] | None = None,
    scale: Literal["log", "normalised"] = "log",
) -> pd.DataFrame:
    r"""Variance components of scores: layers, images, pixel orders, steps.

    .. math:: y_{ijl} = \mu + \lambda_l + a_i + (a\lambda)_{il} + o_{ij} + (o\lambda)_{ijl}

    for image i, order j within the image and layer l. An effect that an image or an order has on all layers alike
    (a, o) moves no rank; ``image x layer`` and ``order x layer`` do. Estimates equate the mean squares to their
    expectations. A negative estimate is set to 0 and marked ``clipped``. With a single order the order parts are
    unknown (NaN) and contained in the image parts.

    Args:
        scores: One score for every image, order and layer, finite.
        step_errors: Error of the scores by the finite number of steps
            (:func:`macattr.statistics.step_errors.step_error`), same unit as the scores, (layers) or (images, orders,
            layers). Its mean square relative to the score is the ``step`` row. The other rows contain it as well:
            most of it is the same for all images.
        scale: ``log`` scores, or scores ``normalised`` by the mean absolute score of all layers of the image and
            order, for scores that can be 0 or negative.

    Returns:
        One row for each source: ``source``, ``variance`` (of y), ``share`` of their sum, ``clipped``.

    Raises:
        ValueError: If there are fewer than 2 images or layers, or a score is not positive on the log scale.

    Source:
        Searle, Casella & McCulloch 1992, Variance Components, chapter 4 (ANOVA estimation, balanced data).
    """
    y, unit = _scaled(check_scores(scores), scale)
    n, m, layers = y.shape
    if n < 2 or layers < 2:
        raise ValueError(f"variance components need at least 2 images and 2 layers, got {n} and {layers}.")
    squares = _mean_squares(y)
    nested = {
        "layer": (squares["layer"] - squares["image x layer"]) / (n * m),
        "image": (squares["image"] - squares["image x layer"]) / (m * layers),
        "image x layer": squares["image x layer"] / m,
        "order": np.nan,
        "order x layer": np.nan,
    }
    if m > 1:
        residual = squares["order x layer"]
        nested |= {
            "image": nested["image"] - (squares["order"] - residual) / (m * layers),
            "image x layer": (squares["image x layer"] - residual) / m,
            "order": (squares["order"] - residual) / layers,
            "order x layer": residual,
        }
    table = pd.DataFrame({"source": list(nested), "variance": list(nested.values())})
    table["clipped"] = table["variance"] < 0
    table["variance"] = table["variance"].clip(lower=0)
    if step_errors is not None:
        step = float(np.mean(np.square(step_errors / unit)))
        table.loc[len(table)] = {"source": "step", "variance": step, "clipped": False}
    table.insert(2, "share", table["variance"] / table["variance"].sum())
    return table


def relative_error(components: pd.DataFrame, images: int, orders: int) -> float:
    r"""Standard error of a layer's (log) score relative to the other layers, over other images and orders.

    .. math:: \sqrt{\sigma^2_{a\lambda}/n + \sigma^2_{o\lambda}/(n m)}

    A further image costs the same pass as a further order, and lowers both terms. More orders pay only when images
    run out.

    Args:
        components: From :func:`variance_components`.
        images: Number of images n.
        orders: Number of orders m of each.

    Example:
        >>> table = pd.DataFrame({"source": ["image x layer", "order x layer"], "variance": [0.04, 0.01]})
        >>> round(relative_error(table, images=4, orders=1), 3), round(relative_error(table, images=4, orders=100), 3)
        (0.112, 0.1)
    """
    variance = components.set_index("source")["variance"].fillna(0.0)
    return math.sqrt(variance["image x layer"] / images + variance["order x layer"] / (images * orders))


def _scaled(
    scores: Float[Array, "n m l"], scale: Literal["log", "normalised"]
) -> tuple[Float[Array, "n m l"], Float[Array, "n m #l"]]:
    """Scores on the scale of the components, and the unit in which small errors of scores are errors there."""
    if scale == "normalised":
        unit = np.abs(scores).mean(axis=2, keepdims=True)
        return scores / unit, unit
    if scale != "log":
        raise ValueError(f"`scale` must be 'log' or 'normalised', got {scale!r}.")
    if (scores <= 0).any():
        layer = int(np.argwhere(scores <= 0)[0, 2])
        raise ValueError(f"the log of scores needs them positive, layer {layer} is not: take scale='normalised'.")
    return np.log(scores), scores


def _mean_squares(y: Float[Array, "n m l"]) -> dict[str, float]:
    """Mean squares of the split-plot layout; those of orders only if there are several."""
    n, m, layers = y.shape
    grand, layer, image = y.mean(), y.mean(axis=(0, 1)), y.mean(axis=(1, 2))
    cell, row = y.mean(axis=1), y.mean(axis=2)
    squares = {
        "layer": n * m * np.sum((layer - grand) ** 2) / (layers - 1),
        "image": m * layers * np.sum((image - grand) ** 2) / (n - 1),
        "image x layer": m * np.sum((cell - image[:, None] - layer + grand) ** 2) / ((n - 1) * (layers - 1)),
    }
    if m > 1:
        inside = y - cell[:, None] - (row - image[:, None])[..., None]
        squares["order"] = layers * np.sum((row - image[:, None]) ** 2) / (n * (m - 1))
        squares["order x layer"] = np.sum(inside**2) / (n * (m - 1) * (layers - 1))
    return {name: float(value) for name, value in squares.items()}
