"""The command line: ``macattr rank``."""

__all__ = ["main", "rank"]

import importlib
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from macattr.images import center_crop, find_images, read_image
from macattr.importance import Item, LayerImportance, Method, RankingInterrupted, rank_layers
from macattr.layers import resolve_layers
from macattr.paths import Gate
from macattr.presets import Preset


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
    network = _load(model)
    if callable(network) and not isinstance(network, nn.Module):
        network = network()
    if not isinstance(network, nn.Module):
        raise ValueError(f"`model` {model!r} gives a {type(network).__name__}: it must be a torch.nn.Module.")
    network = network.to(device).eval()
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


def main(arguments: list[str] | None = None) -> None:
    """Entry point; bad input ends with one line and exit code 2."""
    given = [_spell(argument) for argument in (sys.argv[1:] if arguments is None else arguments)]
    try:
        auto_cli({"rank": rank}, as_positional=False, args=given, description=__doc__)
    except (ValueError, RuntimeError, ImportError, OSError) as error:
        print(f"macattr: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("macattr: interrupted before the first image was finished", file=sys.stderr)
        sys.exit(130)


def _spell(argument: str) -> str:
    """Options with dashes as with underscores, and flags without a value."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument[2:].partition("=")
    option = name.replace("-", "_")
    flag = inspect.signature(rank).parameters.get(option)
    return (
        f"--{option}=true"
        if flag is not None and flag.annotation is bool and not equals
        else f"--{option}{equals}{value}"
    )


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
