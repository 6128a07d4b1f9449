import io
import math
from dataclasses import asdict, fields

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.signal import convolve2d
from scipy.stats import binom
from skimage.feature import structure_tensor
from skimage.util import random_noise
from torchmetrics.functional.image import peak_signal_noise_ratio

from ram_models.degradations import (
    DEGRADATIONS,
    TASKS,
    UNSEEN,
    add_correlated_noise,
    add_gaussian_noise,
    add_haze,
    add_pepper,
    add_poisson_noise,
    add_rain,
    add_salt_and_pepper,
    add_speckle,
    camera_shake,
    compress_jpeg,
    darken,
    degrade,
    draw,
    gaussian_blur,
    motion_blur,
    motion_kernel,
    rain_streaks,
    random_depth,
)
from ram_models.degradations.convolution import convolve_valid
from ram_models.degradations.rain import _streak_layer


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def photograph():
    """A smooth picture with an edge."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 40), indexing="ij")
    return torch.stack([rows, columns, (rows > columns).float()])


def test_noise_has_the_standard_deviation_asked_for(generator):
    noisy = add_gaussian_noise(torch.full((3, 200, 200), 0.5), 25.5, generator)
    # 120 000 samples: the standard deviation is known to 0.2 %, five of them; clipping at 5 sigma is invisible.
    assert float(noisy.std()) == pytest.approx(0.1, rel=0.01)
    assert float(noisy.mean()) == pytest.approx(0.5, abs=5 * 0.1 / 120_000**0.5)


def test_noise_is_white_and_scaled_from_255(generator):
    noisy = add_gaussian_noise(torch.full((3, 8, 8), 0.5), 25.5, generator)
    standard = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(noisy, 0.5 + 0.1 * standard)


def test_noise_of_zero_strength_changes_nothing(photograph, generator):
    assert add_gaussian_noise(photograph, 0.0, generator).equal(photograph)


def test_noisy_images_stay_in_range(photograph, generator):
    noisy = add_gaussian_noise(photograph, 100.0, generator)
    assert noisy.min() == 0
    assert noisy.max() == 1


def test_blur_of_an_impulse_is_the_normalised_gaussian():
    impulse = torch.zeros(1, 21, 21, dtype=torch.float64)
    impulse[0, 10, 10] = 1
    offsets = torch.arange(-7, 8, dtype=torch.float64)
    kernel = torch.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.7**2))
    got = gaussian_blur(impulse, 1.7)
    torch.testing.assert_close(got[0, 3:18, 3:18], kernel / kernel.sum())
    assert float(got.sum()) == pytest.approx(1)


@pytest.mark.parametrize("sigma", [0.1, 3.1])
def test_blur_keeps_flat_images_up_to_the_border(sigma):
    flat = torch.full((2, 3, 16, 18), 0.4, dtype=torch.float64)
    torch.testing.assert_close(gaussian_blur(flat, sigma), flat)


def test_blur_mirrors_at_the_border():
    ramp = torch.arange(20, dtype=torch.float64).expand(1, 20, 20) / 20
    mirrored = torch.cat([ramp[..., 1:8].flip(-1), ramp], -1)
    torch.testing.assert_close(gaussian_blur(ramp, 2.0)[..., :5], gaussian_blur(mirrored, 2.0)[..., 7:12])


def test_blur_treats_channels_and_images_alike():
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(gaussian_blur(images, 1.0)[1, 2], gaussian_blur(images[1, 2:3], 1.0)[0])


def test_jpeg_loses_less_at_higher_quality(photograph):
    psnr = [peak_signal_noise_ratio(compress_jpeg(photograph, q), photograph, 1.0) for q in (20, 50, 90)]
    assert psnr[0] < psnr[1] < psnr[2]
    assert psnr[2] > 25


def test_jpeg_keeps_flat_grey_images():
    grey = torch.full((3, 16, 16), 128 / 255)
    # Grey has no chroma and only a DC term; quantising it at quality 20 moves it by at most one level of 255.
    torch.testing.assert_close(compress_jpeg(grey, 20), grey, rtol=0, atol=1.01 / 255)


def test_jpeg_is_what_pillow_writes_and_reads(photograph):
    pixels = (photograph.permute(1, 2, 0) * 255).round().byte().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=40)
    expected = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255
    torch.testing.assert_close(compress_jpeg(photograph, 40), expected, rtol=0, atol=0)


@pytest.mark.parametrize("value", [0.1, 0.4])
def test_poisson_noise_has_mean_and_variance_of_the_counts(generator, value):
    counts = 100 * add_poisson_noise(torch.full((3, 200, 200), value, dtype=torch.float64), 100.0, generator)
    # 120 000 counts, none near the clip at 100; five standard errors of mean and variance.
    assert float(counts.mean()) == pytest.approx(100 * value, abs=5 * math.sqrt(100 * value / 120_000))
    assert float(counts.var()) == pytest.approx(100 * value, rel=5 * math.sqrt(2.1 / 120_000))
    torch.testing.assert_close(counts, counts.round())


def test_poisson_noise_is_clipped_at_white(generator):
    noisy = add_poisson_noise(torch.ones(3, 50, 50), 30.0, generator)
    assert noisy.max() == 1
    assert noisy.min() > 0.2  # six standard deviations of 1 / sqrt(30) below white would be darker


def test_pepper_blackens_the_share_asked_for_and_nothing_else(generator):
    image = torch.full((3, 100, 100), 0.5)
    peppered = add_pepper(image, 0.1, generator)
    assert set(peppered.unique().tolist()) == {0.0, 0.5}
    low, high = binom.interval(1 - 1e-6, 30_000, 0.1)
    assert low <= int((peppered == 0).sum()) <= high


def test_pepper_hits_channels_apart_as_scikit_image_does(generator):
    def shares(image):
        """Of values, and of pixels with all channels black."""
        black = np.asarray(image) == 0
        return black.mean(), black.all(0).mean()

    ours = shares(add_pepper(torch.full((3, 150, 150), 0.5), 0.4, generator))
    reference = random_noise(np.full((150, 150, 3), 0.5), mode="pepper", amount=0.4, rng=0).transpose(2, 0, 1)
    # 22 500 pixels: the share 0.4 ** 3 of black ones has a standard error of 0.0016, five of two of them.
    assert ours == pytest.approx(shares(reference), abs=5 * 2**0.5 * 0.0016)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_pepper_spares_all_or_nothing_at_the_ends(generator, share):
    image = torch.full((3, 10, 10), 0.5)
    assert add_pepper(image, share, generator).equal(image * (1 - share))


@pytest.mark.parametrize("value", [0.2, 0.5])
def test_speckle_is_proportional_to_the_value(generator, value):
    noisy = add_speckle(torch.full((3, 200, 200), value), 0.2, generator)
    # 120 000 samples, clipping lies at five standard deviations or more; five standard errors.
    assert float(noisy.mean()) == pytest.approx(value, abs=5 * 0.2 * value / 120_000**0.5)
    assert float(noisy.std()) == pytest.approx(0.2 * value, rel=5 / 240_000**0.5)


def test_speckle_leaves_black_alone(generator):
    assert add_speckle(torch.zeros(3, 10, 10), 5.0, generator).abs().max() == 0


@pytest.mark.parametrize("reach", [1.0, 1.7, 3.0])
def test_correlated_noise_has_its_strength_and_reach_up_to_the_border(generator, reach):
    noise = add_correlated_noise(torch.full((3, 400, 400), 0.5), 10.0, reach, generator) - 0.5
    # 480 000 values, of which about (3.5 reach)^2 say the same; five standard errors.
    independent = 480_000 / max(1.0, (3.5 * reach) ** 2)
    assert float(noise.std()) == pytest.approx(10 / 255, rel=5 / (2 * independent) ** 0.5)
    edge = torch.cat([noise[:, 0].flatten(), noise[:, -1].flatten(), noise[..., 0].flatten(), noise[..., -1].flatten()])
    assert float(edge.std()) == pytest.approx(10 / 255, rel=5 / (2 * 4800 / max(1.0, 3.5 * reach)) ** 0.5)
    neighbours = float((noise[..., 1:] * noise[..., :-1]).mean() / noise.square().mean())
    expected = math.exp(-1 / (4 * reach**2))
    assert neighbours == pytest.approx(expected, abs=0.002 + 5 / independent**0.5)
    channels = float((noise[0] * noise[1]).mean() / noise.square().mean())
    assert channels == pytest.approx(0, abs=5 / (independent / 3) ** 0.5)


def test_salt_and_pepper_are_as_frequent_as_each_other(generator):
    noisy = add_salt_and_pepper(torch.full((3, 200, 200), 0.5), 0.2, generator)
    for value in (0.0, 1.0):
        share = float((noisy == value).double().mean())
        assert share == pytest.approx(0.1, abs=5 * (0.1 * 0.9 / 120_000) ** 0.5)
    assert float((noisy == 0.5).double().mean()) == pytest.approx(0.8, abs=5 * (0.2 * 0.8 / 120_000) ** 0.5)


def test_haze_at_constant_depth_mixes_with_the_airlight(photograph):
    hazy = add_haze(photograph, torch.full((32, 40), 2.0), airlight=0.9, beta=0.25)
    transmission = math.exp(-0.5)
    torch.testing.assert_close(hazy, photograph * transmission + 0.9 * (1 - transmission))


def test_haze_hides_the_far_and_spares_the_near(photograph):
    depth = torch.zeros(32, 40)
    depth[:, 20:] = 1e6
    hazy = add_haze(photograph, depth, airlight=0.8, beta=0.1)
    assert hazy[..., :20].equal(photograph[..., :20])
    assert hazy[..., 20:].equal(torch.full((3, 32, 20), 0.8))


def test_depth_reaches_from_near_to_far(generator):
    depth = random_depth(40, 60, 2.0, 4.0, generator)
    assert [float(depth.min()), float(depth.max())] == pytest.approx([2.0, 4.0])


def test_depth_is_smooth(generator):
    depth = random_depth(200, 200, 0.0, 1.0, generator)
    # The finest grid has a point every 25 pixels: steps between neighbours stay well below the whole range.
    assert max(float(depth.diff(dim=dim).abs().max()) for dim in (0, 1)) < 0.05


def test_depth_mostly_grows_towards_the_top():
    depths = torch.stack([random_depth(8, 8, 0.0, 1.0, torch.Generator().manual_seed(i)) for i in range(200)])
    assert depths[:, 0].mean() > depths[:, -1].mean() + 0.2


def test_depth_of_a_single_pixel_is_near(generator):
    assert random_depth(1, 1, 2.0, 3.0, generator).tolist() == [[2.0]]


def test_low_light_without_noise_is_a_power_law(photograph, generator):
    torch.testing.assert_close(darken(photograph, 2.0, 0.3, 0.0, generator), 0.3 * photograph**2)


def test_low_light_noise_has_the_standard_deviation_asked_for(generator):
    dark = darken(torch.full((3, 200, 200), 0.5), 2.0, 0.4, 2.55, generator)
    assert float(dark.std()) == pytest.approx(0.01, rel=5 / 240_000**0.5)  # five standard errors
    assert float(dark.mean()) == pytest.approx(0.1, abs=5 * 0.01 / 120_000**0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_fourier_convolution_equals_scipys(dtype):
    image, kernel = torch.rand(2, 13, 18, dtype=dtype), torch.rand(5, 5, dtype=dtype)
    expected = np.stack([convolve2d(plane, kernel, mode="valid") for plane in image.numpy()])
    torch.testing.assert_close(convolve_valid(image, kernel), torch.from_numpy(expected))


@pytest.mark.parametrize("turn", [0.0, 1.5, 10.0])
def test_motion_kernels_sum_to_one_and_are_centred(generator, turn):
    kernel = motion_kernel(camera_shake(30.0, turn, generator))
    offsets = torch.arange(len(kernel), dtype=torch.float64) - len(kernel) // 2
    assert float(kernel.sum()) == pytest.approx(1)
    assert kernel.min() >= 0
    assert float((kernel.sum(0) * offsets).sum()) == pytest.approx(0, abs=1e-9)
    assert float((kernel.sum(1) * offsets).sum()) == pytest.approx(0, abs=1e-9)


def test_a_straight_path_blurs_along_a_line():
    columns = torch.linspace(0, 8, 4001, dtype=torch.float64)
    kernel = motion_kernel(torch.stack([torch.zeros_like(columns), columns], 1))
    # Bilinear weights integrated over [-4, 4]: 1/8 for every tap inside, half of it at the ends.
    expected = torch.zeros(9, 9, dtype=torch.float64)
    expected[4] = torch.tensor([0.5, 1, 1, 1, 1, 1, 1, 1, 0.5], dtype=torch.float64) / 8
    torch.testing.assert_close(kernel, expected, rtol=0, atol=2 / 4001)  # a sum in place of the integral


def test_a_camera_that_does_not_turn_moves_straight_and_evenly(generator):
    path = camera_shake(10.0, 0.0, generator, points=100)
    steps = path.diff(dim=0)
    torch.testing.assert_close(steps, steps[:1].expand_as(steps))
    assert float(steps.norm(dim=1).sum()) == pytest.approx(10 * 99 / 100)


def test_a_turning_camera_moves_at_the_same_speed_on_a_bent_path(generator):
    path = camera_shake(10.0, 3.0, generator, points=100)
    speeds = path.diff(dim=0).norm(dim=1)
    torch.testing.assert_close(speeds, torch.full_like(speeds, 0.1))
    assert (path[-1] - path[0]).norm() < 9.5


def test_the_heading_wanders_by_the_turn_asked_for():
    paths = [camera_shake(1.0, 0.3, torch.Generator().manual_seed(i), points=64) for i in range(400)]
    ends = torch.stack([path.diff(dim=0)[[0, -1]] for path in paths])
    first, last = torch.atan2(ends[..., 0], ends[..., 1]).unbind(1)
    wandered = torch.remainder(last - first + math.pi, 2 * math.pi) - math.pi
    # The variance grows with time: 62 of 64 steps lie between; 400 paths know it to 3.5 %, four of them.
    assert float(wandered.std()) == pytest.approx(0.3 * (62 / 64) ** 0.5, rel=0.15)
    assert float(torch.exp(1j * first).mean().abs()) < 0.2  # any first heading: 4 / sqrt(400)


def test_motion_blur_of_an_impulse_is_the_kernel(generator):
    kernel = motion_kernel(camera_shake(12.0, 1.0, generator))
    impulse = torch.zeros(1, 41, 41, dtype=torch.float64)
    impulse[0, 20, 20] = 1
    half = len(kernel) // 2
    middle = slice(20 - half, 21 + half)
    torch.testing.assert_close(motion_blur(impulse, kernel)[0, middle, middle], kernel)


def test_motion_blur_equals_scipys_convolution_with_mirrored_borders(photograph, generator):
    kernel = motion_kernel(camera_shake(9.0, 1.0, generator))
    half = len(kernel) // 2
    padded = np.pad(photograph.numpy(), ((0, 0), (half, half), (half, half)), mode="reflect")
    expected = np.stack([convolve2d(plane, kernel.numpy(), mode="valid") for plane in padded]).astype(np.float32)
    torch.testing.assert_close(motion_blur(photograph, kernel), torch.from_numpy(expected))


def test_a_resting_camera_blurs_nothing(photograph, generator):
    kernel = motion_kernel(camera_shake(0.0, 1.0, generator))
    torch.testing.assert_close(kernel, torch.ones(1, 1, dtype=torch.float64))
    torch.testing.assert_close(motion_blur(photograph, kernel), photograph)


@pytest.mark.parametrize("turn", [0.0, 1.0, 10.0])
def test_kernels_reach_no_further_than_half_the_path(generator, turn):
    assert len(motion_kernel(camera_shake(30.0, turn, generator))) <= 31


def test_rain_only_adds_light_and_equally_to_all_channels(photograph, generator):
    dark = 0.3 * photograph
    added = add_rain(dark, rain_streaks(32, 40, 10.0, 20.0, 0.3, generator), 0.6) - dark
    assert added.min() >= 0
    assert added.max() <= 0.6 + 1e-6
    torch.testing.assert_close(added[0], added[2])
    assert added.max() > 0.1


@pytest.mark.parametrize("angle", [-40.0, 0.0, 15.0, 80.0])
def test_streaks_fall_in_the_direction_asked_for(generator, angle):
    layer = _streak_layer(150, 150, angle, 30.0, 0.8, 0.3, generator).numpy()
    rows, mixed, columns = (element.mean() for element in structure_tensor(layer, sigma=1, order="rc"))
    # Light changes least along the streaks: the direction of the smallest eigenvalue, (cos, sin) in rows and columns.
    direction = 0.5 * math.atan2(2 * mixed, rows - columns) + math.pi / 2
    difference = (math.degrees(direction) - angle + 90) % 180 - 90
    assert difference == pytest.approx(0, abs=2)  # a few hundred streaks on a pixel grid


def test_the_layers_of_rain_lie_around_one_direction(generator):
    streaks = rain_streaks(200, 200, 20.0, 30.0, 0.3, generator).numpy()
    rows, mixed, columns = (element.mean() for element in structure_tensor(streaks, sigma=1, order="rc"))
    direction = math.degrees(0.5 * math.atan2(2 * mixed, rows - columns) + math.pi / 2) % 180
    assert direction == pytest.approx(20, abs=15)  # three layers within 5 degrees each, three standard deviations


def test_coverage_is_twice_the_mean_light(generator):
    layer = _streak_layer(400, 400, 10.0, 20.0, 1.0, 0.5, generator)
    # Every streak over a pixel adds 1/2 on average. About 3 600 streaks, spread 1.2: 2 %, four of them.
    assert float(layer.mean()) == pytest.approx(0.25, rel=0.08)


def test_the_layers_share_the_coverage(generator):
    streaks = rain_streaks(400, 400, 10.0, 20.0, 0.1, generator)
    # Few streaks overlap, so that clipping at 1 hardly matters. Over seeds the spread is 5 %: four of them.
    assert float(streaks.mean()) == pytest.approx(0.05, rel=0.2)


def test_rain_is_as_dense_at_the_border_as_in_the_middle():
    layers = torch.stack(
        [_streak_layer(60, 60, 30.0, 40.0, 1.0, 0.5, torch.Generator().manual_seed(i)) for i in range(60)]
    ).mean(0)
    border = torch.cat([layers[:4].flatten(), layers[-4:].flatten(), layers[:, :4].flatten(), layers[:, -4:].flatten()])
    assert float(border.mean()) == pytest.approx(float(layers[20:40, 20:40].mean()), rel=0.15)


def test_no_coverage_is_no_rain(generator):
    assert rain_streaks(20, 20, 0.0, 20.0, 0.0, generator).abs().max() < 1e-7  # rounding of the Fourier transform


def test_there_are_the_paper_s_seven_tasks_and_three_unseen_noises_and_two_more():
    assert list(TASKS) == ["haze", "rain", "noise", "motion_blur", "lowlight", "blur", "jpeg"]
    assert list(UNSEEN) == ["poisson", "pepper", "speckle", "correlated", "salt_and_pepper"]
    assert set(DEGRADATIONS) == set(TASKS) | set(UNSEEN)


@pytest.mark.parametrize("task", list(DEGRADATIONS))
@pytest.mark.parametrize("shape", [(32, 40), (16, 16), (16, 75)], ids=str)
def test_degradations_change_the_image_but_neither_range_nor_shape(generator, task, shape):
    image = torch.rand(3, *shape, generator=torch.Generator().manual_seed(3))
    degraded = degrade(image, task, generator)
    assert degraded.shape == image.shape
    assert degraded.dtype == image.dtype
    assert degraded.min() >= 0
    assert degraded.max() <= 1 + 1e-6  # the taps of a blur sum to 1 up to rounding
    assert not torch.allclose(degraded, image, atol=1e-4)


@pytest.mark.parametrize("task", [task for task in DEGRADATIONS if task not in ("blur", "motion_blur")])
def test_all_but_blurs_take_images_of_one_pixel(generator, task):
    assert degrade(torch.full((3, 1, 1), 0.5), task, generator).shape == (3, 1, 1)


@pytest.mark.parametrize("task", list(DEGRADATIONS))
def test_degradations_never_change_their_input(photograph, generator, task):
    before = photograph.clone()
    degrade(photograph, task, generator).zero_()
    assert photograph.equal(before)


@pytest.mark.parametrize("task", list(DEGRADATIONS))
def test_double_precision_stays_double(photograph, task):
    degraded = degrade(photograph.double(), task, torch.Generator().manual_seed(1))
    assert degraded.dtype == torch.float64


@pytest.mark.parametrize("task", ["haze", "rain", "motion_blur", "lowlight", "blur"])
def test_precision_changes_nothing_but_rounding(photograph, task):
    single = degrade(photograph, task, torch.Generator().manual_seed(1))
    double = degrade(photograph.double(), task, torch.Generator().manual_seed(1))
    # The noise of low light is drawn anew in double precision: below 2.5 levels of 255, six of them.
    torch.testing.assert_close(single.double(), double, rtol=0, atol=0.06 if task == "lowlight" else 1e-5)


@pytest.mark.parametrize("task", ["haze", "rain", "motion_blur", "blur"])
def test_grey_images_stay_grey(generator, task):
    grey = torch.rand(1, 20, 20).expand(3, 20, 20)
    degraded = degrade(grey, task, generator)
    torch.testing.assert_close(degraded[0], degraded[1])
    torch.testing.assert_close(degraded[0], degraded[2])


@pytest.mark.parametrize("task", list(DEGRADATIONS))
def test_the_generator_alone_decides_what_happens(photograph, task):
    torch.manual_seed(0)
    first = degrade(photograph, task, torch.Generator().manual_seed(7))
    torch.manual_seed(1)
    assert degrade(photograph, task, torch.Generator().manual_seed(7)).equal(first)
    assert not degrade(photograph, task, torch.Generator().manual_seed(8)).equal(first)


@pytest.mark.parametrize("task", list(DEGRADATIONS))
def test_the_global_generator_is_left_alone(photograph, generator, task):
    before = torch.get_rng_state()
    degrade(photograph, task, generator)
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("task", list(DEGRADATIONS))
def test_drawn_parameters_can_be_recorded_and_applied_again(photograph, task):
    first, second = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
    drawn = draw(task, first)
    recorded = DEGRADATIONS[task](**asdict(drawn))
    draw(task, second)
    assert recorded == drawn
    assert recorded(photograph, second).equal(drawn(photograph, first))
    assert all(isinstance(value, int | float) for value in asdict(drawn).values())


RANGES = {
    "haze": {"airlight": (0.8, 1), "beta": (0.04, 0.2), "near": (2, 3), "far": (3, 4)},
    "rain": {"angle": (-25, 25), "length": (20, 60), "coverage": (0.1, 2.5), "strength": (0.3, 0.9)},
    "noise": {"sigma_255": (0, 50)},
    "motion_blur": {"length": (5, 30), "turn": (0, 1.5)},
    "lowlight": {"gamma": (1.5, 3), "gain": (0.07, 0.4), "sigma_255": (0.5, 2.5)},
    "blur": {"sigma": (0.1, 3.1)},
    "jpeg": {"quality": (20, 90)},
}


@pytest.mark.parametrize("task", list(RANGES))
def test_parameters_fill_the_stated_ranges(generator, task):
    drawn = [asdict(draw(task, generator)) for _ in range(400)]
    assert set(RANGES[task]) == {item.name for item in fields(DEGRADATIONS[task])}
    for name, (low, high) in RANGES[task].items():
        values = [item[name] for item in drawn]
        # Of 400 uniform numbers one lies in the outer 5 % of the range at each end, but for a chance of 1e-9.
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values) <= high


def test_the_unseen_noises_have_one_strength(generator):
    strengths = [{"peak": 30.0}, {"share": 0.1}, {"sigma": 0.2}, {"sigma_255": 25.0, "reach": 1.0}, {"share": 0.1}]
    assert [asdict(draw(task, generator)) for task in UNSEEN] == strengths


def test_the_draws_of_noise_blur_and_jpeg_are_pinned(photograph):
    """The bundled sample depends on them."""
    number = float(torch.rand((), generator=torch.Generator().manual_seed(7)))
    after = torch.Generator().manual_seed(7)
    torch.rand((), generator=after)
    expected = {
        "noise": add_gaussian_noise(photograph, 50 - 50 * number, after),
        "blur": gaussian_blur(photograph, 0.1 + 3.0 * number),
        "jpeg": compress_jpeg(photograph, int(20 + 71 * number)),
    }
    got = {task: degrade(photograph, task, torch.Generator().manual_seed(7)) for task in expected}
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_unknown_degradations_are_refused(photograph, generator):
    with pytest.raises(ValueError, match="no degradation 'snow'; there are haze, rain, noise, motion_blur"):
        degrade(photograph, "snow", generator)


def test_misspelt_degradations_get_a_hint(photograph, generator):
    with pytest.raises(ValueError, match="no degradation 'low_light'; did you mean 'lowlight'"):
        degrade(photograph, "low_light", generator)


FLAT = torch.full((3, 20, 20), 0.5)
SEED = torch.Generator().manual_seed(0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0], ids=str)
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("sigma_255", lambda v: add_gaussian_noise(FLAT, v, SEED)),
        ("peak", lambda v: add_poisson_noise(FLAT, v, SEED)),
        ("share", lambda v: add_pepper(FLAT, v, SEED)),
        ("share", lambda v: add_salt_and_pepper(FLAT, v, SEED)),
        ("sigma_255", lambda v: add_correlated_noise(FLAT, v, 1.0, SEED)),
        ("reach", lambda v: add_correlated_noise(FLAT, 25.0, v, SEED)),
        ("sigma", lambda v: add_speckle(FLAT, v, SEED)),
        ("sigma", lambda v: gaussian_blur(FLAT, v)),
        ("length", lambda v: camera_shake(v, 1.0, SEED)),
        ("turn", lambda v: camera_shake(1.0, v, SEED)),
        ("airlight", lambda v: add_haze(FLAT, FLAT[0], v, 1.0)),
        ("beta", lambda v: add_haze(FLAT, FLAT[0], 1.0, v)),
        ("near", lambda v: random_depth(4, 4, v, 1.0, SEED)),
        ("far", lambda v: random_depth(4, 4, 1.0, v, SEED)),
        ("gamma", lambda v: darken(FLAT, v, 0.5, 1.0, SEED)),
        ("gain", lambda v: darken(FLAT, 2.0, v, 1.0, SEED)),
        ("sigma_255", lambda v: darken(FLAT, 2.0, 0.5, v, SEED)),
        ("strength", lambda v: add_rain(FLAT, FLAT[0], v)),
        ("length", lambda v: rain_streaks(4, 4, 0.0, v, 1.0, SEED)),
        ("coverage", lambda v: rain_streaks(4, 4, 0.0, 10.0, v, SEED)),
    ],
)  # fmt: skip
def test_senseless_parameters_are_named(name, call, bad):
    with pytest.raises(ValueError, match=rf"^`{name}` must be [^\n]*, got {bad}: it is [^\n]*\.$"):
        call(bad)


@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=str)
def test_streaks_need_a_direction(bad):
    with pytest.raises(ValueError, match="`angle` must be a finite number, got"):
        rain_streaks(4, 4, bad, 10.0, 1.0, SEED)


@pytest.mark.parametrize("quality", [0, 96, -5])
def test_jpeg_has_qualities_from_1_to_95(quality):
    with pytest.raises(ValueError, match=rf"`quality` must be in \[1, 95\], got {quality}"):
        compress_jpeg(FLAT, quality)


@pytest.mark.parametrize("kernel_size", [0, 4, -3])
def test_blur_kernels_have_a_middle(kernel_size):
    with pytest.raises(ValueError, match=f"`kernel_size` must be a positive odd number, got {kernel_size}"):
        gaussian_blur(FLAT, 1.0, kernel_size)


def test_images_too_small_to_be_blurred_are_refused():
    with pytest.raises(ValueError, match=r"an image of 7x20 pixels is too small .* at least 8 pixels a side"):
        gaussian_blur(FLAT[:, :7], 1.0)
    kernel = motion_kernel(torch.tensor([[0.0, 0.0], [0.0, 30.0]]))
    with pytest.raises(ValueError, match=r"an image of 20x15 pixels is too small .* at least 16 pixels a side"):
        motion_blur(FLAT[..., :15], kernel)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here")
@pytest.mark.parametrize("task", list(DEGRADATIONS))
def test_devices_agree(photograph, task):
    here = degrade(photograph, task, torch.Generator().manual_seed(2))
    there = degrade(photograph.cuda(), task, torch.Generator().manual_seed(2))
    assert there.is_cuda
    # Powers and transforms round differently; Poisson counts are drawn where the generator lives.
    torch.testing.assert_close(there.cpu(), here, atol=1e-5, rtol=0)
