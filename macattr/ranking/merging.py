"""Rankings over different images, or different orders of the same images, as one."""

__all__ = ["merge_datasets"]

from collections.abc import Sequence

import numpy as np
import xarray as xr

NAME_THEM = "Different images need names: give each a `name`, as `{'image': tensor, 'name': 'a'}`."
"""Remedy where rankings of different images hold the same numbers in place of names."""


def merge_datasets(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """The measurements of several rankings as one.

    Args:
        parts: Measurements of the same layers, made alike.

    Raises:
        ValueError: If there are none, they were made differently, or samples repeat.
    """
    if not parts:
        raise ValueError("there is nothing to merge: give at least one ranking.")
    first = parts[0]
    counted = ("evaluations", "estimated_bytes", "stability")
    for other in parts[1:]:
        if list(other["layer"].values) != list(first["layer"].values):
            raise ValueError("the rankings are over different layers: rank the same ones to merge them.")
        for name in sorted((first.attrs.keys() | other.attrs.keys()) - set(counted)):
            if first.attrs.get(name) != other.attrs.get(name):
                raise ValueError(
                    f"the rankings differ in {name!r}: {first.attrs.get(name)} and {other.attrs.get(name)}."
                )
    names = [part["sample"].values.tolist() for part in parts]
    along = "order" if all(some == names[0] for some in names[1:]) and len(parts) > 1 else "sample"
    if along == "sample" and len(set().union(*names)) < sum(map(len, names)):
        raise ValueError(
            f"the rankings share some images but not all: merge different images, or the same ones. {NAME_THEM}"
        )
    counts = sorted({part.sizes["order"] for part in parts})
    if along == "sample" and len(counts) > 1:
        raise ValueError(
            f"the rankings have {' and '.join(map(str, counts))} pixel orders of an image: rank all images with "
            "the same number of `orders` to merge them."
        )
    if along == "order":
        seeds = np.concatenate([part["order_seed"].values for part in parts], axis=1)
        if any(len(set(row)) < len(row) for row in seeds.tolist()):
            raise ValueError(
                "the rankings hold the same pixel orders of the same images, by their names: there is nothing to "
                f"add. {NAME_THEM}"
            )
    merged = xr.concat(
        parts,
        along,
        coords="minimal",
        compat="override",
        combine_attrs="override",
        join="exact",
    )
    if along == "order":
        merged = merged.assign_coords(order=np.arange(merged.sizes["order"]))
    merged.attrs["evaluations"] = sum(int(part.attrs["evaluations"]) for part in parts)
    merged.attrs["estimated_bytes"] = max(int(part.attrs["estimated_bytes"]) for part in parts)
    merged.attrs.pop("stability", None)
    return merged.transpose("sample", "order", "layer", ...)
