"""RAM-SwinIR against the authors' network."""

import pytest
import torch

SAME_NUMBERS = {"rtol": 0, "atol": 1e-5}
"""float32 outputs of order one after a dozen layers, computed in another order of operations."""


@pytest.mark.parametrize(
    ("source", "expected"),
    [("x", "y"), ("x_odd", "y_odd"), ("x64", "y64")],
    ids=["training_size", "padded", "larger_and_batched"],
)
@torch.no_grad()
def test_outputs_equal_the_official_ones(official_swinir, swinir_io, source, expected):
    torch.testing.assert_close(official_swinir(swinir_io[source]), swinir_io[expected], **SAME_NUMBERS)


@torch.no_grad()
def test_masked_outputs_equal_the_official_ones_with_a_zero_token(official_swinir, swinir_io):
    got = official_swinir(swinir_io["x"], swinir_io["mask"], swinir_io["mask_token_zeros"])
    torch.testing.assert_close(got, swinir_io["y_masked_zero_token"], **SAME_NUMBERS)


@torch.no_grad()
def test_masked_outputs_equal_the_official_ones_with_the_learned_token(official_swinir, swinir_io):
    got = official_swinir(swinir_io["x"], swinir_io["mask"])
    torch.testing.assert_close(got, swinir_io["y_masked_learnable_token"], **SAME_NUMBERS)
