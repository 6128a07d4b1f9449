"""Exports of a report: texts for other tools that follow the number of chosen layers."""

__all__ = ["Export", "list_exports", "list_pieces"]

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from macattr.selection.exports import pattern_lines
from macattr.selection.rules import Selection


@dataclass(frozen=True)
class Export:
    """Text for another tool: a fixed frame around one piece for every chosen layer.

    Args:
        label: Name of the text.
        use: Purpose of the text.
        before: Beginning of the text.
        stated: Text after the beginning that depends on the number of layers.
        between: Text between that and the pieces.
        pieces: Kind of the pieces.
        separator: Text between two pieces.
        end: End of the text.
    """

    label: str
    use: str
    before: str
    stated: Literal["", "count", "summary"] = ""
    between: str = ""
    pieces: Literal["", "names", "quoted", "patterns"] = ""
    separator: str = ""
    end: str = ""


def list_pieces(whole: Selection) -> dict[str, tuple[str, ...]]:
    """Pieces of the exports by kind, in the order of the layers."""
    return {
        "names": whole.layers,
        "quoted": tuple(json.dumps(name, ensure_ascii=False) for name in whole.layers),
        "patterns": tuple(pattern_lines(whole)),
    }


def list_exports(file: Path | str) -> tuple[Export, ...]:
    """Texts for other tools.

    Args:
        file: File of the ranking, for the command that selects from it.
    """
    mask = "mask = TrainableMask(\n    (\n        "
    return (
        Export(
            label="Python",
            use="Trains these layers of your model and freezes all others.",
            before=f"from macattr import TrainableMask\n\n{mask}",
            pieces="quoted",
            separator=",\n        ",
            end=",\n    )\n)\nprint(mask.apply(model))\n",
        ),
        Export(
            label="peft",
            use="Trains low-rank adapters on these layers, and norms and similar layers in full. Needs macattr[peft].",
            before="from macattr import TrainableMask\nfrom macattr.selection.lora import lora_config\n"
            f"from peft import get_peft_model\n\n{mask}",
            pieces="quoted",
            separator=",\n        ",
            end=",\n    )\n)\nmodel = get_peft_model(model, lora_config(mask, model, rank=8))\n",
        ),
        Export(
            label="JSON list",
            use="The names, most important first.",
            before="[\n  ",
            pieces="quoted",
            separator=",\n  ",
            end="\n]\n",
        ),
        Export(
            label="Names",
            use="One name in each line, most important first.",
            before="",
            pieces="names",
            separator="\n",
            end="\n",
        ),
        Export(
            label="YAML",
            use="unfrozen_parameters as regular expressions, the format that Spectrum writes and Axolotl reads.",
            before="# ",
            stated="summary",
            between="\nunfrozen_parameters:\n",
            pieces="patterns",
        ),
        Export(
            label="Command",
            use="Selects the same layers from the ranking's file and writes them; --help shows other rules.",
            before=f"macattr select {shlex.quote(str(file))} --count ",
            stated="count",
            between=" --export json --out layers.json\n",
        ),
    )
