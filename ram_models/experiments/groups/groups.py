"""Which score predicts what a group of layers gains: ``ram reproduce groups``.

Every group (type and stage) is trained alone. A score is good if it ranks the groups as their gains do, and if the
groups that it chooses for a budget gain most of what any choice could. ``contrasts.yaml``, beside this module, holds
what was claimed before the groups were trained.
"""

__all__ = ["main", "plan_probes", "write_tables"]

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ram_models.experiments.groups.capture import Foresight, best_set, correlations, differences, fill
from ram_models.experiments.groups.contrasts import Contrasts
from ram_models.experiments.groups.page import write_page
from ram_models.experiments.groups.partition import SMALL, Group, groups_of
from ram_models.experiments.groups.probes import Probe, gains, read_probes, run_probes
from ram_models.experiments.groups.scores import SIZE, by_group, run_scores
from ram_models.experiments.study.config import PROBES_SEED, SEED_STEP, Block, Study
from ram_models.experiments.study.networks import load, pretrain
from ram_models.experiments.verdicts.statistics import LEVEL, holm


def main(study: Study) -> None:
    """Train and score what is missing, then write the tables in ``results``/groups and docs/groups.md."""
    folder = study.results / "groups"
    probes = plan_probes(study)
    groups = groups_of(load(study, probes[0].block.pretrained))
    run_scores(study, probes[0].block.pretrained, groups, folder / "scores.csv")
    run_probes(study, probes, folder / "probes.csv")
    write_tables(folder, groups, study.probed.budgets)
    for file in write_page(folder, study.docs):
        print(f"written: {file}")


def plan_probes(study: Study) -> list[Probe]:
    """All probes: the first network before training, then every group, rate after rate.

    Args:
        study: Networks and rates.
    """
    network = study.masked()[0]
    pretrain(study, network)
    block = Block(network, PROBES_SEED + SEED_STEP * network.seed)
    groups = groups_of(load(study, network))
    return [Probe(block, None, 0.0), *(Probe(block, group, lr) for lr in study.probed.rates for group in groups)]


def write_tables(folder: Path, groups: Sequence[Group], budgets: Sequence[float]) -> None:
    """Write gains.csv, foresight.csv, captured.csv and claims.csv from probes.csv and scores.csv.

    Args:
        folder: Where the tables are.
        groups: The groups; those that were not trained yet are left out, as are methods that were not asked yet.
        budgets: Shares of the parameters of all groups.
    """
    contrasts = Contrasts.read()
    every = gains(read_probes(folder / "probes.csv")).reindex([group.name for group in groups])
    every["parameters"] = [group.parameters for group in groups]
    scores = pd.read_csv(folder / "scores.csv")
    table = by_group(scores, groups, contrasts.additive)
    every.join(table.drop(columns=SIZE)).to_csv(folder / "gains.csv", float_format="%.8g")
    gained = every.dropna()
    groups, table = [group for group in groups if group.name in gained.index], table.loc[gained.index]
    found = correlations(table.to_numpy().T, gained["loss_gain"].to_numpy())
    by_method = dict(zip(table.columns, found.T, strict=True))
    rows = [{"method": name, **vars(differences(values))} for name, values in by_method.items()]
    pd.DataFrame(rows).to_csv(folder / "foresight.csv", index=False, float_format="%.8g")
    _claims(contrasts, by_method).to_csv(folder / "claims.csv", index=False, float_format="%.8g")
    orders = _orders(table, scores, groups, contrasts)
    whole = [share * int(every["parameters"].sum()) for share in budgets]
    captured = _captured(orders, gained["loss_gain"].to_numpy(), groups, dict(zip(budgets, whole, strict=True)))
    captured.to_csv(folder / "captured.csv", index=False, float_format="%.8g")


def _claims(contrasts: Contrasts, by_method: dict[str, np.ndarray]) -> pd.DataFrame:
    """Every claim with its difference of correlations and its verdict; p is 1 where a method was not asked yet."""
    rows = []
    for claim in contrasts.claims:
        a, b = by_method.get(claim["a"]), by_method.get(claim["b"])
        found = Foresight(np.nan, np.nan, np.nan, 1.0) if a is None or b is None else differences(a - b)
        rows.append({**claim, **vars(found)})
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p"].tolist())
    decided = np.where(table["p_holm"] >= LEVEL, "undecided", np.where(table["value"] > 0, "holds", "falsified"))
    table["verdict"] = np.where(table["value"].isna(), "not tested", decided)
    return table


def _orders(
    table: pd.DataFrame, scores: pd.DataFrame, groups: Sequence[Group], contrasts: Contrasts
) -> dict[str, list[int]]:
    """Groups by every method, best first: by score, or by score per parameter where scores are sums."""
    sizes = np.array([group.parameters for group in groups])
    orders = {}
    for method in table.columns:
        values = table[method].to_numpy()
        if method == "kernel":
            added = scores[scores["method"] == "kernel"].set_index("name")["added"]
            values = added.loc[[group.name for group in groups]].to_numpy()
        orders[method] = [int(g) for g in np.argsort(-(values / sizes if method in contrasts.additive else values))]
    return orders


def _captured(
    orders: dict[str, list[int]], gained: np.ndarray, groups: Sequence[Group], budgets: Mapping[float, float]
) -> pd.DataFrame:
    """Share of the largest sum of gains that every method's groups reach, alone and behind the small groups."""
    sizes = np.array([group.parameters for group in groups])
    small = [number for number, group in enumerate(groups) if group.type in SMALL]
    rows = []
    for share, budget in budgets.items():
        most = gained[best_set(gained, sizes, budget)].sum()
        for method, order in orders.items():
            behind = [*sorted(small, key=order.index), *(number for number in order if number not in small)]
            for is_small_first, walked in ((False, order), (True, behind)):
                chosen = fill(walked, sizes, budget)
                rows.append(
                    {
                        "method": method,
                        "budget": share,
                        "small_first": is_small_first,
                        "captured": gained[chosen].sum() / most,
                        "parameters": sizes[chosen].sum(),
                        "groups": "; ".join(groups[number].name for number in sorted(chosen)),
                    }
                )
    return pd.DataFrame(rows)
