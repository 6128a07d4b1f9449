"""Learning rates: one for every class of choices on every problem, chosen on held-out training photographs."""

__all__ = [
    "CLASSES",
    "rate_class",
    "representative",
    "tune",
]

from collections.abc import Callable
from types import MappingProxyType

from ram_models.experiments.layerbench.choices import Choice, fill
from ram_models.experiments.layerbench.controls import ADAPTERS, ALL, random_order
from ram_models.experiments.layerbench.methods import METHODS, choose
from ram_models.experiments.layerbench.problems import Problem

LADDER = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
"""Peak rates that are tried, about a factor of three apart, so far up that the best is at no end."""

SHARES = MappingProxyType({"2 %": 0.02, "5 %": 0.05, "10 %": 0.1, "20 %": 0.2})
"""Classes of whole layers, with the largest share of the parameters in each."""

CLASSES = MappingProxyType(
    {"2 %": 1e-3, "5 %": 1e-3, "10 %": 3e-4, "20 %": 3e-4, "all": 1e-4, "affine": 3e-3, "adapters": 1e-3}
)
"""Every class with the rate that the search begins at."""

DRAWS = 1000


def rate_class(kind: str, share: float) -> str:
    """Name of the class whose learning rate a choice gets.

    Args:
        kind: Of the choice, see :class:`ram_models.experiments.layerbench.choices.Choice`.
        share: Its part of the network's parameters; of whole layers this alone decides, whatever budget they were
            chosen for, so that the same set always has the same rate.
    """
    if kind != "layers":
        return kind
    return next((name for name, most in SHARES.items() if share <= most), "all")


def representative(problem: Problem, name: str) -> Choice:
    """The choice that a class is tuned with: of whole layers a random one, so that no method is favoured.

    Args:
        problem: Whose layers.
        name: Of the class.

    Raises:
        ValueError: If the class holds nothing on this network.
    """
    chosen: Choice | None = None
    if name in SHARES:
        least = max((share for share in SHARES.values() if share < SHARES[name]), default=0.0)
        for draw in range(DRAWS):
            chosen = fill(random_order(problem.drawn(draw)), problem.build(), problem.table, SHARES[name])
            if chosen is not None and chosen.apply(problem.build()) > least * problem.total:
                return chosen
        chosen = None
    elif name == "affine":
        chosen = choose(METHODS["norms and biases"], problem, SHARES["20 %"], None)
    else:
        method, budget = (ALL, 1.0) if name == "all" else (ADAPTERS, SHARES["10 %"])
        chosen = choose(METHODS[method], problem, budget, None)
    if chosen is None:
        raise ValueError(f"no choice of {problem.network} falls into the class {name!r}.")
    return chosen


def tune(measure: Callable[[float], float], start: float) -> float:
    """The best rate of the ladder: from the start uphill, until both neighbours are worse.

    Args:
        measure: From a rate to the quality on held-out photographs; asked once for each rate.
        start: Of the ladder.

    Example:
        >>> tune(lambda lr: -abs(lr - 1e-3), 1e-4)
        0.001
    """
    known: dict[int, float] = {}
    best = LADDER.index(start)
    while True:
        near = [place for place in (best - 1, best, best + 1) if 0 <= place < len(LADDER)]
        for place in near:
            if place not in known:
                known[place] = measure(LADDER[place])
        highest = max(near, key=lambda place: known[place])
        if highest == best:
            return LADDER[best]
        best = highest
