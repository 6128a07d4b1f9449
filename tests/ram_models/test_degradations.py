import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio

from ram_models.degradations import TASKS, add_gaussian_noise, compress_jpeg, degrade, gaussian_blur


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


@pytest.mark.parametrize("task", list(TASKS))
def test_degradations_change_the_image_but_neither_range_nor_shape(photograph, generator, task):
    degraded = degrade(photograph, task, generator)
    assert degraded.shape == photograph.shape
    assert degraded.min() >= 0
    assert degraded.max() <= 1 + 1e-6  # the taps of a blur sum to 1 up to rounding
    assert not torch.allclose(degraded, photograph, atol=1e-4)


@pytest.mark.parametrize("task", list(TASKS))
def test_the_generator_alone_decides_the_strength(photograph, task):
    torch.manual_seed(0)
    first = degrade(photograph, task, torch.Generator().manual_seed(7))
    torch.manual_seed(1)
    assert degrade(photograph, task, torch.Generator().manual_seed(7)).equal(first)
    assert not degrade(photograph, task, torch.Generator().manual_seed(8)).equal(first)


def test_unknown_degradations_are_refused(photograph, generator):
    with pytest.raises(ValueError, match="no degradation 'rain'; there are noise, blur, jpeg"):
        degrade(photograph, "rain", generator)
