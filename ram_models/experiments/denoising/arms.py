"""The arms of the denoising experiment: every way to choose at two numbers of parameters, and fixed sets."""

__all__ = ["DENOISING", "EQUAL", "FILLER", "SMALL", "name_of"]

import warnings
from collections.abc import Callable
from functools import partial

from torch import nn

from macattr.selection.controls import random_parameters
from macattr.selection.rules import SelectionRule
from macattr.selection.small_first import small_first
from ram_models.experiments.paper_arms import (
    ALL,
    ENDS,
    FIRST_CONVOLUTIONS,
    IG_PARAMETERS,
    MAC,
    RANDOM_PARAMETERS,
    SHUFFLED_STAGES,
)
from ram_models.experiments.study.arms import Arm, Arms, Choice, Layers, fill
from ram_models.seeds import seeded

SHARE = 0.05
"""Share of the parameters of the small budget."""

SMALL, EQUAL = "5 %", "equal parameters"
"""Names of the budgets: of the small one, and of as many parameters as MAC's top 10 % of the layers hold."""

FILLER = "adam_gain_warm"
"""Ranking that fills a budget behind the small layers: the first bet of the experiment on groups."""

Budget = Callable[[Choice], int]
"""Gives a number of parameters."""


def name_of(method: str, budget: str) -> str:
    """Name of the arm of a method at a budget.

    Example:
        >>> name_of("IG", "5 %")
        'IG, 5 %'
    """
    return f"{method}, {budget}"


def _small(choice: Choice) -> int:
    """The small budget."""
    return int(SHARE * choice.mac.table.total)


def _equal(choice: Choice) -> int:
    """As many parameters as MAC's."""
    return choice.mac.parameters


def _by(ranking: str, budget: Budget, choice: Choice) -> Layers:
    """The first layers of a ranking."""
    return fill(choice, ranking, budget(choice)).layers


def _small_first(budget: Budget, choice: Choice) -> Layers:
    """Ends and norms always, then matrices by what they gain for each parameter."""
    rule = small_first(SelectionRule(count=budget(choice), by="parameters", fill=0.9, over=0.0), choice.network)
    with warnings.catch_warnings(action="ignore"):  # matrices of one size rarely fill a budget
        return choice.rankings[FILLER].select(rule, choice.network).layers


def _random(choice: Choice) -> Layers:
    """Random layers with as many parameters as MAC's at the small budget, drawn anew in every block."""
    matched = fill(choice, "mac", _small(choice))
    return random_parameters(matched, seeded(f"{SMALL} of {choice.block}")).layers


def _norms(choice: Choice) -> Layers:
    """Every normalisation."""
    return tuple(name for name, module in choice.network.named_modules() if isinstance(module, nn.LayerNorm))


NORMS = Arm("norms", _norms)
"""The normalisations alone."""

DENOISING = Arms(
    (
        Arm(name_of("MAC", SMALL), partial(_by, "mac", _small)),
        Arm(name_of("IG", SMALL), partial(_by, "influence", _small)),
        Arm(name_of("Taylor", SMALL), partial(_by, "taylor", _small)),
        Arm(name_of("kappa", SMALL), partial(_by, "kappa", _small)),
        Arm(name_of("small first", SMALL), partial(_small_first, _small)),
        Arm(name_of("random", SMALL), _random),
        MAC,
        IG_PARAMETERS,
        Arm(name_of("Taylor", EQUAL), partial(_by, "taylor", _equal)),
        Arm(name_of("kappa", EQUAL), partial(_by, "kappa", _equal)),
        Arm(name_of("small first", EQUAL), partial(_small_first, _equal)),
        RANDOM_PARAMETERS,
        SHUFFLED_STAGES,
        FIRST_CONVOLUTIONS,
        ENDS,
        NORMS,
        ALL,
    ),
    rankings=("mac", "influence", "taylor", "kappa", FILLER),
)
"""All of them."""
