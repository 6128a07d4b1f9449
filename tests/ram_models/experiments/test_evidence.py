"""Verdicts once more, from the raw scores by another path: pandas, scipy, and nothing of ours.

What is shared is the names of the claims and of the columns. A difference is looked up image by image in
``scores.csv``, the learning rate of an arm in the configuration, and the layers in ``runs.csv``.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from ram_models.networks.checkpoints import create

ROOT = Path(__file__).parents[3]
UNTUNED = ("input", "whole", "twins", "colours", "pairwise")


@dataclass(frozen=True)
class Evidence:
    """What a study measured.

    Args:
        results: Folder of its tables.
        config: Its configuration.
        noises: Means over unseen noises, by name.
        margins: Largest difference that would not matter, by column; that of all others is ``margin``.
        margin: Of the other columns.
        merged: Overlap from which on a block says nothing of two arms.
    """

    results: Path
    config: Path
    noises: dict[str, list[str]]
    margins: dict[str, float]
    margin: float
    merged: float

    @cached_property
    def study(self):
        return yaml.safe_load(self.config.read_text())

    @cached_property
    def tuned(self):
        return self.study.get("tuned", {})

    @cached_property
    def scores(self):
        return pd.read_csv(self.results / "scores.csv")

    @cached_property
    def runs(self):
        return pd.read_csv(self.results / "runs.csv")

    @cached_property
    def blocks(self):
        """Of the studies: every seed of a fine-tuning, then of a pre-training, which moves the former by 100."""
        pairs = ((seed, number) for seed in self.study["finetune_seeds"] for number in self.study["seeds"])
        return [(f"masked-{number}", seed + 100 * number) for seed, number in pairs]

    def table(self, name):
        return pd.read_csv(self.results / f"{name}.csv", keep_default_na=False, na_values=[""])

    def margin_of(self, column):
        return self.margins.get(column, self.margin)

    def of_arm(self, block, arm):
        """Runs of an arm in a block."""
        return self.runs[
            (self.runs["pretrained"] == block[0]) & (self.runs["seed"] == block[1]) & (self.runs["arm"] == arm)
        ]

    def rate(self, block, arm):
        """Learning rate of the run that counts: the arm's own, else that of its first run."""
        rates = self.of_arm(block, arm)["lr"]
        return self.tuned.get(arm, rates.iloc[0] if len(rates) else np.nan)

    @cached_property
    def means(self):
        """Of every network, PSNR by task, under pre-training, seed and arm: with rate and progress."""
        keys = ["pretrained", "seed", "arm", "lr", "progress"]
        table = self.scores.pivot_table("psnr_db", keys, "task")
        found = {}
        for (*name, lr, progress), psnr in table.iterrows():
            found.setdefault(tuple(name), []).append((lr, progress, psnr.dropna()))
        return found

    @cached_property
    def tensors(self):
        """Number of values of every parameter of the network, by layer and name."""
        return {
            (layer, name): parameter.numel()
            for layer, module in create("ram-swinir-tiny").named_modules()
            for name, parameter in module.named_parameters(recurse=False)
            if layer
        }

    def network(self, block, arm, progress=1.0, line=False):
        """PSNR by task of a network; None if it was not scored."""
        pretrained, seed = block
        lr = self.rate(block, arm)
        if arm in UNTUNED:
            pretrained = pretrained.replace("masked", "pairwise") if arm == "pairwise" else pretrained
            seed, lr, progress = -1, 0.0, 0.0
        for its_lr, its_progress, psnr in self.means.get(
            (pretrained, seed, f"{arm}, interpolated" if line else arm), []
        ):
            if np.isclose(its_lr, lr, rtol=1e-9) and np.isclose(its_progress, progress):
                return psnr
        return None

    def quantity(self, psnr, column):
        """A column of the tables, from the means by task."""
        unseen = [task for noises in self.noises.values() for task in noises]
        found = {"in distribution": psnr.drop(unseen).mean(), "unseen": psnr[unseen].mean()}
        for name, noises in self.noises.items():
            found |= {name: psnr[noises].mean(), f"{name}, above trained noise": psnr[noises].mean() - psnr["noise"]}
        return found.get(column, psnr.get(column))

    def above(self, block, arm, column, matched):
        """How far an arm lies above every line of full fine-tuning at its own quality; NaN beyond their ends."""
        own = self.network(block, arm)
        heights = []
        for full in ("all", "all, 4 times the steps"):
            for line, points in ((False, (0.1, 0.3, 0.6, 1.0)), (True, (0.4, 0.6, 0.8))):
                way = [self.network(block, "whole"), *(self.network(block, full, point, line) for point in points)]
                way += [self.network(block, full)] if line else []
                if any(point is None for point in way):
                    continue
                x, y = np.array([(self.quantity(point, matched), self.quantity(point, column)) for point in way]).T
                for start in range(len(x) - 1):
                    ends = slice(start, start + 2)
                    order = np.argsort(x[ends])
                    if x[ends].min() <= self.quantity(own, matched) <= x[ends].max():
                        heights.append(np.interp(self.quantity(own, matched), x[ends][order], y[ends][order]))
        return self.quantity(own, column) - max(heights, default=np.nan)

    def parameters(self, block, arm):
        """Names of the parameters that an arm trains in a block."""
        layers = self.of_arm(block, arm)["layers"].iloc[0]
        trained = set(layers.split())
        return {name: size for name, size in self.tensors.items() if layers == "every" or name[0] in trained}

    def overlap(self, block, a, b):
        """Parameters that both arms train over those that either trains; 0 where one is not fine-tuned."""
        if not {a, b} <= set(self.runs["arm"]):
            return 0.0
        first, second = self.parameters(block, a), self.parameters(block, b)
        shared = sum(size for name, size in first.items() if name in second)
        return shared / (sum(first.values()) + sum(second.values()) - shared)

    def differences(self, claim):
        """By block, where both arms were scored and train different parameters."""
        if not pd.isna(claim["matched"]):
            found = {
                block: self.above(block, claim["a"], claim["column"], claim["matched"])
                for block in self.blocks
                if self.network(block, claim["a"]) is not None
            }
            return pd.Series(found, dtype=float).dropna()
        found = {}
        for block in self.blocks:
            a, b = self.network(block, claim["a"]), self.network(block, claim["b"])
            if a is not None and b is not None and self.overlap(block, claim["a"], claim["b"]) < self.merged:
                found[block] = self.quantity(a, claim["column"]) - self.quantity(b, claim["column"])
        return pd.Series(found, dtype=float)


PAPER = Evidence(
    ROOT / "results",
    ROOT / "ram_models/configs/tiny.yaml",
    {"poisson and speckle": ["poisson", "speckle"], "pepper": ["pepper"]},
    {"in distribution": 0.05},
    margin=0.2,
    merged=0.9,
)
DENOISING = Evidence(
    ROOT / "results/denoising",
    ROOT / "ram_models/configs/denoising.yaml",
    {"unlike masks": ["poisson", "speckle", "correlated", "strong"], "like masks": ["pepper", "salt_and_pepper"]},
    {},
    margin=0.1,
    merged=np.inf,
)
STUDIES = pytest.mark.parametrize(
    "evidence", [pytest.param(PAPER, id="paper"), pytest.param(DENOISING, id="denoising")]
)


def interval(values, margin):
    """95 % of Student, and whether two one-sided tests at 5 % find the mean within the margin."""
    if len(values) < 2:
        return -np.inf, np.inf, False
    sides = ((-margin, "greater"), (margin, "less"))
    within = [stats.ttest_1samp(values, side, alternative=way).pvalue < 0.05 for side, way in sides]
    ends = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    return ends.low, ends.high, all(within)


def numbers(values, margin):
    """Everything that a table of claims says of differences."""
    if not len(values):
        return {"blocks": 0, "equivalent": False}
    low, high, within = interval(values, margin)
    low_means, high_means, means_within = interval(values.groupby(level=0).mean(), margin)
    return {
        "blocks": len(values),
        "mean_db": values.mean(),
        "low_db": low,
        "high_db": high,
        "low_pretrainings_db": low_means,
        "high_pretrainings_db": high_means,
        "p": stats.ttest_1samp(values, margin).pvalue if len(values) > 1 else np.nan,
        "equivalent": within and means_within,
    }


def verdict(row, margin):
    if row["blocks"] < 6:
        without = "the same layers" if row["same_blocks"] else "not tested"
        return "undecided" if row["blocks"] else without
    if row["equivalent"]:
        return "equivalent"
    if row["p_holm"] < 0.05 and min(row["low_db"], row["low_pretrainings_db"]) > margin:
        return "holds"
    if row["p_holm"] < 0.05 and max(row["high_db"], row["high_pretrainings_db"]) < margin:
        return "falsified"
    return "undecided"


@pytest.mark.parametrize(
    ("evidence", "name"),
    [
        pytest.param(PAPER, "table5-claims", id="table5"),
        pytest.param(PAPER, "table6-claims", id="table6"),
        pytest.param(DENOISING, "claims", id="denoising"),
        pytest.param(DENOISING, "baseline-claims", id="denoising, ordinary training"),
    ],
)
def test_every_claim_follows_from_the_raw_scores(evidence, name):
    stored = evidence.table(name)
    found = pd.DataFrame(
        [numbers(evidence.differences(claim), evidence.margin_of(claim["column"])) for _, claim in stored.iterrows()]
    )
    tested = found["p"].dropna().sort_values()
    adjusted = (tested * np.arange(len(tested), 0, -1)).cummax().clip(upper=1.0)
    found["p_holm"] = adjusted.reindex(found.index)
    for column in found.columns:
        if column != "equivalent":
            finite = stored[column].notna() & np.isfinite(stored[column].astype(float))
            np.testing.assert_allclose(
                found[column][finite], stored[column][finite].astype(float), rtol=0, atol=1e-9, err_msg=column
            )
    margins = stored["column"].map(evidence.margin_of)
    found["same_blocks"] = stored["same_blocks"]
    again = [verdict(row, margin) for (_, row), margin in zip(found.iterrows(), margins, strict=True)]
    assert again == stored["verdict"].tolist()


@STUDIES
def test_the_learning_rates_in_use_are_the_best_of_the_sweep(evidence):
    rates = evidence.table("rates")
    blocks = rates.columns[rates.columns.str.contains("/")]
    means = rates.assign(mean=rates[blocks].mean(axis=1))
    best = means.loc[means.groupby("arm")["mean"].idxmax()].set_index("arm")["lr"]
    assert {arm: pytest.approx(best[arm], rel=1e-6) for arm in evidence.tuned} == evidence.tuned


@STUDIES
def test_learning_rates_were_compared_on_blocks_of_their_own(evidence):
    blocks = {column for column in evidence.table("rates").columns if "/" in column}
    assert len(blocks) == 2
    assert not blocks & {f"{pretrained}/{seed}" for pretrained, seed in evidence.blocks}
