"""Model card figures of a pre-trained RAM network: its loss curve, and the gap between whole and masked input.

Run it with ``python -m ram_models.recipes.describe --data FOLDER --metrics RUN/metrics.csv --out CARD.png``; it prints
the table of the card and draws its figure (with a photograph of scikit-image). ``FOLDER`` holds clean images that the
network was not trained on.
"""

__all__ = ["Config", "main", "measure"]

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics.functional.image import peak_signal_noise_ratio
from tqdm.auto import tqdm

from macattr.images import center_crop, find_images, read_image
from ram_models.checkpoints import build
from ram_models.datasets import clean_photographs
from ram_models.degradations import add_gaussian_noise, compress_jpeg, gaussian_blur
from ram_models.masking import random_mask, restore_with_twins


@dataclass(frozen=True)
class Config:
    """What is described, and on which images.

    Args:
        data: Folder of clean images that the network was not trained on.
        metrics: metrics.csv of the pre-training run.
        out: Figure to write.
        name: Network, see :func:`ram_models.checkpoints.build`.
        images: Number of images, spread over the sorted folder.
        size: Side of the middle that is cut from each, in pixels.
        seed: Seed of noise and masks.
    """

    data: Path
    metrics: Path
    out: Path
    name: str = "ram-swinir-tiny"
    images: int = 24
    size: int = 128
    seed: int = 0


def fixed_degradations(clean: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """One strength of every task: noise of sigma 25, blur of sigma 2, JPEG of quality 50."""
    return {
        "noise": add_gaussian_noise(clean, 25.0, generator),
        "blur": gaussian_blur(clean, 2.0),
        "jpeg": compress_jpeg(clean, 50),
    }


@torch.no_grad()
def measure(network: nn.Module, clean: Tensor, generator: torch.Generator) -> dict[str, dict[str, Tensor]]:
    """By task: the degraded image, and its restorations from the whole input and from twin masks, clipped to [0, 1].

    Args:
        network: Restores RGB in [0, 1].
        clean: Clean images (B, 3, H, W) in [0, 1].
        generator: Source of the degradations and masks.
    """
    mask = random_mask(1, clean.shape[1], clean.shape[2], generator)
    images = {}
    for task, degraded in fixed_degradations(clean, generator).items():
        whole, twins = network(degraded[None]), restore_with_twins(network, degraded[None], mask)
        images[task] = {"degraded": degraded, "whole input": whole[0].clamp(0, 1), "twin masks": twins[0].clamp(0, 1)}
    return images


def draw(metrics: pd.DataFrame, clean: Tensor, images: dict[str, dict[str, Tensor]]) -> Figure:
    """Curves above, one photograph below."""
    figure = plt.figure(figsize=(12, 11), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(1, 2))
    upper, lower = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    loss, psnr = upper.subplots(1, 2)
    validated = metrics.dropna(subset=["psnr_whole"])  # rows of the loss are more frequent
    loss.plot(metrics["step"], metrics["loss"], color="0.2")
    loss.set(xlabel="step", ylabel="mean L1 on hidden pixels", title="pre-training loss")
    for column, label in (("psnr_twins", "twin masks"), ("psnr_whole", "whole input")):
        psnr.plot(validated["step"], validated[column], label=label)
    psnr.set(xlabel="step", ylabel="PSNR, dB", title="held-out crops")
    psnr.legend(loc="center right")
    panels = lower.subplots(len(images), 4)
    for row, (task, restored) in zip(panels, images.items(), strict=True):
        for axes, (title, image) in zip(row, {**restored, "clean": clean}.items(), strict=True):
            axes.imshow(image.permute(1, 2, 0).numpy())
            axes.set(title=f"{task}: {title}", xticks=[], yticks=[])
    return figure


def main(config: Config) -> None:
    """Print the table and write the figure."""
    mpl.use("Agg")
    network = build(config.name)
    files = find_images(config.data)
    chosen = files[:: max(1, len(files) // config.images)][: config.images]
    generator = torch.Generator().manual_seed(config.seed)
    rows = []
    for file in tqdm(chosen, unit="image"):
        clean = center_crop(read_image(file), config.size)
        images = measure(network, clean, generator)
        for task, restored in images.items():
            psnr = {name: float(peak_signal_noise_ratio(image, clean, 1.0)) for name, image in restored.items()}
            rows.append({"task": task} | psnr)
    table = pd.DataFrame(rows).groupby("task", sort=False).mean()
    print(f"PSNR in dB, mean over {len(chosen)} images of at most {config.size}x{config.size} pixels")
    print(table.round(2).to_string())
    shown = clean_photographs(config.size)["chelsea"]
    draw(pd.read_csv(config.metrics), shown, measure(network, shown, generator)).savefig(config.out, dpi=90)


if __name__ == "__main__":
    from jsonargparse import auto_cli

    main(auto_cli(Config, as_positional=False))
