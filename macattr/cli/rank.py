"""``macattr rank``: rankings of a network's layers, on disk and in words."""

__all__ = ["rank"]

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Literal

import matplotlib as mpl
import pandas as pd
import torch
import torch.distributed as dist
from torch import nn

from macattr.cli.compare import compare_rankings
from macattr.cli.loading import ImageFiles, load_images, load_network, load_weights, shuffled
from macattr.layers import resolve_layers
from macattr.methods.catalogue import find_methods
from macattr.methods.kinds import Method
from macattr.methods.readings import estimate_evaluations
from macattr.methods.samples import Item
from macattr.methods.task import PathName, Setup
from macattr.paths import presets
from macattr.paths.inputs import Gate
from macattr.paths.presets import Preset
from macattr.ranking.importance import LayerImportance
from macattr.ranking.rank import RankingInterrupted, RankingOptions, rank_methods
from macattr.report.page import write_report
from macattr.statistics.stopping import StableTop


def rank(
    model: str,
    images: str,
    method: str = "mac",
    out: Path = Path("ranking"),
    clean: str | None = None,
    layers: list[str] | None = None,
    preset: Literal["ranking", "default", "paper", "official"] = "ranking",
    path: PathName | None = None,
    r: float | None = None,
    n_steps: int | None = None,
    tolerance: float | None = None,
    gate: Gate | None = None,
    delta: float | None = None,
    orders: int = 1,
    patch_size: int = 1,
    seed: int = 0,
    reduction: str = "mean_abs",
    start_weights: Path | None = None,
    crop: int | None = None,
    limit: int | None = None,
    until_stable: bool = False,
    confidence: float = 0.95,
    fraction: float = 0.1,
    device: str = "cpu",
    bf16: bool = False,
    internal_batch_size: int | None = None,
    memory_budget_gib: float | None = None,
    dry_run: bool = False,
) -> None:
    """Rank every layer of a network on images; write importance.nc, ranking.csv, heatmap.png and report.html.

    With several methods there is a folder for each, one report, and a table and figures of how they agree. A run that
    was stopped continues where it was if started again. Under torchrun, processes share the images and orders:
    torchrun --nproc-per-node 2 -m macattr rank ...

    Args:
        model: Where the network comes from: MODULE:NAME or FILE.py:NAME, a torch module or a function that returns one.
        images: Folder or image file; or a function that returns images: MODULE:NAME, or NAME in the model's module.
        method: What is measured: a name, several with commas between, or all (that need no other weights);
            "macattr methods" explains them.
        out: Folder for the results.
        clean: Folder with the clean image of every image, under the same name; for methods that need a loss.
        layers: Names or globs of layers; default every module that owns a parameter.
        preset: Bundle of defaults for the options below.
        path: Path that replaces the methods' own.
        r: Masked fraction at the start of the path, in (0, 1].
        n_steps: Steps along the path.
        tolerance: Choose the steps so that the relative step error of 95 % of the layers stays below this.
        gate: How a pixel changes from hidden to visible.
        delta: Sharpness of the sigmoid and one_sided gates.
        orders: Random pixel orders for every image.
        patch_size: Side in pixels of the blocks that are revealed together.
        seed: Seed of everything random.
        reduction: From neurons to a layer's score.
        start_weights: File with the weights from which the method faig comes to the network's own.
        crop: Use the middle of every file only, at most this many pixels a side.
        limit: Use the first images only.
        until_stable: Stop adding images when the top fraction (of the first method) is stable; they are shuffled.
        confidence: How sure that must be, in (0, 1).
        fraction: Share of the layers that is printed.
        device: Where to compute, e.g. cpu or cuda.
        bf16: Compute in bfloat16 (autocast); sums stay float32.
        internal_batch_size: Nodes in one forward pass; default by memory.
        memory_budget_gib: Memory for activations and sums, in GiB; layers are split over several sweeps if needed.
        dry_run: Only estimate time and memory, from a short run on the first image.
    """
    mpl.use("Agg")
    if not 0 < fraction <= 1:
        raise ValueError(f"`fraction` must lie in (0, 1], got {fraction}.")
    first, device = _join(device)
    network = load_network(model, device)
    inputs = load_images(images, model, crop, limit, clean)
    if until_stable:
        inputs = shuffled(inputs, seed)
    names = [name.strip() for name in method.split(",")]
    chosen: Preset = getattr(presets, preset.upper())
    options: RankingOptions = {
        "preset": chosen, "path": path, "r": r, "n_steps": n_steps, "tolerance": tolerance, "gate": gate,
        "delta": delta, "orders": orders, "patch_size": patch_size, "seed": seed or None, "reduction": reduction,
        "start_weights": None if start_weights is None else load_weights(start_weights),
        "internal_batch_size": internal_batch_size,
        "memory_budget": memory_budget_gib and memory_budget_gib * 2**30,
        "until": StableTop(fraction, confidence) if until_stable else None,
    }  # fmt: skip
    methods = find_methods(names)
    setup = Setup(network, resolve_layers(network, layers), chosen.override(n_steps=n_steps), path, orders)
    evaluations, saved = estimate_evaluations(methods, setup, len(inputs))
    if first:
        _announce(model, setup, len(inputs), [m.name for m in methods], evaluations, saved)
    precision = torch.autocast(torch.device(device).type, torch.bfloat16) if bf16 else nullcontext()
    with precision:
        if dry_run:
            _estimate(setup, inputs, methods, options, evaluations)
            return
        started = time.perf_counter()
        parts = out / "parts"
        try:
            kept: RankingOptions = {**options, "parts": parts, "show_progress": True}
            found = rank_methods(network, inputs, names, layers, **kept)
        except RankingInterrupted as stopped:
            _write(stopped.rankings, out)
            raise ValueError(
                f"{stopped} The finished images are in {out}; the same command continues with the others."
            ) from stopped
    if not first:
        return
    _write(found, out)
    shutil.rmtree(parts)
    if len(found) > 1:
        print(f"\n{compare_rankings(found, out, fraction, seed=seed)}")
    seconds = time.perf_counter() - started
    written = _write_report(found, fraction, out, network, seed)
    _print_summary(found, fraction, out, seconds, written)
    print(f"\nnext, on your own images:  macattr rank --model {model} --images FOLDER --orders 4 --out {out}")


def _join(device: str) -> tuple[bool, str]:
    """Join the processes that torchrun started, if it did: whether this is the first, and its device."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if not dist.is_initialized():
            dist.init_process_group("gloo")  # only results are exchanged, as objects
        if device == "cuda":
            device = f"cuda:{os.environ['LOCAL_RANK']}"
        return dist.get_rank() == 0, device
    return True, device


def _announce(model: str, setup: Setup, images: int, names: Sequence[str], evaluations: int, saved: int) -> None:
    """What will be measured, and what it costs."""
    parameters = sum(p.numel() for p in setup.model.parameters())
    print(f"{model}: {len(setup.layers)} layers, {parameters:,} parameters")
    if len(names) == 1:
        nodes = evaluations // max(1, images * setup.order_count)
        print(f"{images} images x {setup.order_count} pixel orders x {nodes} nodes = {evaluations} evaluations")
    else:
        print(f"{len(names)} methods on {images} images: {evaluations} evaluations")
        print(f"sharing passes saves {saved} evaluations ({saved / (evaluations + saved):.0%})")


def _estimate(
    setup: Setup, inputs: ImageFiles | list[Item], methods: Sequence[Method], options: RankingOptions, evaluations: int
) -> None:
    """Time and memory, from a short run on the first image."""
    short: RankingOptions = {**options, "orders": 1, "until": None, "tolerance": None}
    for steps in (2, 8):
        short["n_steps"] = steps
        started = time.perf_counter()
        found = rank_methods(setup.model, islice(inputs, 1), [m.name for m in methods], list(setup.layers), **short)
        seconds = time.perf_counter() - started
    each = seconds / max(1, estimate_evaluations(methods, replace(setup.with_steps(steps), orders=1), 1)[0])
    memory = max(int(importance.dataset.attrs["estimated_bytes"]) for importance in found.values()) / 2**30
    print(f"about {each * evaluations:.0f} s ({each:.2f} s an evaluation) and {memory:.1f} GiB for activations")
    print("measured on a short run over the first image; other sizes cost in proportion to their pixels")


def _write_report(
    rankings: Mapping[str, LayerImportance], fraction: float, out: Path, network: nn.Module, seed: int
) -> list[Path]:
    """The page's file; none where no layer can be trained."""
    if not any(int(importance.dataset["parameters"].sum()) for importance in rankings.values()):
        return []
    files = {name: _folder(out, name, len(rankings)) / "importance.nc" for name in rankings}
    write_report(rankings, out / "report.html", fraction=fraction, model=network, files=files, seed=seed)
    return [out / "report.html"]


def _folder(out: Path, name: str, methods: int) -> Path:
    """Where a method's files are."""
    return out if methods == 1 else out / name


def _write(rankings: Mapping[str, LayerImportance], out: Path) -> None:
    """All files: of one method in the folder itself, of several in a folder each."""
    out.mkdir(parents=True, exist_ok=True)
    for name, importance in rankings.items():
        folder = _folder(out, name, len(rankings))
        folder.mkdir(exist_ok=True)
        importance.save(folder / "importance.nc")
        importance.to_csv(folder / "ranking.csv")
        importance.plot_heatmap(folder / "heatmap.png")


def _print_summary(
    rankings: Mapping[str, LayerImportance], fraction: float, out: Path, seconds: float, further: Sequence[Path]
) -> None:
    """The top layers, how far the sums are from complete, the cost, and where everything is."""
    for importance in rankings.values():
        _print_top(importance, fraction)
    residuals = [abs(importance.dataset["input_residual"]) for importance in rankings.values()]
    known = [residual for residual in residuals if residual.notnull().any()]
    if known:
        median, largest = max(float(r.median()) for r in known), max(float(r.max()) for r in known)
        print(
            f"\ninput residual |sum of attributions / change of the objective - 1|: median {median:.2%}, "
            f"largest {largest:.2%} (0 is exact)"
        )
    for importance in rankings.values():
        if stability := importance.dataset.attrs.get("stability"):
            print(f"\n{stability}")
    print(f"cost: {seconds:.0f} s")
    where = _folder(out, "METHOD", len(rankings))
    files = [where / name for name in ("importance.nc", "ranking.csv", "heatmap.png")]
    print(f"written: {', '.join(str(file) for file in [*files, *further])}")


def _print_top(importance: LayerImportance, fraction: float) -> None:
    """The top layers of one method."""
    table = importance.ranking()
    top = table.head(max(1, int(fraction * len(table) + 1e-9)))
    share = top["parameters"].sum() / table["parameters"].sum()
    attrs = importance.dataset.attrs
    print(
        f"\n{attrs['method']}, top {fraction:.0%}: {len(top)} of {len(table)} layers, {share:.1%} of their parameters; "
        f"score = {attrs['unit']}"
    )
    with pd.option_context("display.width", 200):
        columns = top[["rank", "layer", "score", "type", "parameters"]]
        print(columns.to_string(index=False, formatters={"score": "{:.4g}".format, "parameters": "{:,}".format}))
    if shared := [f"{row.layer} = {row.alias_of}" for row in top.itertuples() if row.layer != row.alias_of]:
        print(f"same tensor under two names: {', '.join(shared)}")
