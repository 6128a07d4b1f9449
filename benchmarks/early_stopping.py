"""Images saved by stopping early on the bundled network, and how often the top is then that of all images.

Crops of scikit-image's photographs, one of the seven degradations for each, are ranked by MAC along one pixel order;
then the images are dealt out in many random orders, and each time the run that stops when the top is stable is
compared with all images.

    python benchmarks/early_stopping.py

writes benchmarks/results/early_stopping.md and .png.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

import macattr
from macattr.plots import plot_stability
from macattr.statistics.bootstrap import stability_curve
from macattr.statistics.ranks import ranks, top_count
from macattr.statistics.stopping import StableTop
from ram_models import ram_swinir_tiny
from ram_models.data.crops import clean_photographs
from ram_models.degradations import TASKS, degrade

RESULTS = Path(__file__).parent / "results"


def crops(count: int, size: int) -> list[dict[str, object]]:
    """Random crops of the photographs, degraded by one task after the other."""
    generator = torch.Generator().manual_seed(0)
    photographs = list(clean_photographs(160).values())
    images = []
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        top, left = torch.randint(160 - size, (2,), generator=generator).tolist()
        task = list(TASKS)[number % len(TASKS)]
        clean = photograph[:, top : top + size, left : left + size]
        images.append({"image": degrade(clean, task, generator), "name": f"{number}, {task}", "degradation": task})
    return images


def replay(scores: np.ndarray, stop: StableTop, generator: np.random.Generator) -> tuple[int, int]:
    """Images after which a run in a random order stops (all, if never), and top layers that are then others."""
    shuffled = scores[generator.permutation(len(scores))]
    k = top_count(stop.fraction, scores.shape[-1])
    whole = ranks(scores.mean(axis=(0, 1))) <= k
    for images in stop.looks(len(scores)):
        verdict = stop.check(shuffled[:images])
        if verdict.stable:
            return images, k - int(whole[list(verdict.top)].sum())
    return len(scores), 0


def main() -> None:
    """Rank, replay, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=70)
    parser.add_argument("--size", type=int, default=32, help="side of the crops in pixels")
    parser.add_argument("--n-steps", type=int, default=10)
    parser.add_argument("--draws", type=int, default=200, help="random orders of the images")
    options = parser.parse_args()
    importance = macattr.rank_layers(
        ram_swinir_tiny(), crops(options.images, options.size), n_steps=options.n_steps, show_progress=True
    )
    scores, generator = importance.values, np.random.default_rng(0)
    layers = scores.shape[-1]
    rows = []
    for fraction in (0.05, 0.10, 0.20, 0.30):
        k = top_count(fraction, layers)
        for may_differ in sorted({0, round(0.1 * k), round(0.2 * k)}):
            stop = StableTop(fraction, tolerance=may_differ / k)
            runs = [replay(scores, stop, generator) for _ in range(options.draws)]
            used = np.array([images for images, _ in runs])
            wrong = np.mean([others > may_differ for _, others in runs])
            rows.append(
                f"| {fraction:.0%} ({k}) | {may_differ} | {np.median(used):.0f} ({used.min()}-{used.max()}) | "
                f"{options.images / np.median(used):.1f} | {(used == options.images).mean():.0%} | {wrong:.1%} |"
            )
    k = top_count(0.20, layers)
    curve = stability_curve(scores, k, generator, may_differ=2)
    figure = plot_stability(curve, k, 2, f"ram-swinir-tiny, {options.images} crops: top {k} of {layers} layers")
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "early_stopping.png", dpi=150)
    page = "\n".join(
        [
            "# Stopping early",
            "",
            f"ram-swinir-tiny, MAC with {options.n_steps} steps along one pixel order, {options.images} crops of "
            f"{options.size}x{options.size} pixels from scikit-image's photographs, one of the paper's seven "
            f"degradations each; {options.draws} random orders of the images; confidence 95 %. Made by "
            "`benchmarks/early_stopping.py`.",
            "",
            "| top | may differ | images used: median (range) | saved, median | never stable | wrong |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"Saved: {options.images} / images used. Never stable: share of the orders in which all images were used. "
            "Wrong: share in which more of the top layers than may differ are not in the top of all "
            f"{options.images} images; that top is itself an estimate.",
            "",
            "![how well the top of few images agrees with that of all](early_stopping.png)",
            "",
        ]
    )
    (RESULTS / "early_stopping.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
