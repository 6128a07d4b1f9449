import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio

from macattr.paths.objectives import (
    Distance,
    GradientMagnitude,
    Objective,
    OutputMean,
    OutputNorm,
    OutputSum,
    Target,
    Window,
)


def ramp(down: float, right: float, height: int = 5, width: int = 7) -> torch.Tensor:
    """Two images of three channels that rise by ``down`` a row and ``right`` a column."""
    rows, columns = torch.arange(height, dtype=torch.float64)[:, None], torch.arange(width, dtype=torch.float64)
    return (down * rows + right * columns).expand(2, 3, height, width)


def test_gradient_magnitude_of_a_ramp_is_its_slope_times_the_positions_with_both_neighbours():
    got = GradientMagnitude(eps=0.0)(ramp(0.3, 0.4))
    torch.testing.assert_close(got, torch.full((2,), 3 * 4 * 6 * 0.5, dtype=torch.float64))


def test_gradient_magnitude_changes_by_at_most_eps_per_position():
    image = torch.rand(1, 3, 5, 7, dtype=torch.float64)
    change = GradientMagnitude(eps=0.01)(image) - GradientMagnitude(eps=0.0)(image)
    assert 0 < float(change) <= 0.01 * 3 * 4 * 6


@pytest.mark.parametrize(("eps", "finite"), [(GradientMagnitude().eps, True), (0.0, False)], ids=["default", "eps=0"])
def test_gradient_on_flat_images_is_finite_by_default_only(eps, finite):
    flat = torch.ones(1, 1, 3, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(GradientMagnitude(eps)(flat).sum(), flat)
    assert bool(gradient.isfinite().all()) == finite


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 3, 1, 8)], ids=["no_image", "one_row"])
def test_gradient_magnitude_needs_images(shape):
    with pytest.raises(ValueError, match=r"needs an output of images \(B, C, H, W\).*choose another `objective`"):
        GradientMagnitude()(torch.rand(shape))


def test_output_sum_and_mean_reduce_everything_but_the_batch():
    output = torch.arange(12.0).reshape(2, 3, 2)
    assert OutputSum()(output).tolist() == [15, 51]
    assert OutputMean()(output).tolist() == [2.5, 8.5]


def test_the_norm_has_its_gradient_and_at_0_the_least_subgradient():
    output = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    value = OutputNorm()(output)
    (gradient,) = torch.autograd.grad(value.sum(), output)
    assert value.tolist() == [5.0, 0.0]
    assert gradient.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 0.0]]


@pytest.mark.parametrize(("metric", "expected"), [("l1", [0.5, 0.25]), ("l2", [0.25, 0.0625])])
def test_distance_is_the_mean_error_per_sample(metric, expected):
    reference = torch.zeros(1, 3, 2, 2)
    output = torch.tensor([0.5, -0.25]).reshape(2, 1, 1, 1).expand(2, 3, 2, 2)
    assert Distance(reference, metric)(output).tolist() == pytest.approx(expected)


def test_psnr_distance_equals_torchmetrics():
    output, clean = torch.rand(2, 2, 3, 8, 8)
    want = peak_signal_noise_ratio(output, clean, data_range=1.0, dim=(1, 2, 3), reduction="none")
    torch.testing.assert_close(Distance(clean, "psnr")(output), want)


def test_window_reads_inside_the_rectangle_only():
    output = torch.rand(2, 3, 8, 9)
    got = Window(GradientMagnitude(), top=1, left=2, height=4, width=5)(output)
    torch.testing.assert_close(got, GradientMagnitude()(output[:, :, 1:5, 2:7]))


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (1, [1, 4]),
        ([0, 2], [0, 5]),
        ([1], [1, 4]),
        (torch.tensor([2, 0]), [2, 3]),
        (torch.tensor(1), [1, 4]),
        ((2,), [2, 5]),
    ],
    ids=["index", "per_sample", "one_in_a_list", "tensor", "scalar_tensor", "tuple"],
)
def test_target_selects_one_output_per_sample(target, expected):
    assert Target(target)(torch.arange(6.0).reshape(2, 3)).tolist() == expected


@pytest.mark.parametrize(
    ("target", "expected"), [((1, 0), [2, 6]), ([(0, 1), (1, 1)], [1, 7])], ids=["tuple", "per_sample"]
)
def test_target_tuples_index_further_dimensions(target, expected):
    assert Target(target)(torch.arange(8.0).reshape(2, 2, 2)).tolist() == expected


def test_no_target_means_the_only_output():
    assert Target()(torch.tensor([[1.0], [2.0]])).tolist() == [1, 2]


@pytest.mark.parametrize(
    "objective",
    [GradientMagnitude(), OutputSum(), OutputMean(), Distance(torch.zeros(1, 1, 4, 4)), Target((0, 1, 1))],
    ids=lambda objective: type(objective).__name__,
)
def test_objectives_never_mix_samples(objective):
    output = torch.rand(3, 1, 4, 4, requires_grad=True)
    assert isinstance(objective, Objective)
    (gradient,) = torch.autograd.grad(objective(output)[1], output)
    assert gradient[1].abs().sum() > 0
    assert gradient[[0, 2]].abs().sum() == 0


@pytest.mark.parametrize(
    ("evaluate", "message"),
    [
        (lambda: Distance(torch.zeros(1, 3, 4, 4), "ssim"), "`metric` must be one of l1, l2, psnr, got 'ssim'"),
        (lambda: Distance(torch.zeros(1, 3))(torch.zeros(2, 4)), r"of shape \(1, 3\) does not fit .* \(2, 4\)"),
        (lambda: Distance(torch.zeros(2, 3))(torch.zeros(3, 3)), r"reference of shape \(2, 3\) does not fit"),
        (lambda: Window(OutputSum(), 0, 0, 5, 1)(torch.zeros(1, 1, 4, 4)), "rows 0-5, columns 0-1 leaves .* 4x4"),
        (lambda: Window(OutputSum(), -1, 0, 2, 1)(torch.zeros(1, 1, 4, 4)), "window rows -1-1"),
        (lambda: Window(OutputSum(), 0, 0, 0, 1)(torch.zeros(1, 1, 4, 4)), "window rows 0-0"),
        (lambda: Target()(torch.zeros(2, 3)), r"shape \(2, 3\) is not one number per sample: pass `target`"),
        (lambda: Target(3)(torch.zeros(2, 3)), r"`target` 3 is out of range of outputs of shape \(3,\)"),
        (lambda: Target([0, 1, 2])(torch.zeros(2, 3)), "`target` has 3 entries for 2 samples"),
        (lambda: Target((0, 0))(torch.zeros(2, 3)), r"`target` \(0, 0\) does not select one number of .* \(3,\)"),
        (lambda: Target([0, 0])(torch.zeros(2, 3, 4)), r"`target` 0 does not select one number of .* \(3, 4\)"),
        (lambda: Target(0)(torch.zeros(2, 3, 4)), r"`target` 0 does not select one number of .* \(3, 4\)"),
        (lambda: Target(1)(torch.zeros(2)), r"`target` 1 does not select one number of outputs of shape \(\)"),
    ],
    ids=[
        "metric", "distance_shape", "distance_batch", "window_below", "window_above", "window_empty", "no_target",
        "target_range", "target_count", "target_too_deep", "targets_too_shallow", "target_too_shallow",
        "target_of_scalars",
    ],
)  # fmt: skip
@pytest.mark.usefixtures("as_users_run_it")
def test_objectives_that_do_not_fit_the_output_are_refused(evaluate, message):
    with pytest.raises(ValueError, match=message):
        evaluate()
