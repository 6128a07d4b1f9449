"""Rankings: how important every layer is over images and pixel orders, with how it was measured."""

__all__ = ["LayerImportance", "RankingInterrupted", "rank_layers"]

import hashlib
import importlib.metadata
import platform
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import xarray as xr
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm.auto import tqdm

from macattr.engine import survey, trace
from macattr.layers import LayerDescription, LayerLike, LayerTable, describe_layers, resolve_layers
from macattr.objectives import Objective
from macattr.partitions import GradientSum, LayerSum, StieltjesSum
from macattr.paths import Gate, LinearPath, MaskAttributePath, Reference, resolve_reference
from macattr.plots import plot_heatmap
from macattr.presets import RANKING, MacMethod, Preset
from macattr.selection import Selection, SelectionRule, select
from macattr.trainable import TrainableMask

Method = Literal["mac", "conductance", "internal_influence"]
Reduction = Literal["mean_abs", "sum_abs", "abs_sum", "rms"]
Item = Tensor | Sequence[Tensor] | Mapping[str, object]

REDUCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mean_abs": lambda neurons: neurons.abs().mean(),
    "sum_abs": lambda neurons: neurons.abs().sum(),
    "abs_sum": lambda neurons: neurons.sum().abs(),
    "rms": lambda neurons: neurons.square().mean().sqrt(),
}
"""How a layer's neurons become its score."""

UNITS = {"mac": "mean |C|", "conductance": "mean |C|", "internal_influence": "mean |mean gradient|"}


class RankingInterrupted(RuntimeError):
    """A ranking that stopped half-way; what was finished is kept.

    Args:
        message: Where and why it stopped.
        finished: The ranking over the images that were finished.
    """

    def __init__(self, message: str, finished: "LayerImportance") -> None:
        super().__init__(message)
        self.finished = finished


@dataclass(frozen=True)
class LayerImportance:
    """Scores of every layer for every image and pixel order.

    Args:
        dataset: ``score`` and ``signed_sum`` (sample, order, layer); ``input_residual``, ``objective_start``,
            ``objective_end`` and ``order_seed`` (sample, order); coordinates ``type``, ``depth``, ``block``, ``role``,
            ``parameters``, ``alias_of`` and ``is_cut`` of layers, ``degradation`` of samples; how it was measured in
            ``attrs``.
    """

    dataset: xr.Dataset

    def scores(self) -> xr.DataArray:
        """Score of every layer: mean over pixel orders, then mean (or the preset's sum) over images."""
        per_image = self.dataset["score"].mean("order")
        return per_image.sum("sample") if self.dataset.attrs["across_images"] == "sum" else per_image.mean("sample")

    def ranking(self) -> pd.DataFrame:
        """Layers, most important first, with score, type, block, parameters and the layer whose output they share."""
        scores = self.scores()
        columns = {"layer": scores["layer"].values, "score": scores.values}
        columns |= {name: self.dataset[name].values for name in ("type", "block", "depth", "parameters", "alias_of")}
        table = pd.DataFrame(columns).sort_values(["score", "depth"], ascending=[False, True], ignore_index=True)
        table.insert(0, "rank", np.arange(1, len(table) + 1))
        return table

    def layer_table(self, model: nn.Module | None = None, *, whole_modules: bool = False) -> LayerTable:
        """The ranked layers, as selections need them.

        Args:
            model: The network, for exact totals and tied parameters; None: what the ranking tells of its layers.
            whole_modules: Whether a layer also unlocks the parameters of the modules inside it.

        Raises:
            ValueError: If a layer is not in the model, or has another size there.
        """
        layers, alias_of, sizes = (self.dataset[name].values.tolist() for name in ("layer", "alias_of", "parameters"))
        aliases = dict(zip(layers, alias_of, strict=True))
        if model is not None:
            table = LayerTable.of(model, layers, alias_of=aliases, whole_modules=whole_modules)
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
            ValueError: As :func:`macattr.selection.select`.
        """
        scores = self.scores()
        ranking = dict(zip(scores["layer"].values.tolist(), scores.values.tolist(), strict=True))
        return select(ranking, self.layer_table(model, whole_modules=whole_modules), rule, self.dataset.attrs)

    def top(self, fraction: float) -> TrainableMask:
        r"""The :math:`\lfloor` fraction x number of layers :math:`\rfloor` most important layers (the paper's rule).

        Raises:
            ValueError: If the fraction is outside (0, 1] or selects no layer.
        """
        return self.select(SelectionRule(fraction)).mask()

    def plot_heatmap(self, path: Path | str | None = None) -> Figure:
        """Scores by depth and block, as in the paper's Fig. 14; also written to ``path`` if given."""
        scores = self.scores()
        names = ("type", "block", "role", "depth", "parameters")
        table = pd.DataFrame(
            {"layer": scores["layer"].values, "score": scores.values} | {n: self.dataset[n].values for n in names}
        )
        samples, orders = self.dataset.sizes["sample"], self.dataset.sizes["order"]
        attrs = self.dataset.attrs
        title = f"{attrs['model']}: layer importance by {attrs['method']}, {samples} images x {orders} pixel orders"
        figure = plot_heatmap(table, title, attrs["unit"])
        if path is not None:
            figure.savefig(path, dpi=150)
            plt.close(figure)
        return figure

    def save(self, path: Path | str) -> None:
        """Write NetCDF, all at once: an interrupted write leaves no broken file."""
        temporary = Path(f"{path}.part")
        self.dataset.to_netcdf(temporary, engine="h5netcdf")
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path | str) -> "LayerImportance":
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: If the file is missing or no ranking.
        """
        try:
            dataset = xr.load_dataset(path, engine="h5netcdf")
        except (OSError, ValueError) as error:
            raise ValueError(f"{str(path)!r} cannot be read as a ranking: {error}") from error
        if "score" not in dataset or "across_images" not in dataset.attrs:
            raise ValueError(f"{str(path)!r} is no ranking: it has no `score`; files come from LayerImportance.save.")
        return cls(dataset)

    def to_csv(self, path: Path | str) -> None:
        """Write :meth:`ranking` as CSV."""
        self.ranking().to_csv(path, index=False)


@dataclass(frozen=True)
class Sample:
    """One image to rank on.

    Args:
        image: (1, C, H, W).
        name: Name in the results.
        degradation: What was done to it, '' if unknown.
    """

    image: Tensor
    name: str
    degradation: str


@dataclass(frozen=True)
class Measurement:
    """What one image and one pixel order tell; the fields are variables of the dataset."""

    score: list[float]
    signed_sum: list[float]
    input_residual: float
    objective_start: float
    objective_end: float
    order_seed: int
    alias_of: list[str]
    is_cut: list[bool]
    evaluations: int
    estimated_bytes: int


@dataclass(frozen=True)
class _Ruler:
    """Everything that is the same for all images: what is measured, and how."""

    model: nn.Module
    layers: dict[str, nn.Module]
    method: Method
    options: Preset
    baselines: Reference | None
    orders: int | Tensor
    patch_size: int
    seed: int
    reduction: Reduction
    forward_args: tuple[object, ...]
    internal_batch_size: int | None
    memory_budget: float | None

    def reference(self) -> Reference:
        """The reference input: what was given, else the model's own, else 0."""
        own: Reference = getattr(self.model, "reference_input", 0.0)
        return own if self.baselines is None else self.baselines

    def path(self, image: Tensor, order: Tensor | None, seed: int) -> LinearPath | MaskAttributePath:
        """The path that the method walks."""
        reference = resolve_reference(self.reference(), image)
        if self.method == "mac":
            return self.options.path(image, reference, order, seed, self.patch_size)
        interval = (1 - self.options.r, 1.0) if self.method == "internal_influence" else (0.0, 1.0)
        return LinearPath((image,), (reference,), interval)

    def measure(
        self, image: Tensor, order: Tensor | None, seed: int, advance: Callable[[float], object]
    ) -> Measurement:
        """Scores of all layers on one image along one path."""
        path = self.path(image, order, seed)
        partition = self.options.partition(path)
        layer_sum: LayerSum = StieltjesSum(partition.tag)
        if self.method == "internal_influence":
            layer_sum = GradientSum(partition.weights)
        result = trace(
            self.model, self.layers, path, partition, self.options.objective, [layer_sum],
            forward_args=self.forward_args, internal_batch_size=self.internal_batch_size,
            memory_budget=self.memory_budget, advance=advance,
        )  # fmt: skip
        neurons = [result.values(layer_sum, name)[0] for name in self.layers]
        aliases = result.alias_groups()
        return Measurement(
            [float(REDUCTIONS[self.reduction](values)) for values in neurons],
            [float(values.sum(dtype=torch.float64)) for values in neurons],
            float(result.input_residual[0]),
            float(result.objective_start[0]),
            float(result.objective_end[0]),
            seed,
            [aliases[name] for name in self.layers],
            [name in result.cuts for name in self.layers],
            result.evaluations,
            result.estimated_bytes,
        )

    def provenance(self) -> dict[str, str | int | float]:
        """How it was measured, as plain attributes."""
        options = self.options
        parameter = next(self.model.parameters(), torch.empty(0))
        low = torch.is_autocast_enabled(parameter.device.type)
        reference = self.reference()
        mask = {
            "gate": options.gate,
            "delta": options.delta if options.gate != "fade" else "",
            "groups": options.n_groups if options.gate == "fade" else "",
            "patch_size": self.patch_size,
            "seed": self.seed if isinstance(self.orders, int) else "orders were given",
        }
        return {
            "method": self.method,
            "unit": UNITS[self.method] if self.reduction == "mean_abs" else self.reduction,
            "preset": options.name,
            **({} if self.method == "conductance" else {"r": options.r}),
            "n_steps": options.n_steps,
            "quadrature": options.method,
            "include_end": int(options.include_end),
            **(mask if self.method == "mac" else {}),
            "objective": repr(options.objective),
            "across_images": options.across_images,
            "baselines": str(reference.tolist()) if isinstance(reference, Tensor) else repr(reference),
            "reduction": self.reduction,
            "model": type(self.model).__name__,
            "model_sha256": hash_parameters(self.model),
            "dtype": str(torch.get_autocast_dtype(parameter.device.type) if low else parameter.dtype),
            "device": parameter.device.type,
            "macattr": importlib.metadata.version("macattr"),
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        }


def rank_layers(
    model: nn.Module,
    inputs: Tensor | Iterable[Item],
    method: Method = "mac",
    layers: LayerLike | Sequence[LayerLike] | None = None,
    *,
    r: float | None = None,
    n_steps: int | None = None,
    gate: Gate | None = None,
    delta: float | None = None,
    groups: int | None = None,
    include_end: bool | None = None,
    quadrature: MacMethod | None = None,
    objective: Objective | None = None,
    preset: Preset | None = None,
    baselines: Reference | None = None,
    orders: int | Tensor = 1,
    patch_size: int = 1,
    seed: int | None = None,
    reduction: Reduction = "mean_abs",
    additional_forward_args: tuple[object, ...] = (),
    internal_batch_size: int | None = None,
    memory_budget: float | None = None,
    show_progress: bool = False,
) -> LayerImportance:
    """Importance of every layer over images, all layers in one sweep for each image and pixel order.

    Arguments that are None take their value from ``preset``.

    Args:
        model: Network, in eval mode. Images are moved to its device and dtype.
        inputs: Images: a tensor (C, H, W) or (B, C, H, W), or any iterable (list, DataLoader) of such tensors, of
            sequences whose first element is one, or of mappings with ``image`` and optionally ``name`` and
            ``degradation``. Sizes may differ.
        method: ``mac`` (mask path), ``conductance`` (straight line from the reference input) or
            ``internal_influence`` (mean gradient along the last ``r`` of that line: the paper's Table 5 "IG"). Of a
            layer that returns several tensors the first is scored.
        layers: Modules, names, globs or classes; None for every module that owns a parameter and runs.
        r: Masked fraction at the start of the path, in (0, 1].
        n_steps: Increments of alpha (default 30, see :data:`macattr.presets.RANKING`).
        gate: How a pixel changes from hidden to visible: ``fade``, ``sigmoid`` or ``one_sided``.
        delta: Sharpness of the last two.
        groups: Groups of pixels of the ``fade`` gate.
        include_end: Whether the whole image is the last node.
        quadrature: Where the gradient is taken; ``method`` of :class:`macattr.presets.Preset`.
        objective: What of the output is explained, (B, ...) to (B,).
        preset: Bundle of defaults, e.g. :data:`macattr.presets.OFFICIAL`.
        baselines: Reference input; None: the model's ``reference_input`` if it has one, else 0.
        orders: Number of random pixel orders for every image, or the orders themselves (orders, H*W).
        patch_size: Side in pixels of the blocks that are revealed together.
        seed: Seed of the random orders (default 0); order j of image i depends on it, i and j alone.
        reduction: From neurons to a layer's score: ``mean_abs``, ``sum_abs``, ``abs_sum`` or ``rms``.
        additional_forward_args: Further positional arguments of the model.
        internal_batch_size: Nodes in one forward pass; None chooses by memory.
        memory_budget: Bytes for activations and sums; layers are split over several sweeps if they need more.
        show_progress: Show a progress bar over all evaluations.

    Returns:
        Scores with coordinates and provenance.

    Raises:
        ValueError: If an argument, an image or the model is not usable.
        RankingInterrupted: If that (or anything else) happens after the first image; it holds the finished ones.
    """
    _check_arguments(method, reduction, orders, patch_size, model)
    if seed is not None and (isinstance(orders, Tensor) or method != "mac"):
        raise ValueError(f"`seed` = {seed} has no effect without random pixel orders.")
    masked = {"gate": gate, "delta": delta, "groups": groups}
    if method != "mac" and (unused := [name for name, value in masked.items() if value is not None]):
        raise ValueError(f"`{unused[0]}` belongs to the mask path and has no effect on method {method!r}.")
    if method == "conductance" and r is not None:
        raise ValueError(f"`r` = {r} has no effect on method 'conductance', which walks the whole line.")
    options = (preset or RANKING).override(
        r=r, n_steps=n_steps, gate=gate, delta=delta, groups=groups, include_end=include_end, method=quadrature,
        objective=objective,
    )  # fmt: skip
    ruler = _Ruler(
        model, resolve_layers(model, layers), method, options, baselines, orders, patch_size, seed or 0, reduction,
        tuple(additional_forward_args), internal_batch_size, memory_budget,
    )  # fmt: skip
    count = orders if isinstance(orders, int) else len(orders)
    started = time.perf_counter()
    finished: list[tuple[Sample, list[Measurement]]] = []
    total = _length(inputs)
    bar = tqdm(total=total and total * count * options.n_nodes, unit="node", desc=method) if show_progress else None
    try:
        with nullcontext() if bar is None else bar:
            for number, sample in enumerate(_samples(inputs, model)):
                if number == 0 and layers is None:
                    ruler = _without_idle_layers(ruler, sample)
                if bar is not None:
                    bar.set_postfix_str(sample.name)
                measured = []
                for index in range(count):
                    order = None if isinstance(orders, int) else orders[index]
                    order_seed = int(np.random.SeedSequence([seed or 0, number, index]).generate_state(1)[0])
                    measured.append(
                        ruler.measure(sample.image, order, order_seed, _ignore if bar is None else bar.update)
                    )
                finished.append((sample, measured))
    except (Exception, KeyboardInterrupt) as error:
        if not finished:
            raise
        reason = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
        partial = _assemble(ruler, finished, time.perf_counter() - started)
        raise RankingInterrupted(f"stopped after {len(finished)} finished images: {reason}", partial) from error
    if not finished:
        raise ValueError("`inputs` holds no image.")
    return _assemble(ruler, finished, time.perf_counter() - started)


def hash_parameters(model: nn.Module) -> str:
    """SHA-256 of the names and bytes of all parameters, first 16 digits."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _ignore(_: float | int) -> None:
    """No progress bar."""


def _check_arguments(method: str, reduction: str, orders: int | Tensor, patch_size: int, model: nn.Module) -> None:
    """Raise for what no preset checks."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"`model` must be a torch.nn.Module, got {type(model).__name__}.")
    if method not in get_args(Method):
        raise ValueError(f"`method` must be one of {', '.join(get_args(Method))}, got {method!r}.")
    if reduction not in REDUCTIONS:
        raise ValueError(f"`reduction` must be one of {', '.join(REDUCTIONS)}, got {reduction!r}.")
    if method != "mac" and (isinstance(orders, Tensor) or orders != 1 or patch_size != 1):
        raise ValueError(f"`orders` and `patch_size` belong to the mask path and have no effect on method {method!r}.")
    if isinstance(orders, int) and orders < 1:
        raise ValueError(f"`orders` must be at least 1, got {orders}.")


def _length(inputs: Tensor | Iterable[Item]) -> int | None:
    """Number of images if it can be known beforehand."""
    if isinstance(inputs, Tensor):
        return 1 if inputs.dim() == 3 else inputs.shape[0]
    dataset = getattr(inputs, "dataset", inputs)
    if isinstance(dataset, list | tuple) and all(isinstance(item, Tensor) for item in dataset):
        return sum(1 if item.dim() == 3 else item.shape[0] for item in dataset)
    return len(dataset) if isinstance(dataset, Sized) else None


def _samples(inputs: Tensor | Iterable[Item], model: nn.Module) -> Iterator[Sample]:
    """Single images on the model's device, named."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    number = 0
    for item in [inputs] if isinstance(inputs, Tensor) else inputs:
        image, names, degradations = item, None, None
        if isinstance(item, Mapping):
            image, names, degradations = (item.get(key) for key in ("image", "name", "degradation"))
        elif not isinstance(item, Tensor):
            image = item[0]
        if not isinstance(image, Tensor) or image.dim() not in (3, 4) or not image.is_floating_point():
            found = f"{image.dtype} {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
            raise ValueError(f"image {number} must be a float tensor (C, H, W) or (B, C, H, W), got {found}.")
        batch = image if image.dim() == 4 else image[None]
        for row in range(len(batch)):
            name, degradation = (
                value if isinstance(value, str) else str(value[row]) if isinstance(value, Sequence) else default
                for value, default in ((names, f"image {number}"), (degradations, ""))
            )
            yield Sample(batch[row : row + 1].to(parameter), name, degradation)
            number += 1


def _without_idle_layers(ruler: _Ruler, sample: Sample) -> _Ruler:
    """The same without layers that do not run, with a warning that names them."""
    path = ruler.path(sample.image, None if isinstance(ruler.orders, int) else ruler.orders[0], ruler.seed)
    looked = survey(ruler.model, ruler.layers, path, ruler.options.partition(path), forward_args=ruler.forward_args)
    ran = {seen.site.layer for seen in looked.seen}
    if idle := [name for name in ruler.layers if name not in ran]:
        warnings.warn(f"left out {len(idle)} layers that do not run: {', '.join(idle)}.", stacklevel=3)
    return replace(ruler, layers={name: module for name, module in ruler.layers.items() if name in ran})


def _assemble(ruler: _Ruler, finished: list[tuple[Sample, list[Measurement]]], seconds: float) -> LayerImportance:
    """The dataset of all measurements."""
    described = pd.DataFrame([asdict(description) for description in describe_layers(ruler.layers)])
    first = finished[0][1][0]

    def stack(name: str) -> np.ndarray:
        return np.array([[getattr(measurement, name) for measurement in measured] for _, measured in finished])

    dims = ("sample", "order", "layer")
    dataset = xr.Dataset(
        {name: (dims, stack(name)) for name in ("score", "signed_sum")}
        | {
            name: (dims[:2], stack(name))
            for name in ("input_residual", "objective_start", "objective_end", "order_seed")
        },
        coords={
            "layer": list(ruler.layers),
            "sample": [sample.name for sample, _ in finished],
            "order": np.arange(len(finished[0][1])),
            "degradation": ("sample", [sample.degradation for sample, _ in finished]),
            "height": ("sample", [sample.image.shape[-2] for sample, _ in finished]),
            "width": ("sample", [sample.image.shape[-1] for sample, _ in finished]),
            "alias_of": ("layer", first.alias_of),
            "is_cut": ("layer", first.is_cut),
        }
        | {name: ("layer", described[name].to_numpy()) for name in ("type", "depth", "block", "role", "parameters")},
        attrs=ruler.provenance()
        | {
            "evaluations": int(stack("evaluations").sum()),
            "estimated_bytes": int(stack("estimated_bytes").max()),
            "seconds": round(seconds, 2),
        },
    )
    return LayerImportance(dataset)
