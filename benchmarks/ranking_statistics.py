"""Coverage of the statistics of rankings, on score models whose truth is known.

Intervals of scores, ranks and agreement are judged by the number of images, and early stopping by how often it is
right, where the top is separated and where layers tie at its border. Writes benchmarks/results/ranking_statistics.md.
"""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from macattr.statistics.agreement import measure_agreement, overlap_at, rank_biased_overlap, spearman
from macattr.statistics.bootstrap import bootstrap, resample_means
from macattr.statistics.ranks import ranks
from macattr.statistics.stopping import StableTop

RESULTS = Path(__file__).parent / "results"
Array = np.ndarray


@dataclass(frozen=True)
class Model:
    """Log-normal scores: layer x image x (image x layer) x (order x layer), by their log standard deviations."""

    image: float
    interaction: float | Array
    order: float = 0.05

    def draw(self, log_means: Array, images: int, generator: np.random.Generator, orders: int = 1) -> Array:
        """Scores (images, orders, layers) whose expectations are ``exp(log_means)``."""
        layers = len(log_means)
        noise = (
            self.image * generator.normal(size=(images, 1, 1))
            + self.interaction * generator.normal(size=(images, 1, layers))
            + self.order * generator.normal(size=(images, orders, layers))
        )
        return np.exp(log_means - (self.image**2 + np.square(self.interaction) + self.order**2) / 2 + noise)


MODELS = {"median layer": Model(0.5, 0.25), "worst layer": Model(0.5, 0.65), "heavy tails": Model(0.8, 0.6)}
"""The first two as measured: bundled network, 70 photographs of 32x32 pixels, noise, blur and JPEG."""


def score_coverage(draws: int, generator: np.random.Generator) -> pd.DataFrame:
    """Share of draws in which 95 % intervals hold the true score, 100 draws a call as so many layers."""
    rows = []
    for name, model in MODELS.items():
        spread = float(np.hypot(model.image, model.interaction))
        for images in tqdm((4, 6, 8, 12, 16, 24, 32, 70), desc=name):
            row: dict[str, str | int | float] = {"model": f"{name}, log sd {spread:.2f}", "images": images}
            for method in ("studentized", "t", "percentile"):
                hits, widths = 0, []
                for _ in range(draws // 100):
                    scores = Model(0.0, spread).draw(np.zeros(100), images, generator, orders=2)
                    table = bootstrap(scores, generator, method=method)
                    hits += int(((table["score_low"] <= 1) & (table["score_high"] >= 1)).sum())
                    widths += np.log(table["score_high"] / table["score_low"]).tolist()
                row |= {method: hits / draws, f"log width, {method}": float(np.median(widths))}
            rows.append(row)
    return pd.DataFrame(rows)


def rank_coverage(draws: int, generator: np.random.Generator) -> pd.DataFrame:
    """Coverage of the true rank by our intervals and by percentiles of resampled ranks: mean and worst layer."""
    rows = []
    for gap in (0.3, 0.05, 0.01):
        truth = np.arange(1, 41)
        for images in tqdm((8, 16, 32), desc=f"ranks {gap}"):
            hits = np.zeros((2, 40))
            width = np.zeros(2)
            for _ in range(draws):
                scores = MODELS["median layer"].draw(-gap * truth, images, generator)
                table = bootstrap(scores, generator, n_resamples=500)
                resampled = percentile_ranks(scores, generator)
                for i, (low, high) in enumerate([(table["rank_low"], table["rank_high"]), resampled]):
                    hits[i] += (low <= truth) & (truth <= high)
                    width[i] += np.mean(high - low) / draws
            mean, worst = hits.mean(axis=1) / draws, hits.min(axis=1) / draws
            rows.append(
                {
                    "log gap between layers": gap,
                    "images": images,
                    "pairwise": mean[0],
                    "worst layer": worst[0],
                    "mean width": width[0],
                    "percentile": mean[1],
                    "worst layer, percentile": worst[1],
                    "mean width, percentile": width[1],
                }
            )
    return pd.DataFrame(rows)


def percentile_ranks(scores: Array, generator: np.random.Generator) -> tuple[Array, Array]:
    """Intervals of ranks as percentiles of resampled ranks."""
    drawn = ranks(resample_means(scores, generator, 500))
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0, method="nearest")
    return low, high


def border(near: int, gap: float = 0.0, layers: int = 92, k: int = 9) -> Array:
    """Log scores with ``near`` layers on each side of the top's border, ``gap`` apart, all others far away."""
    scores = np.full(layers, -9.0)
    scores[:k] = -3.0
    scores[k - near : k] = -5.0 + gap
    scores[k : k + near] = -5.0
    return scores


def stopping_cases(real: Array) -> Iterable[tuple[str, Array, Model, int]]:
    """Name, log scores, model and layers that may differ."""
    usual = MODELS["median layer"]
    for gap in (0.6, 0.3):
        separated = np.where(np.arange(92) < 9, real + gap - (real[8] - real[9]), real)
        yield f"top 9 of 92 separated by {gap}", separated, usual, 0
    for near, allowed in ((1, 0), (2, 0), (2, 1), (3, 1), (3, 2), (4, 3)):
        yield f"tie of {near} + {near} at the border", border(near), usual, allowed
    inside, outside = np.full(92, 0.25), np.full(92, 0.25)
    inside[8], inside[9], outside[8], outside[9] = 0.65, 0.1, 0.1, 0.65
    yield "tie of 1 + 1, the inner one noisy", border(1), Model(0.5, inside), 0
    yield "tie of 1 + 1, the outer one noisy", border(1), Model(0.5, outside), 0
    yield "tie of 1 + 1, all heavy tails", border(1), MODELS["heavy tails"], 0


def stopping(draws: int, generator: np.random.Generator, maximum: int = 70) -> pd.DataFrame:
    """How often a stable top is declared, how often a wrong one, and after how many images."""
    rows = []
    real = np.sort(np.random.default_rng(5).normal(-6, 1, 92))[::-1]
    for name, log_scores, model, allowed in tqdm(list(stopping_cases(real)), desc="stopping"):
        rule = StableTop(0.1, tolerance=allowed / 9)
        wrong, stopped, used = 0, 0, []
        for _ in range(draws):
            scores = model.draw(log_scores, maximum, generator)
            for images in rule.looks(maximum):
                if (verdict := rule.check(scores[:images])).stable:
                    break
            stopped += verdict.stable
            wrong += verdict.stable and len(set(verdict.top) - set(range(9))) > allowed
            used.append(images if verdict.stable else maximum)
        rows.append(
            {
                "case": name,
                "may differ": allowed,
                "stable": stopped / draws,
                "wrong": wrong / draws,
                "mean images": float(np.mean(used)),
                "passes saved": maximum / float(np.mean(used)),
            }
        )
    return pd.DataFrame(rows)


def agreement_coverage(draws: int, generator: np.random.Generator) -> pd.DataFrame:
    """Coverage of the agreement of the true rankings, another pair of rankings in every draw."""
    measures: dict[str, tuple[int, Callable[[Array, Array], float]]] = {
        "spearman": (0, spearman),
        "rank-biased overlap": (3, rank_biased_overlap),
        "overlap at 9": (4, lambda a, b: overlap_at(a, b, 9)),
    }
    rows = []
    for noise in (0.3, 1.5):
        for paired in (True, False):
            for images in tqdm((8, 16, 32), desc=f"agreement {noise}"):
                hits = dict.fromkeys(measures, 0)
                rho = []
                for _ in range(draws):
                    a = generator.normal(-6, 1, 92)
                    b = a + noise * generator.normal(size=92)
                    # The same images: two thirds of the variance of image x layer is common to both rankings.
                    common = 0.2 * generator.normal(size=(images, 1, 92)) if paired else 0.0
                    model = Model(0.5, 0.15 if paired else 0.25)
                    both = [model.draw(means, images, generator) * np.exp(common) for means in (a, b)]
                    table = measure_agreement(both[0], both[1], 9, generator=generator, n_resamples=200, paired=paired)
                    for name, (row, measure) in measures.items():
                        low, high = table.loc[row, ["low", "high"]]
                        hits[name] += low - 1e-9 <= measure(a, b) <= high + 1e-9
                    rho.append(spearman(a, b))
                row = {"true spearman": float(np.mean(rho)), "same images": paired, "images": images}
                rows.append(row | {name: count / draws for name, count in hits.items()})
    return pd.DataFrame(rows)


def holds_from(coverage: pd.DataFrame) -> str:
    """From how many images on each model's intervals cover 93 % or more, by method."""
    lines = []
    for model, table in coverage.groupby("model", sort=False):
        first = {}
        for method in ("studentized", "t", "percentile"):
            short = table.loc[table[method] < 0.93, "images"]
            enough = table.loc[table["images"] > short.max(), "images"] if len(short) else table["images"]
            first[method] = f"from {enough.min()} images on" if len(enough) else "not even with 70 images"
        lines.append(f"- {model}: " + ", ".join(f"{method} {words}" for method, words in first.items()))
    return "Coverage of 93 % or more:\n\n" + "\n".join(lines)


def table_of(frame: pd.DataFrame) -> str:
    """A Markdown table."""
    cells = frame.map(lambda value: f"{value:.3g}" if isinstance(value, float) else str(value))
    lines = [list(frame.columns), ["---"] * frame.shape[1], *cells.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Measure everything and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--draws",
        type=int,
        default=1000,
        help="draws of each case of early stopping; 4 x for scores, 1/5 for ranks, 1/10 for agreement",
    )
    draws = parser.parse_args().draws
    scores = score_coverage(4 * draws, np.random.default_rng(0))
    error = np.sqrt(0.05 * 0.95 / (4 * draws))
    several = {
        f"95 % intervals of ranks (40 layers, {draws // 5} draws)": rank_coverage(draws // 5, np.random.default_rng(1)),
        f"Early stopping at 95 % (top 9 of 92 layers, at most 70 images, {draws} draws)": stopping(
            draws, np.random.default_rng(2)
        ),
        f"95 % intervals of agreement (92 layers, {draws // 10} draws)": agreement_coverage(
            draws // 10, np.random.default_rng(3)
        ),
    }
    sections = {
        f"95 % intervals of scores ({4 * draws} draws; standard error {error:.1%})": f"{table_of(scores)}\n\n"
        + holds_from(scores)
    } | {title: table_of(frame) for title, frame in several.items()}
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    RESULTS.mkdir(exist_ok=True)
    head = "# Statistics of rankings on models with known truth\n\nMade by `benchmarks/ranking_statistics.py`."
    (RESULTS / "ranking_statistics.md").write_text(f"{head}\n\n{body}\n")
    print(body)


if __name__ == "__main__":
    main()
