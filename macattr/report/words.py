"""What a report says in words: the question, what to doubt, what was measured."""

__all__ = [
    "describe_measurement",
    "describe_question",
    "format_number",
    "format_percent",
    "list_attributes",
    "reasons_to_doubt",
    "why_without_intervals",
]

from collections import Counter

import numpy as np

from macattr.methods.catalogue import METHODS
from macattr.ranking.importance import LayerImportance

PATHS = {
    "mask": "from an image with {r} of its pixels hidden to the whole image",
    "mask, twin": "from an image with {r} of its pixels hidden to the whole image, and with the others hidden",
    "line": "in a straight line from the reference input to the image",
    "tail": "along the last {r} of the straight line from the reference input to the image",
    "blur": "from the blurred to the sharp image",
    "restore": "in a straight line from the degraded to the clean image",
}
"""Paths in words."""


def why_without_intervals(importance: LayerImportance) -> str:
    """Why a ranking has no intervals, if so."""
    if importance.dataset.sizes["sample"] > 1:
        return ""
    if importance.dataset["sample"].values.tolist() == ["all images"]:
        return "The method scores all images together, so there are no intervals: nothing tells how sure the order is."
    return "One image was measured, so there are no intervals: nothing tells whether other images agree."


def describe_question(importance: LayerImportance) -> tuple[tuple[str, str], ...]:
    """What was asked, in words."""
    data, attrs = importance.dataset, importance.dataset.attrs
    method = METHODS.get(str(attrs["method"]))
    asked = {
        "Network": f"{attrs['model']}, weights {attrs['model_sha256']}: {data.sizes['layer']} layers with parameters",
        "Method": f"{attrs['method']}: {method.summary if method else attrs['unit']} ({attrs['source']})",
        "Images": describe_images(importance),
    }
    if "path" in attrs:
        words = PATHS.get(str(attrs["path"]), f"along {attrs['path']}")
        words = words.replace("{r}", f"{100 * float(attrs.get('r', 0)):g} %")
        asked["Path"] = words + (f", in {int(attrs['n_steps'])} steps" if "n_steps" in attrs else "")
    if "objective" in attrs:
        asked["Objective"] = f"{attrs['objective']} of the output"
    return tuple(asked.items())


def describe_images(importance: LayerImportance) -> str:
    """Number, sizes and degradations of the images, and the pixel orders of each."""
    data = importance.dataset
    if data["sample"].values.tolist() == ["all images"]:
        return "all together; the file does not tell how many"
    sizes = Counter(zip(data["width"].values.tolist(), data["height"].values.tolist(), strict=True))
    kinds = Counter(kind for kind in data["degradation"].values.tolist() if kind)
    (width, height), count = sizes.most_common(1)[0]
    words = f"{len(data['sample'])}, {'' if len(sizes) == 1 else f'{count} of them '}{width} x {height} pixels"
    words += f" ({', '.join(f'{count} {kind}' for kind, count in kinds.items())})" if kinds else ""
    if "seed" in data.attrs and "patch_size" in data.attrs:
        orders = data.sizes["order"]
        words += f"; {orders} random pixel order{'s' if orders > 1 else ''} of each"
    return words


def reasons_to_doubt(importance: LayerImportance) -> tuple[str, ...]:
    """What a reader must know before relying on a ranking."""
    data = importance.dataset
    doubts = []
    if 1 < (images := data.sizes["sample"]) < 8:
        doubts.append(f"{images} images are few: intervals are wide, and cover less than 95 %.")
    residual = np.abs(data["input_residual"].values)
    if np.isfinite(residual).any() and np.nanmedian(residual) > 0.05:
        doubts.append(
            f"The sums miss the change of the objective by {format_percent(np.nanmedian(residual))} (median over "
            "images): more steps would bring them closer."
        )
    if stability := data.attrs.get("stability"):
        doubts.append(str(stability).replace("\n", "; "))
    return tuple(doubts)


def describe_measurement(importance: LayerImportance) -> dict[str, str]:
    """Residuals and cost."""
    data, attrs = importance.dataset, importance.dataset.attrs
    rows = {}
    residual = np.abs(data["input_residual"].values)
    if (known := residual[np.isfinite(residual)]).size:
        rows["Input residual"] = (
            f"median {format_percent(np.median(known))}, largest {format_percent(known.max())} (0 is exact)"
        )
    errors = np.abs(data["step_error"].values) / np.abs(importance.values).clip(min=np.finfo(float).tiny)
    if np.isfinite(errors).any():
        per_layer = np.nanmedian(errors[..., np.isfinite(errors).any(axis=(0, 1))], axis=(0, 1))
        rows["Step error"] = (
            f"{format_percent(np.median(per_layer))} of the score in the median layer, in 95 % of the layers below "
            f"{format_percent(np.quantile(per_layer, 0.95))}"
        )
    else:
        rows["Step error"] = "not estimated (step_error=True in rank_layers does)"
    rows["Evaluations"] = f"{int(attrs['evaluations']):,}, each a forward and at most one backward pass over one image"
    rows["Memory"] = f"{int(attrs['estimated_bytes']) / 2**30:.2f} GiB estimated for activations and sums"
    return rows


def list_attributes(importance: LayerImportance) -> dict[str, str]:
    """How a ranking was measured, all of it, and the images."""
    data = importance.dataset
    seeds = " ".join(str(seed) for seed in data["order_seed"].values.ravel().tolist())
    found = {name: str(value) for name, value in data.attrs.items()}
    return found | {"images": ", ".join(data["sample"].values.tolist()), "order_seed": seeds}


def format_number(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def format_percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.1f} %" if share >= 0.0005 or not share else "< 0.1 %"
