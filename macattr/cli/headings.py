"""Headings of the longer helps, each with its options; what stands below none is listed first."""

__all__ = ["CHECK", "RANK", "SELECT", "Headings"]

from collections.abc import Mapping
from types import MappingProxyType

Headings = Mapping[str, tuple[str, ...]]
"""Names of options by the heading below which a help lists them."""

RANK: Headings = MappingProxyType(
    {
        "network and layers": ("model", "weights", "layers", "calls", "prefix"),
        "images": ("images", "limit", "crop", "multiple", "grey", "clean"),
        "method": ("method", "reduction", "start_weights", "preset", "seed"),
        "path": (
            "path",
            "at",
            "baselines",
            "r",
            "n_steps",
            "tolerance",
            "orders",
            "patch_size",
            "gate",
            "delta",
            "groups",
            "tag",
            "include_end",
        ),
        "what changes along the path": ("objective", "output"),
        "certainty": ("until_stable", "confidence", "step_error"),
        "results": ("out", "fraction", "overwrite"),
        "time and memory": (
            "dry_run",
            "device",
            "bf16",
            "memory_budget_gib",
            "internal_batch_size",
            "flush_denormals",
            "with_input_residual",
        ),
    }
)
"""Headings of ``macattr rank``."""

CHECK: Headings = MappingProxyType(
    {
        "network and layers": ("model", "weights", "calls", "prefix"),
        "images": RANK["images"],
        "method": ("method", "reduction", "preset", "seed"),
        "path": tuple(name for name in RANK["path"] if name != "tolerance"),
        "what changes along the path": RANK["what changes along the path"],
        "results": ("out", "steps", "fraction", "overwrite"),
        "time and memory": ("device",),
    }
)
"""Headings of ``macattr check``."""

SELECT: Headings = MappingProxyType(
    {
        "how many layers": ("fraction", "count", "threshold", "by", "per", "rounding"),
        "how a budget is used": ("skips", "fill", "over", "per_parameter", "small_first"),
        "which layers": ("include", "exclude", "whole_modules"),
        "network": ("model", "weights", "prefix"),
        "export": ("export", "out", "lora_rank", "bare"),
    }
)
"""Headings of ``macattr select``."""
