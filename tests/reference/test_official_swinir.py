"""RAM-SwinIR against the authors' network."""

import pytest
import torch

from macattr.layers import resolve_layers
from ram_models.archs.swinir import SwinIR

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


@pytest.fixture(scope="module")
def full_swinir():
    with torch.device("meta"):
        return SwinIR()


def test_state_dict_has_the_official_names_and_shapes(full_swinir, data_folder):
    lines = (data_folder / "ram_swinir_shapes.txt").read_text().splitlines()
    official = {name: tuple(map(int, shape.split("x"))) for name, shape in map(str.split, lines)}
    assert {name: tuple(value.shape) for name, value in full_swinir.state_dict().items()} == official


def test_layers_are_the_official_ones_in_their_order(full_swinir, data_folder):
    assert list(resolve_layers(full_swinir)) == (data_folder / "ram_swinir_layers.txt").read_text().split()


def test_number_of_parameters_is_the_official_one(full_swinir):
    assert sum(parameter.numel() for parameter in full_swinir.parameters()) == 11_512_131
