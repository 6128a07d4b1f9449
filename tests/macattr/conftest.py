"""Rankings made without a network: names and scores are all that tables, pages and figures look at."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
import xarray as xr
from torch import nn

from macattr.layers.table import describe_layers
from macattr.ranking.importance import LayerImportance

ATTRIBUTES = {
    "method": "mac", "unit": "mean |C|", "source": "Qin et al. 2024 (RAM), Eq. 8-9", "preset": "ranking",
    "n_steps": 6, "objective": "GradientMagnitude(eps=1e-06)", "across_images": "mean", "model": "SwinIR",
    "model_sha256": "0123456789abcdef", "torch": "2.13.0", "r": 0.5, "patch_size": 1, "seed": 0, "path": "mask",
    "evaluations": 42, "estimated_bytes": 2**30,
}  # fmt: skip


@pytest.fixture
def made_up() -> Callable[..., LayerImportance]:
    """From names of layers to a ranking with log-normal scores that vary over images."""

    def make(
        names: Sequence[str],
        images: int = 6,
        seed: int = 0,
        same: Mapping[str, str] | None = None,
        sizes: Mapping[str, int] | None = None,
        **attributes: str | int | float,
    ) -> LayerImportance:
        generator = np.random.default_rng(seed)
        scores = np.exp(generator.normal(size=len(names)) * 2 + 0.4 * generator.normal(size=(images, 1, len(names))))
        aliases = [(same or {}).get(name, name) for name in names]
        scores = scores[..., [list(names).index(alias) for alias in aliases]]
        described = describe_layers({name: nn.Identity() for name in names})
        size = {name: 10 + 7 * place for place, name in enumerate(names)} | dict(sizes or {})
        fields = {field: [getattr(layer, field) for layer in described] for field in ("type", "depth", "block", "role")}
        dims = ("sample", "order", "layer")
        return LayerImportance(
            xr.Dataset(
                {"score": (dims, scores), "signed_sum": (dims, scores), "step_error": (dims, np.nan * scores)}
                | {name: (dims[:2], np.full((images, 1), 0.02)) for name in ("input_residual", "objective_start")}
                | {name: (dims[:2], np.ones((images, 1))) for name in ("objective_end", "objective_variation")}
                | {"order_seed": (dims[:2], np.arange(images)[:, None])},
                coords={"layer": list(names), "sample": [f"image {i}" for i in range(images)], "order": [0]}
                | {"degradation": ("sample", ["noise"] * images), "alias_of": ("layer", aliases)}
                | {"height": ("sample", [64] * images), "width": ("sample", [64] * images)}
                | {"parameters": ("layer", [size[name] for name in names])}
                | {field: ("layer", values) for field, values in fields.items()},
                attrs=ATTRIBUTES | attributes,
            )
        )

    return make
