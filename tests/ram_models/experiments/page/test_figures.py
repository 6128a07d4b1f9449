"""Figures of the experiments: that they show the numbers they say; on scores that were made up."""

from itertools import product

import pandas as pd
import pytest

from ram_models.experiments.page.figures import FIGURES
from ram_models.experiments.study.store import UNTUNED_SEED

BEFORE = {"input": 0.0, "whole": 1.0, "twins": 2.0}
PSNR = {"short-0": 10.0, "short-1": 12.0, "short-2": 40.0, "short-patch8-0": 20.0, "short-patch8-1": 23.0}
"""By pre-training; the third seed has one variant only."""


@pytest.fixture
def results(tmp_path):
    """A folder with Fig. 3's tables: two variants, and a seed that only one of them has."""
    made = pd.DataFrame({"pretrained": list(PSNR)})
    made["variant"] = made["pretrained"].map(lambda name: "8x8" if "patch8" in name else "1x1")
    made["seed"] = made["pretrained"].str[-1].astype(int)
    made.to_csv(tmp_path / "fig3-pretrainings.csv", index=False)
    pd.DataFrame({"arm": ["input", "1x1", "8x8"]}).to_csv(tmp_path / "fig3.csv", index=False)
    key = {"kind": "trained", "task": "haze", "ssim": 0.5, "kept_db": 30.0, "lr": 0.001}
    rows = [
        {
            "pretrained": name,
            "seed": UNTUNED_SEED,
            "arm": arm,
            "lr": 0.0,
            "progress": 0.0,
            "psnr_db": psnr + gain - 5,
            **key,
        }
        for (name, psnr), (arm, gain) in product(PSNR.items(), BEFORE.items())
    ]
    rows += [
        {"pretrained": name, "seed": 10, "arm": "MAC", "progress": 1.0, "psnr_db": psnr, **key}
        for name, psnr in PSNR.items()
    ]
    (tmp_path / "short").mkdir()
    pd.DataFrame(rows).to_csv(tmp_path / "short/scores.csv", index=False)
    return tmp_path


def drawn(results, marker):
    """The points of the fine-tuned networks with this marker, by variant."""
    axes = FIGURES["fig3"][1](results).axes[0]
    names = [label.get_text() for label in axes.get_xticklabels()]
    line = next(line for line in axes.lines if line.get_marker() == marker)  # fine-tuned networks are drawn first
    return sorted((names[place], height) for place, height in zip(*line.get_data(), strict=True))


def test_every_pre_training_is_a_dot(results):
    assert drawn(results, "o") == [("1x1", 10.0), ("1x1", 12.0), ("1x1", 40.0), ("8x8", 20.0), ("8x8", 23.0)]


def test_a_bar_is_the_mean_of_the_seeds_that_every_variant_has(results):
    assert drawn(results, "_") == [("1x1", 11.0), ("8x8", 21.5)]
