"""The library's own rankings as methods of the bench."""

__all__ = ["RANKED", "rank"]

import warnings
from dataclasses import replace
from functools import partial

from macattr.methods.catalogue import find_methods
from macattr.methods.kinds import PathMethod
from macattr.methods.task import Options
from macattr.ranking.rank import rank_with, task_of
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

WITHOUT_DATA = ("kappa", "spectrum")
"""Those that read the weights alone."""


def rank(name: str, problem: Problem) -> Scores:
    """Scores of every layer by a method of the library.

    Args:
        name: Of the method.
        problem: What it is asked.
    """
    network, samples = problem.build(), None if name in WITHOUT_DATA else list(problem.samples)
    with warnings.catch_warnings(action="ignore"):  # doubts about a ranking do not change what it chooses
        importance = rank_with(network, samples, [name], options=_options(name, problem))[name]
    scores = importance.scores()
    return dict(zip(scores["layer"].values.tolist(), scores.values.tolist(), strict=True))


def _options(name: str, problem: Problem) -> Options:
    """The options of a problem that a method reads, with the seed of what it hides."""
    (method,) = find_methods([name])
    hides = isinstance(method, PathMethod) and "mask" in method.walks
    given = replace(problem.options, seed=problem.seed, path=problem.options.path if hides else None)
    read = method.arguments(task_of(problem.build(), None, given)) | {"at"}
    return Options(**{name: value for name, value in given.given().items() if name in read})  # type: ignore[arg-type]


def _restores(problem: Problem) -> bool:
    """Whether an error on hidden pixels can be measured."""
    return problem.restores


for _name in RANKED:
    applies = _restores if _name == "mac_loss" else (lambda problem: True)
    register(Method(_name, score=partial(rank, _name), applies=applies))
