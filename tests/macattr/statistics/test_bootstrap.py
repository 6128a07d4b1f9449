"""Uncertainty of rankings: coverage on models with known truth, closed forms, and what is refused."""

import numpy as np
import pytest
from scipy import stats

from macattr.statistics.bootstrap import (
    bootstrap,
    probability_in_top,
    resample_means,
    stability_curve,
    top_probabilities,
)
from macattr.statistics.images import summarise_images
from macattr.statistics.ranks import ranks, top_count
from macattr.statistics.variance import variance_components

# Of the bundled network on real photographs (log scale): an image scales all layers, layers differ by image and order.
IMAGE, INTERACTION, ORDER = 0.4, 0.2, 0.1


def draw(log_scores: np.ndarray, images: int, orders: int, generator: np.random.Generator) -> np.ndarray:
    """Scores of a log-normal model: layer effects x image x (image x layer) x (order x layer)."""
    layers = len(log_scores)
    noise = (
        IMAGE * generator.normal(size=(images, 1, 1))
        + INTERACTION * generator.normal(size=(images, 1, layers))
        + ORDER * generator.normal(size=(images, orders, layers))
    )
    return np.exp(log_scores + noise)


def true_scores(log_scores: np.ndarray) -> np.ndarray:
    """Expectations of the model's scores."""
    return np.exp(log_scores + (IMAGE**2 + INTERACTION**2 + ORDER**2) / 2)


def coverage(images: int, method: str, generator: np.random.Generator) -> float:
    """Share of 1000 independent draws whose 95 % interval holds the true score; 100 draws a call, one a layer."""
    truth = true_scores(np.zeros(100))
    hits = 0
    for _ in range(10):
        per_image = np.hypot(IMAGE, INTERACTION) * generator.normal(size=(images, 1, 100))
        scores = np.exp(per_image + ORDER * generator.normal(size=(images, 2, 100)))
        table = bootstrap(scores, generator, n_resamples=800, method=method)
        hits += int(((table["score_low"] <= truth) & (truth <= table["score_high"])).sum())
    return hits / 1000


@pytest.mark.parametrize("images", [8, 16, 32])
def test_95_percent_intervals_cover_93_to_97_percent_of_1000_draws(images, generator):
    # Standard error over 1000 draws: 0.7 %.
    assert 0.93 <= coverage(images, "studentized", generator) <= 0.97


def test_percentile_intervals_are_too_short_with_8_images(generator):
    # Why they are not the default: they cover 85 %; 3 standard errors of 1000 draws are 3 %.
    assert coverage(8, "percentile", generator) < 0.91


def test_t_intervals_are_students_of_the_log_mean(generator):
    scores = draw(np.zeros(3), 6, 1, generator)
    values = scores[:, 0]
    mean, error = values.mean(axis=0), stats.sem(values, axis=0)
    table = bootstrap(scores, generator, method="t")
    half = stats.t.ppf(0.975, 5) * error / mean
    np.testing.assert_allclose(table["score_low"], mean * np.exp(-half))
    np.testing.assert_allclose(table["score_high"], mean * np.exp(half))


def test_scores_below_zero_are_treated_as_they_are(generator):
    scores = generator.normal(size=(6, 1, 3))
    values = scores[:, 0]
    table = bootstrap(scores, generator, method="t")
    half = stats.t.ppf(0.975, 5) * stats.sem(values, axis=0)
    np.testing.assert_allclose(table["score_high"] - table["score"], half)


def test_a_common_factor_changes_intervals_by_that_factor_alone(generator):
    scores = draw(np.array([0.0, -1.0, -2.0]), 8, 2, generator)
    one, other = (bootstrap(c * scores, np.random.default_rng(3)) for c in (1.0, 1e-6))
    np.testing.assert_allclose(other[["score_low", "score_high"]], 1e-6 * one[["score_low", "score_high"]])
    assert one[["rank_low", "rank_high"]].equals(other[["rank_low", "rank_high"]])


def test_rank_intervals_cover_where_layers_nearly_tie(generator):
    log_scores = -0.01 * np.arange(30)
    truth = ranks(log_scores)
    hits = np.zeros(30)
    for _ in range(100):
        table = bootstrap(draw(log_scores, 8, 1, generator), generator, n_resamples=300)
        hits += (table["rank_low"] <= truth) & (truth <= table["rank_high"])
    # Every layer's: 95 - 2.5 standard errors of 100 draws. Percentiles of resampled ranks cover the ends 60 times.
    assert hits.min() >= 89


def test_ranks_of_separated_layers_are_certain(generator):
    table = bootstrap(draw(-3.0 * np.arange(5), 12, 1, generator), generator)
    assert table[["rank", "rank_low", "rank_high"]].to_numpy().tolist() == [[i] * 3 for i in range(1, 6)]


def test_names_of_one_tensor_and_layers_without_score_stay_in_order(generator):
    scores = draw(np.array([0.0, 0.0, -1.0, -1.0]), 8, 2, generator)
    scores[..., 1] = scores[..., 0]
    scores[..., 2:] = 0
    table = bootstrap(scores, generator)
    assert table[["rank_low", "rank_high"]].to_numpy().tolist() == [[i, i] for i in range(1, 5)]
    assert (table.loc[2:, ["score_low", "score_high"]] == 0).all(axis=None)


def rank_ends(scores):
    """Ends of the ranks' intervals, one pair for each layer."""
    return bootstrap(scores, np.random.default_rng(1))[["rank_low", "rank_high"]].to_numpy().tolist()


@pytest.mark.parametrize("rest", [0.0, 1e-300], ids=["zero", "nearly"])
def test_a_layer_that_is_dead_on_most_images_does_not_open_the_others_ranks(generator, rest):
    scores = draw(np.array([3.0, 0.0, -3.0, 9.0, 9.0]), 12, 1, generator)
    scores[..., 3:] = 0  # dead on all images
    assert rank_ends(scores) == [[1, 1], [2, 2], [3, 3], [4, 4], [5, 5]]
    scores[1:, :, 3], scores[0, :, 3] = rest, 1e-6  # alive on one
    ends = rank_ends(scores)
    assert ends[:3] == [[1, 2], [2, 3], [3, 4]]  # 3 layers apart by 3 in log score, and one that may lie anywhere
    assert ends[3][0] == 1
    assert ends[3][1] >= 4


def test_layers_that_are_dead_on_half_of_the_images_have_ranks_as_far_as_the_images_say(generator):
    scores = draw(np.array([9.0, 6.0, 3.0, 0.0]), 8, 1, generator)
    scores[:4, :, 2] = 0  # its mean is 0 in 0.4 % of the resamples, less than its share of 5 % over 4 layers
    assert rank_ends(scores) == [[1, 1], [2, 2], [3, 3], [4, 4]]
    scores = draw(np.concatenate([[9.0, 6.0], np.zeros(20)]), 6, 1, generator)
    for layer in range(2, 22):  # of these one has a mean of 0 in up to 27 % of the resamples
        scores[generator.permutation(6)[:3], :, layer] = 0
    assert [low for low, _ in rank_ends(scores)][:2] == [1, 2]


@pytest.mark.parametrize("orders", [1, 4])
def test_resamples_vary_as_much_as_new_images_would(orders, generator):
    # Linear scale (one score is negative), where the variance of a mean of n images is s^2 / n exactly. Drawing the
    # orders anew inside an image would add about ORDER^2 / (n orders) once more.
    scores = generator.normal(size=(5, 1, 1)) + 3 * generator.normal(size=(5, orders, 1))
    expected = scores.mean(axis=1).var(axis=0, ddof=1) / 5
    found = resample_means(scores, generator, 40_000).var(axis=0)
    np.testing.assert_allclose(found, expected, rtol=0.03)  # 4 standard errors of a variance over 40,000 draws


def test_differences_have_the_larger_of_two_errors(generator):
    # Seen: of the relative scores. Modelled: of log-normal means exp(mu + v / 2), Cox's.
    scores = np.exp(generator.normal(size=(9, 1, 2)) * np.array([1.0, 0.1]))
    scores = np.concatenate([scores, np.where(np.arange(9) == 0, 9.0, 1.0)[:, None, None]], axis=2)
    x = scores[:, 0]
    seen, modelled = np.zeros((3, 3)), np.zeros((3, 3))
    for i, j in np.ndindex(3, 3):
        relative = x[:, i] / x[:, i].mean() - x[:, j] / x[:, j].mean()
        covariance = np.cov(np.log(x[:, i]), np.log(x[:, j]))
        seen[i, j] = relative.var(ddof=1) / 9
        variances = np.diag(covariance)
        of_variances = (variances**2).sum() - 2 * covariance[0, 1] ** 2
        modelled[i, j] = (variances.sum() - 2 * covariance[0, 1]) / 9 + of_variances / (2 * 8)
    assert (seen > modelled).any()
    assert (modelled > seen).any()
    found = summarise_images(scores).pair_errors()
    np.testing.assert_allclose(found, np.sqrt(np.maximum(seen, modelled)), atol=1e-12)
    # A layer that is 0 on one image has no log-normal model.
    scores[0, 0, 2] = 0
    found = summarise_images(scores).pair_errors()[2, 1]
    relative = scores[:, 0, 2] / scores[:, 0, 2].mean() - x[:, 1] / x[:, 1].mean()
    assert found == pytest.approx(relative.std(ddof=1) / 3)


def test_probabilities_in_the_top_sum_to_k_and_follow_the_scores(generator):
    scores = draw(-0.1 * np.arange(20), 10, 2, generator)
    found = probability_in_top(scores, 4, generator)
    assert found.sum() == pytest.approx(4)
    assert found[np.argmax(scores.mean(axis=(0, 1)))] > 0.5
    assert found[-1] < 0.01


def test_probabilities_of_every_top_count_the_resampled_ranks(generator):
    scores = draw(-0.1 * np.arange(6), 5, 1, generator)
    found = top_probabilities(scores, np.random.default_rng(1), 50)
    drawn = ranks(resample_means(scores, np.random.default_rng(1), 50))
    np.testing.assert_array_equal(found, [[(drawn[:, i] <= k).mean() for k in range(1, 7)] for i in range(6)])


def test_two_layers_that_lead_on_half_of_the_images_each_are_equally_likely_on_top(generator):
    scores = np.array([[2.0, 1.0], [1.0, 2.0]] * 4)[:, None]
    # Ties of the resampled means go to the first layer.
    tie = stats.binom.pmf(4, 8, 0.5)
    found = probability_in_top(scores, 1, generator, 20_000)
    np.testing.assert_allclose(found, [(1 + tie) / 2, (1 - tie) / 2], atol=0.015)  # 4 standard errors


def test_more_images_make_the_top_more_stable(generator):
    curve = stability_curve(draw(-0.1 * np.arange(30), 40, 1, generator), 6, generator, may_differ=1)
    assert curve["images"].tolist() == sorted(set(curve["images"]))
    assert (curve["near_set"] >= curve["same_set"]).all()
    for name in ("same_set", "near_set", "overlap"):
        assert curve[name].iloc[-1] > curve[name].iloc[0]


def test_one_image_agrees_with_all_as_often_as_it_is_drawn(generator):
    # Three images, each with its own leader; all together lead to the first's.
    scores = np.array([[9.0, 1, 1], [1, 3, 1], [1, 1, 3]])[:, None]
    curve = stability_curve(scores, 1, generator, sizes=[1], n_resamples=10_000)
    assert curve["same_set"].item() == pytest.approx(1 / 3, abs=0.02)  # 4 standard errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, g: bootstrap(s[:3], g), "at least 4 images, got 3.*method='t'"),
        (lambda s, g: bootstrap(s[:1], g, method="t"), "at least 2 images, got 1"),
        (lambda s, g: bootstrap(s[0], g), r"must be \(images, orders, layers\)"),
        (lambda s, g: bootstrap(s, g, confidence=95), "`confidence` must lie in .0, 1., got 95"),
        (lambda s, g: bootstrap(s, g, method="bca"), "`method` must be one of studentized, t, percentile"),
        (lambda s, g: bootstrap(s, g, n_resamples=0), "`n_resamples` must be at least 1"),
        (lambda s, g: bootstrap(np.where(s == s[2, 0, 1], np.nan, s), g), "got nan at image 2, order 0, layer 1"),
        (lambda s, g: probability_in_top(s, 0, g), r"`k` must lie in 1 ... 5 .*got 0"),
        (lambda s, g: probability_in_top(s, 6, g), "got 6"),
        (lambda s, g: stability_curve(s, 2, g, sizes=[0]), "`sizes` must be at least 1"),
        (lambda s, g: variance_components(0 * s), "layer 0 is not: take scale='normalised'"),
        (lambda s, g: variance_components(s, scale="rank"), "`scale` must be 'log' or 'normalised'"),
        (lambda s, g: variance_components(s[:1]), "at least 2 images and 2 layers, got 1"),
        (lambda s, g: top_count(0.0, 5), "`fraction` must lie in"),
        (lambda s, g: top_count(1.5, 5), "`fraction` must lie in"),
    ],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_wrong_input_is_refused_in_one_line(call, message, generator):
    scores = draw(-np.arange(5.0), 8, 2, generator)
    with pytest.raises(ValueError, match=message):
        call(scores, generator)


@pytest.mark.filterwarnings("error")
def test_a_limit_beyond_all_floats_is_infinite_without_a_warning():
    sample = summarise_images(np.full((4, 1, 1), 2.0))
    assert sample.back(np.array([1e4])) == np.inf
