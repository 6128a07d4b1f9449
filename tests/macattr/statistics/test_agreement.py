"""Agreement of rankings: closed forms, definitions by counting, coverage of the intervals, and what is refused."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from macattr.statistics.agreement import (
    class_dependence,
    common_layers,
    kendall,
    measure_agreement,
    overlap_at,
    overlap_curve,
    rank_biased_overlap,
    rank_biased_weight,
    size_dependence,
    spearman,
    weighted_tau,
)

UP, DOWN = np.array([1.0, 2.0, 3.0, 4.0]), np.array([4.0, 3.0, 2.0, 1.0])


@pytest.mark.parametrize("correlation", [spearman, kendall, weighted_tau])
def test_correlations_are_1_for_equal_and_minus_1_for_reversed_rankings(correlation):
    assert correlation(UP, np.exp(UP)) == pytest.approx(1)
    assert correlation(UP, DOWN) == pytest.approx(-1)
    assert math.isnan(correlation(UP, np.ones(4)))


def test_spearman_without_ties_is_the_textbook_formula(generator):
    a, b = generator.permutation(9.0 + np.arange(20)), generator.permutation(np.arange(20.0))
    d = np.argsort(np.argsort(a)) - np.argsort(np.argsort(b))
    assert spearman(a, b) == pytest.approx(1 - 6 * (d**2).sum() / (20 * (20**2 - 1)))


def test_kendall_counts_pairs_and_leaves_ties_out(generator):
    a, b = generator.integers(0, 5, 15).astype(float), generator.integers(0, 5, 15).astype(float)
    signs = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i, j in combinations(range(15), 2)]
    x, y = np.array(signs).T
    assert kendall(a, b) == pytest.approx((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum()))


@given(arrays(float, st.tuples(st.just(2), st.integers(2, 12)), elements=st.integers(0, 5)))
def test_taus_are_those_of_scipy_whatever_ties(scores):
    want = [math.nan if np.ptp(scores, axis=1).min() == 0 else tau(*scores) for tau in (scipy_kendall, scipy_weighted)]
    np.testing.assert_allclose([kendall(*scores), weighted_tau(*scores)], want, rtol=0, atol=1e-12)


def scipy_kendall(a, b):
    return stats.kendalltau(a, b, variant="b").statistic


def scipy_weighted(a, b):
    return stats.weightedtau(a, b, rank=True).statistic


def test_weighted_tau_minds_the_top_more_than_the_bottom():
    scores = np.arange(10.0, 0, -1)
    top, bottom = scores.copy(), scores.copy()
    top[[0, 1]], bottom[[8, 9]] = top[[1, 0]], bottom[[9, 8]]
    assert kendall(scores, top) == pytest.approx(kendall(scores, bottom))
    assert weighted_tau(scores, top) < weighted_tau(scores, bottom)


@pytest.mark.parametrize("p", [0.5, 0.9])
def test_rank_biased_overlap_of_three_reversed_layers(p):
    # Agreement 0 at depth 1, 1/2 at 2, 1 at 3 and beyond.
    expected = (1 - p) / p * (p**2 / 2 + p**3) + p**3
    assert rank_biased_overlap(UP[:3], UP[2::-1], p) == pytest.approx(expected)


@pytest.mark.parametrize("p", [0.5, 0.9, 0.98])
def test_rank_biased_overlap_of_equal_rankings_is_1_and_of_disjoint_tops_0(p):
    assert rank_biased_overlap(UP, UP**3, p) == pytest.approx(1)
    assert rank_biased_overlap(UP, UP, p, depth=2) == pytest.approx(1)
    assert rank_biased_overlap(UP, DOWN, p, depth=2) == 0


def test_rank_biased_overlap_is_the_mean_agreement_over_geometric_depths(generator):
    # Its meaning: a reader goes on with probability p after every rank and sees the agreement where he stops.
    a, b, p = generator.normal(size=30), generator.normal(size=30), 0.8
    order = [np.argsort(-scores) for scores in (a, b)]
    agreement = [len(set(order[0][:d]) & set(order[1][:d])) / d for d in range(1, 31)]
    weights = (1 - p) * p ** np.arange(30)
    assert rank_biased_overlap(a, b, p) == pytest.approx(weights @ agreement + p**30)


def test_tied_layers_stand_at_the_best_of_their_ranks():
    # All four tied against 1..4: agreement at depth d is 2 d / (4 + d).
    p, d = 0.9, np.arange(1, 5)
    expected = (1 - p) / p * (2 * d / (4 + d) * p**d).sum() + p**4
    assert rank_biased_overlap(np.ones(4), UP, p) == pytest.approx(expected)


def test_the_weight_of_the_first_ranks_sums_the_weights_of_depths():
    # An item at rank r counts at every depth d >= r with (1 - p) p^(d-1) / d.
    p, depth = 0.9, 7
    d = np.arange(1, 2000)
    each = (1 - p) * p ** (d - 1) / d
    assert rank_biased_weight(p, depth) == pytest.approx(sum(each[r - 1 :].sum() for r in range(1, depth + 1)))
    assert rank_biased_weight(p, 1) == pytest.approx((1 - p) / p * math.log(1 / (1 - p)))


@given(arrays(float, 12, elements=st.integers(0, 6)), arrays(float, 12, elements=st.integers(0, 6)), st.integers(1, 12))
def test_every_measure_is_symmetric_and_knows_only_the_order(a, b, k):
    for measure in (spearman, kendall, weighted_tau, rank_biased_overlap):
        value = measure(a, b)
        assert value == pytest.approx(measure(b, a), nan_ok=True)
        assert value == pytest.approx(measure(np.exp(a), 3 * b - 5), nan_ok=True)
    assert overlap_at(a, b, k) == overlap_at(b, a, k) == pytest.approx(overlap_at(np.exp(a), 3 * b - 5, k))


def test_overlap_and_jaccard_count_shared_layers():
    a, b = np.array([9.0, 8, 7, 1, 1]), np.array([9.0, 1, 8, 7, 0])
    assert overlap_at(a, b, 3) == pytest.approx(2 / 3)
    assert measure_agreement(a, b, 3)["value"].tolist()[-2:] == pytest.approx([2 / 3, 2 / 4])
    assert measure_agreement(a, b, 5)["value"].tolist()[-2:] == [1, 1]


def test_the_overlap_curve_holds_the_overlap_at_every_k_and_random_rankings_inside_its_range(generator):
    a = generator.normal(size=40)
    curve = overlap_curve(a, generator.normal(size=40))
    random = np.array([overlap_curve(a, generator.normal(size=40))["overlap"] for _ in range(200)])
    inside = ((curve["random_low"].to_numpy() <= random) & (random <= curve["random_high"].to_numpy())).mean(axis=0)
    assert inside.min() > 0.9  # at least 95 %, standard error 1.5 %
    # Largest standard deviation 0.16 (k = 1), of a mean of 200: 0.011.
    np.testing.assert_allclose(random.mean(axis=0), curve["expected"], atol=0.04)
    b = a + generator.normal(size=40)
    assert overlap_curve(a, b)["overlap"].tolist() == [pytest.approx(overlap_at(a, b, k)) for k in range(1, 41)]


def draw(log_scores: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Scores (images, 1, layers)."""
    return np.exp(log_scores + noise)[:, None]


def test_the_value_is_that_of_the_means_and_chance_that_of_random_rankings(generator):
    a, b = draw(np.zeros(30), generator.normal(size=(6, 30))), generator.normal(size=30)
    table = measure_agreement(a, b, 5, generator=generator, n_resamples=100).set_index("measure")
    assert table.loc["spearman", "value"] == pytest.approx(spearman(a.mean(axis=(0, 1)), b))
    random = [measure_agreement(b, generator.normal(size=30), 5)["value"] for _ in range(200)]
    # Standard error of the widest, the correlations: 0.2 / sqrt(200) = 0.014.
    np.testing.assert_allclose(np.mean(random, axis=0), table["chance"], atol=0.045)


def test_intervals_hold_the_agreement_of_the_true_rankings(generator):
    # Two related rankings, each of its own 12 images, noisy enough to agree less than the truth.
    truth = generator.normal(size=40)
    other = truth + 0.3 * generator.normal(size=40)
    expected, hits = spearman(truth, other), 0
    for _ in range(40):
        a, b = (draw(scores, 0.3 * generator.normal(size=(12, 40))) for scores in (truth, other))
        row = measure_agreement(a, b, 4, generator=generator, n_resamples=50).iloc[0]
        hits += row["low"] <= expected <= row["high"]
    # About 90 % with 12 images (the percentile interval alone: 60 %); 3 standard errors of 40 draws are 14 %.
    assert hits >= 30


def test_resampling_pairs_of_the_same_images_keeps_what_they_share(generator):
    # Twice the same noise: paired resamples always agree, unpaired ones do not.
    a = draw(-0.05 * np.arange(20), 0.3 * generator.normal(size=(10, 20)))
    paired, apart = (
        measure_agreement(a, 2 * a, 4, generator=generator, n_resamples=50, paired=flag).set_index("measure")
        for flag in (True, False)
    )
    np.testing.assert_allclose(paired[["low", "high"]], 1)
    assert apart.loc["spearman", "low"] < 0.99


def test_without_images_there_are_no_intervals(generator):
    table = measure_agreement(UP, DOWN, 2, generator=generator)
    assert table[["low", "high"]].isna().all(axis=None)


def test_layers_that_only_one_ranking_has_are_named():
    names = {"ours": ["a", "b", "c"], "theirs": ["b", "c", "d", "e", "f", "g"]}
    with pytest.raises(
        ValueError, match="2 are common: ours has a; theirs has d, e, f and 1 more; rank the same layers"
    ):
        common_layers(names)
    assert common_layers(names, only_common=True) == ["b", "c"]
    with pytest.raises(ValueError, match="ours, theirs have no layer in common"):
        common_layers({"ours": ["a"], "theirs": ["b"]}, only_common=True)


def test_a_score_in_proportion_to_a_power_of_size_has_that_slope(generator):
    size = generator.uniform(1, 100, 50)
    scores = size**0.7
    table = size_dependence(scores, {"parameters": size, "units": np.ones(50)}).set_index("size")
    assert table.loc["parameters", ["spearman", "slope"]].tolist() == pytest.approx([1, 0.7])
    assert table.loc["units"].drop("layers").isna().all()


def test_size_intervals_cover_95_percent(generator):
    # Bivariate normal logarithms with correlation 0.6: slope 0.6, Spearman 6/pi asin(0.3).
    hits = np.zeros(2)
    for _ in range(300):
        x = generator.normal(size=60)
        y = 0.6 * x + 0.8 * generator.normal(size=60)
        row = size_dependence(np.exp(y), {"parameters": np.exp(x)}).iloc[0]
        hits += [
            row["spearman_low"] <= 6 / math.pi * math.asin(0.3) <= row["spearman_high"],
            row["slope_low"] <= 0.6 <= row["slope_high"],
        ]
    np.testing.assert_allclose(hits / 300, 0.95, atol=0.038)  # 3 standard errors


def test_layers_without_score_or_size_are_left_out_of_the_slope():
    size, scores = np.arange(8.0), np.arange(8.0) ** 2
    scores[7] = -1
    row = size_dependence(scores, {"parameters": size}).iloc[0]
    assert row["layers"] == 6
    assert row["slope"] == pytest.approx(2)


def test_classes_explain_all_of_what_they_decide_and_nothing_where_scores_are_equal():
    roles = ["fc", "norm", "fc", "norm", "proj", "proj"]
    decided = np.array([8.0, 2.0, 8.0, 2.0, 4.0, 4.0])
    table = class_dependence(decided, {"role": roles, "all alike": [0] * 6, "pairs": [(0, i // 2) for i in range(6)]})
    assert table["groups"].tolist() == [3, 1, 3]
    # Logarithms 3, 1, 3, 1, 2, 2 about 2: the pairs' means are all 2.
    np.testing.assert_allclose(table["share"], [1, 0, 0], atol=1e-12)
    assert class_dependence(np.ones(6), {"role": roles})["share"].isna().all()


def test_the_share_of_classes_is_that_of_logarithms_unless_told_otherwise():
    scores, roles = np.array([1.0, math.e, math.e**2, math.e**5]), [0, 0, 1, 1]
    # Squares about the class means (1/2, 7/2) sum to 5, about the mean 2 to 14.
    assert class_dependence(scores, {"role": roles})["share"].item() == pytest.approx(9 / 14)
    plain = class_dependence(np.log(scores), {"role": roles}, logarithmic=False)
    assert plain["share"].item() == pytest.approx(9 / 14)


def test_chance_is_what_classes_explain_of_shuffled_scores(generator):
    scores, roles = generator.lognormal(size=12), [i % 4 for i in range(12)]
    shares = [class_dependence(generator.permutation(scores), {"role": roles}) for _ in range(2000)]
    mean = np.mean([table["share"].item() for table in shares])
    assert mean == pytest.approx(shares[0]["chance"].item(), abs=0.012)  # 3 standard errors: the sd is 0.17


SCORES = np.arange(24.0).reshape(4, 1, 6) + 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: measure_agreement(UP, UP, 0), r"`k` must lie in 1 ... 4 .*got 0"),
        (lambda g: measure_agreement(UP, UP[:3], 2), "rankings of 4 and 3 layers cannot be compared"),
        (lambda g: measure_agreement(UP, UP * np.nan, 2), "`b` must be finite"),
        (
            lambda g: measure_agreement(SCORES[0], UP, 2),
            r"`a` must be .layers. or .images, orders, layers., got .1, 6.",
        ),
        (lambda g: measure_agreement(UP, UP, 2, p=1.0), "`p` must lie in .0, 1., got 1.0"),
        (
            lambda g: measure_agreement(SCORES, SCORES[:2], 2, generator=g, paired=True),
            "`paired` needs the same",
        ),
        (lambda g: measure_agreement(SCORES, SCORES, 2, generator=g, confidence=95), "`confidence` must lie in"),
        (lambda g: rank_biased_overlap(UP, UP, depth=5), r"`k` must lie in 1 ... 4"),
        (lambda g: rank_biased_weight(0.9, 0), "`depth` must be at least 1, got 0"),
        (lambda g: overlap_at(UP, UP, 5), "got 5"),
        (lambda g: size_dependence(UP, {}, confidence=1.0), "`confidence` must lie in"),
        (lambda g: class_dependence(UP, {"role": ["fc"]}), "'role' classes 1 layers, the scores are of 4"),
        (lambda g: class_dependence(UP - 1, {}), "the log of scores needs them positive"),
        (lambda g: class_dependence(UP[:1], {}), "at least 2 layers, got 1"),
    ],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_wrong_input_is_refused_in_one_line(call, message, generator):
    with pytest.raises(ValueError, match=message):
        call(generator)
