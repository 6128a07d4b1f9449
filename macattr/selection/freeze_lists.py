"""Selections as lists of what other tools train in full: LLaMA-Factory, ms-swift, finetuning-scheduler."""

__all__ = ["FREEZE_LISTS", "FreezeList", "first_names"]

import argparse
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import yaml
from torch import nn

from macattr.selection.rules import Selection

INDEX = re.compile(r"\.(\d+)\.")
"""The number of a block in the name of a parameter, as LLaMA-Factory finds it."""

ANY_LAYERS = "ms-swift and spectrum (which Axolotl reads) take any layers"
"""What to do with layers that a format cannot name."""


@dataclass(frozen=True)
class FreezeList:
    """A format of files that say which parameters another tool trains.

    Args:
        write: The text for a selection; the network is that of the selection.
        read: Names of the parameters that the tool trains in this network when it reads such a file.
    """

    write: Callable[[Selection, nn.Module], str]
    read: Callable[[Path, nn.Module], list[str]]


def first_names(names: Iterable[str], model: nn.Module) -> list[str]:
    """Names under which ``model.named_parameters()`` lists these parameters, in its order; tied ones have one.

    Example:
        >>> net = nn.ModuleDict({"embed": nn.Linear(2, 3), "head": nn.Linear(2, 3)})
        >>> net["head"].weight = net["embed"].weight
        >>> first_names(["head.bias", "head.weight"], net)
        ['embed.weight', 'head.bias']
    """
    chosen = {id(model.get_parameter(name)) for name in names}
    return [name for name, parameter in model.named_parameters() if id(parameter) in chosen]


def _selected(selection: Selection, model: nn.Module) -> list[str]:
    """The parameters of a selection as the other tools name them."""
    return first_names(selection.mask().parameter_names(model), model)


def _yaml(selection: Selection, content: object) -> str:
    """A YAML file, below the selection in words."""
    return f"# {selection}\n{yaml.safe_dump(content, sort_keys=False, width=100_000)}"


def _load(path: Path, tool: str) -> dict[object, object]:
    """The mapping in a YAML file."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as a file for {tool}: {error!r}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{str(path)!r} cannot be read as a file for {tool}: it holds no mapping.")
    return content


def _write_llama_factory(selection: Selection, model: nn.Module) -> str:
    """Blocks at one end, the modules in them, and modules outside of blocks."""
    names = _selected(selection, model)
    number = _number_of_blocks(model)
    blocks: dict[int, set[str]] = {}
    outside: set[str] = set()
    for name in names:
        if found := INDEX.search(name):
            blocks.setdefault(int(found[1]), set()).add(name[found.end() :].partition(".")[0])
        else:
            outside.add(name.rpartition(".")[0].rpartition(".")[2])
    indices = sorted(blocks)
    is_last = indices == list(range(number - len(indices), number))
    if not indices or not (is_last or indices == list(range(len(indices)))):
        raise ValueError(
            f"LLaMA-Factory trains blocks at one end of a network, and this selection has the blocks {indices} of "
            f"{number}: {ANY_LAYERS}."
        )
    every = {
        name[found.end() :].partition(".")[0]
        for name, _ in model.named_parameters()
        if (found := INDEX.search(name)) and int(found[1]) in blocks
    }
    modules = set().union(*blocks.values())
    content = {
        "finetuning_type": "freeze",
        "freeze_trainable_layers": len(indices) if is_last else -len(indices),
        "freeze_trainable_modules": "all" if modules == every else ",".join(sorted(modules)),
    }
    if outside:
        content["freeze_extra_modules"] = ",".join(sorted(outside))
    if trained := sorted(set(_trained_by_llama_factory(content, model)) ^ set(names)):
        raise ValueError(
            "LLaMA-Factory trains the same whole modules in each of its blocks, so that this selection would gain or "
            f"lose {len(trained)} parameter tensors such as {trained[0]!r}: {ANY_LAYERS}."
        )
    return _yaml(selection, content)


def _read_llama_factory(path: Path, model: nn.Module) -> list[str]:
    """The parameters that LLaMA-Factory trains."""
    content = _load(path, "LLaMA-Factory")
    if content.get("finetuning_type") != "freeze":
        raise ValueError(f"{str(path)!r} freezes nothing in LLaMA-Factory: `finetuning_type` must be freeze.")
    return _trained_by_llama_factory(content, model)


def _trained_by_llama_factory(content: Mapping[object, object] | Mapping[str, object], model: nn.Module) -> list[str]:
    """LLaMA-Factory's rule: a parameter is trained if its name has a part such as ``.3.mlp`` or an extra module."""
    settings = {str(key): value for key, value in content.items()}
    count, number = int(str(settings.get("freeze_trainable_layers", 2))), _number_of_blocks(model)
    indices = range(max(0, number - count), number) if count > 0 else range(min(-count, number))
    modules = str(settings.get("freeze_trainable_modules", "all")).split(",")
    parts = [f".{index}.{'' if module == 'all' else module}" for index in indices for module in modules]
    parts += [module for module in str(settings.get("freeze_extra_modules", "")).split(",") if module]
    return [name for name, _ in model.named_parameters() if any(part in name for part in parts)]


def _number_of_blocks(model: nn.Module) -> int:
    """Number of blocks, where LLaMA-Factory looks for it."""
    config = getattr(model, "config", None)
    if hasattr(config, "vision_config"):
        raise ValueError(f"LLaMA-Factory has other rules for networks with a vision part: {ANY_LAYERS}.")
    config = getattr(config, "text_config", config)
    for name in ("num_hidden_layers", "num_layers", "n_layer"):
        if isinstance(number := getattr(config, name, None), int) and number:
            return number
    raise ValueError(
        f"LLaMA-Factory reads the number of blocks from the `config` of a language model, and {type(model).__name__} "
        f"has none: {ANY_LAYERS}."
    )


def _write_swift(selection: Selection, model: nn.Module) -> str:
    """Everything is frozen, then what one expression finds is trained; arguments alone, because xargs takes all."""
    names = "|".join(re.escape(name).replace("\\.", "[.]") for name in _selected(selection, model))
    return f"--freeze_parameters_ratio 1\n--trainable_parameters_regex {shlex.quote(f'^(?:{names})$')}\n"


def _read_swift(path: Path, model: nn.Module) -> list[str]:
    """The parameters that ms-swift trains: it searches the expression anywhere in a name."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--freeze_parameters_ratio", type=float, default=0.0)
    parser.add_argument("--trainable_parameters_regex", type=re.compile, default="(?!)")
    try:
        arguments, others = parser.parse_known_args(shlex.split(path.read_text()))
    except (OSError, ValueError, argparse.ArgumentError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as arguments of ms-swift: {error!r}.") from error
    if others:
        raise ValueError(f"{str(path)!r} cannot be read as arguments of ms-swift: what is {others[0]!r}?")
    if arguments.freeze_parameters_ratio != 1:
        raise ValueError(f"{str(path)!r} does not freeze all parameters first: --freeze_parameters_ratio must be 1.")
    return [name for name, _ in model.named_parameters() if arguments.trainable_parameters_regex.search(name)]


def _write_schedule(selection: Selection, model: nn.Module) -> str:
    """A phase for every layer, the most important first; the Lightning module or its ``model`` is the network."""
    mask = selection.mask()
    taken: set[str] = set()
    phases: dict[int, dict[str, list[str]]] = {}
    for layer in mask.layers:
        own = type(mask)((layer,), mask.whole_modules).parameter_names(model)
        fresh = [name for name in first_names(own, model) if name not in taken]
        taken |= set(fresh)
        if fresh:
            patterns = [re.escape(name).replace("\\.", "[.]") for name in fresh]
            phases[len(phases)] = {"params": [f"^(?:model[.])?{pattern}$" for pattern in patterns]}
    return _yaml(selection, phases)


def _read_schedule(path: Path, model: nn.Module) -> list[str]:
    """The parameters that are trained in the last phase: an expression matches from the start of a name."""
    tool = "finetuning-scheduler"
    phases = _load(path, tool)
    if list(phases) != list(range(len(phases))):
        raise ValueError(f"{str(path)!r} cannot be read as a file for {tool}: phases are numbered from 0.")
    names = [name for name, _ in model.named_parameters()]
    trained: list[str] = []
    for number, phase in phases.items():
        if not isinstance(phase, dict) or not phase.get("params"):
            raise ValueError(f"{str(path)!r}: phase {number} has no `params`.")
        for pattern in phase["params"]:
            found = [name for name in names if name == pattern or re.match(pattern, name)]
            if not found or set(found) & set(trained):
                raise ValueError(
                    f"{str(path)!r}: {pattern!r} of phase {number} matches "
                    f"{'a parameter of an earlier one' if found else 'no parameter of the network'}."
                )
            trained += found
    return trained


FREEZE_LISTS: Mapping[str, FreezeList] = MappingProxyType(
    {
        "finetuning-scheduler": FreezeList(_write_schedule, _read_schedule),
        "llama-factory": FreezeList(_write_llama_factory, _read_llama_factory),
        "ms-swift": FreezeList(_write_swift, _read_swift),
    }
)
"""Formats by name."""
