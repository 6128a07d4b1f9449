"""Arguments of the paths; tests/laws/test_mask_path.py has their mathematics."""

import math

import pytest
import torch

from macattr.paths.inputs import (
    BlurPath,
    LinearPath,
    MaskAttributePath,
    Path,
    order_by_score,
    random_order,
    resolve_reference,
)


def mask_path(image=None, order=None, **options):
    image = torch.rand(1, 1, 4, 4) if image is None else image
    return MaskAttributePath(image, random_order(16, 0) if order is None else order, torch.zeros_like(image), **options)


def test_linear_path_interpolates_every_input_and_keeps_positions_slowest():
    ends, starts = (torch.rand(2, 3), torch.rand(2, 1, 4)), (torch.rand(2, 3), torch.rand(2, 1, 4))
    at = LinearPath(ends, starts).at(torch.tensor([0.25, 1.0]))
    want = tuple(torch.cat([0.75 * s + 0.25 * e, e]) for s, e in zip(starts, ends, strict=True))
    torch.testing.assert_close(at, want)


def test_linear_path_passes_exactly_through_both_ends():
    end, start = torch.rand(1, 100) ** 3, torch.full((1, 100), 0.485)
    at = LinearPath((end,), (start,)).at(torch.tensor([0.0, 1.0]))[0]
    torch.testing.assert_close(at, torch.cat([start, end]), rtol=0, atol=0)


def test_every_path_fits_the_protocol():
    assert isinstance(mask_path(), Path)
    assert isinstance(LinearPath((torch.rand(1),), (torch.rand(1),)), Path)
    assert isinstance(BlurPath(torch.rand(1, 1, 2, 2), 1.0), Path)


def test_order_may_differ_between_images():
    images = torch.rand(2, 3, 4, 4)
    orders = torch.stack([random_order(16, 1), random_order(16, 2)])
    together = MaskAttributePath(images, orders, torch.zeros_like(images)).at(torch.tensor([0.6, 0.8]))[0]
    alone = [mask_path(images[i : i + 1], orders[i]).at(torch.tensor([0.6, 0.8]))[0] for i in range(2)]
    # float32 values up to 1; vectors of another length may round otherwise
    torch.testing.assert_close(together, torch.stack(alone, 1).flatten(0, 1), rtol=0, atol=1e-6)


def test_one_sided_gate_is_zero_beyond_the_rank_and_sigmoid_before():
    path = mask_path(torch.ones(1, 1, 4, 4), torch.arange(16), gate="one_sided", delta=20.0)
    got = path.at(torch.tensor([0.55], dtype=torch.float64))[0].flatten()
    want = torch.sigmoid(20 * (0.55 - torch.arange(16) / 16)) * (torch.arange(16) < 9)  # ceil(16 * 0.55) = 9
    torch.testing.assert_close(got, want)


def test_sigmoid_gate_is_half_revealed_at_the_pixels_threshold():
    path = mask_path(torch.ones(1, 1, 4, 4), torch.arange(16), gate="sigmoid", delta=20.0)
    got = path.at(torch.tensor([(12 + 0.5) / 16], dtype=torch.float64))[0].flatten()
    assert float(got[12]) == pytest.approx(0.5)
    assert float(got[13]) == pytest.approx(float(torch.sigmoid(torch.tensor(-20 / 16))))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_paths_follow_the_dtype_of_the_inputs(dtype):
    image = torch.rand(1, 1, 4, 4).to(dtype)
    at = torch.tensor([0.7], dtype=torch.float64)
    assert mask_path(image).at(at)[0].dtype == dtype
    assert LinearPath((image,), (0 * image,)).at(at)[0].dtype == dtype
    assert BlurPath(image, 1.0).at(at)[0].dtype == dtype


def test_random_order_is_a_permutation_that_its_seed_determines():
    assert random_order(50, 3).sort().values.tolist() == list(range(50))
    assert random_order(50, 3).equal(random_order(50, 3))
    assert not random_order(50, 3).equal(random_order(50, 4))


def test_random_order_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    random_order(10, 0)
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        (None, torch.zeros(2, 3, 1, 1)),
        (0.5, torch.full((2, 3, 1, 1), 0.5)),
        (torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1), torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)),
        (lambda x: x.flip(0), torch.arange(6.0).reshape(2, 3, 1, 1).flip(0)),
    ],
    ids=["none", "number", "colour", "function"],
)
def test_reference_takes_the_shape_of_the_inputs(reference, expected):
    got = resolve_reference(reference, torch.arange(6.0).reshape(2, 3, 1, 1))
    torch.testing.assert_close(got, expected.expand(2, 3, 1, 1), rtol=0, atol=0)


def test_reference_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"shape \(4,\) does not broadcast to inputs of shape \(2, 3\)"):
        resolve_reference(torch.zeros(4), torch.zeros(2, 3))


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("r", [0.0, -0.1, 1.5, float("nan")])
def test_r_outside_its_range_is_refused(r):
    with pytest.raises(ValueError, match=r"`r` must lie in \(0, 1\], got .* masked fraction at the start of the path"):
        mask_path(r=r)


@pytest.mark.parametrize(
    "order",
    [torch.arange(15), torch.zeros(16, dtype=torch.long), torch.arange(16) + 1, -torch.arange(16)],
    ids=["too_short", "repeated", "from_one", "negative"],
)
def test_an_order_that_is_no_permutation_is_refused(order):
    with pytest.raises(ValueError, match=r"`order` must be a permutation of the 16 pixels .* got shape \(1[56],\)"):
        mask_path(order=order)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate": "hard"}, "`gate` must be one of fade, sigmoid, one_sided, got 'hard'"),
        ({"gate": "sigmoid", "delta": 0.0}, "`delta` must be positive, got 0.0"),
        ({"groups": 0}, "`patch_size` and `groups` must be at least 1, got 1 and 0"),
        ({"patch_size": 0}, "`patch_size` and `groups` must be at least 1, got 0"),
        ({"image": torch.rand(3, 4, 4)}, r"needs images \(B, C, H, W\), got inputs of shape \(3, 4, 4\)"),
        ({"image": torch.ones(1, 1, 4, 4, dtype=torch.uint8)}, "must be floating-point tensors, got torch.uint8"),
        ({"order": torch.arange(16).repeat(3, 1)}, "`order` has 3 rows for 1 images: give one or as many"),
        ({"interval": (0.5, 0.5)}, r"`interval` must satisfy 0 <= start < end <= 1, got \(0.5, 0.5\)"),
        ({"interval": (0.5, 1.5)}, r"`interval` must satisfy 0 <= start < end <= 1, got \(0.5, 1.5\)"),
        ({"r": 0.01}, "`r` = 0.01 hides none of the 16 pixels"),
    ],
    ids=["gate", "delta", "groups", "patch_size", "no_batch", "integers", "rows", "empty", "beyond_1", "hides_none"],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        mask_path(**options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((torch.rand(1),), ()), "1 inputs need as many baselines, got 0"),
        (((torch.rand(1),), (torch.rand(1),), (0.9, 0.1)), r"`interval` must satisfy .* got \(0.9, 0.1\)"),
        (((torch.arange(3),), (torch.arange(3),)), "inputs must be floating-point tensors, got torch.int64"),
    ],
    ids=["baselines", "interval", "integers"],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_impossible_lines_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LinearPath(*arguments)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_blur_path_ends_exactly_at_the_image(dtype):
    image = torch.rand(2, 3, 5, 7).to(dtype)
    torch.testing.assert_close(BlurPath(image, 3.0).at(torch.tensor([1.0]))[0], image, rtol=0, atol=0)


def test_blur_damps_a_cosine_as_a_gaussian_does():
    # Cosines that are even about both borders are eigenvectors of the mirrored blur; the factor is the Fourier
    # transform exp(-(sigma w)^2 / 2) of the Gaussian, up to its truncation at 4 sigma: below 1e-4.
    frequency = math.pi * 3 / 40
    wave = torch.cos(frequency * (torch.arange(40, dtype=torch.float64) + 0.5)).expand(1, 1, 6, 40)
    alpha = torch.tensor([0.0, 0.5], dtype=torch.float64)
    blurred = BlurPath(wave, sigma=2.5).at(alpha)[0]
    damping = torch.exp(-(((1 - alpha) * 2.5 * frequency) ** 2) / 2)
    torch.testing.assert_close(blurred, damping[:, None, None, None] * wave, rtol=0, atol=1e-4)


def test_blur_keeps_the_mean_of_every_channel_even_where_the_kernel_exceeds_the_image():
    image = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    means = BlurPath(image, sigma=6.0).at(torch.linspace(0, 1, 5))[0].mean((-2, -1))
    torch.testing.assert_close(means, image.mean((-2, -1)).repeat(5, 1), rtol=0, atol=1e-12)


def test_blur_path_has_no_jumps():
    # Halving the step halves the largest change: a kernel whose radius followed alpha would leave jumps of 1e-4.
    image = torch.rand(1, 1, 16, 16, dtype=torch.float64)

    def largest_change(step):
        alpha = torch.linspace(0, 0.2, round(0.2 / step) + 1, dtype=torch.float64)
        return float(BlurPath(image, sigma=2.0).at(alpha)[0].diff(dim=0).abs().max())

    assert largest_change(1e-4) == pytest.approx(largest_change(2e-4) / 2, rel=0.01)


def test_blur_path_keeps_positions_slowest_and_images_and_channels_apart():
    image = torch.rand(2, 3, 5, 6, dtype=torch.float64)
    at = torch.tensor([0.2, 0.7])
    together = BlurPath(image, 1.5).at(at)[0].reshape(2, 2, 3, 5, 6)
    alone = BlurPath(image[1:, 2:], 1.5).at(at[1:])[0]
    torch.testing.assert_close(together[1, 1, 2], alone[0, 0], rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.rand(1, 1, 4, 4), 0.0), "`sigma` must be positive and finite, got 0.0"),
        ((torch.rand(1, 1, 4, 4), math.inf), "`sigma` must be positive and finite, got inf"),
        ((torch.rand(1, 1, 4, 4), math.nan), "`sigma` must be positive and finite, got nan"),
        ((torch.rand(1, 4, 4), 1.0), r"a blur path needs images \(B, C, H, W\), got inputs of shape \(1, 4, 4\)"),
        ((torch.ones(1, 1, 4, 4, dtype=torch.uint8), 1.0), "must be floating-point tensors, got torch.uint8"),
        ((torch.rand(1, 1, 4, 4), 1.0, (0.6, 0.6)), r"`interval` must satisfy .* got \(0.6, 0.6\)"),
        ((torch.rand(1, 1, 4, 4), 1.0, (0.0, 1.0), 0), "`groups` must be at least 1, got 0"),
    ],
    ids=["zero", "infinite", "nan", "no_batch", "integers", "interval", "groups"],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_impossible_blurs_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        BlurPath(*arguments)


def test_order_by_score_reveals_the_highest_or_the_lowest_first():
    score = torch.tensor([[0.3, 0.1, 0.4], [0.15, 0.9, 0.2]])
    assert order_by_score(score).tolist() == [4, 2, 0, 5, 3, 1]
    assert order_by_score(score, descending=False).tolist() == [1, 3, 5, 0, 2, 4]


@pytest.mark.parametrize("descending", [True, False])
def test_equal_scores_keep_the_order_of_their_positions(descending):
    assert order_by_score(torch.zeros(9, 7), descending=descending).tolist() == list(range(63))


def test_blocks_are_ordered_by_the_mean_of_their_pixels_inside_the_image():
    # 3x3 pixels in blocks of 2x2: the sums 4, 3, 3, 2 would order them as 0, 1, 2, 3; the means 1, 1.5, 1.5, 2 do not.
    score = torch.tensor([[1.0, 1, 2], [1, 1, 1], [2, 1, 2]])
    assert order_by_score(score, patch_size=2).tolist() == [3, 1, 2, 0]


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16, torch.float64], ids=str)
def test_a_score_for_every_image_gives_an_order_for_every_image_in_any_dtype(dtype):
    score = torch.tensor([[[0, 1], [1, 0]], [[1, 1], [0, 1]]]).to(dtype)
    assert order_by_score(score).tolist() == [[1, 2, 0, 3], [0, 1, 3, 2]]


def test_an_order_by_score_reveals_the_pixels_of_a_mask_path_in_that_order():
    image, score = torch.ones(1, 1, 4, 4), torch.rand(4, 4)
    path = MaskAttributePath(image, order_by_score(score), torch.zeros_like(image), r=1.0, groups=16)
    revealed = path.at(torch.arange(17) / 16)[0].flatten(1)
    assert revealed.diff(dim=0).argmax(1).tolist() == score.flatten().argsort(descending=True).tolist()


@pytest.mark.parametrize(
    ("score", "patch_size", "message"),
    [
        (torch.tensor([[0.1, math.nan]]), 1, "`score` holds NaN"),
        (torch.tensor([[math.inf, -math.inf]]), 2, "both infinities in a block"),
        (torch.rand(2, 3, 4, 4), 1, r"`score` must be \(H, W\) or \(B, H, W\), got shape \(2, 3, 4, 4\)"),
        (torch.rand(4, 4), 0, "`patch_size` must be at least 1, got 0"),
    ],
    ids=["nan", "infinities", "channels", "patch_size"],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_scores_without_an_order_are_refused(score, patch_size, message):
    with pytest.raises(ValueError, match=message):
        order_by_score(score, patch_size)
