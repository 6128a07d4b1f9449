"""The verdicts of Tables 5 and 6 once more, from the raw scores by another path: pandas, scipy, and nothing of ours.

What is shared is the names of the claims and of the columns. A difference is looked up image by image in
``results/scores.csv``, the learning rate of an arm in the configuration, and the layers in ``results/runs.csv``.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from ram_models.networks.checkpoints import create

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "results"
STUDY = yaml.safe_load((ROOT / "ram_models/configs/tiny.yaml").read_text())
TUNED = STUDY.get("tuned", {})
SCORES = pd.read_csv(RESULTS / "scores.csv")
RUNS = pd.read_csv(RESULTS / "runs.csv")
BLOCKS = [(f"masked-{number}", seed + 100 * number) for seed in STUDY["finetune_seeds"] for number in STUDY["seeds"]]
MARGINS = {"in distribution": 0.05}
UNSEEN = ("poisson", "pepper", "speckle")


def table(name):
    return pd.read_csv(RESULTS / f"{name}-claims.csv", keep_default_na=False, na_values=[""])


def rate(pretrained, seed, arm):
    """Learning rate of the run that counts: the arm's own, else that of its first run."""
    rates = RUNS.loc[(RUNS["pretrained"] == pretrained) & (RUNS["seed"] == seed) & (RUNS["arm"] == arm), "lr"]
    return TUNED.get(arm, rates.iloc[0] if len(rates) else np.nan)


@cache
def network(block, arm, progress=1.0, line=False):
    """PSNR by task of a network; None if it was not scored."""
    pretrained, seed = block
    lr = rate(pretrained, seed, arm)
    if arm in ("input", "whole", "twins", "colours", "pairwise"):
        pretrained = pretrained.replace("masked", "pairwise") if arm == "pairwise" else pretrained
        seed, lr, progress = -1, 0.0, 0.0
    of = SCORES[
        (SCORES["pretrained"] == pretrained)
        & (SCORES["seed"] == seed)
        & (SCORES["arm"] == (f"{arm}, interpolated" if line else arm))
        & np.isclose(SCORES["lr"], lr, rtol=1e-9)
        & np.isclose(SCORES["progress"], progress)
    ]
    return of.pivot_table("psnr_db", "task").squeeze(axis=1) if len(of) else None


def quantity(psnr, column):
    """A column of the tables, from the means by task."""
    trained = psnr.drop(list(UNSEEN))
    unseen = (psnr["poisson"] + psnr["speckle"]) / 2
    found = {
        "in distribution": trained.mean(),
        "unseen": psnr[list(UNSEEN)].mean(),
        "poisson and speckle": unseen,
        "poisson and speckle, above trained noise": unseen - psnr["noise"],
        "pepper, above trained noise": psnr["pepper"] - psnr["noise"],
    }
    return found.get(column, psnr.get(column))


def above(block, arm, column, matched):
    """How far an arm lies above every line of full fine-tuning at its own quality; NaN beyond their ends."""
    own = network(block, arm)
    heights = []
    for full in ("all", "all, 4 times the steps"):
        for line, points in ((False, (0.1, 0.3, 0.6, 1.0)), (True, (0.4, 0.6, 0.8))):
            way = [network(block, "whole"), *(network(block, full, point, line) for point in points)]
            way += [network(block, full)] if line else []
            if any(point is None for point in way):
                continue
            x, y = np.array([(quantity(point, matched), quantity(point, column)) for point in way]).T
            for start in range(len(x) - 1):
                ends = slice(start, start + 2)
                order = np.argsort(x[ends])
                if x[ends].min() <= quantity(own, matched) <= x[ends].max():
                    heights.append(np.interp(quantity(own, matched), x[ends][order], y[ends][order]))
    return quantity(own, column) - max(heights, default=np.nan)


@cache
def parameters(block, arm):
    """Names of the parameters that an arm trains in a block."""
    run = RUNS[(RUNS["pretrained"] == block[0]) & (RUNS["seed"] == block[1]) & (RUNS["arm"] == arm)]
    layers = run["layers"].iloc[0]
    tensors = {
        f"{layer}.{name}": parameter.numel()
        for layer, module in create("ram-swinir-tiny").named_modules()
        for name, parameter in module.named_parameters(recurse=False)
        if layer and (layers == "every" or layer in layers.split())
    }
    return tensors


def overlap(block, a, b):
    """Parameters that both arms train over those that either trains; 0 where one is not fine-tuned."""
    if not {a, b} <= set(RUNS["arm"]):
        return 0.0
    first, second = parameters(block, a), parameters(block, b)
    shared = sum(size for name, size in first.items() if name in second)
    return shared / (sum(first.values()) + sum(second.values()) - shared)


def differences(claim):
    """By block, where both arms were scored and train different parameters."""
    if not pd.isna(claim["matched"]):
        found = {block: above(block, claim["a"], claim["column"], claim["matched"]) for block in BLOCKS}
        return pd.Series(found).dropna()
    found = {}
    for block in BLOCKS:
        a, b = network(block, claim["a"]), network(block, claim["b"])
        if a is not None and b is not None and overlap(block, claim["a"], claim["b"]) < 0.9:
            found[block] = quantity(a, claim["column"]) - quantity(b, claim["column"])
    return pd.Series(found, dtype=float)


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
        return "undecided" if row["blocks"] else "not tested"
    if row["equivalent"]:
        return "equivalent"
    if row["p_holm"] < 0.05 and min(row["low_db"], row["low_pretrainings_db"]) > margin:
        return "holds"
    if row["p_holm"] < 0.05 and max(row["high_db"], row["high_pretrainings_db"]) < margin:
        return "falsified"
    return "undecided"


@pytest.mark.parametrize("name", ["table5", "table6"])
def test_every_claim_follows_from_the_raw_scores(name):
    stored = table(name)
    found = pd.DataFrame(
        [numbers(differences(claim), MARGINS.get(claim["column"], 0.2)) for _, claim in stored.iterrows()]
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
    margins = stored["column"].map(MARGINS).fillna(0.2)
    again = [verdict(row, margin) for (_, row), margin in zip(found.iterrows(), margins, strict=True)]
    assert again == stored["verdict"].tolist()


def test_the_learning_rates_in_use_are_the_best_of_the_sweep():
    rates = pd.read_csv(RESULTS / "rates.csv")
    blocks = rates.columns[rates.columns.str.contains("/")]
    means = rates.assign(mean=rates[blocks].mean(axis=1))
    best = means.loc[means.groupby("arm")["mean"].idxmax()].set_index("arm")["lr"]
    assert {arm: pytest.approx(best[arm], rel=1e-6) for arm in TUNED} == TUNED


def test_learning_rates_were_compared_on_blocks_of_their_own():
    columns = pd.read_csv(RESULTS / "rates.csv").columns
    blocks = {column for column in columns if "/" in column}
    assert len(blocks) == 2
    assert not blocks & {f"{pretrained}/{seed}" for pretrained, seed in BLOCKS}
