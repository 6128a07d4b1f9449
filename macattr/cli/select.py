"""``macattr select``: from a ranking to the layers that are trained, and to files for other tools."""

__all__ = ["select"]

import sys
import warnings
from pathlib import Path

import pandas as pd
from torch import nn

from macattr.cli.loading import load_optional_network
from macattr.cli.rankings import load_ranking, ranking_file, refuse_other_kind
from macattr.cli.sources import explain_network
from macattr.layers.table import LayerTable
from macattr.ranking.importance import LayerImportance
from macattr.ranking.prefixes import leading_parts, strip_prefix
from macattr.selection.exports import Format
from macattr.selection.exports import export as write_export
from macattr.selection.lora import Bare
from macattr.selection.rules import By, Per, Rounding, Selection, SelectionRule
from macattr.selection.rules import select as select_layers
from macattr.selection.small_first import small_first as take_small_first


@explain_network
def select(
    importance: Path,
    fraction: float | None = None,
    count: int | None = None,
    threshold: float | None = None,
    by: By = "layers",
    per: Per | None = None,
    include: list[str] | str | None = None,
    exclude: list[str] | str | None = None,
    rounding: Rounding = "floor",
    skips: int = 3,
    fill: float = 0.95,
    over: float | None = None,
    per_parameter: bool = False,
    small_first: float | None = None,
    whole_modules: bool = False,
    model: str | None = None,
    weights: Path | None = None,
    prefix: str | None = None,
    export: Format | None = None,
    out: Path | None = None,
    lora_rank: int | None = None,
    bare: Bare | None = None,
) -> None:
    """Select layers from a ranking; print them with their number of parameters, and export them.

    Args:
        importance: The importance.nc of macattr rank, or its folder; or, with --model, a folder with an official
            filter_*.txt triple, or a JSON or CSV file of names and scores.
        fraction: Share in (0, 1] that is selected, at least one layer. Give one of fraction, count and threshold.
        count: Number that is selected.
        threshold: Least score that is selected.
        by: Unit of the count: layers (names), outputs (distinct tensors) or parameters (a budget).
        per: Apply fraction or count within every block or type.
        include: Names or globs of layers that are always in, with commas between.
        exclude: Names or globs of layers that are never in, with commas between.
        rounding: How a fraction of layers becomes a whole number: floor (the paper's) or round.
        skips: Layers that may be left out because they do not fit into the budget. The next one ends the selection,
            once the share --fill is used.
        fill: Share of the budget that counts as used up. Below it the layer that comes nearest to the budget is added.
        over: Share of the budget by which the selection may exceed it, 0 for never. Default: by less than it would
            fall short otherwise.
        per_parameter: Order the layers by score per parameter, for scores that are sums: adam_gain, adam_gain_warm,
            fisher, kernel, lca.
        small_first: Share in (0, 1] of a budget (--by parameters) that ends, norms and other vectors take first, the
            smallest first; the rest goes by score per parameter. Needs --model.
        whole_modules: A layer also stands for the parameters of modules inside it.
        model: The network, which makes the counts exact and checks the export: {forms}.
        weights: File of weights that replace those that the network comes with.
        prefix: Beginning of the ranked names that is removed, such as net. of a wrapper around the network. If all
            names fit the network without it, it is found automatically, with a message.
        export: File format. Of layers: csv, json; official (the authors' scripts). What is trained in full: spectrum
            (Spectrum and Axolotl), llama-factory (its YAML; blocks at one end), ms-swift (arguments of swift sft),
            finetuning-scheduler (Lightning's callback; layers are unfrozen by rank). Adapters: peft (get_peft_model),
            axolotl (its YAML), diffusers (--lora_layers of its training scripts), kohya (--config_file of sd-scripts;
            Flux and Stable Diffusion 1, 2, XL and 3). All but csv, json, official and spectrum need --model.
        out: Where the export goes.
        lora_rank: Rank of the adapters of peft, axolotl and kohya (default 8); in peft ranks follow the scores and cost
            what this one would on all.
        bare: Treatment by peft and axolotl of bare parameters next to modules that are not selected, and of tied
            weights: refuse (default), train their module as a whole, or skip them.
    """
    if (export is None) != (out is None):
        raise ValueError("`export` and `out` belong together: the format, and where it goes.")
    if out is not None:
        refuse_other_kind(out, importance, weights)
    for name, value in {"lora_rank": lora_rank, "bare": bare}.items():
        if value is not None and export is None:
            raise ValueError(f"`{name}` = {value} has no effect without --export peft or another format of adapters.")
    always, never = (tuple(names.split(",") if isinstance(names, str) else names or ()) for names in (include, exclude))
    rule = SelectionRule(
        fraction=fraction,
        count=count,
        threshold=threshold,
        by=by,
        per=per,
        include=always,
        exclude=never,
        rounding=rounding,
        skips=skips,
        fill=fill,
        over=over,
        per_parameter=per_parameter,
    )
    network = load_optional_network(model, weights)
    if small_first is not None:
        if whole_modules:
            raise ValueError("`small_first` and `whole_modules` exclude each other: small layers go by what they own.")
        if not 0 < small_first <= 1:
            raise ValueError(f"`small_first` must lie in (0, 1], got {small_first}: it is a part of the budget.")
        if network is None:
            raise ValueError("`small_first` needs the network, which knows the small layers: give it as --model.")
        rule = take_small_first(rule, network, small_first)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        chosen = _selection(ranking_file(str(importance)), rule, network, whole_modules=whole_modules, prefix=prefix)
        checked = (
            None
            if export is None or out is None
            else write_export(chosen, out, export, network, rank=lora_rank, bare=bare)
        )
    _print_selection(chosen, network is not None)
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    if checked is not None:
        print(f"written: {out} ({checked})")


def _selection(
    source: Path, rule: SelectionRule, network: nn.Module | None, *, whole_modules: bool, prefix: str | None
) -> Selection:
    """The layers that a rule takes from a ranking of ours, of the authors or of another tool."""
    ranking = load_ranking(str(source))
    if isinstance(ranking, LayerImportance):
        taken_off = _prefix(ranking.dataset["layer"].values.tolist(), network, prefix)
        ranking = ranking.without_prefix(taken_off) if taken_off else ranking
        return ranking.select(rule, network, whole_modules=whole_modules)
    if network is None:
        raise ValueError(f"{str(source)!r} holds names and scores only: give the network as --model.")
    names = strip_prefix(list(ranking), _prefix(list(ranking), network, prefix))
    return select_layers(
        dict(zip(names, ranking.values(), strict=True)),
        LayerTable.of(network, whole_modules=whole_modules),
        rule,
        {"method": "official lists" if source.is_dir() else "scores from a file", "source": str(source)},
    )


def _prefix(names: list[str], network: nn.Module | None, given: str | None) -> str:
    """What is taken off the names: what was given, else what makes all of them fit the network, if anything does."""
    if given is not None or network is None:
        return given or ""
    known = {name for name, _ in network.named_modules(remove_duplicate=False)}
    found = (
        ""
        if known.issuperset(names)
        else next((p for p in leading_parts(names) if all(name.removeprefix(p) in known for name in names)), "")
    )
    if found:
        print(
            f"the ranked names begin with {found!r}, as of a wrapper; without it all fit the network", file=sys.stderr
        )
    return found


def _print_selection(selection: Selection, exact: bool) -> None:
    """The layers, then count, parameters and share."""
    described = {layer.name: layer for layer in selection.table.layers}
    ranks = {name: rank for rank, name in enumerate(selection.scores, start=1)}
    rows = [
        (
            ranks.get(name, "-"),
            name,
            selection.scores.get(name, float("nan")),
            described[name].type,
            selection.table.count([name]),
        )
        for name in selection.layers
    ]
    table = pd.DataFrame(rows, columns=["rank", "layer", "score", "type", "parameters"])
    with pd.option_context("display.width", 200):
        print(table.to_string(index=False, formatters={"score": "{:.4g}".format, "parameters": "{:,}".format}))
    print(f"\n{selection}{'' if exact else ' of the ranked layers'}")
