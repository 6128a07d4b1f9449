"""From a ranking to a selection: how many layers, counted how, and what they would train."""

__all__ = ["Selection", "SelectionRule", "select"]

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from macattr.layers import LayerTable, unknown_layer
from macattr.selection.trainable import TrainableMask
from macattr.user_warnings import warn_user

Unit = tuple[str, ...]
"""Layers that are chosen together: one name, or all that return the same tensor."""

By = Literal["layers", "outputs", "parameters"]
Per = Literal["block", "type"]
Rounding = Literal["floor", "round"]

UNEVEN = 1.5
"""Factor between a selection's parameters and a random one's from which on they are no fair comparison."""


@dataclass(frozen=True)
class SelectionRule:
    r"""How many layers are selected, counted how, and which are never asked.

    Exactly one of ``fraction``, ``count`` and ``threshold`` says how many.

    Args:
        fraction: Share in (0, 1] of all ranked layers, of their distinct outputs, or of the network's parameters.
        count: Number of them.
        threshold: Every layer that scores at least this much.
        by: ``layers`` counts names, as the paper does; ``outputs`` counts distinct output tensors, whose layers stand
            and fall together; ``parameters`` fills a budget with such groups: walk the ranking, leave out at most
            ``skips`` groups that do not fit, and accept the result if it fills the share ``fill`` of the budget.
        per: Apply ``fraction`` or ``count`` within every ``block`` (the layers outside of any are one) or ``type``.
        include: Names and globs that are always in; they count towards the number or budget.
        exclude: Names and globs that are never in; they still count in the whole that ``fraction`` is a share of.
        rounding: Of ``fraction`` times layers: ``floor``, the paper's :math:`\lfloor kL \rfloor`, or ``round``.
        skips: Groups that may be left out because they do not fit.
        fill: Least share of the budget that must be used.

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

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        given = [name for name in ("fraction", "count", "threshold") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of `fraction`, `count`, `threshold`; got {' and '.join(given) or 'none'}.")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise ValueError(f"`fraction` must lie in (0, 1], got {self.fraction}.")
        if self.count is not None and self.count < 1:
            raise ValueError(f"`count` must be at least 1, got {self.count}: a selection of nothing trains nothing.")
        for name, value, choices in (
            ("by", self.by, By),
            ("rounding", self.rounding, Rounding),
            ("per", self.per, Per),
        ):
            if value not in (allowed := get_args(choices)) and (name, value) != ("per", None):
                raise ValueError(f"`{name}` must be one of {', '.join(allowed)}, got {value!r}.")
        if self.skips < 0 or not 0 <= self.fill <= 1:
            raise ValueError(f"`skips` must be at least 0 and `fill` lie in [0, 1], got {self.skips} and {self.fill}.")
        self._refuse_idle()

    def _refuse_idle(self) -> None:
        """Raise for options without effect."""
        idle = {
            "by='parameters'": self.by == "parameters" and self.threshold is not None,
            "per": self.per is not None and self.threshold is not None,
            "rounding": self.rounding != "floor" and (self.fraction is None or self.by == "parameters"),
            "skips": self.skips != 3 and self.by != "parameters",
            "fill": self.fill != 0.95 and self.by != "parameters",
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
        words += f", with {' '.join(self.include)}" if self.include else ""
        return words + (f", without {' '.join(self.exclude)}" if self.exclude else "")

    def amount(self, whole: int) -> int:
        """How many of ``whole`` units or parameters."""
        if self.count is not None:
            return self.count
        exact = (self.fraction or 0.0) * whole
        return math.floor(exact + (0.5 if self.rounding == "round" else 1e-9))


@dataclass(frozen=True)
class Selection:
    """Layers that are to be trained, and what they were chosen from.

    Args:
        layers: Their names, most important first.
        how: The rule in words.
        table: All layers, and what each unlocks.
        pool: Units that could have been chosen, most important first.
        fixed: Those that had to be.
        skipped: Units that did not fit into the budget.
        scores: Score of every ranked layer, most important first; empty if the ranking had none.
        provenance: How the ranking was made.
    """

    layers: tuple[str, ...]
    how: str
    table: LayerTable
    pool: tuple[Unit, ...]
    fixed: tuple[Unit, ...] = ()
    skipped: tuple[Unit, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, str | int | float] = field(default_factory=dict)

    @property
    def units(self) -> tuple[Unit, ...]:
        """The chosen units."""
        chosen = set(self.layers)
        return tuple(unit for unit in self.pool if chosen.issuperset(unit))

    @property
    def parameters(self) -> int:
        """Number of parameters that are trained."""
        return self.table.count(self.layers)

    @property
    def random_mean(self) -> float:
        """Mean number of parameters that a random choice of as many units trains; exact, nothing is drawn."""
        draws = len(self.units) - len(self.fixed)
        free = [unit for unit in self.pool if unit not in self.fixed]
        sizes = {parameter: size for unit in self.pool for name in unit for parameter, size in self._unlocks(name)}
        held = {parameter for unit in self.fixed for name in unit for parameter, _ in self._unlocks(name)}
        holders = Counter(
            parameter for unit in free for parameter in {p for name in unit for p, _ in self._unlocks(name)}
        )
        missed = {
            holding: math.comb(len(free) - holding, draws) / math.comb(len(free), draws)
            for holding in set(holders.values())
        }
        return sum(size * (p in held or 1 - missed[holders[p]]) for p, size in sizes.items())

    def _unlocks(self, name: str) -> Iterable[tuple[str, int]]:
        """Parameters of one layer with their sizes."""
        return self.table.unlocks[name].items()

    def mask(self) -> TrainableMask:
        """The same for a network."""
        return TrainableMask(self.layers, self.table.whole_modules)

    def __str__(self) -> str:
        """Rule, counts and share."""
        aliases = self.table.alias_of
        outputs = len({aliases.get(name, name) for name in self.layers}) if aliases else len(self.layers)
        distinct = f" ({outputs} distinct outputs)" if outputs < len(self.layers) else ""
        skipped = f"; too large for the rest of the budget: {_listed(self.skipped)}" if self.skipped else ""
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
        table: The layers of the network; it may hold more than are ranked.
        rule: How many are taken, and how they are counted.
        provenance: How the ranking was made; kept with the selection.

    Returns:
        The selection; printing it says how many layers and parameters it trains.

    Warns:
        UserWarning: If a selection by number trains 1.5 times more or fewer parameters than the mean random one.

    Raises:
        ValueError: If a name is unknown, nothing would be selected, or a budget cannot be met.

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
    if rule.threshold is not None and not scores:
        raise ValueError(f"`threshold` {rule.threshold} needs scores, but the ranking is a list of names.")
    names += [name for name in table.names if name in included and name not in names]
    every = _units([name for name in names if table.unlocks[name]], table, rule.by)
    pool = _units([name for unit in every for name in unit if name not in excluded], table, rule.by)
    if not pool:
        raise ValueError("no layer is left to choose from: all are excluded, or hold no parameter.")
    fixed = [unit for unit in pool if included.intersection(unit)]
    skipped: list[Unit] = []
    if rule.threshold is not None:
        chosen = [unit for unit in pool if unit in fixed or max(scores[name] for name in unit) >= rule.threshold]
    elif rule.by == "parameters":
        chosen, skipped = _within_budget(every, pool, fixed, table, rule)
    else:
        chosen = _within_number(every, pool, fixed, table, rule)
    if not chosen:
        raise ValueError(f"{rule}: none is selected; the highest score is {max(scores.values(), default=math.nan):g}.")
    layers = flat(chosen)
    selection = Selection(
        layers, str(rule), table, tuple(pool), tuple(fixed), tuple(skipped), scores, dict(provenance or {})
    )
    if rule.by != "parameters":
        _warn_if_uneven(selection)
    return selection


def _ranked(ranking: Mapping[str, float] | Sequence[str], table: LayerTable) -> tuple[dict[str, float], list[str]]:
    """Scores, if there are any, and names, both most important first."""
    names = list(ranking)
    if not names:
        raise ValueError("the ranking is empty.")
    known = table.names
    if unknown := [name for name in names if name not in known]:
        raise ValueError(
            f"{len(unknown)} of {len(names)} ranked layers are unknown: {unknown_layer(unknown[0], known)}"
        )
    if not isinstance(ranking, Mapping):
        if len(set(names)) < len(names):
            raise ValueError(f"the ranking names {Counter(names).most_common(1)[0][0]!r} more than once.")
        return {}, names
    if bad := [name for name in names if not math.isfinite(ranking[name])]:
        raise ValueError(f"the score of {bad[0]!r} is {ranking[bad[0]]}: a ranking needs finite scores.")
    names.sort(key=lambda name: -ranking[name])
    return {name: float(ranking[name]) for name in names}, names


def _units(names: Iterable[str], table: LayerTable, by: By) -> list[Unit]:
    """Names one by one, or grouped by the tensor they return, in the order of each group's first."""
    if by == "layers":
        return [(name,) for name in names]
    if by == "outputs" and table.alias_of is None:
        raise ValueError(
            "which layers share an output is not known: by='outputs' needs a ranking that macattr measured."
        )
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault((table.alias_of or {}).get(name, name), []).append(name)
    return [tuple(group) for group in groups.values()]


def _classes(units: Iterable[Unit], table: LayerTable, per: Per | None) -> dict[str, list[Unit]]:
    """Units by block or type; all together if there are no quotas."""
    key = {layer.name: {None: "", "block": layer.block, "type": layer.type}[per] for layer in table.layers}
    classes: dict[str, list[Unit]] = {}
    for unit in units:
        classes.setdefault(key[unit[0]], []).append(unit)
    return classes


def _within_number(
    every: list[Unit], pool: list[Unit], fixed: list[Unit], table: LayerTable, rule: SelectionRule
) -> list[Unit]:
    """The most important units, as many as the rule says of every class."""
    wholes = {key: len(units) for key, units in _classes(every, table, rule.per).items()}
    amounts = {key: rule.amount(whole) for key, whole in wholes.items()}
    most = max(wholes.values())
    where = f"{rule.by} of one {rule.per}" if rule.per else rule.by
    if not any(amounts.values()):
        least = math.ceil((500 if rule.rounding == "round" else 1000) / most) / 1000
        raise ValueError(f"`fraction` {rule.fraction} of {most} {where} selects none: take at least {least:.3f}.")
    if rule.count is not None and rule.count > most:
        raise ValueError(f"`count` {rule.count} is more than the {most} {where}: take at most {most}.")
    if len(fixed) > sum(amounts.values()):
        raise ValueError(f"{rule}: {len(fixed)} are included, which is more than {sum(amounts.values())} in all.")
    chosen = []
    for key, units in _classes(pool, table, rule.per).items():
        forced = [unit for unit in units if unit in fixed]
        chosen += forced + [unit for unit in units if unit not in forced][: max(0, amounts[key] - len(forced))]
    return sorted(chosen, key=pool.index)


def _within_budget(
    every: list[Unit], pool: list[Unit], fixed: list[Unit], table: LayerTable, rule: SelectionRule
) -> tuple[list[Unit], list[Unit]]:
    """The most important units that fit into the budget of every class, and those that did not fit."""
    wholes = {key: table.count(flat(units)) for key, units in _classes(every, table, rule.per).items()}
    budgets = {key: rule.amount(whole if rule.per else table.total) for key, whole in wholes.items()}
    smallest = min(pool, key=table.count, default=())
    if table.count(smallest) > (largest := max(budgets.values(), default=0)):
        raise ValueError(
            f"a budget of {largest:,} parameters is smaller than the smallest layer {smallest[0]!r}: "
            f"take at least {table.count(smallest):,}."
        )
    if not rule.per and largest > table.total:
        raise ValueError(f"`count` {largest:,} is more than the network's {table.total:,} parameters.")
    chosen, skipped = [], []
    for key, units in _classes(pool, table, rule.per).items():
        forced = [unit for unit in units if unit in fixed]
        if table.count(flat(forced)) > budgets[key]:
            raise ValueError(
                f"the included layers hold {table.count(flat(forced)):,} parameters, more than their budget of "
                f"{budgets[key]:,}: include fewer or raise the budget."
            )
        packed = pack(forced + [unit for unit in units if unit not in forced], table, budgets[key], rule.skips)
        chosen += packed[0]
        skipped += packed[1]
    used, budget = table.count(flat(chosen)), sum(budgets.values())
    if used < rule.fill * budget and len(chosen) < len(pool):
        raise ValueError(
            f"the ranking fills {used:,} of {budget:,} parameters, {used / budget:.1%}, before more than `skips` = "
            f"{rule.skips} do not fit ({_listed(skipped)}): change budget or `skips`, or lower `fill` = {rule.fill:g}."
        )
    return sorted(chosen, key=pool.index), skipped


def pack(units: Iterable[Unit], table: LayerTable, budget: int, skips: int) -> tuple[list[Unit], list[Unit]]:
    """Units in their order as long as they fit into a number of parameters, and the at most ``skips`` left out."""
    chosen: list[Unit] = []
    skipped: list[Unit] = []
    held: dict[str, int] = {}
    used = 0
    for unit in units:
        more = {name: size for layer in unit for name, size in table.unlocks[layer].items() if name not in held}
        cost = sum(more.values())
        if used + cost <= budget:
            chosen.append(unit)
            held |= more
            used += cost
        elif len(skipped) == skips:
            break
        else:
            skipped.append(unit)
    return chosen, skipped


def flat(units: Iterable[Unit]) -> Unit:
    """The layers of all units."""
    return tuple(name for unit in units for name in unit)


def _listed(units: Iterable[Unit]) -> str:
    """Units in words."""
    return ", ".join(" = ".join(unit) for unit in units)


def _warn_if_uneven(selection: Selection) -> None:
    """Warn if a choice by number differs much in parameters from a random one of the same number."""
    ratio = selection.parameters / selection.random_mean
    if not 1 / UNEVEN <= ratio <= UNEVEN:
        warn_user(
            f"{selection}: {ratio:.2g} x the {selection.random_mean:,.0f} that as many at random train on average; "
            "for a comparison at equal parameters select by='parameters'."
        )
