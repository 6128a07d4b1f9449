"""The library's own rankings as methods of the bench."""

__all__ = ["RANKED"]

import warnings
from functools import partial

from macattr.ranking.rank import rank_layers
from ram_models.experiments.layerbench.methods import Method, Scores, register
from ram_models.experiments.layerbench.problems import Problem

RANKED = (
    "mac",
    "mac_loss",
    "conductance",
    "internal_influence",
    "grad_x_activation",
    "activation",
    "drift",
    "attribution_patching",
    "fisher",
    "rgn",
    "snr",
    "adam_gain",
    "lca",
    "taylor",
    "kappa",
    "spectrum",
    "cka",
)
"""Names in :data:`macattr.methods.catalogue.METHODS`; with the library's defaults, and pixels as masks."""

WITHOUT_IMAGES = ("kappa", "spectrum")
"""Those that read the weights alone."""


def _rank(name: str, problem: Problem) -> Scores:
    """Scores of every layer by a method of the library."""
    images = None if name in WITHOUT_IMAGES else list(problem.samples)
    with warnings.catch_warnings(action="ignore"):  # doubts about a ranking do not change what it chooses
        importance = rank_layers(problem.build(), images, name, seed=problem.seed if name in SEEDED else None)
    scores = importance.scores()
    return dict(zip(scores["layer"].values.tolist(), scores.values.tolist(), strict=True))


SEEDED = ("mac", "mac_loss", "drift", "attribution_patching")
"""Those that hide pixels in a random order."""


def _same_size(problem: Problem) -> bool:
    """Whether pixels of the input hide pixels of the output."""
    return not problem.enlarges


for _name in RANKED:
    applies = _same_size if _name == "mac_loss" else (lambda problem: True)
    register(Method(_name, score=partial(_rank, _name), applies=applies))
