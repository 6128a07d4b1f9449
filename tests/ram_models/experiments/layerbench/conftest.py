"""Ledgers with made-up runs."""

import numpy as np
import pytest

from ram_models.experiments.layerbench import controls, rankings  # noqa: F401 - both register methods
from ram_models.experiments.layerbench.choices import Choice
from ram_models.experiments.layerbench.ledger import ANY_SEED, Ledger

PROBLEMS = [(network, shift) for network in ("vgg7-noise1", "resnet10-noise2", "srvgg-x2") for shift in ("a", "b")]
METHODS = ("mac", "fisher", "cka", controls.RANDOM, "first layers")
SEEDS, BUDGETS = (10, 11), (0.05, 0.1, 0.2)


def _made_up(folder, problems=PROBLEMS, without=()):
    """A ledger of all problems and seeds; sets in ``without`` were not run."""
    ledger, source = Ledger(folder), np.random.default_rng(0)
    for network, shift in problems:
        block = {"network": network, "shift": shift}
        chosen = [(ANY_SEED, controls.ALL, 0, 1.0, "every")]
        for method in METHODS:
            draws = controls.DRAWS if method == controls.RANDOM else 1
            for seed in SEEDS if draws > 1 else (ANY_SEED,):
                chosen += [
                    (seed, method, draw, budget, str(source.integers(4))) for draw in range(draws) for budget in BUDGETS
                ]
        chosen.append((ANY_SEED, "ends", 0, 0.2, "1"))
        keys = {word: Choice((f"{network}.{word}",)).key for *_, word in chosen}
        for word in keys:
            ledger.remember(network, Choice((f"{network}.{word}",)), 1000, 1000 if word == "every" else 50)
        ledger.add(
            "choices",
            [
                {**block, "seed": seed, "method": method, "draw": draw, "budget": budget, "trained": keys[word]}
                | {"seconds": 2.0, "made_with": "x"}
                for seed, method, draw, budget, word in chosen
            ]
            + [
                {**block, "seed": ANY_SEED, "method": "ends", "draw": 0, "budget": 0.05, "trained": ""}
                | {"seconds": 0.0, "made_with": "x"}
            ],
        )
        for seed in SEEDS:
            ledger.add(
                "runs",
                [
                    {**block, "seed": seed, "trained": key, "lr": 1e-3, "before_db": 20.0}
                    | {"after_db": 25.0 + source.random() if word == "every" else 22 + 3 * source.random()}
                    | {"steps": 100, "seconds": 4.0, "precision": "bfloat16", "made_with": "x"}
                    for word, key in keys.items()
                    if (network, shift, seed, word) not in without
                ],
            )
        ledger.add(
            "rates",
            [
                {
                    **block,
                    "kind": kind,
                    "lr": lr,
                    "validation_db": -lr,
                    "trained": "",
                    "made_with": "x",
                }
                for kind in ("5 %", "all")
                for lr in (1e-3, 3e-3)
            ],
        )
    return ledger


@pytest.fixture
def made_up():
    """A function that fills a folder with made-up runs."""
    return _made_up
