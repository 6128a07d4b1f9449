"""Networks by name, with their weights."""

__all__ = ["build", "ram_swinir", "ram_swinir_tiny"]

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ram_models.archs.rgb import RGBSwinIR

NETWORKS: Mapping[str, Mapping[str, int | list[int]]] = MappingProxyType(
    {
        "ram-swinir": {},
        "ram-swinir-tiny": {"embed_dim": 48, "depths": [4, 4, 4], "num_heads": [4, 4, 4]},
    }
)
"""Constructor arguments of :class:`ram_models.archs.swinir.SwinIR` by name; empty ones are the paper's network."""

BUNDLED = Path(__file__).parent / "weights"


def build(name: str, weights: Path | str | None = None) -> nn.Module:
    """A RAM network for RGB in [0, 1], in eval mode.

    Args:
        name: ``ram-swinir-tiny`` (92 layers, bundled weights) or ``ram-swinir`` (263 layers, the paper's size).
        weights: Safetensors file with its parameters; None takes the bundled weights if there are any, else a random
            initialisation.

    Raises:
        ValueError: If the name is unknown, or the file is missing or does not fit exactly.
    """
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; there are {', '.join(NETWORKS)}.")
    network = RGBSwinIR(**NETWORKS[name])
    file = BUNDLED / f"{name}.safetensors" if weights is None else Path(weights)
    if file.is_file():
        _load(network, file)
    elif weights is not None:
        raise ValueError(f"there is no file {str(weights)!r}.")
    return network.eval()


def ram_swinir_tiny() -> nn.Module:
    """The bundled small RAM-SwinIR: pre-trained with 50 % of the pixels hidden, not fine-tuned."""
    return build("ram-swinir-tiny")


def ram_swinir() -> nn.Module:
    """RAM-SwinIR at the paper's size, randomly initialised."""
    return build("ram-swinir")


def _load(network: nn.Module, file: Path) -> None:
    """Copy the parameters of a file into the network, all of them or none; its buffers follow from the architecture."""
    try:
        state = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{str(file)!r} cannot be read as safetensors: {error}.") from error
    derived = dict(network.named_buffers())
    state = {name: value for name, value in state.items() if name not in derived}
    own = dict(network.named_parameters())
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [name for name in own.keys() & state.keys() if own[name].shape != state[name].shape]
    if missing or unknown or shapes:
        raise ValueError(
            f"{file.name} does not fit: {len(missing)} parameters missing {missing[:3]}, {len(unknown)} unknown "
            f"{unknown[:3]}, {len(shapes)} of another shape {sorted(shapes)[:3]}."
        )
    network.load_state_dict(state, strict=False)
