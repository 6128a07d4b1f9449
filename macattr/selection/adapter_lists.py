"""Selections as lists of layers that other tools give low-rank adapters: Axolotl, diffusers' scripts, sd-scripts."""

__all__ = ["read_axolotl", "read_diffusers", "read_kohya", "write_axolotl", "write_diffusers", "write_kohya"]

import json
import re
import tomllib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml
from torch import nn

from macattr.layers.parameters import layer_of
from macattr.selection.lora import AdaptedLayers, Bare, adapted_layers, lora_config, uniform_lora_config
from macattr.selection.rules import Selection

FLUX_BLOCKS = {"double": "transformer_blocks", "single": "single_transformer_blocks"}
"""The two kinds of blocks of Flux in sd-scripts, and their names in diffusers."""

ATTENTION = re.compile(r"(?:(down|up)_blocks\.(\d+)|mid_block)\.attentions\.(\d+)(?=\.)")
"""The attention blocks of a UNet in diffusers, which are what sd-scripts adapts."""


class _Counting(NamedTuple):
    """How sd-scripts counts the blocks of a UNet; there are three places for each resolution."""

    total: int
    down: int  # number of the first place on the way down
    middle: int  # number of the attention block in the middle
    up: int  # number of the first place on the way up


UNETS = {4: _Counting(total=25, down=1, middle=12, up=13), 3: _Counting(total=23, down=2, middle=11, up=13)}
"""Of Stable Diffusion 1 and 2, and of SDXL, by the number of resolutions."""

JOINT_BLOCKS = ("joint_blocks", "transformer_blocks")
"""The blocks of Stable Diffusion 3 in sd-scripts, and their name in diffusers."""

JOINT_IN_DIFFUSERS = {"context_embedder", "transformer_blocks.0.attn.add_q_proj", "transformer_blocks.0.ff_context"}
"""Modules that a transformer of diffusers with such blocks holds."""

JOINT_PARTS = {
    "context_attn_dim": r"context_block\.attn\.|attn\.(?:add_|to_add_)",
    "context_mlp_dim": r"context_block\.mlp\.|ff_context\.",
    "context_mod_dim": r"context_block\.adaLN_modulation\.|norm1_context\.",
    "x_attn_dim": r"x_block\.attn2?\.|attn\.to_(?!add_)|attn2\.",
    "x_mlp_dim": r"x_block\.mlp\.|ff\.",
    "x_mod_dim": r"x_block\.adaLN_modulation\.|norm1\.",
}
"""Arguments of sd-scripts for parts of these blocks, and how the names of their layers begin inside a block."""


def write_axolotl(selection: Selection, path: Path, model: nn.Module, *, rank: int, bare: Bare) -> str:
    """Write the part of Axolotl's configuration that chooses adapters, and read it back.

    Args:
        selection: Selection to write.
        path: File.
        model: The network.
        rank: Rank and alpha of all adapters.
        bare: Treatment of bare and tied parameters, see :func:`macattr.selection.lora.lora_config`.

    Returns:
        The checks that were made, in words.

    Raises:
        ValueError: As ``lora_config``, or if other layers would be adapted with one rank for all.
        ImportError: If peft is not installed.
    """
    config = lora_config(selection.mask(), model, rank=rank, bare=bare)
    chosen = config.target_modules or []
    content: dict[str, object] = {
        "adapter": "lora",
        "lora_r": rank,
        "lora_alpha": rank,
        "lora_target_modules": chosen if isinstance(chosen, str) else sorted(chosen),
    }
    if config.target_parameters:
        content |= {"lora_target_parameters": sorted(config.target_parameters), "lora_dropout": 0.0}
    if config.modules_to_save:
        content["lora_modules_to_save"] = list(config.modules_to_save)
    path.write_text(f"# {selection}\n{yaml.safe_dump(content, sort_keys=False, width=100_000)}")
    expected, read = adapted_layers(config, model), read_axolotl(path, model)
    _compare(path, {*read.adapted, *read.saved}, {*expected.adapted, *expected.saved})
    return f"read back and applied: {read}"


def read_axolotl(path: Path | str, model: nn.Module) -> AdaptedLayers:
    """What Axolotl adapts and copies in a network.

    Raises:
        ValueError: If the file is no configuration of adapters, or peft refuses it.
        ImportError: If peft is not installed.
    """
    try:
        content = yaml.safe_load(Path(path).read_text())
        config = uniform_lora_config(
            content["lora_r"],
            content["lora_target_modules"],
            content.get("lora_target_parameters", ()),
            content.get("lora_modules_to_save", ()),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as adapters for Axolotl: {error!r}.") from error
    return adapted_layers(config, model)


def write_diffusers(selection: Selection, path: Path, model: nn.Module) -> str:
    """Write the value of ``--lora_layers`` of diffusers' training scripts, and read it back.

    Args:
        selection: Selection to write.
        path: File.
        model: The network.

    Returns:
        The checks that were made, in words.

    Raises:
        ValueError: If a layer has no adapter, or other layers have names that end in a selected one.
        ImportError: If peft is not installed.
    """
    layers = _owners(selection, model)
    path.write_text(f"{','.join(layers)}\n")
    read = read_diffusers(path, model)
    _compare(path, read, layers)
    return f"read back and applied: {len(read)} layers with adapters"


def read_diffusers(path: Path | str, model: nn.Module) -> list[str]:
    """Layers to which the training scripts of diffusers give adapters: names, or names that end in a listed one.

    Raises:
        ValueError: If the file cannot be read, or peft has no adapter for a layer.
        ImportError: If peft is not installed.
    """
    try:
        names = [name.strip() for name in Path(path).read_text().split(",")]
    except (OSError, ValueError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as a list of layers: {error!r}.") from error
    return list(adapted_layers(uniform_lora_config(1, names), model).adapted)


def write_kohya(selection: Selection, path: Path, model: nn.Module, *, rank: int) -> str:
    """Write a configuration file of sd-scripts with the arguments of the network, and read it back.

    Args:
        selection: Selection to write.
        path: File.
        model: Flux or Stable Diffusion 3, with the names of their authors or of diffusers, or a UNet of diffusers
            (Stable Diffusion 1, 2 or XL).
        rank: Rank and alpha of all adapters.

    Returns:
        The checks that were made, in words.

    Raises:
        ValueError: If the network has other names, or the format cannot hold the selection.
    """
    layers = _owners(selection, model)
    known = {name for name, _ in model.named_modules()}
    if {"double_blocks.0", "single_blocks.0"} <= known:
        module, arguments = "networks.lora_flux", [_flux_layers(layers)]
    elif {f"{name}.0" for name in FLUX_BLOCKS.values()} <= known:
        module, arguments = "networks.lora_flux", _flux_blocks(layers)
    elif {"context_embedder", "joint_blocks.0.x_block"} <= known or known >= JOINT_IN_DIFFUSERS:
        module, arguments = "networks.lora_sd3", _joint_blocks(layers)
    elif counting := _counting_of(model):
        module, arguments = "networks.lora", [_unet_blocks(layers, rank, counting)]
    else:
        raise ValueError(
            f"sd-scripts names layers of Flux and of Stable Diffusion 1, 2, XL and 3 only, and {type(model).__name__} "
            "has other names: the formats diffusers and peft take any network."
        )
    listed = ", ".join(json.dumps(argument) for argument in arguments)
    path.write_text(
        f'# {selection}\nnetwork_module = "{module}"\nnetwork_dim = {rank}\nnetwork_alpha = {rank}\n'
        f"network_train_unet_only = true\nnetwork_args = [{listed}]\n"
    )
    read = read_kohya(path, model)
    _compare(path, read, layers)
    return f"read back by the rules of sd-scripts: {len(read)} layers with adapters"


def read_kohya(path: Path | str, model: nn.Module) -> list[str]:
    """Layers of the denoising network to which sd-scripts gives adapters: its rules, on a network with known names.

    Raises:
        ValueError: If the file is no such configuration.
    """
    try:
        content = tomllib.loads(Path(path).read_text())
        arguments = dict(argument.split("=", 1) for argument in content["network_args"])
        if patterns := arguments.get("network_reg_dims"):
            return _adapted_by_patterns(patterns, model)
        if dims := arguments.get("block_dims"):
            return _adapted_in_unet([int(dim) for dim in dims.split(",")], model)
        if (listed := arguments.get("train_block_indices")) is not None:
            parts = {part for part in JOINT_PARTS if int(arguments.get(part, 1))}
            return [name for name in _linear(model) if _is_joint(name, _indices(listed), parts)]
        kinds = {kind: _indices(arguments[f"train_{kind}_block_indices"]) for kind in FLUX_BLOCKS}
    except (OSError, ValueError, KeyError, TypeError, re.error) as error:
        raise ValueError(f"{str(path)!r} cannot be read as a network of sd-scripts: {error!r}.") from error
    starts = [f"{FLUX_BLOCKS[kind]}.{index}." for kind, indices in kinds.items() for index in indices]
    return [name for name in _linear(model) if name.startswith(tuple(starts))]


def _flux_layers(layers: Collection[str]) -> str:
    """Rank 0 for all layers of Flux but these, with the names of its authors."""
    return f"network_reg_dims=^(?!lora_unet_(?:{'|'.join(name.replace('.', '_') for name in layers)})$)=0"


def _adapted_by_patterns(patterns: str, model: nn.Module) -> list[str]:
    """Layers in the blocks of Flux that no pattern gives the rank 0."""
    dims = dict(pattern.rsplit("=", 1) for pattern in patterns.split(","))
    return [
        name
        for name in _linear(model)
        if re.match(r"(?:double|single)_blocks\.\d+\.", name)
        and all(int(dim) or not re.search(key, f"lora_unet_{name.replace('.', '_')}") for key, dim in dims.items())
    ]


def _flux_blocks(layers: Collection[str]) -> list[str]:
    """Whole blocks of Flux, with the names of diffusers; sd-scripts joins queries, keys and values to one layer."""
    arguments = []
    for kind, block in FLUX_BLOCKS.items():
        found = (re.match(rf"{block}\.(\d+)\.", name) for name in layers)
        indices = sorted({int(match[1]) for match in found if match})
        arguments.append(f"train_{kind}_block_indices={','.join(map(str, indices)) or 'none'}")
    return arguments


def _indices(listed: str) -> list[int]:
    """The blocks in a list such as ``0,3-5``."""
    ends = [part.partition("-")[::2] for part in listed.split(",") if listed != "none"]
    return [index for first, last in ends for index in range(int(first), int(last or first) + 1)]


def _joint_blocks(layers: Collection[str]) -> list[str]:
    """Blocks of Stable Diffusion 3, and rank 0 for the parts that none of them trains."""
    places = [place for layer in layers if (place := _joint_place(layer))]
    indices = ",".join(map(str, sorted({index for index, _ in places})))
    idle = [part for part in JOINT_PARTS if part not in {part for _, part in places}]
    return [f"train_block_indices={indices or 'none'}", *(f"{part}=0" for part in idle)]


def _joint_place(layer: str) -> tuple[int, str] | None:
    """Block and part of Stable Diffusion 3 that a layer lies in."""
    if not (found := re.match(rf"(?:{'|'.join(JOINT_BLOCKS)})\.(\d+)\.", layer)):
        return None
    inside = layer[found.end() :]
    part = next((part for part, start in JOINT_PARTS.items() if re.match(start, inside)), None)
    return None if part is None else (int(found[1]), part)


def _is_joint(layer: str, indices: Collection[int], parts: Collection[str]) -> bool:
    """Whether a layer lies in one of the parts of one of the blocks."""
    place = _joint_place(layer)
    return place is not None and place[0] in indices and place[1] in parts


def _counting_of(model: nn.Module) -> _Counting | None:
    """How sd-scripts counts the blocks of a UNet of diffusers; None for other networks."""
    down, middle = getattr(model, "down_blocks", None), getattr(model, "mid_block", None)
    if not isinstance(down, nn.ModuleList) or not hasattr(middle, "attentions"):
        return None
    pairs = all(len(getattr(block, "resnets", ())) == 2 for block in down)  # small UNets count otherwise
    return UNETS.get(len(down)) if pairs else None


def _adapted_in_unet(dims: Sequence[int], model: nn.Module) -> list[str]:
    """Layers in the attention blocks of a UNet that have a rank."""
    counting = _counting_of(model)
    if counting is None or len(dims) != counting.total:
        needed = "no UNet that it knows" if counting is None else f"{counting.total} for this network"
        raise ValueError(f"{len(dims)} numbers in block_dims, {needed}")
    numbers = {name: _block_number(name, counting) for name in _linear(model)}
    return [name for name, number in numbers.items() if number is not None and dims[number]]


def _unet_blocks(layers: Collection[str], rank: int, counting: _Counting) -> str:
    """The rank of every block of a UNet."""
    chosen = {_block_number(name, counting) for name in layers}
    return f"block_dims={','.join(str(rank if number in chosen else 0) for number in range(counting.total))}"


def _block_number(layer: str, counting: _Counting) -> int | None:
    """Number of the attention block that a layer lies in, as sd-scripts counts."""
    if not (found := ATTENTION.match(layer)):
        return None
    side, resolution, place = found.groups()
    if side is None:
        return counting.middle
    return (counting.down if side == "down" else counting.up) + 3 * int(resolution) + int(place)


def _linear(model: nn.Module) -> list[str]:
    """Names of the linear layers and of the convolutions that look at single pixels."""
    return [
        name
        for name, module in model.named_modules()
        if type(module).__name__ == "Linear" or (type(module).__name__ == "Conv2d" and module.kernel_size == (1, 1))
    ]


def _owners(selection: Selection, model: nn.Module) -> list[str]:
    """The layers that own the selected parameters, also where a selection is of whole modules."""
    return list(dict.fromkeys(layer_of(name) for name in selection.mask().parameter_names(model)))


def _compare(path: Path, read: Collection[str], expected: Collection[str]) -> None:
    """Raise if a file stands for other layers than the selected ones."""
    differences = [
        f"{word} {len(layers)} layers such as {layers[0]!r}"
        for word, layers in (
            ("adapt", sorted(set(read) - set(expected))),
            ("leave out", sorted(set(expected) - set(read))),
        )
        if layers
    ]
    if differences:
        raise ValueError(
            f"{str(path)!r} cannot hold this selection: its reader would {' and '.join(differences)}. Change the "
            "selection by include and exclude, or choose the format peft, which names any layers."
        )
