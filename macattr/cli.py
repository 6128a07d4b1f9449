"""The command line: ``macattr rank``, ``macattr select``."""

__all__ = ["main", "rank", "select"]

import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Literal

import matplotlib as mpl
import pandas as pd
import torch
from jsonargparse import auto_cli
from torch import nn

from macattr import presets
from macattr.adapters import Bare
from macattr.exports import Format
from macattr.exports import export as write_export
from macattr.images import center_crop, find_images, read_image
from macattr.importance import Item, LayerImportance, Method, RankingInterrupted, rank_layers
from macattr.layers import LayerTable, resolve_layers
from macattr.paths import Gate
from macattr.presets import Preset, read_official_ranking
from macattr.selection import By, Per, Rounding, Selection, SelectionRule
from macattr.selection import select as select_layers


class ImageFiles:
    """Image files, each read when it is reached.

    Args:
        files: Where they are.
        crop: Largest side in pixels, cut from the middle; None for whole images.
    """

    def __init__(self, files: Sequence[Path], crop: int | None) -> None:
        self.files, self.crop = files, crop

    def __len__(self) -> int:
        """Number of files."""
        return len(self.files)

    def __iter__(self) -> Iterator[Mapping[str, object]]:
        """Images with their names."""
        for file in self.files:
            image = read_image(file)
            yield {"image": center_crop(image, self.crop) if self.crop else image, "name": str(file)}


def rank(
    model: str,
    images: str,
    method: Method = "mac",
    out: Path = Path("ranking"),
    layers: list[str] | None = None,
    preset: Literal["ranking", "default", "paper", "official"] = "ranking",
    r: float | None = None,
    n_steps: int | None = None,
    gate: Gate | None = None,
    delta: float | None = None,
    orders: int = 1,
    patch_size: int = 1,
    seed: int = 0,
    crop: int | None = None,
    limit: int | None = None,
    fraction: float = 0.1,
    device: str = "cpu",
    bf16: bool = False,
    internal_batch_size: int | None = None,
    memory_budget_gib: float | None = None,
    dry_run: bool = False,
) -> None:
    """Rank every layer of a network on images; write importance.nc, ranking.csv and heatmap.png.

    Args:
        model: Where the network comes from: MODULE:NAME or FILE.py:NAME, a torch module or a function that returns one.
        images: Folder or image file; or a function that returns images: MODULE:NAME, or NAME in the model's module.
        method: What is measured: mac, conductance or internal_influence.
        out: Folder for the results.
        layers: Names or globs of layers; default every module that owns a parameter.
        preset: Bundle of defaults for the options below.
        r: Masked fraction at the start of the path, in (0, 1].
        n_steps: Steps along the path.
        gate: How a pixel changes from hidden to visible.
        delta: Sharpness of the sigmoid and one_sided gates.
        orders: Random pixel orders for every image.
        patch_size: Side in pixels of the blocks that are revealed together.
        seed: Seed of the pixel orders.
        crop: Use the middle of every file only, at most this many pixels a side.
        limit: Use the first images only.
        fraction: Share of the layers that is printed.
        device: Where to compute, e.g. cpu or cuda.
        bf16: Compute in bfloat16 (autocast); sums stay float32.
        internal_batch_size: Nodes in one forward pass; default by memory.
        memory_budget_gib: Memory for activations and sums, in GiB; layers are split over several sweeps if needed.
        dry_run: Only estimate time and memory, from a short run on the first image.
    """
    mpl.use("Agg")
    for name, value in {"crop": crop, "limit": limit}.items():
        if value is not None and value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    if not 0 < fraction <= 1:
        raise ValueError(f"`fraction` must lie in (0, 1], got {fraction}.")
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"`device` is {device!r}, but torch finds no CUDA device here.")
    network = _network(model).to(device).eval()
    inputs = _images(images, model, crop, limit)
    chosen: Preset = getattr(presets, preset.upper())
    options = chosen.override(
        r=r, n_steps=n_steps, gate=gate if method == "mac" else None, delta=delta if method == "mac" else None
    )
    known = resolve_layers(network, layers)
    parameters = sum(p.numel() for p in network.parameters())
    evaluations = len(inputs) * orders * options.n_nodes
    print(f"{model}: {len(known)} layers, {parameters:,} parameters")
    print(f"{len(inputs)} images x {orders} pixel orders x {options.n_nodes} nodes = {evaluations} evaluations")

    def measure(some: Iterable[Item], steps: int | None, count: int, show_progress: bool) -> LayerImportance:
        with torch.autocast(torch.device(device).type, torch.bfloat16) if bf16 else nullcontext():
            return rank_layers(
                network, some, method, layers, preset=chosen, r=r, n_steps=steps, gate=gate, delta=delta,
                orders=count, patch_size=patch_size, seed=seed, internal_batch_size=internal_batch_size,
                memory_budget=memory_budget_gib and memory_budget_gib * 2**30, show_progress=show_progress,
            )  # fmt: skip

    if dry_run:
        for steps in (2, 8):
            trial = measure(islice(inputs, 1), steps, 1, show_progress=False).dataset.attrs
        seconds = trial["seconds"] / (steps + 1)
        memory = trial["estimated_bytes"] / 2**30
        print(
            f"about {seconds * evaluations:.0f} s ({seconds:.2f} s an evaluation) and {memory:.1f} GiB for activations"
        )
        print("measured on a short run over the first image; other sizes cost in proportion to their pixels")
        return
    out.mkdir(parents=True, exist_ok=True)
    try:
        importance = measure(inputs, n_steps, orders, show_progress=True)
    except RankingInterrupted as stopped:
        _write(stopped.finished, out)
        raise ValueError(f"{stopped} The finished images are in {out / 'importance.nc'}.") from stopped
    _write(importance, out)
    _print_summary(importance, fraction, out)
    print(f"\nnext, on your own images:  macattr rank --model {model} --images FOLDER --orders 4 --out {out}")


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
    whole_modules: bool = False,
    model: str | None = None,
    export: Format | None = None,
    out: Path | None = None,
    lora_rank: int | None = None,
    bare: Bare | None = None,
) -> None:
    """Select layers from a ranking; print them with their number of parameters, and export them.

    Args:
        importance: The importance.nc of macattr rank; or a folder with an official filter_*.txt triple, with --model.
        fraction: Share in (0, 1] that is selected. Give one of fraction, count and threshold.
        count: Number that is selected.
        threshold: Least score that is selected.
        by: What is counted: layers (names), outputs (distinct tensors) or parameters (a budget).
        per: Apply fraction or count within every block or type.
        include: Name or glob of layers that are always in, or a list of them as JSON.
        exclude: Name or glob of layers that are never in, or a list of them as JSON.
        rounding: Of a fraction of layers: floor (the paper's) or round.
        skips: Layers that may be left out because they do not fit into the budget.
        fill: Least share of the budget that must be used.
        whole_modules: A layer also stands for the parameters of modules inside it.
        model: The network, as MODULE:NAME or FILE.py:NAME: makes the counts exact and checks the export.
        export: File format: csv, json, official, peft or spectrum.
        out: Where the export goes.
        lora_rank: Mean rank of peft's adapters (default 8).
        bare: What peft does with parameters beside modules that are not selected: refuse (default), whole or skip.
    """
    if (export is None) != (out is None):
        raise ValueError("`export` and `out` belong together: the format, and where it goes.")
    for name, value in {"lora_rank": lora_rank, "bare": bare}.items():
        if value is not None and export != "peft":
            raise ValueError(f"`{name}` = {value} has no effect without --export peft.")
    always, never = (tuple([names] if isinstance(names, str) else names or ()) for names in (include, exclude))
    rule = SelectionRule(fraction, count, threshold, by, per, always, never, rounding, skips, fill)
    network = None if model is None else _network(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        chosen = _selection(importance, rule, network, whole_modules)
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


def _selection(source: Path, rule: SelectionRule, network: nn.Module | None, whole_modules: bool) -> Selection:
    """What a rule takes from a ranking of ours or of the authors."""
    if not source.is_dir():
        return LayerImportance.load(source).select(rule, network, whole_modules=whole_modules)
    if network is None:
        raise ValueError(f"{str(source)!r} holds names and scores only: give the network as --model.")
    return select_layers(
        read_official_ranking(source), LayerTable.of(network, whole_modules=whole_modules), rule,
        {"method": "official lists", "folder": str(source)},
    )  # fmt: skip


def _print_selection(selection: Selection, exact: bool) -> None:
    """The layers, then count, parameters and share."""
    described = {layer.name: layer for layer in selection.table.layers}
    ranks = {name: rank for rank, name in enumerate(selection.scores, start=1)}
    rows = [
        (ranks.get(name, "-"), name, selection.scores.get(name, float("nan")), described[name].type,
         selection.table.count([name]))
        for name in selection.layers
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["rank", "layer", "score", "type", "parameters"])
    with pd.option_context("display.width", 200):
        print(table.to_string(index=False, formatters={"score": "{:.4g}".format, "parameters": "{:,}".format}))
    print(f"\n{selection}{'' if exact else ' of the ranked layers'}")


def main(arguments: list[str] | None = None) -> None:
    """Entry point; bad input ends with one line and exit code 2."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["select"] and len(given) > 1 and not given[1].startswith("-"):
        given.insert(1, "--importance")
    command = COMMANDS.get(given[0]) if given else None
    given = [_spell(argument, command) for argument in given]
    try:
        auto_cli(dict(COMMANDS), as_positional=False, args=given, description=__doc__)
    except (ValueError, RuntimeError, ImportError, OSError) as error:
        print(f"macattr: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("macattr: interrupted before the first image was finished", file=sys.stderr)
        sys.exit(130)


COMMANDS: Mapping[str, Callable[..., None]] = {"rank": rank, "select": select}
"""Functions by the name of their command."""


def _spell(argument: str, command: Callable[..., None] | None) -> str:
    """Options with dashes as with underscores, and flags without a value."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument[2:].partition("=")
    option = name.replace("-", "_")
    flag = inspect.signature(command).parameters.get(option) if command else None
    return (
        f"--{option}=true"
        if flag is not None and flag.annotation is bool and not equals
        else f"--{option}{equals}{value}"
    )


def _network(source: str) -> nn.Module:
    """The network that an import string stands for."""
    network = _load(source)
    if callable(network) and not isinstance(network, nn.Module):
        network = network()
    if not isinstance(network, nn.Module):
        raise ValueError(f"`model` {source!r} gives a {type(network).__name__}: it must be a torch.nn.Module.")
    return network


def _load(source: str) -> object:
    """What an import string MODULE:NAME or FILE.py:NAME stands for."""
    module_name, colon, name = source.rpartition(":")
    if not colon:
        raise ValueError(f"{source!r} is no import string: write MODULE:NAME, as in ram_models:ram_swinir_tiny.")
    if module_name.endswith(".py"):
        file = Path(module_name)
        if not file.is_file():
            raise ValueError(f"there is no file {module_name!r}.")
        sys.path.insert(0, str(file.parent))
        module_name = file.stem
    elif "" not in sys.path:
        sys.path.insert(0, "")
    module = importlib.import_module(module_name)
    if not hasattr(module, name):
        public = ", ".join(n for n in getattr(module, "__all__", vars(module)) if not n.startswith("_"))
        raise ValueError(f"module {module_name!r} has no {name!r}; it has {public}.")
    return getattr(module, name)


def _images(source: str, model: str, crop: int | None, limit: int | None) -> ImageFiles | list[Item]:
    """Images of a folder or file, or what a named function returns."""
    if Path(source).exists() or ("/" in source and ":" not in source):
        return ImageFiles(find_images(source)[:limit], crop)
    if ":" not in source:
        module = model.rpartition(":")[0]
        try:
            return _images(f"{module}:{source}", model, crop, limit)
        except ValueError as error:
            raise ValueError(f"there is no file or folder {source!r}, and {error}") from error
    if crop is not None:
        raise ValueError(f"`crop` = {crop} has no effect on {source!r}: it applies to image files.")
    factory = _load(source)
    images = factory() if callable(factory) else factory
    if not isinstance(images, Sequence) or not images:
        raise ValueError(f"{source!r} must give a non-empty list of images, got {type(images).__name__}.")
    return list(images)[:limit]


def _write(importance: LayerImportance, out: Path) -> None:
    """All files of a ranking."""
    importance.save(out / "importance.nc")
    importance.to_csv(out / "ranking.csv")
    importance.plot_heatmap(out / "heatmap.png")


def _print_summary(importance: LayerImportance, fraction: float, out: Path) -> None:
    """The top layers, how far the sums are from complete, the cost, and where everything is."""
    table = importance.ranking()
    top = table.head(max(1, int(fraction * len(table) + 1e-9)))
    columns = top[["rank", "layer", "score", "type", "parameters"]]
    share = top["parameters"].sum() / table["parameters"].sum()
    attrs = importance.dataset.attrs
    residual = abs(importance.dataset["input_residual"])
    print(
        f"\ntop {fraction:.0%}: {len(top)} of {len(table)} layers, {share:.1%} of their parameters; "
        f"score = {attrs['unit']}"
    )
    with pd.option_context("display.width", 200):
        print(columns.to_string(index=False, formatters={"score": "{:.4g}".format, "parameters": "{:,}".format}))
    if shared := [f"{row.layer} = {row.alias_of}" for row in top.itertuples() if row.layer != row.alias_of]:
        print(f"same tensor under two names: {', '.join(shared)}")
    print(
        f"\ninput residual |sum of attributions / change of the objective - 1|: median {float(residual.median()):.2%}, "
        f"largest {float(residual.max()):.2%} (0 is exact)"
    )
    print(f"cost: {attrs['evaluations']} evaluations of all layers in {attrs['seconds']:.0f} s")
    print(f"written: {', '.join(str(out / name) for name in ('importance.nc', 'ranking.csv', 'heatmap.png'))}")
