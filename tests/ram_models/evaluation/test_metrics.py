"""PSNR and SSIM: closed forms, then scikit-image on photographs."""

import math

import numpy as np
import pytest
import torch
from skimage import data
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from macattr.image_files import center_crop
from ram_models.degradations import add_gaussian_noise, compress_jpeg, gaussian_blur
from ram_models.evaluation.metrics import Convention, luma, psnr, ssim

EXACT = Convention(rounded=False)

DEGRADATIONS = {
    "noise": lambda image: add_gaussian_noise(image, 25.0, torch.Generator().manual_seed(0)),
    "blur": lambda image: gaussian_blur(image, 2.0, 15),
    "JPEG": lambda image: compress_jpeg(image, 20),
    "low light": lambda image: 0.1 * image,
}


def by_skimage(degraded: torch.Tensor, clean: torch.Tensor) -> tuple[float, float]:
    """PSNR and SSIM of scikit-image, both in float64."""
    a, b = (image.permute(1, 2, 0).double().numpy() for image in (degraded, clean))
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    similarity = structural_similarity(b, a, data_range=1, channel_axis=-1, **options)
    return peak_signal_noise_ratio(b, a, data_range=1), similarity


@pytest.mark.parametrize("error", [0.5, 0.1, 0.01])
def test_psnr_of_a_constant_error_is_minus_20_log10_of_it(error):
    grey = torch.full((3, 8, 8), 0.4, dtype=torch.float64)
    assert psnr(grey + error, grey, EXACT) == pytest.approx(-20 * math.log10(error), abs=1e-5)  # float32 result


def test_psnr_of_equal_images_is_infinite():
    image = torch.rand(3, 8, 8)
    assert psnr(image, image) == math.inf


def test_ssim_of_equal_images_is_one():
    image = torch.rand(3, 16, 16)
    assert ssim(image, image) == pytest.approx(1, abs=1e-6)


def test_ssim_of_flat_images_is_the_luminance_term():
    """Without variance SSIM is (2 a b + c1) / (a^2 + b^2 + c1)."""
    a, b, c1 = 0.4, 0.6, 0.01**2
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    # float32 leaves a variance of about 1e-8 beside c2 = 9e-4.
    assert ssim(torch.full((3, 16, 16), a), torch.full((3, 16, 16), b), EXACT) == pytest.approx(expected, abs=1e-4)


def test_ssim_leaves_out_windows_that_reach_over_the_border():
    clean = torch.rand(3, 11, 11)
    spoilt = clean.clone()
    spoilt[:, 0, 0] = 1 - spoilt[:, 0, 0].round()
    # One window fits, and its corner weighs exp(-(25 + 25) / (2 * 1.5^2)) / 14 = 1e-6 of it.
    assert ssim(spoilt, clean, EXACT) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [((0, 0, 0), 16), ((1, 1, 1), 235), ((1, 0, 0), 81.481), ((0, 1, 0), 144.553), ((0, 0, 1), 40.966)],
    ids=["black", "white", "red", "green", "blue"],
)
def test_luma_has_the_values_of_bt_601(rgb, expected):
    colour = torch.tensor(rgb, dtype=torch.float64).reshape(3, 1, 1)
    assert float(luma(colour)) * 255 == pytest.approx(expected)


def test_luma_is_that_of_scikit_image():
    image = torch.rand(3, 5, 7, dtype=torch.float64)
    expected = rgb2ycbcr(image.permute(1, 2, 0).numpy())[..., 0] / 255
    torch.testing.assert_close(luma(image)[0], torch.from_numpy(expected))


def test_the_y_convention_compares_luma_alone():
    """A change of colour that keeps the luma is no error."""
    clean = torch.full((3, 16, 16), 0.5, dtype=torch.float64)
    shifted = clean + torch.tensor([24.966, 0, -65.481], dtype=torch.float64).reshape(3, 1, 1) / 255
    assert psnr(shifted, clean, Convention(channels="y", rounded=False)) > 200
    assert psnr(shifted, clean, EXACT) < 20


def test_a_border_is_cut_off_every_side():
    clean = torch.rand(3, 20, 24)
    framed = torch.zeros(3, 20, 24)
    framed[:, 2:-2, 2:-2] = clean[:, 2:-2, 2:-2]
    assert psnr(framed, clean, Convention(border=2)) == math.inf
    assert psnr(framed, clean, Convention(border=1)) < 50


def test_the_data_range_scales_psnr_out():
    restored, clean = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    wide = Convention(data_range=255.0, rounded=False)
    assert psnr(restored * 255, clean * 255, wide) == pytest.approx(psnr(restored, clean, EXACT))
    assert ssim(restored * 255, clean * 255, wide) == pytest.approx(ssim(restored, clean, EXACT), abs=1e-5)


def test_rounding_is_to_256_levels_and_values_outside_are_clipped():
    clean = torch.full((3, 8, 8), 100 / 255)
    assert psnr(clean + 0.4 / 255, clean) == math.inf
    assert psnr(clean + 0.6 / 255, clean) == pytest.approx(20 * math.log10(255), abs=1e-4)
    assert psnr(torch.full((3, 8, 8), 7.0), torch.ones(3, 8, 8)) == math.inf


@pytest.mark.parametrize("degradation", DEGRADATIONS)
@pytest.mark.parametrize("photograph", ["astronaut", "coffee"])
def test_degraded_photographs_are_scored_as_by_scikit_image(photograph, degradation):
    """1e-4 is what is promised; float32 keeps SSIM within 2e-5 on photographs."""
    pixels = torch.from_numpy(getattr(data, photograph)()).permute(2, 0, 1).float() / 255
    clean = center_crop(pixels, 320)
    degraded = (DEGRADATIONS[degradation](clean) * 255).round().clamp(0, 255) / 255
    expected = by_skimage(degraded, clean)
    assert psnr(degraded, clean) == pytest.approx(expected[0], abs=1e-4)
    assert ssim(degraded, clean) == pytest.approx(expected[1], abs=1e-4)


@pytest.mark.parametrize("channels", ["rgb", "y"])
@pytest.mark.parametrize("border", [0, 3])
def test_every_convention_agrees_with_scikit_image(channels, border):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (2, 32, 40, 3), np.uint8)
    restored, clean = (torch.from_numpy(p).permute(2, 0, 1).float() / 255 for p in pixels)
    inner = pixels[:, border : 32 - border, border : 40 - border]
    a, b = (rgb2ycbcr(p)[..., :1] / 255 if channels == "y" else p / 255 for p in inner)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": -1}
    convention = Convention(channels=channels, border=border)
    assert psnr(restored, clean, convention) == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1), abs=1e-4)
    expected = structural_similarity(b, a, data_range=1, **options)
    assert ssim(restored, clean, convention) == pytest.approx(expected, abs=1e-4)


def test_a_convention_says_what_it_is():
    assert str(Convention()) == "RGB, rounded to 8 bits, no border cut, data range 1"
    assert str(Convention("y", 4, 255.0, rounded=False)) == (
        "Y of YCbCr (BT.601 as in MATLAB), not rounded, 4 border pixels cut, data range 255"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"border": -1}, "`border` must be at least 0 pixels, got -1"),
        ({"data_range": 0.0}, "`data_range` must be positive, got 0.0"),
        ({"channels": "yuv"}, "`channels` must be 'rgb' or 'y', got 'yuv'"),
    ],
)
def test_conventions_that_mean_nothing_are_refused(as_users_run_it, options, message):
    with pytest.raises(ValueError, match=message):
        Convention(**options)


def test_images_that_cannot_be_compared_are_refused(as_users_run_it):
    with pytest.raises(ValueError, match="has 8x9 pixels, the clean one 8x8"):
        psnr(torch.rand(3, 8, 9), torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match="not finite"):
        psnr(torch.full((3, 8, 8), math.nan), torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match="SSIM needs 11 pixels a side, got 10x12"):
        ssim(torch.rand(3, 10, 12), torch.rand(3, 10, 12))
    with pytest.raises(ValueError, match="`border` 4 leaves nothing of an image of 8x8"):
        psnr(torch.rand(3, 8, 8), torch.rand(3, 8, 8), Convention(border=4))
