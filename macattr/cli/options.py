"""Options of :class:`macattr.methods.task.Options` as options of a command, explained as in rank_layers."""

__all__ = ["QUESTION", "PresetName", "with_options"]

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any, Literal, get_type_hints

from docstring_parser import DocstringStyle, parse

from macattr.methods.task import ObjectiveName, Options, PathName
from macattr.ranking.rank import rank_layers

PresetName = Literal["ranking", "default", "paper", "official"]
"""Names of the bundles of options."""

QUESTION: Mapping[str, Any] = MappingProxyType(
    {
        "at": str | None,
        "path": PathName | None,
        "output": str | None,
        "calls": None,
        "prefix": None,
        "objective": ObjectiveName | None,
        "r": None,
        "n_steps": None,
        "gate": None,
        "delta": None,
        "groups": None,
        "tag": None,
        "include_end": None,
        "baselines": float | None,
        "orders": int,
        "patch_size": None,
        "reduction": None,
    }
)
"""Options that say what is attributed, along which path, for :func:`with_options`."""


def with_options(**types: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that gives a command some of the options of a ranking, in place of its ``**options``.

    Name, default and explanation of an option are those of :class:`macattr.methods.task.Options` and
    :func:`macattr.rank_layers`.

    Args:
        **types: Options by name, with the type on the command line; None for that of the dataclass.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command).parameters.values() if p.kind is not p.VAR_KEYWORD]
        defaults = {field.name: field.default for field in fields(Options)}
        hints = get_type_hints(Options)
        shared = [
            inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=defaults[name],
                annotation=hints[name] if annotation is None else annotation,
            )
            for name, annotation in types.items()
        ]
        required = [p for p in own if p.default is p.empty]
        optional = [p for p in own if p.default is not p.empty]
        command.__signature__ = inspect.Signature([*required, *optional, *shared])  # type: ignore[attr-defined]
        hinted = {name: hint for name, hint in get_type_hints(command).items() if name not in ("options", "return")}
        command.__annotations__ = hinted | {p.name: p.annotation for p in shared}
        command.__doc__ = _with_explanations(command.__doc__ or "", list(types))
        return command

    return decorate


def _with_explanations(text: str, names: list[str]) -> str:
    """A docstring with the explanations of some options at the end of its section Args.

    What holds in Python alone is left out, and None, which nobody types, is the default.
    """
    explained = {p.arg_name: p.description for p in parse(rank_layers.__doc__ or "", DocstringStyle.GOOGLE).params}
    plain = {name: " ".join(str(text).replace("``", "").split()) for name, text in explained.items()}
    said = {name: text.partition(" In Python also")[0].replace("None:", "Default:") for name, text in plain.items()}
    lines = [f"        {name}: {said[name]}" for name in names]
    return text.partition("        **options:")[0] + "\n".join(lines) + "\n"
