"""What every method says of the groups before anything is trained."""

__all__ = ["METHODS", "SIZE", "by_group", "run_scores"]

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from macattr.methods.kernel import gain, greedy_order, layer_kernels, ridge_of
from macattr.methods.samples import iterate_samples
from macattr.methods.task import Options
from macattr.ranking.rank import rank_layers, task_of
from ram_models.experiments.groups.partition import Group
from ram_models.experiments.study.config import Pretraining, Study
from ram_models.experiments.study.networks import load, rank, ranking_crops, weights_hash

METHODS = (
    "mac",
    "internal_influence",
    "kernel",
    "adam_gain",
    "adam_gain_warm",
    "lca",
    "fisher",
    "rgn",
    "snr",
    "taylor",
    "attribution_patching",
    "drift",
    "activation",
    "magnitude",
    "kappa",
    "depth",
)
"""Methods that are asked."""

STORED: Mapping[str, str] = {"mac": "mac", "internal_influence": "influence"}
"""Those whose rankings other experiments keep, with the names that they have there."""

SIZE = "parameters"
"""Name of the control that says how many parameters a group has."""

COLUMNS = ("pretrained", "method", "name", "score", "added", "made_with")
"""Columns of scores.csv: ``name`` is a layer, or a group for the kernel, whose gain alone is ``score`` and whose gain
beside the groups before it in greedy order is ``added``."""


def run_scores(study: Study, pretrained: Pretraining, groups: Sequence[Group], file: Path) -> pd.DataFrame:
    """Score the layers of a network by every method that is not finished.

    Args:
        study: What is ranked on.
        pretrained: The network.
        groups: Its groups.
        file: Finished scores, columns :data:`COLUMNS`; those of a method are added at once.

    Raises:
        ValueError: If the file holds scores of other weights or crops.
    """
    finished = pd.read_csv(file) if file.exists() else pd.DataFrame(columns=list(COLUMNS))
    made_with = study.made_with(study.ranked, weights_hash(study, pretrained))
    if others := set(finished["made_with"]) - {made_with}:
        raise ValueError(f"{str(file)!r} holds scores of other weights or crops ({min(others)}): delete it.")
    for method in METHODS:
        if method not in set(finished["method"]):
            rows = _score(study, pretrained, groups, method)
            rows = rows.assign(pretrained=pretrained.name, method=method, made_with=made_with)[list(COLUMNS)]
            file.parent.mkdir(parents=True, exist_ok=True)
            rows.to_csv(file, mode="a", header=not file.exists(), index=False, float_format="%.8g")
            print(f"scored by {method}", flush=True)
    return pd.read_csv(file)


def by_group(scores: pd.DataFrame, groups: Sequence[Group], additive: Sequence[str]) -> pd.DataFrame:
    """Scores of the groups, a column a method.

    Args:
        scores: Columns :data:`COLUMNS`.
        groups: The groups.
        additive: Methods whose scores are sums over parameters: a group has the sum of its layers' scores, of others
            their mean.
    """
    table = {SIZE: {group.name: float(group.parameters) for group in groups}}
    for method, rows in scores.groupby("method", sort=False):
        values = dict(zip(rows["name"], rows["score"], strict=True))
        if method == "kernel":
            table["kernel"] = values
            continue
        table[str(method)] = {
            group.name: sum(values[name] for name in group.layers) / (1 if method in additive else len(group.layers))
            for group in groups
        }
    return pd.DataFrame(table).reindex([group.name for group in groups])


def _score(study: Study, pretrained: Pretraining, groups: Sequence[Group], method: str) -> pd.DataFrame:
    """Columns ``name``, ``score`` and ``added``."""
    network = load(study, pretrained).to(study.device)
    if method == "kernel":
        return _kernel(study, network, groups)
    if method in STORED:
        importance = rank(study, pretrained, STORED[method])
    else:
        importance = rank_layers(network, ranking_crops(study, study.ranked.crops), method)
    scores = importance.scores()
    means = scores.mean([dimension for dimension in scores.dims if dimension != "layer"])
    return pd.DataFrame({"name": means["layer"].values, "score": means.values, "added": float("nan")})


def _kernel(study: Study, network: nn.Module, groups: Sequence[Group]) -> pd.DataFrame:
    """Gain of every group alone, and what it adds in greedy order by parameter."""
    task = task_of(network, None, Options())
    kernels = layer_kernels(task, list(iterate_samples(ranking_crops(study, study.ranked.crops), network)))
    ridge, places = ridge_of(kernels), {name: place for place, name in enumerate(task.layers)}
    by_groups = [kernels[[places[name] for name in group.layers]].sum(0) for group in groups]
    alone = [float(gain(kernel, ridge)) for kernel in by_groups]
    sizes = [group.parameters for group in groups]
    added = dict(greedy_order(torch.stack(by_groups), sizes, ridge))
    names = [group.name for group in groups]
    return pd.DataFrame({"name": names, "score": alone, "added": [added[place] for place in range(len(groups))]})
