import numpy as np
import pytest

from macattr.statistics.variance import relative_error, variance_components


def draw(layers: int, images: int, orders: int, generator: np.random.Generator) -> np.ndarray:
    """Log-normal scores, one layer below the other; sd by image 0.4, image and layer 0.2, order and layer 0.1."""
    noise = 0.4 * generator.normal(size=(images, 1, 1)) + 0.2 * generator.normal(size=(images, 1, layers))
    return np.exp(-np.arange(layers) + noise + 0.1 * generator.normal(size=(images, orders, layers)))


def test_variance_components_are_recovered(generator):
    n, m, layers = 60, 4, 80
    deviations = {"layer": 1.0, "image": 0.4, "image x layer": 0.2, "order": 0.05, "order x layer": 0.1}
    shapes = {
        "layer": (1, 1, layers),
        "image": (n, 1, 1),
        "image x layer": (n, 1, layers),
        "order": (n, m, 1),
        "order x layer": (n, m, layers),
    }
    y = sum(sd * generator.normal(size=shapes[name]) for name, sd in deviations.items())
    table = variance_components(np.exp(y), step_errors=0.01 * np.exp(y))
    expected = [sd**2 for sd in deviations.values()] + [1e-4]
    # Standard error sqrt(2 / degrees of freedom) of every variance, four times: 79, 59, 59 x 79, 180 and 180 x 79 of
    # them; the last is given. Images carry a quarter of the orders' and interactions' error too, which is small.
    freedom = np.array([79, 59, 59 * 79, 180, 180 * 79])
    errors = np.abs(table["variance"].to_numpy() / expected - 1)
    assert (errors[:5] <= 4 * np.sqrt(2 / freedom)).all(), errors
    assert errors[5] == pytest.approx(0, abs=1e-9)
    assert table["share"].sum() == pytest.approx(1)
    assert not table["clipped"].any()


def test_variance_components_without_noise_are_those_of_the_table():
    # y = layer + image, nothing else: the variances of the two margins, and no interaction.
    layer, image = np.array([0.0, 1.0, 2.0]), np.array([0.0, 2.0])
    y = np.broadcast_to(layer + image[:, None, None], (2, 2, 3))
    table = variance_components(np.exp(y)).set_index("source")
    np.testing.assert_allclose(table["variance"], [1, 2, 0, 0, 0], atol=1e-12)


def test_negative_estimates_are_set_to_zero_and_said_so():
    # Orders differ within images, images do not: the mean square of images is below that of orders.
    y = np.array([[1.0, -1.0], [-1.0, 1.0]])[..., None] * np.array([1.0, 2.0])
    table = variance_components(np.exp(y)).set_index("source")
    assert table.loc["image", ["variance", "clipped"]].tolist() == [0, True]


def test_noise_of_single_layers_is_not_taken_for_an_effect_of_orders():
    # Means of all images, orders and layers are 0: the mean square of orders is 0, below that of the residual.
    y = np.array([1.0, -1.0])[:, None, None] * np.array([1.0, -1.0])[:, None] * np.array([1.0, -1.0])
    table = variance_components(np.exp(y)).set_index("source")
    assert table.loc["order", ["variance", "clipped"]].tolist() == [0, True]
    assert table.loc["order x layer", "variance"] == pytest.approx(8 / 2)  # 8 squares, 2 degrees of freedom


def test_a_single_order_leaves_the_order_parts_unknown(generator):
    table = variance_components(draw(5, 8, 1, generator)).set_index("source")
    assert table["variance"].isna().tolist() == [False, False, False, True, True]
    assert table["share"].sum() == pytest.approx(1)


def test_a_further_order_lowers_the_error_less_than_a_further_image(generator):
    table = variance_components(draw(20, 40, 3, generator))
    assert relative_error(table, 20, 1) < relative_error(table, 10, 2) < relative_error(table, 10, 1)
    # sqrt(0.04 / 10 + 0.01 / 10), estimated from 40 images x 20 layers.
    assert relative_error(table, 10, 1) == pytest.approx(0.0707, rel=0.1)


def test_signed_scores_are_normalised_by_their_images(generator):
    scores = generator.normal(size=(10, 2, 6))
    scale = generator.uniform(1, 9, size=(10, 2, 1))
    one, other = (variance_components(x, scale="normalised") for x in (scores, scale * scores))
    # atol: a component below zero is clipped to 0, which rounding may do to one of the two
    np.testing.assert_allclose(one["variance"], other["variance"], atol=1e-12)
