"""How fast the sums along different paths converge, on the bundled network and real photographs.

For every path and number of evaluations: completeness at a cut layer (``conv_first``) and at the input, and agreement
of the ranking with a reference of 2049 nodes on the per-pixel fade. Writes benchmarks/results/convergence.md and .png.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor
from tqdm.auto import tqdm

from macattr.layers.resolve import resolve_layers
from macattr.paths.inputs import LinearPath, random_order, resolve_reference
from macattr.paths.inputs import Path as InputPath
from macattr.paths.objectives import GradientMagnitude, Objective
from macattr.paths.partitions import Partition
from macattr.paths.presets import DEFAULT, OFFICIAL, PAPER, Preset
from macattr.paths.sums import StieltjesSum
from macattr.statistics.ranks import top_count
from macattr.sweep.trace import trace
from ram_models import ram_swinir_tiny, sample

RESULTS = Path(__file__).parent / "results"
CUT = "conv_first"


@dataclass(frozen=True)
class Scheme:
    """A path and how it is cut into nodes."""

    name: str
    preset: Preset
    straight: bool = False

    def build(self, image: Tensor, reference: Tensor, order: Tensor) -> tuple[InputPath, Partition]:
        """The path from the masked to the whole image, and its nodes."""
        masked = self.preset.path(image, reference, order)
        if not self.straight:
            return masked, self.preset.partition(masked)
        start = DEFAULT.path(image, reference, order).at(torch.tensor([1 - self.preset.r]))
        line = LinearPath((image,), start)
        return line, self.preset.partition(line)


def schemes() -> list[Scheme]:
    """Everything that is compared; the official objective gets eps > 0, so that paths alone differ."""
    smooth: Objective = GradientMagnitude()
    official = OFFICIAL.override(objective=smooth)
    rows = [
        Scheme("official (one-sided, right)", official),
        Scheme("official points, left", official.override(tag="left")),
        Scheme("official points, trapezoid", official.override(tag="trapezoid")),
        Scheme("paper (sigmoid, left)", PAPER.override(objective=smooth)),
    ]
    rows += [Scheme("straight line, trapezoid", DEFAULT.override(n_steps=n), straight=True) for n in (8, 16, 32, 64)]
    for n, groups in ((10, 2), (20, 2), (20, 5), (20, 10), (40, 5), (40, 10), (30, 3), (100, 12), (200, 5), (200, 25)):
        rows.append(Scheme(f"fade, {groups} groups, trapezoid", DEFAULT.override(n_steps=n, groups=groups)))
    return rows


def scores(network: torch.nn.Module, path: InputPath, partition: Partition) -> tuple[np.ndarray, float, float, int]:
    """Layer scores, completeness at the cut and at the input, and evaluations."""
    layers = resolve_layers(network)
    total = StieltjesSum(partition.tag)
    result = trace(network, layers, path, partition, GradientMagnitude(), [total])
    change = float(result.objective_end[0] - result.objective_start[0])
    cut = float(result.values(total, CUT)[0].sum(dtype=torch.float64)) / change
    means = np.array([float(result.values(total, name)[0].abs().mean()) for name in layers])
    return means, cut, 1 + float(result.input_residual[0]), result.evaluations


def overlap(a: np.ndarray, b: np.ndarray, fraction: float) -> float:
    """Share of the top layers of ``a`` that are among those of ``b``."""
    count = top_count(fraction, len(a))
    return len(set(np.argsort(-a)[:count]) & set(np.argsort(-b)[:count])) / count


def draw(table: pd.DataFrame, file: Path) -> None:
    """Rank agreement and incompleteness against cost."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    families = table["path"].str.replace(r", \d+ groups", "", regex=True)
    for family in dict.fromkeys(families):
        rows = table[families == family].sort_values("evaluations")
        style = {"marker": "o", "linestyle": "-" if len(rows) > 1 and "straight" in family else "none", "label": family}
        axes[0].plot(rows["evaluations"], 1 - rows["Spearman"], **style)
        axes[1].plot(rows["evaluations"], (rows["ΣC/ΔF cut"] - 1).abs(), **style)
    axes[0].set(ylabel="1 - Spearman with the reference (lower is better)", yscale="log")
    axes[1].set(ylabel=f"|ΣC/ΔF - 1| at {CUT} (lower is better)", yscale="log")
    for panel in axes:
        panel.set(xlabel="forward + backward evaluations", xscale="log")
        panel.set_xticks([10, 20, 50, 100, 200], ["10", "20", "50", "100", "200"])
        panel.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(file, dpi=130)


def main() -> None:
    """Measure, write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3, help="photographs")
    parser.add_argument("--size", type=int, default=32, help="side in pixels")
    options = parser.parse_args()
    mpl.use("Agg")
    network = ram_swinir_tiny()
    images = sample(options.size)[:: max(1, 12 // options.images)][: options.images]
    rows = []
    for number, item in enumerate(tqdm(images, unit="image")):
        image = item["image"][None]
        reference = resolve_reference(network.reference_input, image)
        order = random_order(options.size**2, seed=number)
        exact = DEFAULT.override(n_steps=2048, groups=options.size**2 // 2)
        path = exact.path(image, reference, order)
        target, cut, at_input, evaluations = scores(network, path, exact.partition(path))
        rows.append(("reference: per-pixel fade", evaluations, cut, at_input, 1.0, 1.0, item["name"]))
        for scheme in schemes():
            means, cut, at_input, evaluations = scores(network, *scheme.build(image, reference, order))
            agreement = float(spearmanr(means, target).statistic)
            rows.append((scheme.name, evaluations, cut, at_input, agreement, overlap(means, target, 0.1), item["name"]))
    columns = ["path", "evaluations", "ΣC/ΔF cut", "ΣC/ΔF input", "Spearman", "top 10 % overlap", "image"]
    table = pd.DataFrame(rows, columns=columns)
    grouped = table.drop(columns="image").groupby(["path", "evaluations"], sort=False)
    mean = grouped.mean().reset_index()
    low, high = grouped["ΣC/ΔF cut"].min(), grouped["ΣC/ΔF cut"].max()
    lines = ["| path | evaluations | ΣC/ΔF at the cut (range) | Spearman | top 10 % overlap |", "|---|---|---|---|---|"]
    for row, a, b in zip(mean.to_dict("records"), low, high, strict=True):
        agreement, shared = f"{row['Spearman']:.4f}", f"{row['top 10 % overlap']:.2f}"
        lines.append(f"| {row['path']} | {row['evaluations']} | {a:.3f} … {b:.3f} | {agreement} | {shared} |")
    names = ", ".join(item["name"] for item in images)
    page = [
        "# Convergence by path and number of evaluations",
        "",
        f"Bundled RAM-SwinIR (92 layers), {options.size}x{options.size} pixels, r = 0.5, images: {names}. Spearman and "
        f"overlap are means over images, against 2049 nodes on the per-pixel fade; ΣC/ΔF must be 1. "
        "Made by `benchmarks/convergence.py`.",
        "",
        *lines,
        "",
        "![agreement and completeness against cost](convergence.png)",
        "",
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "convergence.md").write_text("\n".join(page))
    draw(mean[mean["path"] != "reference: per-pixel fade"], RESULTS / "convergence.png")
    print("\n".join(page))


if __name__ == "__main__":
    main()
