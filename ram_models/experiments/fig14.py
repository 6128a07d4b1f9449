"""Fig. 14: the heat map of layer importance, MAC against the paper's "IG", for every pre-training."""

__all__ = ["main"]

from collections.abc import Mapping
from functools import partial
from itertools import combinations

import pandas as pd

from macattr.ranking.importance import LayerImportance
from macattr.statistics.agreement import overlap_at, spearman
from macattr.statistics.ranks import top_count
from ram_models.experiments.paper_arms import PAPER
from ram_models.experiments.study.blocks import prepare
from ram_models.experiments.study.config import Study
from ram_models.experiments.study.networks import rank_all
from ram_models.experiments.study.parallel import in_parallel

TOP = 0.1
"""Share of the layers whose agreement is told."""


def main(study: Study) -> None:
    """Write fig14.csv, a row a layer of every ranking, and fig14-agreement.csv, a row a pair of rankings."""
    prepare(study, study.masked(), study.results)
    results = dict(in_parallel(partial(rank_all, study, PAPER.rankings), study.masked(), study.processes, "ranking"))
    rankings = {
        (network.name, method): ranking
        for network in study.masked()
        for method, ranking in _by_method(results[network]).items()
    }
    tables = [described(ranking).assign(pretrained=name, method=method) for (name, method), ranking in rankings.items()]
    pd.concat(tables).to_csv(study.results / "fig14.csv", index=False, float_format="%.6g")
    agreement = pd.DataFrame([agree(a, b, rankings[a], rankings[b]) for a, b in combinations(rankings, 2)])
    agreement.to_csv(study.results / "fig14-agreement.csv", index=False, float_format="%.4f")
    print(agreement.round(3).to_string(index=False))


def _by_method(rankings: Mapping[str, LayerImportance]) -> dict[str, LayerImportance]:
    """Rankings of one network by the names that they have in the figure."""
    return {"MAC": rankings["mac"], "IG": rankings["influence"], "MAC (authors' script)": rankings["official"]}


def described(importance: LayerImportance) -> pd.DataFrame:
    """Every layer with its score, interval, rank, and how often it is in the top over resamples of the images."""
    data = importance.dataset
    names = ("type", "block", "role", "depth", "parameters")
    table = pd.DataFrame({"layer": data["layer"].values} | {name: data[name].values for name in names})
    table = table.merge(importance.intervals(), on="layer", sort=False)
    return table.merge(importance.probability_in_top(TOP).rename_axis("layer").reset_index(), on="layer", sort=False)


def agree(
    a: tuple[str, str], b: tuple[str, str], first: LayerImportance, second: LayerImportance
) -> dict[str, str | float]:
    """Agreement of two rankings."""
    scores = first.scores().values, second.scores().values
    k = top_count(TOP, len(scores[0]))
    return {
        "pretrained_a": a[0],
        "method_a": a[1],
        "pretrained_b": b[0],
        "method_b": b[1],
        "spearman": spearman(*scores),
        "overlap": overlap_at(*scores, k),
    }
