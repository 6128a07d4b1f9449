"""Numbers of the authors' released code; data/README.md says how they were made."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ram_models.networks.promptir import PromptIR
from ram_models.networks.swinir import SwinIR

DATA = Path(__file__).parent / "data"


def load(name: str) -> dict[str, Tensor]:
    with np.load(DATA / name) as arrays:
        return {key: torch.from_numpy(value) for key, value in arrays.items() if value.dtype.kind != "U"}


@pytest.fixture(scope="session")
def data_folder() -> Path:
    return DATA


@pytest.fixture(scope="session")
def official_swinir() -> SwinIR:
    """The small RAM-SwinIR with the official weights."""
    network = SwinIR(img_size=32, embed_dim=12, depths=(2, 2), num_heads=(2, 2)).eval()
    missing, unexpected = network.load_state_dict(load("small_swinir_weights.npz"), strict=False)
    derived = ("relative_position_index", "attn_mask")  # buffers that follow from the arguments
    assert not unexpected
    assert all(name.endswith(derived) for name in missing)
    return network


@pytest.fixture(scope="session")
def swinir_io() -> dict[str, Tensor]:
    return load("small_swinir_io.npz")


@torch.no_grad()
def fill_by_names(network: nn.Module) -> None:
    """Weights that follow from the names of the parameters alone; the rule stands in data/README.md."""
    for name, parameter in network.named_parameters():
        noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(parameter.shape))
        z = torch.from_numpy(noise.astype(np.float32))
        if parameter.ndim in (2, 4) and name.endswith("weight"):
            parameter.copy_(z / parameter[0].numel() ** 0.5)
        else:
            one = name.endswith("temperature") or (parameter.ndim <= 1 and name.endswith("weight"))
            parameter.copy_(one + 0.02 * z)


@pytest.fixture(scope="session")
def official_promptir() -> PromptIR:
    """The small RAM-PromptIR with the weights of the stored numbers."""
    network = PromptIR(num_blocks=(1, 1, 1, 1), num_refinement_blocks=1, ffn_expansion_factor=0.5).eval()
    fill_by_names(network)
    return network


@pytest.fixture(scope="session")
def promptir_io() -> dict[str, Tensor]:
    return load("small_promptir_io.npz")


@pytest.fixture(scope="session")
def official_path() -> dict[str, Tensor]:
    """Pixel order, and gates by path position."""
    arrays = load("mask_path.npz")
    return arrays | {"order": arrays["order"].long()}


@pytest.fixture(scope="session")
def official_scores() -> dict[str, dict[str, float]]:
    """Scores by kind and layer name."""
    with np.load(DATA / "mac_scores.npz") as arrays:
        names = arrays["names"].tolist()
        return {
            kind: dict(zip(names, values.tolist(), strict=True))
            for kind, values in arrays.items()
            if kind in ("right", "left", "trapezoid", "ig")
        } | {"objective": {end: float(arrays[f"objective_{end}"]) for end in ("start", "end")}}


@pytest.fixture(scope="session")
def official_neurons() -> dict[str, Tensor]:
    return load("mac_neurons.npz")
