"""Words of a report: how the ranking was measured, reasons to doubt it, residuals and cost."""

__all__ = [
    "describe_measurement",
    "describe_question",
    "format_number",
    "format_percent",
    "list_attributes",
    "reasons_to_doubt",
    "why_without_intervals",
]

import re
from collections import Counter

import numpy as np

from macattr.methods.catalogue import METHODS
from macattr.methods.kinds import needs_images
from macattr.methods.walks import WALKS
from macattr.ranking.importance import LayerImportance
from macattr.statistics.step_errors import LEAST_ORDER

FEW_IMAGES = 8
"""Number of images below which intervals are wide and cover too little."""

CONDUCTANCE = (
    "C, the conductance of a neuron, is the part of the objective's change along the path that runs through it"
)

OBJECTIVES = {
    "GradientMagnitude": "Total gradient magnitude of the output image: the amount of edges and texture in it",
    "OutputSum": "Sum of the network's outputs",
    "OutputMean": "Mean of the network's outputs",
    "OutputNorm": "Norm of the network's output",
    "Distance": "Distance of the output from a reference",
    "HiddenDistance": "Error of the output on the hidden pixels",
    "Target": "A single output of the network",
    "Similarity": "Cosine similarity of the output to a reference",
    "CrossEntropy": "Cross-entropy to the labels",
    "class": "Score of the label, or of the class that wins where there is none",
    "similarity": "Cosine similarity of the output to that of the whole input",
    "loss": "The loss to the target, or the network's own",
    "masked_loss": "The loss on what the path hides at its start",
}
"""Objectives in words, by class, and by name those that depend on the sample."""


def why_without_intervals(importance: LayerImportance) -> str:
    """Reason why a ranking has no intervals; '' if it has."""
    if importance.dataset.sizes["sample"] > 1:
        return ""
    samples = importance.dataset["sample"].values.tolist()
    method = METHODS.get(str(importance.dataset.attrs["method"]))
    if samples == ["no image"] or (method is not None and not needs_images(method)):
        return "The method looks at the network alone: there are no images over which the ranking could vary."
    if samples == ["all images"]:
        return "The method scores all images together, so there are no intervals and the certainty is unknown."
    return "One image was measured, so there are no intervals and the certainty is unknown. Rank several images."


def describe_question(importance: LayerImportance) -> tuple[tuple[str, str], ...]:
    """How the ranking was measured, in pairs of a term and a sentence."""
    data, attrs = importance.dataset, importance.dataset.attrs
    method, unit = METHODS.get(str(attrs["method"])), str(attrs["unit"])
    question = {
        "Network": f"{attrs['model']}, {data.sizes['layer']} layers with parameters",
        "Method": f"{attrs['method']}: {method.summary if method else unit}. Source: {attrs['source']}",
        "Score": f"{unit}, where {CONDUCTANCE}" if re.search(r"\bC\b", unit) else unit,
    }
    if "objective" in attrs:
        question["Objective"] = describe_objective(str(attrs["objective"]))
    if "path" in attrs:
        words = describe_path(str(attrs["path"]), float(attrs.get("r", 0)))
        question["Path"] = words + (f", in {int(attrs['n_steps'])} steps" if "n_steps" in attrs else "")
    question["Images"] = describe_images(importance)
    return tuple(question.items())


def describe_path(path: str, r: float) -> str:
    """A path in words, from the names of its walks and the masked fraction."""
    names = path.split(", ")
    walks = [WALKS[name].words for name in names] if set(names) <= set(WALKS) else [f"along {path}"]
    words = ", and ".join(walks).replace("{r}", f"{100 * r:g} %")
    return words[0].upper() + words[1:]


def describe_objective(objective: str) -> str:
    """An objective in words: the scalar function of the output whose change is attributed to the layers."""
    words = OBJECTIVES.get(objective.partition("(")[0], objective)
    return f"{words}. The score attributes its change along the path to the layers"


def describe_images(importance: LayerImportance) -> str:
    """Number, sizes and degradations of the images, and the pixel orders of each."""
    data = importance.dataset
    if data["sample"].values.tolist() == ["all images"]:
        return "All images together; the file does not hold their number"
    if data["sample"].values.tolist() == ["no image"]:
        return "None: the method looks at the weights alone"
    sizes = Counter(zip(data["width"].values.tolist(), data["height"].values.tolist(), strict=True))
    kinds = Counter(kind for kind in data["degradation"].values.tolist() if kind)
    (width, height), count = sizes.most_common(1)[0]
    images = len(data["sample"])
    words = f"{images} image{'s' if images > 1 else ''}"
    words += f", {count} of them" if len(sizes) > 1 else ""
    words += f" of {width} x {height} pixels"
    words += f" ({', '.join(f'{count} {kind}' for kind, count in kinds.items())})" if kinds else ""
    if "seed" in data.attrs and "patch_size" in data.attrs:
        orders = data.sizes["order"]
        words += f", each with {orders} random pixel order{'s' if orders > 1 else ''}"
    return words


def reasons_to_doubt(importance: LayerImportance) -> tuple[str, ...]:
    """Warnings that a reader needs before relying on a ranking."""
    data = importance.dataset
    doubts = []
    if 1 < (images := data.sizes["sample"]) < FEW_IMAGES:
        doubts.append(
            f"{images} images are few: intervals are wide, and cover less than 95 %. Rank {FEW_IMAGES} or more."
        )
    doubts += [words[0].upper() + words[1:] for words in importance.doubts]
    stability = str(data.attrs.get("stability", ""))
    if "not stable" in stability or "is unknown" in stability:
        doubts.append(stability.replace("\n", " "))
    return tuple(doubts)


def describe_measurement(importance: LayerImportance) -> dict[str, str]:
    """Residuals and cost."""
    data, attrs = importance.dataset, importance.dataset.attrs
    rows = {}
    residual = np.abs(data["input_residual"].values)
    if (finite := residual[np.isfinite(residual)]).size:
        rows["Input residual"] = (
            f"median {format_percent(np.median(finite))}, largest {format_percent(finite.max())} (0 is exact)"
        )
    errors = np.abs(data["step_error"].values) / np.abs(importance.values).clip(min=np.finfo(float).tiny)
    if np.isfinite(errors).any():
        per_layer = np.nanmedian(errors[..., np.isfinite(errors).any(axis=(0, 1))], axis=(0, 1))
        rows["Step error"] = (
            f"{format_percent(np.median(per_layer))} of the score in the median layer, in 95 % of the layers below "
            f"{format_percent(np.quantile(per_layer, 0.95))}{_step_order(importance)}"
        )
    else:
        rows["Step error"] = "not estimated (rank_layers estimates it with step_error=True)"
    rows["Evaluations"] = f"{int(attrs['evaluations']):,}, each a forward and at most one backward pass over one image"
    rows["Memory"] = f"{int(attrs['estimated_bytes']) / 2**30:.2f} GiB estimated for activations and sums"
    if "stability" in attrs:
        rows["Stability"] = str(attrs["stability"]).partition("\n")[0]
    return rows


def _step_order(importance: LayerImportance) -> str:
    """How far step errors can be relied on, by the order at which the sums converge."""
    data = importance.dataset
    orders = data["step_order"].values if "step_order" in data else np.full(1, np.nan)
    if np.isnan(orders).any():
        return "; a lower bound, because these steps do not show how sums converge: give a group a multiple of 4"
    if (order := float(np.median(orders))) < LEAST_ORDER:
        return "; a rough estimate, because the sums do not converge evenly yet: choose more steps"
    return f"; sums converge at order {order:.1f}"


def list_attributes(importance: LayerImportance) -> dict[str, str]:
    """All attributes of a ranking, and its images."""
    data = importance.dataset
    seeds = " ".join(str(seed) for seed in data["order_seed"].values.ravel().tolist())
    attributes = {name: str(value) for name, value in data.attrs.items()}
    return attributes | {"images": ", ".join(data["sample"].values.tolist()), "order_seed": seeds}


def format_number(value: float) -> str:
    """A number with three digits."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def format_percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.1f} %" if share >= 0.0005 or not share else "< 0.1 %"
