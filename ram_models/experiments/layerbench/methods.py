"""Methods that choose layers, by name; a new one is a function from a problem to scores or to a choice.

A method of your own takes ten lines in a file, which ``ram bench --methods FILE`` reads::

    from ram_models.experiments.layerbench.methods import Method, register

    def largest(problem):
        \"\"\"Score of every layer; the bench fills each budget in their order.\"\"\"
        return {layer.name: float(layer.parameters) for layer in problem.table.layers}

    register(Method("largest", score=largest))

:class:`ram_models.experiments.layerbench.problems.Problem` says what a method can ask: ``problem.build()`` for the
pre-trained network, ``problem.table`` for its layers and their sizes, ``problem.samples`` for pairs to rank on,
``problem.batch`` for training batches, ``problem.tuned`` for a short fine-tuning. A method that needs to know the
budget gives ``choose`` instead, a function of the problem and the budget (a share of the parameters) that returns the
names of layers, or a :class:`ram_models.experiments.layerbench.choices.Choice` of single parameters.
"""

__all__ = ["METHODS", "Method", "Scores", "choose", "register"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ram_models.experiments.layerbench.choices import Choice, fill, of_layers
from ram_models.experiments.layerbench.problems import Problem

Scores = Mapping[str, float]
"""Score of every layer by its name; the highest is trained first."""

Chosen = Sequence[str] | Choice | None
"""Names of layers, a choice, or None if the method has none within the budget."""


@dataclass(frozen=True)
class Method:
    """A way to choose what is trained. It has either ``score`` or ``choose``.

    Args:
        name: In tables and results.
        score: From a problem to scores; a budget is filled in their order by
            :func:`ram_models.experiments.layerbench.choices.fill`.
        choose: From a problem and a budget, a share of the network's parameters, to what is trained.
        applies: Whether it can be asked on this problem.
        draws: Number of random draws, over which its results are averaged.
        control: Whether it looks at nothing but the places and kinds of layers.

    Raises:
        ValueError: If it has both or neither.
    """

    name: str
    score: Callable[[Problem], Scores] | None = None
    choose: Callable[[Problem, float], Chosen] | None = None
    applies: Callable[[Problem], bool] = lambda problem: True
    draws: int = 1
    control: bool = False

    def __post_init__(self) -> None:
        if (self.score is None) == (self.choose is None):
            raise ValueError(f"the method {self.name!r} must have one of `score` and `choose`.")


METHODS: dict[str, Method] = {}
"""All methods by name; :func:`register` adds to it."""


def register(method: Method) -> Method:
    """Make a method known to the bench.

    Args:
        method: Which.

    Raises:
        ValueError: If the name is taken.
    """
    if method.name in METHODS:
        raise ValueError(f"there is a method {method.name!r} already: choose another name.")
    METHODS[method.name] = method
    return method


def choose(method: Method, problem: Problem, budget: float, scores: Scores | None) -> Choice | None:
    """What a method trains within a budget; None if nothing fits.

    Args:
        method: Which.
        problem: What it is asked.
        budget: Share of the network's parameters, in (0, 1].
        scores: What its ``score`` gave, which does not depend on the budget; None if it has ``choose``.

    Raises:
        ValueError: If a method with ``score`` comes without scores, or if a choice exceeds the budget.
    """
    if scores is not None:
        return fill(scores, problem.build(), problem.table, budget)
    if method.choose is None:
        raise ValueError(f"the method {method.name!r} fills budgets in the order of its scores: give `scores`.")
    chosen = method.choose(problem, budget)
    if chosen is None or isinstance(chosen, Choice):
        choice = chosen
    else:
        choice = of_layers(problem.build(), list(chosen)) if len(chosen) else None
    if choice is not None and (trained := choice.apply(problem.build())) > budget * problem.total:
        raise ValueError(
            f"the method {method.name!r} chose {trained:,} parameters for {problem.network}, more than {budget:.0%} of "
            f"{problem.total:,}: return None if nothing fits."
        )
    return choice
