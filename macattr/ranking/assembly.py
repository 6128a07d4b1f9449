"""From the readings of a run to its rankings."""

__all__ = ["assemble"]

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import pandas as pd
import xarray as xr

from macattr.layers.table import describe_layers
from macattr.methods.kinds import JointMethod, Method, PathMethod, walks_of
from macattr.methods.readings import Reading
from macattr.ranking.importance import LayerImportance
from macattr.ranking.journal import Record
from macattr.ranking.run import RunResult
from macattr.ranking.settings import describe_mask, describe_task
from macattr.ranking.untrained import AS_INITIALISED, looks_untrained

PER_LAYER = ("score", "signed_sum", "step_error")
"""Measurements of every layer."""

PER_ORDER = (
    "input_residual",
    "objective_start",
    "objective_end",
    "objective_variation",
    "step_order",
    "order_seed",
)
"""Measurements of every path, for all layers."""

ALWAYS = {
    "preset",
    "across_images",
    "model",
    "model_sha256",
    "network_sha256",
    "dtype",
    "device",
    "macattr",
    "torch",
    "python",
    "weights",
}
"""Attributes that every ranking has."""

CALLS_IN_WORDS = {
    "sum": "{layers} in a pass, such as {first!r}: the sum over their calls is no share of the change",
    "each": "{layers} in a pass, such as {first!r}: every call has neurons of its own",
    "last": "{layers} in a pass, such as {first!r}: the last call alone counts",
}
"""What counts of layers that run several times."""


def assemble(result: RunResult) -> dict[str, LayerImportance]:
    """The rankings of a run, by the names of the methods."""
    described = describe_task(result.task) | describe_mask(result.task)
    if looks_untrained(result.task.model):
        described["weights"] = AS_INITIALISED
    return {
        method.name: LayerImportance(
            _without_containers(result, method, _dataset(result, method, _attributes(result, method, described)))
        )
        for method in result.methods
    }


def _without_containers(result: RunResult, method: Method, dataset: xr.Dataset) -> xr.Dataset:
    """The measurements without layers that a glob matched and that own no parameter, if the method scores these."""
    if isinstance(method, PathMethod) or not method.of_parameters:
        return dataset
    names, sizes = dataset["layer"].values.tolist(), dataset["parameters"].values.tolist()
    kept = [size > 0 or name not in result.task.droppable for name, size in zip(names, sizes, strict=True)]
    return dataset if all(kept) or not any(kept) else dataset.isel(layer=np.flatnonzero(kept))


def _dataset(result: RunResult, method: Method, attributes: Mapping[str, str | int | float]) -> xr.Dataset:
    """One method's measurements."""
    layers = dict(result.task.layers)
    rows = _rows(result, method)

    def stack(name: str) -> np.ndarray:
        return np.array([[getattr(reading, name) for reading in readings] for _, readings in rows])

    dims = ("sample", "order", "layer")
    records = [record for record, _ in rows]
    described = pd.DataFrame([asdict(description) for description in describe_layers(layers)])
    return xr.Dataset(
        {name: (dims, stack(name).astype(float)) for name in PER_LAYER}
        | {name: (dims[:2], stack(name)) for name in PER_ORDER},
        coords={
            "layer": list(layers),
            "sample": [record.name for record in records],
            "order": np.arange(len(rows[0][1])),
            "degradation": ("sample", [record.degradation for record in records]),
            "height": ("sample", [record.height for record in records]),
            "width": ("sample", [record.width for record in records]),
            "alias_of": ("layer", [result.alias_of.get(name, name) for name in layers]),
            "is_cut": ("layer", rows[0][1][0].is_cut),
            "calls": ("layer", [result.calls.get(name, 1) for name in layers]),
        }
        | {name: ("layer", described[name].to_numpy()) for name in ("type", "depth", "block", "role", "parameters")},
        attrs=dict(attributes)
        | {"evaluations": int(stack("evaluations").sum()), "estimated_bytes": int(stack("estimated_bytes").max())},
    )


def _rows(result: RunResult, method: Method) -> list[tuple[Record, list[Reading]]]:
    """For every image its record and the method's readings along its pixel orders."""
    if isinstance(method, JointMethod):
        whole = Record(
            name="all images" if result.records else "no image",
            degradation="",
            height=0,
            width=0,
            sha256="",
            readings={},
        )
        cost = len(result.records) * method.cost(result.task)
        return [(whole, [Reading.plain(result.joint[method.name], cost)])]
    return [
        (records[0], [record.readings[method.name] for record in records if method.name in record.readings])
        for records in result.records
    ]


def _attributes(
    result: RunResult, method: Method, described: Mapping[str, str | int | float]
) -> dict[str, str | int | float]:
    """How one method measured: the attributes that have an effect on it."""
    task = result.task
    relevant = method.arguments(task) | ALWAYS
    attributes: dict[str, str | int | float] = {"method": method.name, "unit": method.unit(task)}
    attributes |= {"source": method.source}
    attributes |= {name: value for name, value in described.items() if name in relevant}
    said = (
        {"output", "at"} if isinstance(method, PathMethod) or "objective" in relevant else {"loss"} & attributes.keys()
    )
    attributes |= {name: words for name, words in result.facts.items() if name in said}
    repeated = [name for name in task.layers if result.calls.get(name, 1) > 1]
    if isinstance(method, PathMethod) and repeated:
        layers = "1 layer runs several times" if len(repeated) == 1 else f"{len(repeated)} layers run several times"
        attributes["calls"] = CALLS_IN_WORDS[method.calls(task)].format(layers=layers, first=repeated[0])
    if isinstance(method, PathMethod):
        attributes |= {"path": ", ".join(walk.name for walk in walks_of(method, task))}
        attributes |= {"reduction": method.reduction or task.options.reduction}
    if result.stability is not None and method is result.methods[0]:
        attributes["stability"] = result.stability.report(list(task.layers), result.available or len(result.records))
    return attributes
