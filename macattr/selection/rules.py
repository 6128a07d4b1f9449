"""From a ranking to a selection: the rule, the selected layers, and the parameters that they train."""

__all__ = [
    "By",
    "Candidate",
    "Per",
    "Rounding",
    "Selection",
    "SelectionRule",
    "flat",
    "pack",
    "select",
]

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, get_args

from macattr.arguments import as_names, real_number, whole_number
from macattr.layers.resolve import unknown_layer
from macattr.layers.table import LayerTable
from macattr.selection.trainable import TrainableMask
from macattr.statistics.ranks import whole_part
from macattr.user_warnings import warn_user

Candidate = tuple[str, ...]
"""Layers that are chosen together: one name, or all that return the same tensor."""

By = Literal["layers", "outputs", "parameters"]
"""What a selection counts: names, distinct outputs or parameters."""

Per = Literal["block", "type"]
"""What a quota is for."""

Rounding = Literal["floor", "round"]
"""How a fraction becomes a whole number."""

UNEVEN = 1.5
"""Factor between the parameters of a selection and of a random one above which comparing them is unfair."""


LISTED = 5
"""Names of a kind that are printed: of layers that did not fit into the budget, and of those that are always in."""


@dataclass(frozen=True)
class SelectionRule:
    r"""Number of layers that are selected, the way they are counted, and the layers that are always or never taken.

    Exactly one of ``fraction``, ``count`` and ``threshold`` gives the number. A fraction selects at least one layer.

    Args:
        fraction: Share in (0, 1] of all ranked layers, of their distinct outputs, or of the network's parameters.
        count: Number of them.
        threshold: Least score of a selected layer.
        by: ``layers`` counts names, as the paper does. ``outputs`` counts distinct output tensors, and takes the layers
            that return the same one together. ``parameters`` fills a budget with such groups: it walks the ranking from
            the top and leaves out groups that do not fit. If even that uses less than ``fill`` of the budget, the one
            more group that comes nearest to it is taken too, if that is nearer than stopping short.
        per: Apply ``fraction`` or ``count`` within every ``block`` (the layers outside of any are one) or ``type``, and
            ``skips``, ``fill`` and ``over`` with them.
        include: Names and globs that are always in. They count towards the number or budget.
        exclude: Names and globs that are never in. They still count in the whole that ``fraction`` is a share of.
        rounding: Of ``fraction`` times layers: ``floor``, the paper's :math:`\lfloor kL \rfloor`, or ``round``.
        skips: Groups that may be left out because they do not fit. The next one that does not fit ends the walk, once
            ``fill`` of the budget is used; before, the walk goes on with a warning.
        fill: Share of the budget, in [0, 1], that counts as used up.
        over: Most that the selection may exceed the budget by, as a share of it: 0 for never, None for as long as that
            is nearer to the budget than stopping short. At least one layer is selected in any case.
        per_parameter: Walk the layers by their score per parameter that they unlock, for scores that are sums over
            parameters: what a layer gains against what it costs. Layers that are taken together share the highest of
            their scores.

    Raises:
        ValueError: If an argument is out of range, contradicts another or would have no effect.

    Example:
        >>> print(SelectionRule(0.1, by="parameters", exclude=("*.attn",)))
        top 10 % of the parameters, without *.attn
    """

    fraction: float | None = None
    count: int | None = None
    threshold: float | None = None
    by: By = "layers"
    per: Per | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    rounding: Rounding = "floor"
    skips: int = 3
    fill: float = 0.95
    over: float | None = None
    per_parameter: bool = False

    def __post_init__(self) -> None:
        """Refuse values that contradict each other or lie out of range."""
        for name in ("include", "exclude"):
            object.__setattr__(self, name, as_names(name, getattr(self, name)))
        for name in ("fraction", "threshold", "fill", "over"):
            if (value := getattr(self, name)) is not None:
                real_number(name, value)
        for name, least in (("count", 1), ("skips", 0)):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, whole_number(name, value, least))
        given = [name for name in ("fraction", "count", "threshold") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of `fraction`, `count`, `threshold`; got {' and '.join(given) or 'none'}.")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise ValueError(f"`fraction` must lie in (0, 1], got {self.fraction}.")
        for name, value, choices in (
            ("by", self.by, By),
            ("rounding", self.rounding, Rounding),
            ("per", self.per, Per),
        ):
            if value not in (allowed := get_args(choices)) and (name, value) != ("per", None):
                raise ValueError(f"`{name}` must be one of {', '.join(allowed)}, got {value!r}.")
        if not 0 <= self.fill <= 1:
            raise ValueError(f"`fill` must lie in [0, 1], got {self.fill}.")
        if self.over is not None and not 0 <= self.over < math.inf:
            raise ValueError(
                f"`over` must be a share of the budget, at least 0, got {self.over}: 0.1 is 10 % above it."
            )
        self._refuse_idle()

    def _refuse_idle(self) -> None:
        """Raise for options without effect."""
        idle = {
            "by='parameters'": self.by == "parameters" and self.threshold is not None,
            "per": self.per is not None and self.threshold is not None,
            "rounding": self.rounding != "floor" and (self.fraction is None or self.by == "parameters"),
            "skips": self.skips != 3 and self.by != "parameters",
            "fill": self.fill != 0.95 and self.by != "parameters",
            "over": self.over is not None and self.by != "parameters",
            "per_parameter": self.per_parameter and self.threshold is not None,
        }
        if names := [name for name, is_idle in idle.items() if is_idle]:
            raise ValueError(f"`{names[0]}` has no effect on this rule ({self}): leave it out.")

    def __str__(self) -> str:
        """In words."""
        if self.threshold is not None:
            words = f"{self.by} with a score of at least {self.threshold:g}"
        elif self.fraction is not None:
            words = f"top {100 * self.fraction:g} % of the {self.by}"
        else:
            words = f"top {self.count:,} {self.by}"
        words += f" of every {self.per}" if self.per else ""
        words += " by score per parameter" if self.per_parameter else ""
        words += f", with {_some(self.include)}" if self.include else ""
        return words + (f", without {_some(self.exclude)}" if self.exclude else "")

    def amount(self, whole: int) -> int:
        """Number of candidates or parameters that the rule takes of ``whole``."""
        if self.count is not None:
            return self.count
        share = self.fraction or 0.0
        return math.floor(share * whole + 0.5) if self.rounding == "round" else whole_part(share, whole)


@dataclass(frozen=True)
class Selection:
    """Layers that are to be trained, with the candidates that they were chosen from.

    Args:
        layers: Their names, most important first.
        how: The rule in words.
        table: All layers, with the parameters that each unlocks.
        pool: Candidates that could have been chosen, most important first.
        fixed: Candidates that had to be chosen.
        skipped: Candidates that did not fit into the budget.
        scores: Score of every ranked layer, most important first; empty if the ranking had none.
        provenance: How the ranking was made.
    """

    layers: tuple[str, ...]
    how: str
    table: LayerTable
    pool: tuple[Candidate, ...]
    fixed: tuple[Candidate, ...] = ()
    skipped: tuple[Candidate, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, str | int | float] = field(default_factory=dict)

    @property
    def chosen(self) -> tuple[Candidate, ...]:
        """The chosen candidates."""
        chosen = set(self.layers)
        return tuple(candidate for candidate in self.pool if chosen.issuperset(candidate))

    @property
    def free(self) -> tuple[Candidate, ...]:
        """The candidates that did not have to be chosen."""
        return tuple(candidate for candidate in self.pool if candidate not in self.fixed)

    @property
    def parameters(self) -> int:
        """Number of parameters that are trained."""
        return self.table.count(self.layers)

    @property
    def random_mean(self) -> float:
        """Mean number of parameters that a random choice of as many candidates trains, in closed form."""
        draws = len(self.chosen) - len(self.fixed)
        free = self.free
        held = self.table.unlocked(flat(self.fixed))
        holders = Counter(parameter for candidate in free for parameter in self.table.unlocked(candidate))
        return sum(
            size * (1 if parameter in held else _inclusion_probability(holders[parameter], draws, len(free)))
            for parameter, size in self.table.unlocked(flat(self.pool)).items()
        )

    def mask(self) -> TrainableMask:
        """The mask that trains these layers of a network."""
        return TrainableMask(self.layers, self.table.whole_modules)

    def __str__(self) -> str:
        """Rule, counts and share."""
        aliases = self.table.alias_of
        outputs = len({aliases.get(name, name) for name in self.layers}) if aliases else len(self.layers)
        distinct = f" ({outputs} distinct outputs)" if outputs < len(self.layers) else ""
        more = f" and {len(self.skipped) - LISTED} more" if len(self.skipped) > LISTED else ""
        skipped = (
            f"; too large for the rest of the budget: {_listed(self.skipped[:LISTED])}{more}" if self.skipped else ""
        )
        return (
            f"{self.how}: {len(self.layers)} of {len(self.table.layers)} layers{distinct}, {self.parameters:,} of "
            f"{self.table.total:,} parameters ({self.parameters / self.table.total:.1%}){skipped}"
        )


def select(
    ranking: Mapping[str, float] | Sequence[str],
    table: LayerTable,
    rule: SelectionRule,
    provenance: Mapping[str, str | int | float] | None = None,
) -> Selection:
    """The layers that a rule takes from a ranking.

    Layers that unlock no parameter are left aside. Equal scores keep the order they are given in.

    Args:
        ranking: Score of every layer, or their names, most important first.
        table: The layers of the network, which may be more than are ranked.
        rule: Number of layers that are taken, and the way they are counted.
        provenance: How the ranking was made; kept with the selection.

    Returns:
        The selection. Printing it gives its number of layers and parameters.

    Warns:
        UserWarning: If a selection by number trains 1.5 times more or fewer parameters than the mean random one, or a
            budget cannot be filled in the order of the ranking: the message names the cause and what was done.

    Raises:
        ValueError: If a name is unknown, nothing would be selected, or the included layers exceed a budget.

    Example:
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 4), nn.Linear(4, 4))
        >>> print(select({"0": 2.0, "1": 3.0, "2": 1.0}, LayerTable.of(net), SelectionRule(count=2)))
        top 2 layers: 2 of 3 layers, 49 of 69 parameters (71.0%)
    """
    scores, names = _ranked(ranking, table)
    included, excluded = table.match(rule.include), table.match(rule.exclude)
    if both := included & excluded:
        raise ValueError(f"{', '.join(sorted(both))}: both included and excluded.")
    if not scores and (rule.threshold is not None or rule.per_parameter):
        needing = "`per_parameter`" if rule.per_parameter else f"`threshold` {rule.threshold}"
        raise ValueError(f"{needing} needs scores, but the ranking is a list of names.")
    names += [name for name in table.names if name in included and name not in names]
    every = _candidates([name for name in names if table.unlocks[name]], table, rule.by)
    pool = _candidates([name for candidate in every for name in candidate if name not in excluded], table, rule.by)
    if rule.per_parameter:
        pool.sort(key=lambda candidate: -_density(candidate, scores, table))
    if not pool:
        raise ValueError("no layer is left to choose from: all are excluded, or hold no parameter.")
    fixed = [candidate for candidate in pool if included.intersection(candidate)]
    skipped: list[Candidate] = []
    if rule.threshold is not None:
        chosen = [each for each in pool if each in fixed or max(scores[name] for name in each) >= rule.threshold]
    elif rule.by == "parameters":
        chosen, skipped = _within_budget(every, pool, fixed=fixed, table=table, rule=rule)
    else:
        chosen = _within_number(every, pool, fixed=fixed, table=table, rule=rule)
    if not chosen:
        raise ValueError(f"{rule}: none is selected; the highest score is {max(scores.values(), default=math.nan):g}.")
    selection = Selection(
        layers=flat(chosen),
        how=str(rule),
        table=table,
        pool=tuple(pool),
        fixed=tuple(fixed),
        skipped=tuple(skipped),
        scores=scores,
        provenance=dict(provenance or {}),
    )
    if rule.by != "parameters":
        _warn_if_uneven(selection)
    return selection


def _ranked(ranking: Mapping[str, float] | Sequence[str], table: LayerTable) -> tuple[dict[str, float], list[str]]:
    """Scores, if there are any, and names, both most important first."""
    names = list(ranking)
    if not names:
        raise ValueError("the ranking is empty.")
    if unknown := [name for name in names if name not in table.names]:
        raise ValueError(
            f"{len(unknown)} of {len(names)} ranked layers are unknown: {unknown_layer(unknown[0], table.names)}"
        )
    if not isinstance(ranking, Mapping):
        if len(set(names)) < len(names):
            raise ValueError(f"the ranking names {Counter(names).most_common(1)[0][0]!r} more than once.")
        return {}, names
    if bad := [name for name in names if not math.isfinite(ranking[name])]:
        raise ValueError(f"the score of {bad[0]!r} is {ranking[bad[0]]}: a ranking needs finite scores.")
    names.sort(key=lambda name: -ranking[name])
    return {name: float(ranking[name]) for name in names}, names


def _candidates(names: Iterable[str], table: LayerTable, by: By) -> list[Candidate]:
    """Names one by one, or grouped by the tensor they return, in the order of each group's first."""
    if by == "layers":
        return [(name,) for name in names]
    if by == "outputs" and table.alias_of is None:
        raise ValueError(
            "the layers that share an output are unknown: by='outputs' needs a ranking that macattr measured."
        )
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault((table.alias_of or {}).get(name, name), []).append(name)
    return [tuple(group) for group in groups.values()]


def _density(candidate: Candidate, scores: Mapping[str, float], table: LayerTable) -> float:
    """Highest score of a candidate per parameter that it unlocks; layers without a score come last."""
    return max(scores.get(name, -math.inf) for name in candidate) / table.count(candidate)


def _classes(candidates: Iterable[Candidate], table: LayerTable, per: Per | None) -> dict[str, list[Candidate]]:
    """Candidates by block or type; all together if there are no quotas."""
    key = {layer.name: {None: "", "block": layer.block, "type": layer.type}[per] for layer in table.layers}
    classes: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        classes.setdefault(key[candidate[0]], []).append(candidate)
    return classes


def _within_number(
    every: list[Candidate], pool: list[Candidate], *, fixed: list[Candidate], table: LayerTable, rule: SelectionRule
) -> list[Candidate]:
    """The most important candidates, as many as the rule takes of every class, at least one in all."""
    amounts = {key: rule.amount(len(members)) for key, members in _classes(every, table, rule.per).items()}
    largest = max(len(members) for members in _classes(every, table, rule.per).values())
    if rule.count is not None and rule.count > largest:
        where = f"{rule.by} of one {rule.per}" if rule.per else rule.by
        raise ValueError(f"`count` {rule.count} is more than the {largest} {where}: take at most {largest}.")
    number = max(1, sum(amounts.values()))
    if len(fixed) > number:
        raise ValueError(f"{rule}: {len(fixed)} are included, which is more than {number} in all.")
    chosen = []
    for key, members in _classes(pool, table, rule.per).items():
        forced = [candidate for candidate in members if candidate in fixed]
        if rule.per and len(forced) > amounts[key]:
            raise ValueError(
                f"{rule}: {len(forced)} of {rule.per} {key!r} are included, which is more than its {amounts[key]}: "
                "include fewer, or raise the number."
            )
        others = [candidate for candidate in members if candidate not in forced]
        chosen += forced + others[: max(0, amounts[key] - len(forced))]
    return sorted(chosen, key=pool.index) or pool[:1]


def _within_budget(
    every: list[Candidate], pool: list[Candidate], *, fixed: list[Candidate], table: LayerTable, rule: SelectionRule
) -> tuple[list[Candidate], list[Candidate]]:
    """The most important candidates that fit into the budget of every class, and those that did not fit."""
    wholes = {key: table.count(flat(members)) for key, members in _classes(every, table, rule.per).items()}
    budgets = {key: rule.amount(whole if rule.per else table.total) for key, whole in wholes.items()}
    largest = max(budgets.values(), default=0)
    if not rule.per and largest > table.total:
        raise ValueError(f"`count` {largest:,} is more than the network's {table.total:,} parameters.")
    chosen, skipped, short = [], [], []
    for key, members in _classes(pool, table, rule.per).items():
        forced = [candidate for candidate in members if candidate in fixed]
        if table.count(flat(forced)) > budgets[key]:
            raise ValueError(
                f"the included layers hold {table.count(flat(forced)):,} parameters, more than their budget of "
                f"{budgets[key]:,}: include fewer or raise the budget."
            )
        order = forced + [candidate for candidate in members if candidate not in forced]
        packed, left_out = pack(order, table, budgets[key], rule.skips, rule.fill * budgets[key])
        if packed or rule.per:
            packed, left_out, words = _nearest(
                packed, left_out, members=members, budget=budgets[key], table=table, rule=rule
            )
            short += [f"{rule.per} {key!r}: {words}" if rule.per else words] if words else []
        chosen += packed
        skipped += left_out
    if not chosen:
        return _smallest(pool, largest, table, rule), []
    if short:
        more = f" So it is in {len(short) - 1} more of {len(budgets)}." if len(short) > 1 else ""
        warn_user(f"{short[0]}{more}")
    return sorted(chosen, key=pool.index), skipped


def _smallest(pool: list[Candidate], budget: int, table: LayerTable, rule: SelectionRule) -> list[Candidate]:
    """The smallest candidate, in place of a budget that is smaller than all of them; else the first that fits."""
    smallest = min(pool, key=table.count)
    reason = f"a budget of {budget:,} parameters is smaller than the smallest layer {smallest[0]!r}"
    if rule.per:
        reason = f"no layer fits into the budget of its {rule.per}; the smallest is {smallest[0]!r}"
    elif table.count(smallest) <= budget:
        first = next(candidate for candidate in pool if table.count(candidate) <= budget)
        warn_user(
            f"the first layers by score are larger than the budget of {budget:,} parameters, and more than `skips` = "
            f"{rule.skips}; the first that fits is selected, {first[0]!r} with {table.count(first):,} parameters."
        )
        return [first]
    warn_user(f"{reason}, which is selected with its {table.count(smallest):,} parameters.")
    return [smallest]


def _nearest(
    chosen: list[Candidate],
    skipped: list[Candidate],
    *,
    members: list[Candidate],
    budget: int,
    table: LayerTable,
    rule: SelectionRule,
) -> tuple[list[Candidate], list[Candidate], str]:
    """The chosen ones of a class, and one more if they fall short and it comes nearer; with what a user must know."""
    used = table.count(flat(chosen))
    if used >= rule.fill * budget or len(chosen) == len(members):
        is_long = len(skipped) > rule.skips and rule.per is None
        walked = f"{len(skipped)} groups of layers do not fit into what is left, more than `skips` = {rule.skips}"
        return chosen, skipped, f"{walked}, so the walk went on to fill {used:,} of {budget:,} parameters." * is_long
    totals = {other: table.count(flat([*chosen, other])) for other in members if other not in chosen}
    best = min(totals, key=lambda other: abs(totals[other] - budget))
    total, name = totals[best], " = ".join(best)
    filled = (
        f"the ranking fills {used:,} of {budget:,} parameters, {used / budget:.1%}, less than `fill` = {rule.fill:g}: "
        f"no other layer fits into the rest of {budget - used:,}, as the smallest needs {min(totals.values()) - used:,}"
    )
    most = 2 * budget - used if rule.over is None else (1 + rule.over) * budget
    if abs(total - budget) < budget - used and total <= most:
        left_out = [other for other in skipped if other != best]
        words = f"{filled}. With {name!r} it is {total:,}, which is nearer; `over` = 0 leaves it out."
        return [*chosen, best], left_out, words
    beyond = "farther from the budget" if total - budget >= budget - used else f"beyond `over` = {rule.over:g}"
    return chosen, skipped, f"{filled}. With {name!r} it would be {total:,}, {beyond}."


def pack(
    candidates: Iterable[Candidate], table: LayerTable, budget: int, skips: int, least: float = 0
) -> tuple[list[Candidate], list[Candidate]]:
    """Candidates in their order as long as they fit into a number of parameters, and those left out.

    Args:
        candidates: The most important first.
        table: Their sizes.
        budget: Number of parameters.
        skips: Candidates that may be left out. The next one that does not fit ends the walk ...
        least: ... once so many parameters are used.
    """
    chosen: list[Candidate] = []
    skipped: list[Candidate] = []
    held: dict[str, int] = {}
    used = 0
    for candidate in candidates:
        more = {name: size for name, size in table.unlocked(candidate).items() if name not in held}
        cost = sum(more.values())
        if used + cost <= budget:
            chosen.append(candidate)
            held |= more
            used += cost
        elif len(skipped) >= skips and used >= least:
            break
        else:
            skipped.append(candidate)
    return chosen, skipped


@lru_cache(maxsize=4096)
def _inclusion_probability(holders: int, draws: int, number: int) -> float:
    """Probability that one of the candidates that hold a parameter is among ``draws`` out of ``number``."""
    return 1 - math.comb(number - holders, draws) / math.comb(number, draws)


def flat(candidates: Iterable[Candidate]) -> Candidate:
    """The layers of all candidates."""
    return tuple(name for candidate in candidates for name in candidate)


def _some(names: Sequence[str]) -> str:
    """The first names in words, and how many more there are."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return " ".join(names[:LISTED]) + more


def _listed(candidates: Iterable[Candidate]) -> str:
    """Candidates in words."""
    return ", ".join(" = ".join(candidate) for candidate in candidates)


def _warn_if_uneven(selection: Selection) -> None:
    """Warn if a choice by number differs much in parameters from a random one of the same number."""
    ratio = selection.parameters / selection.random_mean
    if not 1 / UNEVEN <= ratio <= UNEVEN:
        warn_user(
            f"{selection}: {ratio:.2g} x the {selection.random_mean:,.0f} that as many at random train on average; "
            "for a comparison at equal parameters select by='parameters'."
        )
