"""Table 6: does fine-tuning fewer layers generalise better to unseen noise, or does it only move less?"""

__all__ = ["ARMS", "CLAIMS", "RATIOS", "main", "write"]

import pandas as pd

from ram_models.experiments.study.blocks import Plan, plan_arms, prepare, run_blocks
from ram_models.experiments.study.config import Pretrained, Study
from ram_models.experiments.study.runs import FULL, LONGER, LONGER_MAC, MASKED
from ram_models.experiments.study.store import Store
from ram_models.experiments.verdicts.claims import (
    ID,
    NOISE,
    Claim,
    above_frontier,
    by_arm,
    by_network,
    check_claims,
    describe_difference,
)

RATIOS = ("MAC", "MAC 20 %", "MAC 50 %", FULL)
"""10, 20, 50 and 100 % of the layers."""

ARMS = ("input", "whole", "twins", MASKED, "pairwise", "ends", "random", *RATIOS, LONGER_MAC, LONGER)
"""Rows of the table."""

CLAIMS = (
    Claim("10 % is better than all on Poisson noise", "MAC", FULL, "poisson", 1.20),
    Claim("10 % is better than all on speckle noise", "MAC", FULL, "speckle", 1.06),
    Claim("10 % is better than all on pepper noise, which resembles the masks", "MAC", FULL, "pepper", 3.92),
    Claim("10 % is better than all on Poisson and speckle noise together", "MAC", FULL, NOISE, 1.13),
    Claim("all is better than 10 % in distribution", FULL, "MAC", ID, 0.26),
    Claim("10 % by MAC is better than 10 % at random on Poisson and speckle noise", "MAC", "random", NOISE),
    Claim("all with 4 times the steps is better than 10 % in distribution", LONGER, "MAC", ID),
    Claim("10 % is better than all with 4 times the steps on Poisson and speckle noise", "MAC", LONGER, NOISE),
    Claim("all is better than 10 % in distribution, both for 4 times as long", LONGER, LONGER_MAC, ID),
    Claim("10 % is better than all on Poisson and speckle noise, both for 4 times as long", LONGER_MAC, LONGER, NOISE),
    Claim("10 % is better than all on pepper noise, both for 4 times as long", LONGER_MAC, LONGER, "pepper"),
)
"""What is claimed of Table 6, but for equal quality."""

EQUAL_QUALITY = "{} is better than full fine-tuning where both are as good in distribution"
"""What is claimed at equal quality of 10 %, and of 10 % with 4 times the steps."""


def main(study: Study) -> None:
    """Run what is missing and write table6.csv and table6-claims.csv."""
    store = prepare(study, [*study.masked(), Pretrained(study.seeds[0], ratio=None)], study.results)
    plan = plan_arms(study, study.all_blocks())
    run_blocks(study, store, plan, ("ends", "random", *RATIOS, MASKED, LONGER_MAC, LONGER))
    write(study, store, plan)


def write(study: Study, store: Store, plan: Plan) -> None:
    """Write the tables of what is finished.

    Args:
        study: Where, and which differences would not matter.
        store: Finished runs.
        plan: Blocks and arms.
    """
    networks = by_network(store.scores())
    table = by_arm(networks, ARMS, plan.stands, plan.keys)
    table.to_csv(study.results / "table6.csv", index=False, float_format="%.4f")
    columns = ("poisson", "pepper", "speckle", NOISE)
    margins = {ID: study.margin} | dict.fromkeys(columns, study.margin_unseen)
    checked = check_claims(networks, CLAIMS, plan.stands, margins, plan.keys, plan.same_blocks)
    claims = pd.concat([checked, _equal_quality(networks, plan, study.margin_unseen)], ignore_index=True)
    claims.to_csv(study.results / "table6-claims.csv", index=False, float_format="%.4f")
    with pd.option_context("display.width", 200):
        shown = ["arm", "blocks", *columns, ID]
        print(table[shown].round(2).to_string(index=False))
        print(claims[["claim", "blocks", "mean_db", "low_db", "high_db", "verdict"]].round(3).to_string(index=False))


def _equal_quality(networks: pd.DataFrame, plan: Plan, margin: float) -> pd.DataFrame:
    """The claims at equal quality in distribution, on each noise; blocks off the frontier's end do not count."""
    rows = []
    for name, arm in (("10 %", "MAC"), ("10 % with 4 times the steps", LONGER_MAC)):
        for column in ("pepper", NOISE):
            heights = above_frontier(networks, plan.stands.get(arm, arm), column, plan.keys).dropna()
            row: dict[str, object] = {"claim": EQUAL_QUALITY.format(name), "a": arm, "b": f"{FULL}, equal quality"}
            rows.append(row | {"column": column} | describe_difference(heights, margin))
    return pd.DataFrame(rows)
