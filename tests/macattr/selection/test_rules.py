"""A rule takes what it says from a ranking, counts what it trains, and says when the count is no fair comparison."""

import itertools
import statistics
import warnings

import numpy as np
import pytest
from torch import nn

from macattr.layers.table import LayerTable
from macattr.selection.rules import SelectionRule, select

SIZES = {"a": 10, "b": 20, "c": 30, "d": 40, "e": 50, "f": 50}
EQUAL = {f"n{number}": 100 for number in range(10)}
RANKING = {"f": 6.0, "e": 5.0, "d": 4.0, "c": 3.0, "b": 2.0, "a": 1.0}


class Owner(nn.Module):
    """Holds a bare parameter of the given size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_parameter("weight", nn.Parameter(nn.Linear(size, 1).weight.detach()))


def table(sizes=SIZES, **options) -> LayerTable:
    return LayerTable.of(nn.ModuleDict({name: Owner(size) for name, size in sizes.items()}), **options)


def quietly(ranking, layers, rule):
    """Without the warning of uneven sizes, where a test is about something else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return select(ranking, layers, rule)


@pytest.mark.parametrize(
    ("fraction", "rounding", "expected"),
    [
        (0.5, "floor", 3),
        (0.45, "floor", 2),
        (0.45, "round", 3),
        (0.4, "round", 2),
        (0.1, "round", 1),
        (1.0, "floor", 6),
    ],
)
def test_a_fraction_of_layers_is_rounded_as_told(fraction, rounding, expected):
    chosen = quietly(RANKING, table(), SelectionRule(fraction, rounding=rounding))
    assert chosen.layers == tuple("fedcba")[:expected]


@pytest.mark.parametrize("third", [7, 10, 30, 92, 263, 445])
def test_a_tenth_of_any_number_is_its_floor(third):
    assert SelectionRule(0.1).amount(third) == third // 10


def test_equal_scores_keep_their_order_in_the_ranking():
    assert quietly({"c": 1.0, "a": 2.0, "b": 1.0, "d": 2.0}, table(), SelectionRule(count=3)).layers == ("a", "d", "c")


def test_a_list_of_names_is_a_ranking():
    assert quietly(["b", "a", "f"], table(), SelectionRule(count=2)).layers == ("b", "a")


def test_a_threshold_takes_all_that_reach_it():
    assert quietly(RANKING, table(), SelectionRule(threshold=4.0)).layers == ("f", "e", "d")


def test_outputs_stand_and_fall_together_and_count_once():
    layers = table(alias_of={name: {"e": "d"}.get(name, name) for name in SIZES})
    by_outputs = quietly(RANKING, layers, SelectionRule(count=2, by="outputs"))
    assert by_outputs.layers == ("f", "e", "d")
    assert "3 of 6 layers (2 distinct outputs), 140 of 200 parameters (70.0%)" in str(by_outputs)
    assert quietly(RANKING, layers, SelectionRule(0.5, by="outputs")).layers == ("f", "e", "d")  # floor(0.5 x 5)


def test_distinct_outputs_must_be_known():
    with pytest.raises(ValueError, match="the layers that share an output are unknown"):
        select(RANKING, table(), SelectionRule(count=2, by="outputs"))


def test_a_budget_is_walked_in_order_and_skips_what_does_not_fit():
    chosen = select(RANKING, table(), SelectionRule(count=100, by="parameters"))
    assert (chosen.layers, chosen.parameters, chosen.skipped) == (("f", "e"), 100, (("d",), ("c",), ("b",)))
    chosen = select(RANKING, table(), SelectionRule(0.4, by="parameters"))  # 80 of 200: e and d do not fit beside f
    assert (chosen.layers, chosen.parameters, chosen.skipped) == (("f", "c"), 80, (("e",), ("d",), ("b",)))


def test_the_fourth_that_does_not_fit_ends_the_walk():
    rule = SelectionRule(count=60, by="parameters", fill=0.8)
    assert select(RANKING, table(), rule).layers == ("f",)  # e, d, c are skipped, b ends it: a would have fit
    assert select(RANKING, table(), SelectionRule(count=60, by="parameters", skips=4)).layers == ("f", "a")


def test_a_selection_at_its_own_budget_is_itself():
    first = quietly(RANKING, table(), SelectionRule(count=3))
    assert select(RANKING, table(), SelectionRule(count=first.parameters, by="parameters")).layers == first.layers


def test_outputs_fit_a_budget_as_a_whole_or_not_at_all():
    layers = table(alias_of={name: {"f": "e"}.get(name, name) for name in SIZES})
    assert select(RANKING, layers, SelectionRule(count=90, by="parameters")).layers == ("d", "c", "b")


def test_the_walk_goes_on_past_its_skips_until_the_budget_is_filled_and_says_so():
    with pytest.warns(
        UserWarning, match=r"4 groups of layers do not fit .* `skips` = 3, so .* went on to fill 60 of 60"
    ):
        chosen = select(RANKING, table(), SelectionRule(count=60, by="parameters"))
    assert chosen.layers == ("f", "a")


@pytest.mark.parametrize(
    ("count", "over", "layers", "reason"),
    [
        (265, None, 3, "With 'n2' it is 300, which is nearer; `over` = 0 leaves it out"),
        (265, 0.1, 2, "With 'n2' it would be 300, beyond `over` = 0.1"),
        (265, 0.2, 3, "which is nearer"),
        (265, 0.0, 2, "beyond `over` = 0"),
        (250, None, 2, "With 'n2' it would be 300, farther from the budget"),
        (50, None, 1, "a budget of 50 parameters is smaller than the smallest layer 'n0', which is selected"),
        (50, 0.0, 1, "smaller than the smallest layer"),
    ],
)
def test_a_budget_between_two_sets_takes_the_nearer_one_within_over(count, over, layers, reason):
    with pytest.warns(UserWarning, match=reason):
        chosen = select(table(EQUAL).names, table(EQUAL), SelectionRule(count=count, by="parameters", over=over))
    assert len(chosen.layers) == layers


def test_of_several_layers_beyond_a_budget_the_nearest_is_taken():
    sizes = {"a": 60, "b": 95, "c": 55, "d": 300}
    with pytest.warns(UserWarning, match="60 of 100 parameters, .*With 'c' it is 115"):
        chosen = select(list(sizes), table(sizes), SelectionRule(count=100, by="parameters"))
    assert (chosen.layers, chosen.parameters, chosen.skipped) == (("a", "c"), 115, (("b",), ("d",)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.25, 0.5, 0.8, 0.97, 1.0])
@pytest.mark.parametrize("skips", [0, 3])
def test_no_budget_fails_on_any_sizes(seed, fraction, skips):
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 12))
    sizes = {
        f"n{number}": int(size) for number, size in enumerate(random.integers(1, 10 ** random.integers(1, 4), count))
    }
    layers, total = table(sizes), sum(sizes.values())
    chosen = quietly(
        random.permutation(layers.names).tolist(), layers, SelectionRule(fraction, by="parameters", skips=skips)
    )
    budget = SelectionRule(fraction).amount(total)
    assert chosen.layers
    nothing_fits = min(sizes.values()) > budget
    if nothing_fits:
        assert chosen.parameters == min(sizes.values())
    else:
        rest = [size for name, size in sizes.items() if name not in chosen.layers]
        missed = budget - chosen.parameters
        is_full = chosen.parameters >= 0.95 * budget
        assert missed <= 0 or is_full or all(abs(missed - size) >= missed for size in rest)  # none comes nearer
        assert missed >= 0 or max(map(sizes.get, chosen.layers)) > -2 * missed  # without one it fell short by more


def test_a_budget_for_everything_is_accepted_however_little_that_is():
    layers = LayerTable.of(nn.ModuleDict({"a": Owner(10), "b": Owner(90)}), ["a"])
    assert select({"a": 1.0}, layers, SelectionRule(1.0, by="parameters")).layers == ("a",)


@pytest.mark.parametrize(
    ("per", "rule", "expected"),
    [
        ("block", {"count": 1}, ["blocks.0.fc", "blocks.1.norm", "last"]),
        ("block", {"fraction": 0.5}, ["blocks.0.fc", "blocks.1.norm"]),
        ("type", {"count": 1}, ["blocks.0.fc", "blocks.1.norm"]),
        ("type", {"count": 2}, ["blocks.0.fc", "blocks.1.norm", "blocks.1.fc", "blocks.0.norm"]),
    ],
    ids=["one a block", "half a block", "one a type", "two a type"],
)
def test_quotas_hold_in_every_class(per, rule, expected):
    blocks = [nn.ModuleDict({"fc": nn.Linear(2, 2), "norm": nn.LayerNorm(2)}) for _ in range(2)]
    layers = LayerTable.of(nn.ModuleDict({"blocks": nn.ModuleList(blocks), "last": nn.Linear(2, 2)}))
    ranking = ["blocks.0.fc", "blocks.1.norm", "blocks.1.fc", "blocks.0.norm", "last"]
    assert list(quietly(ranking, layers, SelectionRule(**rule, per=per)).layers) == expected


def test_quotas_of_parameters_are_shares_of_their_class():
    blocks = [nn.ModuleDict({"fc": nn.Linear(4, 4), "norm": nn.LayerNorm(4)}) for _ in range(4)]
    layers = LayerTable.of(nn.ModuleDict({"blocks": nn.ModuleList(blocks)}))
    chosen = select(layers.names, layers, SelectionRule(0.5, by="parameters", per="type", skips=4))
    assert chosen.layers == ("blocks.0.fc", "blocks.0.norm", "blocks.1.fc", "blocks.1.norm")


def test_included_layers_are_in_and_count_excluded_ones_are_out():
    rule = SelectionRule(0.5, include=("a",), exclude=("[ef]",))
    assert quietly(RANKING, table(), rule).layers == ("d", "c", "a")


def test_included_layers_need_no_rank():
    assert quietly(["f", "e", "d", "c"], table(), SelectionRule(count=2, include=("b",))).layers == ("f", "b")


def test_included_layers_are_paid_from_the_budget():
    chosen = select(RANKING, table(), SelectionRule(count=60, by="parameters", include=("a",)))
    assert chosen.layers == ("f", "a")


def test_whole_modules_count_what_lies_inside_once():
    network = nn.ModuleDict({"attn": Owner(5), "last": Owner(3)})
    network["attn"].proj = Owner(7)
    for whole, parameters in ((False, 8), (True, 15)):
        layers = LayerTable.of(network, whole_modules=whole)
        chosen = quietly(["last", "attn"], layers, SelectionRule(count=2))
        assert chosen.parameters == parameters == chosen.mask().apply(network).trained
    chosen = quietly(["attn", "attn.proj"], LayerTable.of(network, whole_modules=True), SelectionRule(count=2))
    assert chosen.parameters == 12


def test_tied_parameters_count_once():
    network = nn.ModuleDict({"embed": Owner(5), "head": Owner(5), "last": Owner(3)})
    network["head"].weight = network["embed"].weight
    chosen = quietly(["embed", "head"], LayerTable.of(network), SelectionRule(count=2))
    applied = chosen.mask().apply(network)
    assert (chosen.parameters, chosen.table.total) == (5, 8) == (applied.trained, applied.total)


def test_a_budget_pays_for_tied_parameters_once():
    network = nn.ModuleDict({"embed": Owner(50), "head": Owner(50), "last": Owner(10)})
    network["head"].weight = network["embed"].weight
    chosen = select(["embed", "head", "last"], LayerTable.of(network), SelectionRule(count=60, by="parameters"))
    assert (chosen.layers, chosen.parameters) == (("embed", "head", "last"), 60)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("by", ["layers", "outputs"])
@pytest.mark.parametrize("include", [(), ("d",)])
def test_the_mean_of_random_choices_is_that_of_all_of_them(by, include, whole):
    network = nn.ModuleDict({name: Owner(size) for name, size in SIZES.items()})
    network["a"].proj = Owner(7)
    network["b"].weight = network["c"].weight
    names = [*SIZES, "a.proj"]
    layers = LayerTable.of(network, alias_of={n: {"e": "f"}.get(n, n) for n in names}, whole_modules=whole)
    chosen = quietly(names, layers, SelectionRule(count=3, by=by, include=include))
    free = [unit for unit in chosen.pool if unit not in chosen.fixed]
    held = [name for unit in chosen.fixed for name in unit]
    every = [
        layers.count(held + [name for unit in units for name in unit])
        for units in itertools.combinations(free, 3 - len(chosen.fixed))
    ]
    assert chosen.random_mean == pytest.approx(statistics.fmean(every), rel=1e-12)  # both are exact


@pytest.mark.parametrize(
    ("first", "ratio"), [("abc", r"60 of 200 parameters \(30\.0%\): 0\.6 x the 100"), ("fx", r"1\.6 x the 80")]
)
def test_uneven_selections_warn_with_their_ratio(first, ratio):
    layers = table(SIZES | {"x": 80} if "x" in first else SIZES)
    names = [*first, *(name for name in layers.names if name not in first)]
    with pytest.warns(UserWarning, match=ratio):
        select(names, layers, SelectionRule(count=len(first)))


@pytest.mark.parametrize("first", ["fed", "bcd", "cde"])
def test_selections_within_a_factor_of_one_and_a_half_do_not_warn(first):
    names = [*first, *(name for name in SIZES if name not in first)]
    assert len(select(names, table(), SelectionRule(count=3)).layers) == 3  # a warning would be an error here


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give one of `fraction`, `count`, `threshold`; got none"),
        ({"fraction": 0.1, "count": 2}, "got fraction and count"),
        ({"count": 0}, "`count` must be at least 1, got 0"),
        ({"fraction": 0.0}, r"`fraction` must lie in \(0, 1\], got 0\.0"),
        ({"fraction": 10.0}, r"`fraction` must lie in \(0, 1\], got 10\.0"),
        ({"count": 1, "by": "names"}, "`by` must be one of layers, outputs, parameters, got 'names'"),
        ({"count": 1, "per": "stage"}, "`per` must be one of block, type, got 'stage'"),
        ({"count": 1, "by": "parameters", "fill": 95.0}, r"`fill` must lie in \[0, 1\], got 95\.0"),
        ({"count": 1, "by": "parameters", "over": -0.1}, "`over` must be a share of the budget, at least 0, got -0.1"),
        ({"count": 1, "over": 0.1}, "`over` has no effect"),
        ({"threshold": 1.0, "by": "parameters"}, "`by='parameters'` has no effect"),
        ({"threshold": 1.0, "per": "type"}, "`per` has no effect"),
        ({"count": 1, "rounding": "round"}, "`rounding` has no effect"),
        ({"count": 1, "skips": 0}, "`skips` has no effect"),
        ({"fraction": 0.1, "fill": 0.5}, "`fill` has no effect"),
    ],
    ids=lambda value: "_".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
@pytest.mark.usefixtures("as_users_run_it")
def test_rules_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SelectionRule(**options)


@pytest.mark.parametrize(
    ("ranking", "options", "message"),
    [
        (RANKING, {"count": 7}, "`count` 7 is more than the 6 layers: take at most 6"),
        (RANKING, {"count": 201, "by": "parameters"}, "`count` 201 is more than the network's 200 parameters"),
        (RANKING, {"threshold": 7.0}, "at least 7: none is selected; the highest score is 6"),
        (RANKING, {"count": 1, "include": ("a", "b")}, "2 are included, which is more than 1"),
        (
            RANKING,
            {"count": 20, "by": "parameters", "include": ("c",)},
            "included layers hold 30 parameters, more than",
        ),
        (RANKING, {"count": 1, "include": ("a",), "exclude": ("[ab]",)}, "a: both included and excluded"),
        (RANKING, {"count": 1, "exclude": ("*",)}, "no layer is left to choose from"),
        (RANKING, {"count": 1, "include": ("module.a",)}, "no layer 'module.a'; did you mean 'a'"),
        (RANKING, {"count": 1, "exclude": ("z*",)}, r"no layer 'z\*'"),
        (
            RANKING | {"module.a": 1.0},
            {"count": 1},
            "1 of 7 ranked layers are unknown: no layer 'module.a'; did you mean",
        ),
        (RANKING | {"a": float("nan")}, {"count": 1}, "the score of 'a' is nan"),
        (["a", "b", "a"], {"count": 1}, "names 'a' more than once"),
        (["a", "b"], {"threshold": 1.0}, "`threshold` 1.0 needs scores"),
        ([], {"count": 1}, "the ranking is empty"),
    ],
    ids=str,
)
def test_what_cannot_be_selected_is_explained(ranking, options, message):
    with pytest.raises(ValueError, match=message):
        select(ranking, table(), SelectionRule(**options))


@pytest.mark.parametrize("rounding", ["floor", "round"])
@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_a_fraction_selects_at_least_the_first_layer(count, rounding):
    layers = table({f"n{number}": 3 for number in range(count)})
    assert select(layers.names, layers, SelectionRule(0.01, rounding=rounding)).layers == ("n0",)


@pytest.mark.parametrize("per", ["block", "type"])
def test_quotas_of_less_than_a_layer_select_one_in_all(per):
    layers = LayerTable.of(nn.Sequential(nn.Linear(3, 3), nn.Conv2d(3, 4, 1), nn.Linear(3, 3)))
    assert quietly(["1", "0", "2"], layers, SelectionRule(0.1, per=per)).layers == ("1",)


def test_a_fraction_selects_from_distinct_outputs_too():
    layers = table({"a": 3, "b": 3, "c": 3}, alias_of={"a": "a", "b": "b", "c": "b"})
    assert quietly(["c", "a", "b"], layers, SelectionRule(0.1, by="outputs")).layers == ("c", "b")


@pytest.mark.parametrize(("fraction", "number"), [(0.25, 2), (0.15, 1), (0.74, 7)])
def test_a_budget_between_equal_layers_is_filled_as_far_as_they_go(fraction, number):
    layers = table(EQUAL)
    rest = round(1000 * fraction) - 100 * number
    message = rf"no other layer fits into the rest of {rest}, as the smallest needs 100\. With"
    with pytest.warns(UserWarning, match=message):
        chosen = select(layers.names, layers, SelectionRule(fraction, by="parameters", skips=30))
    assert chosen.layers == layers.names[:number]


@pytest.mark.parametrize("skips", [0, 3, 30])
def test_the_reason_for_an_unfilled_budget_does_not_depend_on_skips_that_change_nothing(skips):
    layers = table(EQUAL)
    with pytest.warns(UserWarning, match="no other layer fits"):
        select(layers.names, layers, SelectionRule(count=230, by="parameters", skips=skips))


def test_a_share_below_the_smallest_layer_selects_that_one_and_warns():
    with pytest.warns(UserWarning, match="a budget of 8 parameters is smaller than the smallest layer 'a', .* its 10"):
        chosen = select(RANKING, table(), SelectionRule(0.04, by="parameters"))
    assert chosen.layers == ("a",)


def test_budgets_of_blocks_that_no_layer_fits_into_select_the_smallest():
    layers = LayerTable.of(nn.Sequential(nn.Linear(3, 3), nn.Conv2d(3, 4, 1)))  # 12 and 16 parameters
    with pytest.warns(UserWarning, match="no layer fits into the budget of its type; the smallest is '0'"):
        chosen = select(layers.names, layers, SelectionRule(0.4, by="parameters", per="type"))
    assert chosen.layers == ("0",)


@pytest.mark.parametrize(("fraction", "over", "expected"), [(0.5, 0.0, ["0.0"]), (0.6, None, ["0.0", "1.0"])])
def test_quotas_of_parameters_hold_in_every_class(fraction, over, expected):
    blocks = [nn.ModuleList([Owner(50), Owner(50)]), nn.ModuleList([Owner(120)])]
    layers = LayerTable.of(nn.ModuleDict({"blocks": nn.ModuleList(blocks)}))
    rule = SelectionRule(fraction, by="parameters", per="block", over=over)
    with pytest.warns(UserWarning, match=r"block '.*': the ranking fills .* of [67]\d param"):
        chosen = select(layers.names, layers, rule)
    assert list(chosen.layers) == [f"blocks.{name}" for name in expected]


def test_included_layers_are_not_dropped_for_a_small_share():
    with pytest.raises(ValueError, match="included layers hold 30 parameters, more than their budget of 8"):
        select(RANKING, table(), SelectionRule(0.04, by="parameters", include=("c",)))


def test_scores_per_parameter_order_the_walk():
    rule = SelectionRule(count=60, by="parameters", per_parameter=True, skips=9)
    scores = {"f": 5.0, "e": 4.9, "d": 4.1, "c": 3.3, "b": 2.3, "a": 1.2}  # per parameter the reverse order
    assert select(scores, table(), rule).layers == ("a", "b", "c")


def test_layers_that_are_taken_together_share_the_highest_score():
    layers = table(alias_of={name: {"f": "a"}.get(name, name) for name in SIZES})
    rule = SelectionRule(count=2, by="outputs", per_parameter=True)
    scores = {"f": 12.0, "a": 1.0, "b": 3.0, "c": 9.0, "d": 1.0, "e": 1.0}  # f = a: 12 / 60; c: 9 / 30; b: 3 / 20
    assert quietly(scores, layers, rule).layers == ("c", "f", "a")


def test_included_layers_without_a_score_may_be_ranked_per_parameter():
    rule = SelectionRule(count=50, by="parameters", per_parameter=True, include=("a",), fill=0.0)
    assert set(select({"f": 6.0, "b": 5.0}, table(), rule).layers) == {"a", "b"}


def test_names_alone_have_no_score_per_parameter():
    with pytest.raises(ValueError, match="`per_parameter` needs scores"):
        select(["a", "b"], table(), SelectionRule(count=1, per_parameter=True))


def test_a_threshold_has_no_walk():
    with pytest.raises(ValueError, match="`per_parameter` has no effect"):
        SelectionRule(threshold=1.0, per_parameter=True)


def test_a_rule_names_a_few_of_the_layers_that_are_always_in():
    words = str(SelectionRule(0.5, include=tuple("abcdefg")))
    assert words == "top 50 % of the layers, with a b c d e and 2 more"


def test_included_layers_count_towards_the_number_of_their_block():
    block = lambda: nn.ModuleDict({name: nn.Linear(2, 2) for name in "xyz"})  # noqa: E731
    table = LayerTable.of(nn.ModuleDict({"b": nn.ModuleList([block(), block()])}))
    scores = {name: -float(place) for place, name in enumerate(table.names)}
    with pytest.raises(ValueError, match=r"2 of block .* are included, which is more than its 1"):
        select(scores, table, SelectionRule(count=1, per="block", include=("b.0.x", "b.0.y")))


def test_a_budget_that_a_later_layer_fits_takes_the_first_that_does():
    table = LayerTable.of(nn.Sequential(nn.Linear(9, 10), nn.Linear(9, 1), nn.Linear(4, 1)))
    with pytest.warns(UserWarning, match=r"larger than the budget of 20 .* '1' with 10 parameters"):
        chosen = select(
            {"0": 3.0, "1": 2.0, "2": 1.0}, table, SelectionRule(count=20, by="parameters", fill=0.0, skips=0)
        )
    assert chosen.layers == ("1",)
