"""The figures of the bundled networks' model card: how they were trained, and what they make of photographs."""

__all__ = ["TUNED", "WEIGHTS", "draw_card", "draw_denoised", "main"]

from collections.abc import Mapping
from types import MappingProxyType

import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ram_models.data.crops import clean_photographs
from ram_models.degradations import add_gaussian_noise, darken, gaussian_blur
from ram_models.evaluation.metrics import Convention, psnr
from ram_models.experiments.study.config import Study
from ram_models.networks.checkpoints import BUNDLED, build
from ram_models.networks.masking import random_mask, restore_with_twins
from ram_models.seeds import seeded

NETWORK = "ram-swinir-tiny"

WEIGHTS: Mapping[str, str] = MappingProxyType(
    {
        "masked, seed 0 (the default)": NETWORK,
        "masked, seed 1": f"{NETWORK}-masked-1",
        "masked, seed 2": f"{NETWORK}-masked-2",
        "not masked, seed 0": f"{NETWORK}-pairwise-0",
    }
)
"""Files of the pre-trained networks, without suffix; the loss curve of each is the CSV file of that name."""

TUNED = f"{NETWORK}-mac"
"""File of the network after fine-tuning 10 % of its layers."""

DENOISER = "ram-denoise-tiny"
"""Name of the network that was fine-tuned on noise."""

SIZE = 96
"""Side of the photographs of the card in pixels."""

DENOISED = (("coffee", 25.0), ("chelsea", 50.0))
"""Photographs that are denoised, with the sigma of their noise."""


def main(study: Study) -> None:
    """Write the figures."""
    folder = study.docs / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure, dpi in ((NETWORK, draw_card(), 90), (DENOISER, draw_denoised(), 110)):
        figure.savefig(folder / f"{name}.png", dpi=dpi)
        print(f"written: {folder / f'{name}.png'}")


def draw_card() -> Figure:
    """Loss and validation of every network above; one photograph, degraded three times and restored, below."""
    figure = Figure(figsize=(11, 9.5), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(1, 1.9))
    upper, lower = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    loss, psnr = upper.subplots(1, 2)
    for colour, (label, name) in zip(sns.color_palette("colorblind"), WEIGHTS.items(), strict=False):
        if (file := BUNDLED / f"{name}.csv").exists():
            _draw_curves(loss, psnr, pd.read_csv(file), label, colour)
    loss.set(xlabel="step", ylabel="mean absolute error", title="training loss")
    psnr.set(xlabel="step", ylabel="PSNR, dB", title="held-out crops: twin masks, whole input (dashed)")
    loss.legend(frameon=False, fontsize=8)
    for axes in (loss, psnr):
        sns.despine(ax=axes)
    examples = restorations()
    panels = lower.subplots(len(examples), len(next(iter(examples.values()))), squeeze=False)
    for row, (task, views) in zip(panels, examples.items(), strict=True):
        for axes, image in zip(row, views.values(), strict=True):
            axes.imshow(image.clamp(0, 1).permute(1, 2, 0).numpy())
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(task, fontsize=10)
    for axes, view in zip(panels[0], views, strict=True):
        axes.set_title(view, fontsize=10)
    return figure


@torch.no_grad()
def draw_denoised(size: int = 144) -> Figure:
    """Two photographs with noise, denoised, and as they were, with the PSNR of each.

    Args:
        size: Side of the photographs in pixels.
    """
    network, generator = build(DENOISER), seeded("denoised photographs")
    figure = Figure(figsize=(11, 2.05), layout="constrained")
    panels = iter(figure.subplots(1, 3 * len(DENOISED)))
    for name, sigma in DENOISED:
        clean = clean_photographs(size)[name]
        noisy = add_gaussian_noise(clean, sigma, generator)
        views = {f"noise, sigma {sigma:g}": noisy, "denoised": network(noisy[None])[0], "clean": clean}
        for title, image in views.items():
            quality = f": {psnr(image, clean, Convention()):.1f} dB" if image is not clean else ""
            axes = next(panels)
            axes.imshow(image.clamp(0, 1).permute(1, 2, 0).numpy())
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"{title}{quality}", fontsize=9)
    return figure


def _draw_curves(loss: Axes, psnr: Axes, metrics: pd.DataFrame, label: str, colour: tuple[float, float, float]) -> None:
    """One training; its validation is a line for each stage, because every stage has held-out crops of its own."""
    loss.plot(metrics["step"], metrics["loss"], color=colour, label=label, linewidth=1)
    for _, validated in metrics.dropna(subset=["psnr_whole"]).groupby("stage"):
        for column, style in (("psnr_twins", "-"), ("psnr_whole", "--")):
            if column in validated:
                psnr.plot(validated["step"], validated[column], style, color=colour, marker=".")


@torch.no_grad()
def restorations() -> dict[str, dict[str, Tensor]]:
    """By degradation: the degraded photograph, its restorations, and the clean one."""
    clean = clean_photographs(SIZE)["chelsea"]
    generator = seeded("model card")
    degraded = {
        "noise, sigma 25": add_gaussian_noise(clean, 25.0, generator),
        "low light": darken(clean, 2.0, 0.2, 1.5, generator),
        "blur, sigma 2": gaussian_blur(clean, 2.0),
    }
    mask = random_mask(1, SIZE, SIZE, generator)
    network = build(NETWORK)
    tuned = build(NETWORK, BUNDLED / f"{TUNED}.safetensors") if (BUNDLED / f"{TUNED}.safetensors").exists() else None
    views = {}
    for task, image in degraded.items():
        views[task] = {
            "degraded": image,
            "whole input": network(image[None])[0],
            "twin masks": restore_with_twins(network, image[None], mask)[0],
        }
        if tuned is not None:
            views[task]["10 % fine-tuned"] = tuned(image[None])[0]
        views[task]["clean"] = clean
    return views
