"""Fig. 4: the gap of input integrity, whole input against twin masks, in PSNR and in the distribution of colours."""

__all__ = ["main"]

from functools import partial

import numpy as np
import pandas as pd
from scipy.stats import wasserstein_distance
from torch import Tensor

from ram_models.experiments.study.blocks import prepare
from ram_models.experiments.study.config import Pretraining, Study
from ram_models.experiments.study.judge import Judge
from ram_models.experiments.study.networks import load
from ram_models.experiments.study.parallel import in_parallel

LEVELS = np.linspace(0.0, 1.0, 33)
"""Borders of the bins of colour histograms."""


def main(study: Study) -> None:
    """Write fig4.csv, a row an image and view, and fig4-colours.csv, the mean histogram of every task and view."""
    prepare(study, study.masked(), study.results)
    measured = dict(in_parallel(partial(colours, study), study.masked(), study.processes, "network"))
    rows = pd.concat([measured[network][0] for network in study.masked()])
    rows.to_csv(study.results / "fig4.csv", index=False, float_format="%.5f")
    histograms = pd.concat([measured[network][1] for network in study.masked()])
    keys = ["task", "view", "channel", "level"]
    histograms.groupby(keys, sort=False)["share"].mean().reset_index().to_csv(
        study.results / "fig4-colours.csv", index=False, float_format="%.5f"
    )
    print(rows.groupby(["task", "view"], sort=False)["distance_255"].mean().unstack().round(2).to_string())


def colours(study: Study, pretrained: Pretraining) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How far the colours of every view of every image are from the clean ones, and histograms of them by task.

    The distance is Wasserstein's between the values of a channel, on the scale of 0 to 255, mean over channels: how far
    values must be moved at least, wherever they are in the image.
    """
    judge, network = Judge(study), load(study, pretrained).to(study.device)
    rows, histograms = [], []
    for answer, twins in zip(judge.restorations(network), judge.restorations(network, twins=True), strict=True):
        item = answer.item
        if item.kind != "trained":
            continue
        views = {"input": item.degraded, "whole": answer.restored, "twins": twins.restored, "clean": item.clean}
        for view, image in views.items():
            distance = _distance(image, item.clean)
            rows.append((pretrained.name, item.task, item.setting, item.image, view, distance))
            for channel, values in zip("rgb", image, strict=True):
                shares = np.histogram(values.numpy(), LEVELS)[0] / values.numel()
                histograms += [
                    (item.task, view, channel, level, share) for level, share in zip(LEVELS, shares, strict=False)
                ]
    columns = ["pretrained", "task", "setting", "image", "view", "distance_255"]
    return (
        pd.DataFrame(rows, columns=columns),
        pd.DataFrame(histograms, columns=["task", "view", "channel", "level", "share"]),
    )


def _distance(image: Tensor, clean: Tensor) -> float:
    """Mean over channels of Wasserstein's distance between the values of two images."""
    pairs = zip(image.flatten(1).numpy(), clean.flatten(1).numpy(), strict=True)
    return 255 * float(np.mean([wasserstein_distance(a, b) for a, b in pairs]))
