"""Rankings: how important every layer is over images and pixel orders, with how it was measured."""

__all__ = ["FILE", "LayerImportance", "assemble", "leading_parts", "strip_prefix"]

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from torch import nn

from macattr.atomic_files import write_atomically
from macattr.layers import LayerDescription, LayerTable, describe_layers
from macattr.methods.kinds import JointMethod, Method, PathMethod, walks_of
from macattr.methods.readings import Reading
from macattr.plots import plot_heatmap
from macattr.ranking.doubts import doubts, without_scores
from macattr.ranking.journal import Record
from macattr.ranking.run import RunResult
from macattr.ranking.settings import describe_mask, describe_task
from macattr.ranking.untrained import UNTRAINED, looks_untrained
from macattr.selection.rules import Selection, SelectionRule, select
from macattr.selection.trainable import TrainableMask
from macattr.statistics.certainty import IntervalMethod, bootstrap, probability_in_top, top_count, variance_components
from macattr.statistics.groups import group_ranks

FILE = "importance.nc"
"""Name of a ranking's file in the folders of ``macattr rank``."""

PER_LAYER = ("score", "signed_sum", "step_error")
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

PER_ORDER = (
    "input_residual",
    "objective_start",
    "objective_end",
    "objective_variation",
    "step_order",
    "order_seed",
)

NEEDED = ("layer", "sample", "type", "block", "role", "depth", "parameters", "alias_of")
NEEDED_ATTRIBUTES = ("model", "method", "unit", "source")
"""Variables and attributes without which a file is no ranking."""

SEALED = "macattr_seal"
"""Attribute of files whose end, after the NetCDF data, is ``SEAL`` and the data's SHA-256."""

SEAL = b"\nmacattr sha256 "
"""Beginning of a file's seal; readers of HDF5 ignore what follows the data."""

CALLS_IN_WORDS = {
    "sum": "{layers} in a pass, such as {first!r}: the sum over their calls is no share of the change",
    "each": "{layers} in a pass, such as {first!r}: every call has neurons of its own",
    "last": "{layers} in a pass, such as {first!r}: the last call alone counts",
}
"""What counts of layers that run several times."""

AS_INITIALISED = "as initialised"
"""What the attribute ``weights`` of a ranking says where the network looks untrained; else there is none."""

SUMMARISED = 5
"""Number of layers in the printed summary of a ranking."""

LISTED = 3
"""Rankings that are named where another may be meant."""

NAME_THEM = "Different images need names: give each a `name`, as `{'image': tensor, 'name': 'a'}`."
"""Remedy where rankings of different images hold the same numbers in place of names."""


@dataclass(frozen=True)
class LayerImportance:
    """Scores of every layer for every image and pixel order.

    Args:
        dataset: ``score``, ``signed_sum`` and ``step_error`` (sample, order, layer); ``input_residual``,
            ``objective_start``, ``objective_end``, ``objective_variation``, ``step_order`` (the order of convergence
            that step errors go by) and ``order_seed`` (sample, order); coordinates ``type``, ``depth``, ``block``,
            ``role``, ``parameters``, ``alias_of`` and ``is_cut`` of layers, ``degradation`` of samples; how it was
            measured in ``attrs``. A value that a method does not have is NaN. Methods that score all images together
            have one sample, "all images", or "no image" where there was none.
    """

    dataset: xr.Dataset

    def __repr__(self) -> str:
        attrs, layers = self.dataset.attrs, self.dataset.sizes["layer"]
        count = f"{layers} layer{'s' * (layers != 1)}"
        head = f"LayerImportance of {attrs['model']} by {attrs['method']}: {count}, {self._images}"
        table = self.ranking().head(SUMMARISED)[["rank", "layer", "score", "type"]]
        rows = table.to_string(index=False, formatters={"score": "{:.4g}".format})
        more = layers - len(table)
        lines = [f"{head}; score = {attrs['unit']}", rows, *([f"... and {more} more: see ranking()"] if more else [])]
        lines += [f"output: {attrs['output']}"] if "output" in attrs else []
        lines += [f"path: {attrs['path']} over {attrs['at']}"] if "at" in attrs else []
        lines += [str(attrs["calls"])] if "calls" in attrs else []
        return "\n".join([*lines, *self.doubts])

    @property
    def doubts(self) -> list[str]:
        """What speaks against it and what to do: untrained weights, incomplete sums, scores that are alike or all 0."""
        untrained = [UNTRAINED] if self.dataset.attrs.get("weights") == AS_INITIALISED else []
        if words := without_scores(self.values):
            return untrained + words
        if "n_steps" not in self.dataset.attrs or "objective_variation" not in self.dataset:
            return untrained  # a method without steps, or a file of an earlier version
        per_layer, per_order = ("sample", "order", "layer"), ("sample", "order")
        measured = {name: self.dataset[name].transpose(*per_layer).values for name in ("score", "step_error")}
        along = ("input_residual", "objective_start", "objective_end", "objective_variation")
        measured |= {name: self.dataset[name].transpose(*per_order).values for name in along}
        return untrained + doubts(measured, int(self.dataset.attrs["n_steps"]))

    @property
    def _images(self) -> str:
        """Number of images and pixel orders in words."""
        if self.dataset["sample"].values.tolist() in (["all images"], ["no image"]):
            return "all images together" if "all images" in self.dataset["sample"] else "no image"
        images, orders = self.dataset.sizes["sample"], self.dataset.sizes["order"]
        words = f"{images} image{'s' if images > 1 else ''}"
        return f"{words} x {orders} pixel orders" if orders > 1 else words

    def scores(self) -> xr.DataArray:
        """Score of every layer: mean over pixel orders, then mean (or the preset's sum) over images."""
        per_image = self.dataset["score"].mean("order", skipna=False)
        across = per_image.sum if self.dataset.attrs["across_images"] == "sum" else per_image.mean
        return across("sample", skipna=False)

    def ranking(self) -> pd.DataFrame:
        """Layers, most important first, with score, type, block, parameters and the layer whose output they share."""
        scores = self.scores()
        columns = {"layer": scores["layer"].values, "score": scores.values}
        columns |= {name: self.dataset[name].values for name in ("type", "block", "depth", "parameters", "alias_of")}
        table = pd.DataFrame(columns).sort_values(["score", "depth"], ascending=[False, True], ignore_index=True)
        table.insert(0, "rank", np.arange(1, len(table) + 1))
        return table

    def with_parameters(self) -> "LayerImportance":
        """The ranking of the layers that own parameters, which can be chosen for training; as it is if none does."""
        owners = self.dataset["parameters"].values > 0
        return LayerImportance(self.dataset.sel(layer=owners)) if owners.any() and not owners.all() else self

    def layer_table(self, model: nn.Module | None = None, *, whole_modules: bool = False) -> LayerTable:
        """The ranked layers, as selections need them.

        Args:
            model: The network, for exact totals and tied parameters; None: the sizes in the ranking.
            whole_modules: Whether a layer also unlocks the parameters of the modules inside it.

        Raises:
            ValueError: If a layer is not in the model, or has another size there.
        """
        layers, alias_of, sizes = (self.dataset[name].values.tolist() for name in ("layer", "alias_of", "parameters"))
        aliases = dict(zip(layers, alias_of, strict=True))
        if model is not None:
            try:
                table = LayerTable.of(model, layers, alias_of=aliases, whole_modules=whole_modules)
            except ValueError as error:
                raise ValueError(
                    f"the ranking was made for another network than {type(model).__name__}: {error}"
                ) from error
            for layer, size in zip(table.layers, sizes, strict=True):
                if layer.parameters != size:
                    raise ValueError(
                        f"{layer.name!r} has {layer.parameters:,} parameters in the model and {size:,} in the ranking, "
                        "which was made for another network."
                    )
            return table
        fields = ("layer", "type", "depth", "block", "role", "parameters")
        rows = zip(*(self.dataset[name].values.tolist() for name in fields), strict=True)
        described = [LayerDescription(*row) for row in rows]
        return LayerTable.described(described, alias_of=aliases, whole_modules=whole_modules)

    def select(self, rule: SelectionRule, model: nn.Module | None = None, *, whole_modules: bool = False) -> Selection:
        """The layers that a rule takes from this ranking; the other arguments are those of :meth:`layer_table`.

        Raises:
            ValueError: As :func:`macattr.selection.rules.select`.
        """
        scores = self.scores()
        ranking = dict(zip(scores["layer"].values.tolist(), scores.values.tolist(), strict=True))
        return select(ranking, self.layer_table(model, whole_modules=whole_modules), rule, self.dataset.attrs)

    def top(self, fraction: float) -> TrainableMask:
        r"""The :math:`\lfloor` fraction x number of layers :math:`\rfloor` most important layers (the paper's rule).

        Args:
            fraction: Share of the layers, in (0, 1].

        Raises:
            ValueError: If the fraction is outside (0, 1].
        """
        return self.select(SelectionRule(fraction)).mask()

    def plot_heatmap(self, path: Path | str | None = None, fraction: float | None = None) -> Figure:
        """Scores by depth and block, as in the paper's Fig. 14.

        Args:
            path: File that the figure is also written to; None for no file.
            fraction: Share of the layers, in (0, 1], whose highest are marked; None for no marks.
        """
        scores = self.scores()
        names = ("type", "block", "role", "depth", "parameters")
        table = pd.DataFrame(
            {"layer": scores["layer"].values, "score": scores.values} | {n: self.dataset[n].values for n in names}
        )
        attrs = self.dataset.attrs
        title = f"{attrs['model']}: layer importance by {attrs['method']}, {self._images}"
        k = 0 if fraction is None else top_count(fraction, self.with_parameters().dataset.sizes["layer"])
        figure = plot_heatmap(table, title, attrs["unit"], k)
        if path is not None:
            figure.savefig(path, dpi=150)
            plt.close(figure)
        return figure

    def save(self, path: Path | str) -> None:
        """Write a NetCDF file with a checksum, all at once: an interrupted write leaves no broken file.

        Args:
            path: File, by custom ``importance.nc``.
        """
        content = bytes(self.dataset.assign_attrs({SEALED: "SHA-256 at the end"}).to_netcdf(engine="h5netcdf"))
        seal = SEAL + hashlib.sha256(content).hexdigest().encode()
        write_atomically(Path(path), lambda file: file.write(content + seal))

    @classmethod
    def load(cls, path: Path | str) -> "LayerImportance":
        """Read a file that :meth:`save` wrote.

        Args:
            path: File, or the folder of ``macattr rank`` that holds it.

        Raises:
            ValueError: If the file cannot be opened, is damaged or does not hold a ranking.
        """
        file = Path(path) / FILE if (Path(path) / FILE).is_file() else Path(path)
        refused = f"{str(path)!r} cannot be read as a ranking"
        try:
            content = file.read_bytes()
        except OSError as error:
            hint = _rankings_beside(file) or "Rankings are files such as importance.nc."
            raise ValueError(f"{refused}: {error.strerror}. {hint}") from error
        data, seal, digest = content.rpartition(SEAL)
        matches = digest == hashlib.sha256(data).hexdigest().encode() if seal else SEALED.encode() not in content
        if not matches:
            raise ValueError(f"{refused}: it is damaged, its content does not match its checksum. Rank again.")
        try:
            dataset = xr.load_dataset(io.BytesIO(data or content), engine="h5netcdf")
        except Exception as error:  # files that are no rankings raise anything, with the HDF5 library's own text
            hint = _rankings_beside(file) or "Rank again."
            raise ValueError(f"{refused}: it is damaged, cut off or not a NetCDF file. {hint}") from error
        dataset.attrs.pop(SEALED, None)
        if "score" not in dataset or "across_images" not in dataset.attrs:
            raise ValueError(f"{refused}: it has no `score`. LayerImportance.save and macattr rank write rankings.")
        absent = [name for name in NEEDED if name not in dataset]
        absent += [name for name in NEEDED_ATTRIBUTES if name not in dataset.attrs]
        if absent:
            version = dataset.attrs.get("macattr", "another program")
            raise ValueError(f"{refused}: as {version} wrote it, it lacks {', '.join(absent)}. Rank again.")
        return cls(dataset)

    def to_csv(self, path: Path | str) -> None:
        """Write :meth:`ranking` as CSV.

        Args:
            path: File.
        """
        self.ranking().to_csv(path, index=False)

    @property
    def values(self) -> np.ndarray:
        """All scores, (samples, orders, layers)."""
        return np.asarray(self.dataset["score"].transpose("sample", "order", "layer").values)

    def intervals(self, confidence: float = 0.95, seed: int = 0) -> pd.DataFrame:
        """Scores and ranks with confidence intervals for other images of the same kind, in the unit of :meth:`scores`.

        By :func:`macattr.statistics.certainty.bootstrap`.

        Args:
            confidence: Coverage of the intervals, in (0, 1).
            seed: Seed of the resamples.

        Returns:
            One row a layer, most important first: ``layer``, ``score``, ``score_low``, ``score_high``, ``rank``,
            ``rank_low``, ``rank_high``.

        Raises:
            ValueError: With fewer than 2 images. With 2 or 3 the intervals are Student's, with more studentized.
        """
        method: IntervalMethod = "studentized" if len(self.values) >= 4 else "t"
        table = bootstrap(self.values, np.random.default_rng(seed), confidence=confidence, method=method)
        table.insert(0, "layer", self.dataset["layer"].values)
        if self.dataset.attrs["across_images"] == "sum":
            table[["score", "score_low", "score_high"]] *= len(self.values)
        return table.sort_values("rank", ignore_index=True)

    def probability_in_top(self, fraction: float, seed: int = 0) -> pd.Series:
        """For every layer, how often it is among the top ``fraction`` over resamples of the images, highest first.

        Args:
            fraction: Share of the layers that is the top, in (0, 1].
            seed: Seed of the resamples.

        Raises:
            ValueError: As :func:`macattr.statistics.certainty.probability_in_top`.
        """
        names = self.dataset["layer"].values
        shares = probability_in_top(self.values, top_count(fraction, len(names)), np.random.default_rng(seed))
        return pd.Series(shares, names, name="probability").sort_values(ascending=False, kind="stable")

    def degradation_ranks(self) -> pd.DataFrame:
        """Rank of every layer for the images of each degradation, by :func:`macattr.statistics.groups.group_ranks`.

        Returns:
            One row for each layer (its name is the index), most important first; one column for each degradation.

        Raises:
            ValueError: If not every image has a degradation.
        """
        kinds = self.dataset["degradation"].values.tolist()
        if not all(kinds):
            raise ValueError(
                f"{kinds.count('')} of {len(kinds)} images have no `degradation`: give it with every image, "
                'as in {"image": image, "degradation": "noise"}.'
            )
        table = group_ranks(self.values, kinds).set_axis(self.dataset["layer"].values)
        return table.loc[self.ranking()["layer"]].rename_axis("layer")

    @property
    def degradations(self) -> tuple[str, ...]:
        """The degradations of the images, each once; empty if one of them has none."""
        kinds = self.dataset["degradation"].values.tolist()
        return tuple(dict.fromkeys(kinds)) if all(kinds) else ()

    def variance_components(self) -> pd.DataFrame:
        """Where the variance of the scores comes from; see :func:`macattr.statistics.certainty.variance_components`.

        On a logarithmic scale if all scores are positive. The step part needs ``step_error`` in :func:`rank_layers`.
        """
        errors = self.dataset["step_error"].transpose("sample", "order", "layer").values
        scale: Literal["log", "normalised"] = "log" if (self.values > 0).all() else "normalised"
        return variance_components(self.values, None if np.isnan(errors).all() else errors, scale)

    def without_prefix(self, prefix: str) -> "LayerImportance":
        """The ranking with the beginning that a wrapper gave to all names taken off: those of the network inside.

        Args:
            prefix: Beginning such as ``net``, with or without the dot behind it.

        Raises:
            ValueError: If a name begins otherwise.
        """
        names, aliases = (strip_prefix(self.dataset[key].values.tolist(), prefix) for key in ("layer", "alias_of"))
        described = describe_layers({name: nn.Identity() for name in names})
        return LayerImportance(
            self.dataset.assign_coords(
                layer=names,
                alias_of=("layer", aliases),
                block=("layer", [layer.block for layer in described]),
                role=("layer", [layer.role for layer in described]),
            )
        )

    @classmethod
    def merge(cls, parts: Sequence["LayerImportance"]) -> "LayerImportance":
        """Rankings over different images, or different orders of the same images, as one.

        Args:
            parts: Rankings of the same layers, measured alike.

        Raises:
            ValueError: If there are none, they were measured differently, or samples repeat.
        """
        if not parts:
            raise ValueError("there is nothing to merge: give at least one ranking.")
        first = parts[0].dataset
        counted = ("evaluations", "estimated_bytes", "stability")
        for other in (part.dataset for part in parts[1:]):
            if list(other["layer"].values) != list(first["layer"].values):
                raise ValueError("the rankings are over different layers: rank the same ones to merge them.")
            for name in sorted((first.attrs.keys() | other.attrs.keys()) - set(counted)):
                if first.attrs.get(name) != other.attrs.get(name):
                    raise ValueError(
                        f"the rankings differ in {name!r}: {first.attrs.get(name)} and {other.attrs.get(name)}."
                    )
        names = [part.dataset["sample"].values.tolist() for part in parts]
        along = "order" if all(some == names[0] for some in names[1:]) and len(parts) > 1 else "sample"
        if along == "sample" and len(set().union(*names)) < sum(map(len, names)):
            raise ValueError(
                f"the rankings share some images but not all: merge different images, or the same ones. {NAME_THEM}"
            )
        counts = sorted({part.dataset.sizes["order"] for part in parts})
        if along == "sample" and len(counts) > 1:
            raise ValueError(
                f"the rankings have {' and '.join(map(str, counts))} pixel orders of an image: rank all images with "
                "the same number of `orders` to merge them."
            )
        if along == "order":
            seeds = np.concatenate([part.dataset["order_seed"].values for part in parts], axis=1)
            if any(len(set(row)) < len(row) for row in seeds.tolist()):
                raise ValueError(
                    "the rankings hold the same pixel orders of the same images, by their names: there is nothing to "
                    f"add. {NAME_THEM}"
                )
        merged = xr.concat(
            [part.dataset for part in parts],
            along,
            coords="minimal",
            compat="override",
            combine_attrs="override",
            join="exact",
        )
        if along == "order":
            merged = merged.assign_coords(order=np.arange(merged.sizes["order"]))
        merged.attrs["evaluations"] = sum(int(part.dataset.attrs["evaluations"]) for part in parts)
        merged.attrs["estimated_bytes"] = max(int(part.dataset.attrs["estimated_bytes"]) for part in parts)
        merged.attrs.pop("stability", None)
        return cls(merged.transpose("sample", "order", "layer", ...))


def _rankings_beside(path: Path) -> str:
    """A question about the rankings in the same folder, or those one below; '' without any."""
    folder = path if path.is_dir() else path.parent
    found = [file for place in ("", "*/") for file in sorted(folder.glob(f"{place}{FILE}")) if file != path]
    more = f" or one of {len(found) - LISTED} more" if len(found) > LISTED else ""
    return f"Did you mean {' or '.join(map(str, found[:LISTED]))}{more}?" if found else ""


def strip_prefix(names: Sequence[str], prefix: str) -> list[str]:
    """The names without their common beginning.

    Raises:
        ValueError: If one of them begins otherwise, or is nothing else.
    """
    prefix = f"{prefix.removesuffix('.')}." if prefix else ""
    if other := [name for name in names if not name.startswith(prefix) or name == prefix]:
        raise ValueError(
            f"{len(other)} of {len(names)} layers do not begin with `prefix` = {prefix!r}, such as {other[0]!r}."
        )
    return [name.removeprefix(prefix) for name in names]


def leading_parts(names: Sequence[str]) -> list[str]:
    """The beginnings that all names share, each up to a dot, shortest first.

    Example:
        >>> leading_parts(["net.body.0", "net.body.1"])
        ['net.', 'net.body.']
    """
    levels = takewhile(lambda parts: len(set(parts)) == 1, zip(*(name.split(".")[:-1] for name in names), strict=False))
    return list(accumulate(f"{parts[0]}." for parts in levels))


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
