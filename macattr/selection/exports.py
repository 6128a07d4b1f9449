"""Selections as files for other tools, each read back and compared with the selection and the network."""

__all__ = ["Format", "export", "match_parameters", "pattern_lines", "read_csv", "read_json", "read_patterns"]

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

import yaml
from torch import nn

from macattr.selection.adapter_lists import write_axolotl, write_diffusers, write_kohya
from macattr.selection.freeze_lists import FREEZE_LISTS, first_names
from macattr.selection.lora import Bare, adapted_layers, lora_config, read_lora_config
from macattr.selection.official import read_official_ranking, write_official_ranking
from macattr.selection.rules import Selection
from macattr.selection.trainable import TrainableMask

Format = Literal[
    "axolotl",
    "csv",
    "diffusers",
    "finetuning-scheduler",
    "json",
    "kohya",
    "llama-factory",
    "ms-swift",
    "official",
    "peft",
    "spectrum",
]
"""Names of the formats that :func:`export` writes."""

ADAPTERS = ("axolotl", "diffusers", "kohya")
"""Formats of tools that put adapters on layers, besides peft."""

FOLDERS = ("official", "peft")
"""Formats of several files."""

WITH_RANK = ("axolotl", "kohya", "peft")
"""Formats that hold ranks."""

WITH_BARE = ("axolotl", "peft")
"""Formats that can also hold copies in full."""


def export(
    selection: Selection,
    path: Path | str,
    form: Format,
    model: nn.Module | None = None,
    *,
    rank: int | None = None,
    bare: Bare | None = None,
) -> str:
    """Write a selection for another tool, read it back, and check it against the network.

    Args:
        selection: Selection to write.
        path: File, or folder for ``official`` and ``peft``; folders above it are made.
        form: ``json`` and ``csv`` for :func:`read_json` and :func:`read_csv`; ``official``, the three lists that the
            authors' fine-tuning reads (a ranking, so that only its top layers can be written); ``spectrum``, a YAML
            file with a list ``unfrozen_parameters`` of regular expressions, as Spectrum writes and Axolotl reads;
            ``peft``, the folder of a LoraConfig, see :func:`macattr.selection.lora.lora_config`; ``llama-factory``,
            ``ms-swift`` and ``finetuning-scheduler``, what these tools train in full
            (:mod:`macattr.selection.freeze_lists`); ``axolotl``, ``diffusers`` and ``kohya``, where they put adapters
            (:mod:`macattr.selection.adapter_lists`).
        model: The network to check against. Only ``csv``, ``json``, ``official`` and ``spectrum`` do without.
        rank: Rank of the adapters of ``peft``, ``axolotl`` and ``kohya`` (default 8). In ``peft`` the ranks follow the
            scores, if there are any, and cost together what this one would.
        bare: Treatment of bare and tied parameters by ``peft`` and ``axolotl`` (default ``refuse``).

    Returns:
        The checks that were made, in words.

    Raises:
        ValueError: If the format cannot hold this selection, or a name in it fits nothing or something else.
        ImportError: If ``peft`` is asked for and not installed.
    """
    if form not in get_args(Format):
        raise ValueError(f"`form` must be one of {', '.join(get_args(Format))}, got {form!r}.")
    for name, value, readers in (("rank", rank, WITH_RANK), ("bare", bare, WITH_BARE)):
        if value is not None and form not in readers:
            raise ValueError(f"`{name}` = {value!r} has no effect on {form!r}: it belongs to {', '.join(readers)}.")
    if form in FOLDERS and Path(path).is_file():
        raise ValueError(f"{str(path)!r} is a file: {form} writes a folder, name another.")
    if form not in FOLDERS and Path(path).is_dir():
        raise ValueError(f"{str(path)!r} is a folder: {form} writes a file, name one.")
    if form in FREEZE_LISTS or form in ADAPTERS:
        if model is None:
            raise ValueError(f"the format {form!r} needs the `model`: the file depends on its other layers too.")
        with _kept_on_error(Path(path)):
            return _export_for_tool(selection, Path(path), form, model, rank=rank, bare=bare)
    if form == "peft":
        if model is None:
            raise ValueError("the format 'peft' needs the `model`: adapters depend on the kinds of its layers.")
        config = lora_config(
            selection.mask(),
            model,
            rank=rank,
            scores=selection.scores or None,
            bare=bare or "refuse",
        )
        config.save_pretrained(str(path))
        return f"read back and applied: {adapted_layers(read_lora_config(path), model)}"
    expected = None if model is None else sorted(selection.mask().parameter_names(model))
    with _kept_on_error(Path(path)):
        if form == "spectrum":
            _write_spectrum(selection, Path(path), model)
            patterns = read_patterns(path)
            matched = None if model is None else sorted(match_parameters(patterns, model))
        else:
            mask = _write_layers(selection, Path(path), form)
            if mask != selection.mask():
                raise ValueError(f"{str(path)!r} reads back as another selection: {', '.join(mask.layers)}.")
            matched = None if model is None else sorted(mask.parameter_names(model))
        if matched != expected:
            raise ValueError(f"{str(path)!r} stands for {matched}, where {expected} are selected.")
    return (
        "read back; no network to check against"
        if expected is None
        else (f"read back; its {len(expected)} parameter tensors are in the network")
    )


@contextmanager
def _kept_on_error(path: Path) -> Iterator[None]:
    """A file is as it was before where it cannot be written as it should be: nothing else must be trained with."""
    before = path.read_bytes() if path.is_file() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if before is not None:
            path.write_bytes(before)
        elif path.is_file():
            path.unlink()
        raise


def _export_for_tool(
    selection: Selection, path: Path, form: str, model: nn.Module, *, rank: int | None, bare: Bare | None
) -> str:
    """Write what another tool trains, and compare it with what the tool's own rules find in the network."""
    rank, bare = 8 if rank is None else rank, bare or "refuse"
    if form == "axolotl":
        return write_axolotl(selection, path, model, rank=rank, bare=bare)
    if form == "diffusers":
        return write_diffusers(selection, path, model)
    if form == "kohya":
        return write_kohya(selection, path, model, rank=rank)
    path.write_text(FREEZE_LISTS[form].write(selection, model))
    expected = first_names(selection.mask().parameter_names(model), model)
    if trained := sorted(set(FREEZE_LISTS[form].read(path, model)) ^ set(expected)):
        raise ValueError(
            f"{str(path)!r} would train or leave out {len(trained)} other parameter tensors, such as {trained[0]!r}."
        )
    return f"read back by the rules of {form}; its {len(expected)} parameter tensors are in the network"


def _write_layers(selection: Selection, path: Path, form: Format) -> TrainableMask:
    """Write a format that names layers, and read it back."""
    if form == "json":
        path.write_text(json.dumps(_as_dict(selection), indent=2) + "\n")
        return read_json(path)
    if form == "csv":
        _write_csv(selection, path)
        return read_csv(path)
    ranked = tuple(selection.scores)
    if not ranked or selection.layers != ranked[: len(selection.layers)] or selection.table.whole_modules:
        raise ValueError(
            "the official lists hold a ranking, of which the first layers are trained: this selection is not the first "
            "of its ranking. Choose another format, or select by='layers' alone."
        )
    write_official_ranking(selection.scores, [name for name in selection.table.names if name in ranked], path)
    return TrainableMask(tuple(read_official_ranking(path))[: len(selection.layers)])


def _as_dict(selection: Selection) -> dict[str, object]:
    """A selection in plain values."""
    return {
        "kind": "macattr selection",
        "how": selection.how,
        "parameters": selection.parameters,
        "total": selection.table.total,
        "whole_modules": selection.table.whole_modules,
        "layers": [
            {"name": name, "score": selection.scores.get(name), "parameters": selection.table.count([name])}
            for name in selection.layers
        ],
        "ranking": {name: _plain(value) for name, value in selection.provenance.items()},
    }


def _plain(value: object) -> str | int | float:
    """A value as JSON has them; NetCDF returns numbers as numpy's."""
    item = getattr(value, "item", lambda: value)()
    return item if isinstance(item, int | float) else str(item)


def read_json(path: Path | str) -> TrainableMask:
    """The layers of a selection that was exported as JSON.

    Raises:
        ValueError: If the file cannot be read as one, or selects nothing.
    """
    try:
        content = json.loads(Path(path).read_text())
        mask = TrainableMask(tuple(layer["name"] for layer in content["layers"]), bool(content["whole_modules"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as an exported selection: {error!r}.") from error
    return _not_empty(mask, path)


def _write_csv(selection: Selection, path: Path) -> None:
    """One row a layer."""
    described = {layer.name: layer for layer in selection.table.layers}
    trains = "whole module" if selection.table.whole_modules else "own parameters"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("layer", "score", "type", "block", "parameters", "trains"))
        for name in selection.layers:
            layer = described[name]
            size = selection.table.count([name])
            writer.writerow((name, selection.scores.get(name, ""), layer.type, layer.block, size, trains))


def read_csv(path: Path | str) -> TrainableMask:
    """The layers of a selection that was exported as CSV.

    Raises:
        ValueError: If the file cannot be read as one, or selects nothing.
    """
    try:
        with Path(path).open(newline="") as file:
            rows = list(csv.DictReader(file))
        mask = TrainableMask(tuple(row["layer"] for row in rows), any(row["trains"] == "whole module" for row in rows))
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as an exported selection: {error!r}.") from error
    return _not_empty(mask, path)


def _not_empty(mask: TrainableMask, path: Path | str) -> TrainableMask:
    """The mask, if it names a layer."""
    if not mask.layers:
        raise ValueError(f"{str(path)!r} selects no layer.")
    return mask


PARAMETRISED = "[.](?:parametrizations[.].+|[^.]+)"
"""End of an expression for the parameters of a layer that has parametrisations."""


def pattern_lines(selection: Selection, model: nn.Module | None = None) -> list[str]:
    """Lines of a YAML list of anchored expressions, one a selected layer.

    An expression matches all parameters that the layer owns, or all inside it. It lists the selected parameters one by
    one where the network shows that a weight is parametrised or a parameter is constant.

    Args:
        selection: Selection to write.
        model: The network, if it is at hand.
    """
    inside = "[.].+" if selection.table.whole_modules else "[.][^.]+"
    if model is None:
        types = {layer.name: layer.type for layer in selection.table.layers}
        parametrised = {name for name in selection.layers if types[name].startswith("Parametrized")}
        return [
            _yaml_line(_escaped(name) + (PARAMETRISED if name in parametrised else inside)) for name in selection.layers
        ]
    every = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    lines = []
    for layer in selection.layers:
        names = TrainableMask((layer,), selection.table.whole_modules).parameter_names(model)
        pattern = f"{_escaped(layer)}{inside}"
        is_exact = sorted(names) == sorted(name for name in every if re.fullmatch(pattern, name))
        lines.append(_yaml_line(pattern if is_exact else _alternatives(layer, names)))
    return lines


def _alternatives(layer: str, parameters: Sequence[str]) -> str:
    """An expression for these parameters of a layer."""
    ends = "|".join(_escaped(name.removeprefix(f"{layer}.")) for name in parameters)
    return f"{_escaped(layer)}[.](?:{ends})"


def _escaped(name: str) -> str:
    """A name as an expression. Dots stand in brackets, because some readers escape bare ones once more."""
    return re.escape(name).replace("\\.", "[.]")


def _yaml_line(pattern: str) -> str:
    """One entry of the list."""
    line: str = yaml.safe_dump([f"^{pattern}$"], width=100_000)
    return line


def _write_spectrum(selection: Selection, path: Path, model: nn.Module | None) -> None:
    """The list under its name, below the selection in words."""
    path.write_text(f"# {selection}\nunfrozen_parameters:\n{''.join(pattern_lines(selection, model))}")


def read_patterns(path: Path | str) -> tuple[str, ...]:
    """The regular expressions of a YAML file with a list ``unfrozen_parameters``.

    Raises:
        ValueError: If the file has no such list, it is empty, or an entry is not a regular expression.
    """
    try:
        listed = yaml.safe_load(Path(path).read_text())["unfrozen_parameters"]
        patterns = tuple(re.compile(pattern).pattern for pattern in (listed if isinstance(listed, list) else [listed]))
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError, re.error) as error:
        raise ValueError(f"{str(path)!r} cannot be read as a list of `unfrozen_parameters`: {error!r}.") from error
    if not patterns:
        raise ValueError(f"{str(path)!r} names no parameter.")
    return patterns


def match_parameters(patterns: Iterable[str], model: nn.Module) -> list[str]:
    """Names of the parameters that regular expressions match from their start.

    :func:`macattr.selection.trainable.train_only` makes them, and nothing else, trainable.

    Raises:
        ValueError: If an expression matches none.

    Example:
        >>> match_parameters([r"^1[.].+$"], nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)))
        ['1.weight', '1.bias']
    """
    every = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    matches = {pattern: [name for name in every if re.match(pattern, name)] for pattern in patterns}
    if unmatched := [pattern for pattern, names in matches.items() if not names]:
        raise ValueError(
            f"{len(unmatched)} of {len(matches)} expressions match no parameter of {type(model).__name__}, "
            f"e.g. {unmatched[0]!r}: were they made for another network?"
        )
    chosen = {name for names in matches.values() for name in names}
    return [name for name in every if name in chosen]
