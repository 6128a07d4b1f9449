"""RAM-PromptIR against the authors' network."""

import copy

import pytest
import torch

CALLS = pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("x",), "y"),
        (("x_odd",), "y_odd"),
        (("x", "mask", "zeros"), "y_masked_zero_token"),
        (("x", "mask"), "y_masked_zero_token"),
    ],
    ids=["whole", "padded", "masked", "masked_without_token"],
)


def arguments_of(io, names):
    arrays = io | {"zeros": torch.zeros_like(io["x"])}
    return [arrays[name] for name in names]


@pytest.fixture(scope="module")
def exact_promptir(official_promptir):
    """The same network in float64."""
    return copy.deepcopy(official_promptir).double()


@CALLS
@torch.no_grad()
def test_exact_outputs_equal_the_official_ones(exact_promptir, promptir_io, arguments, expected):
    got = exact_promptir(*(array.double() for array in arguments_of(promptir_io, arguments)))
    # What is left is the rounding of the official float32 numbers, up to 7 in magnitude: 7.6e-6 at most.
    torch.testing.assert_close(got, promptir_io[expected].double(), rtol=0, atol=1e-5)


@CALLS
@torch.no_grad()
def test_float32_outputs_equal_the_official_ones(official_promptir, promptir_io, arguments, expected):
    got = official_promptir(*arguments_of(promptir_io, arguments))
    # Each side is rounded by up to 8e-6 (see above), so their difference by up to twice that; 8e-6 to 1.1e-5 seen.
    torch.testing.assert_close(got, promptir_io[expected], rtol=0, atol=2e-5)
