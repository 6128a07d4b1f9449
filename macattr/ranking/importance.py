"""Rankings: how important every layer is over images and pixel orders, with how it was measured."""

__all__ = ["LayerImportance"]

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from torch import nn

from macattr.layers.table import LayerDescription, LayerTable, describe_layers
from macattr.methods.catalogue import METHODS
from macattr.methods.kinds import PathMethod, needs_loss
from macattr.plots import plot_heatmap
from macattr.ranking.doubts import doubts, without_gradients, without_scores
from macattr.ranking.files import read_dataset, write_dataset
from macattr.ranking.merging import merge_datasets
from macattr.ranking.prefixes import strip_prefix
from macattr.ranking.untrained import AS_INITIALISED, UNTRAINED
from macattr.selection.rules import Selection, SelectionRule, select
from macattr.selection.trainable import TrainableMask
from macattr.statistics.bootstrap import IntervalMethod, bootstrap, probability_in_top
from macattr.statistics.groups import group_ranks
from macattr.statistics.ranks import top_count
from macattr.statistics.variance import variance_components

SUMMARISED = 5
"""Number of layers in the printed summary of a ranking."""


@dataclass(frozen=True)
class LayerImportance:
    """Scores of every layer for every image and pixel order.

    Args:
        dataset: How it was measured stands in ``attrs``, the formula of a score as ``unit``. A value that a method does
            not have is NaN. Methods that score all images together have one sample, "all images", or "no image" where
            there was none. The variables are:

            - ``score`` (sample, order, layer), at least 0 for most methods; ``signed_sum``, the sum of the neurons'
              values with their signs; ``step_error``, at least 0, in the unit of the score.
            - ``input_residual`` (sample, order): error of completeness at the input, relative to the change of the
              objective, with its sign; 0 is exact, -1 says that no gradient reaches the input.
            - ``objective_start``, ``objective_end`` and ``objective_variation``, the sum of its ups and downs;
              ``step_order``, the order of convergence that step errors go by; ``order_seed``, -1 without a random
              order (all sample, order).
            - Coordinates ``type``, ``depth``, ``block``, ``role``, ``parameters``, ``alias_of`` and ``is_cut`` of
              layers, ``degradation``, ``height`` and ``width`` of samples.
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
        """What speaks against it and what to do: untrained weights, incomplete sums, scores that are alike or 0."""
        untrained = [UNTRAINED] if self.dataset.attrs.get("weights") == AS_INITIALISED else []
        if words := without_scores(self.values):
            return untrained + words
        method = METHODS.get(self.dataset.attrs["method"])
        if method is not None and not isinstance(method, PathMethod) and method.of_parameters and needs_loss(method):
            names, sizes = self.dataset["layer"].values.tolist(), self.dataset["parameters"].values
            return untrained + without_gradients(self.values, names, sizes)
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
            fraction: Share of the layers that own parameters, in (0, 1]; at least one is taken.

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
        write_dataset(self.dataset, Path(path))

    @classmethod
    def load(cls, path: Path | str) -> "LayerImportance":
        """Read a file that :meth:`save` wrote.

        Args:
            path: File, or the folder of ``macattr rank`` that holds it.

        Raises:
            ValueError: If the file cannot be opened, is damaged or does not hold a ranking.
        """
        return cls(read_dataset(Path(path)))

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

        By :func:`macattr.statistics.bootstrap.bootstrap`.

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

        Layers that own no parameters cannot be chosen and are left out, as by :meth:`top`.

        Args:
            fraction: Share of these layers that is the top, in (0, 1].
            seed: Seed of the resamples.

        Raises:
            ValueError: As :func:`macattr.statistics.bootstrap.probability_in_top`.
        """
        choosable = self.with_parameters()
        names = choosable.dataset["layer"].values
        shares = probability_in_top(choosable.values, top_count(fraction, len(names)), np.random.default_rng(seed))
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
        """Where the variance of the scores comes from; see :func:`macattr.statistics.variance.variance_components`.

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
        return cls(merge_datasets([part.dataset for part in parts]))
