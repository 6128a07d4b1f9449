"""Options of a command: how they are spelled, read from files, refused and explained."""

__all__ = ["parse"]

import difflib
import json
import os
import re
import textwrap
import types
import typing
from argparse import SUPPRESS, Action, _HelpAction
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

import yaml
from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter
from jsonargparse._actions import _ActionConfigLoad
from jsonargparse.typing import register_type

from macattr.cli.headings import Headings
from macattr.cli.peek import did_you_mean

NODES = 10_000
"""Largest number of values in a configuration file, aliases counted as often as they are used."""

WORDS: Mapping[object, str] = types.MappingProxyType(
    {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path", type(None): "null"}
)
"""Names of the types of options in messages."""

EXAMPLE = "example:\n  "
"""Beginning of the last lines of a help."""

EMPTY, NO_PATH = "an empty path", "not a path: "
"""What the reader of paths says of '', and of values that are no text."""


def _path(value: object) -> Path:
    """A path, ``~`` expanded; '' is refused, because ``Path('')`` is the current folder, which nobody meant."""
    if isinstance(value, str) and not value:
        raise ValueError(EMPTY)
    if not isinstance(value, str | Path):
        raise TypeError(f"{NO_PATH}{value!r}")
    return Path(os.path.expanduser(value))


register_type(Path, str, _path, fail_already_registered=False)


def parse(
    settings: Callable[..., object],
    arguments: Sequence[str],
    program: str,
    example: str,
    positional: bool = True,
    configs: Path | None = None,
    headings: Headings = types.MappingProxyType({}),
) -> dict[str, object]:
    """Options by name, from the words of a command line.

    Args:
        settings: Dataclass or function whose parameters are the options.
        arguments: Words after the command's name. Options may have dashes or underscores, flags need no value, and a
            list may be given with commas.
        program: Name of the program and the command, for messages.
        example: A call of the command, for the help.
        positional: Whether options without default are given by place; the first of them takes all of these words if it
            is a list.
        configs: Folder of configurations that ``--config`` takes by name.
        headings: Headings of the help, with the names of the options below each.

    Raises:
        ValueError: If something does not fit, in one line with its near match.
    """
    parser = _parser(settings, program, example, positional, configs)
    _put_below(headings, parser)
    words = _spell(list(arguments), parser)
    try:
        _check(words, parser, configs)
        parsed = parser.parse_args(words)
        _refuse_empty(vars(parsed.as_flat()), parser)
        options = parser.instantiate(parsed)
    except ArgumentError as error:
        raise ValueError(f"{_refusal(str(error), parser)} (see `{program} --help`)") from error
    own = {action.dest.partition(".")[0] for action in parser._actions}
    return {name: value for name, value in vars(options).items() if name in own and name != "config"}


def _parser(
    settings: Callable[..., object], program: str, example: str, positional: bool, configs: Path | None
) -> ArgumentParser:
    """The reader of a command's options."""
    parser = ArgumentParser(
        prog=program,
        description=_description(settings),
        epilog=f"{EXAMPLE}{example}",
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=_Help,
    )
    parser._positionals.title = "arguments"
    config = parser.add_argument("--config", action="config")
    add = parser.add_class_arguments if isinstance(settings, type) else parser.add_function_arguments
    add(settings, as_group=False, as_positional=positional)
    for action in parser._actions:
        if action.dest.startswith("print_") or isinstance(action, _ActionConfigLoad):
            action.help = SUPPRESS
        elif not action.option_strings and _is_list(action):
            action.metavar = f"{action.dest.upper()} ..."
        elif not action.option_strings:
            action.metavar = action.dest.upper()
        elif _choices(action):
            action.metavar = action.dest.rpartition(".")[2].upper()
        if isinstance(action, _HelpAction):
            action.help = "Show this help and exit."
    fitting = [name for name in _names(configs) if configs and _fits(configs / f"{name}.yaml", parser)]
    bundled = f", or the name of a bundled one: {', '.join(fitting)}" if fitting else ""
    config.help = f"YAML file with any of the options below{bundled}."
    return parser


def _fits(file: Path, parser: ArgumentParser) -> bool:
    """Whether a configuration holds options of this command alone."""
    try:
        for key in _keys(file):
            _check_name(key, parser, "", "")
    except ValueError:
        return False
    return True


def _put_below(headings: Headings, parser: ArgumentParser) -> None:
    """Move options below the headings of the help."""
    listed = parser._optionals._group_actions
    for heading, names in headings.items():
        below = parser.add_argument_group(heading)
        moved = sorted((action for action in listed if action.dest in names), key=lambda a: names.index(a.dest))
        for action in moved:
            listed.remove(action)
            below._group_actions.append(action)


def _description(settings: Callable[..., object]) -> str:
    """The docstring up to its arguments."""
    return textwrap.dedent(re.split(r"\n\s*Args:", settings.__doc__ or "")[0]).strip()


class _Help(DefaultHelpFormatter):
    """Help as it is typed: dashes, flags without values, and no markup."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Paragraphs, each filled on its own; an example stays in one line."""
        if text.startswith(EXAMPLE):
            return text
        paragraphs = [re.sub(r"\s+", " ", part).strip() for part in re.split(r"\n\s*\n", _plain(text))]
        return "\n\n".join(
            textwrap.fill(part, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
            for part in paragraphs
        )

    def _format_action_invocation(self, action: Action) -> str:
        """Such as "--dry-run" or "--n-steps N"."""
        if not action.option_strings:
            return str(super()._format_action_invocation(action))
        names = ", ".join(name.replace("_", "-") for name in action.option_strings if not name.endswith("+"))
        if action.nargs == 0 or _type(action) is bool:
            return names
        return f"{names} {self._format_args(action, self._get_default_metavar_for_optional(action))}"

    def _format_usage(self, usage: str | None, actions: Iterable[Action], *args: object, **kwargs: object) -> str:
        """Only what has to be given: the options are listed below."""
        given = [action.metavar for action in actions if not action.option_strings and action.required]
        needed = [
            f"{name.replace('_', '-')} {action.dest.upper()}"
            for action in actions
            if action.required
            for name in action.option_strings[:1]
        ]
        return f"usage: {' '.join([self._prog, *map(str, given), *needed, '[options]'])}\n\n"

    def _expand_help(self, action: Action) -> str:
        """Explanation, and in brackets what may be given, if it is one of a few words, and the default."""
        text, notes = _plain(action.help or ""), []
        if not all(choice in text for choice in _choices(action)):
            notes.append(f"one of {', '.join(_choices(action))}")
        if action.option_strings and action.required:
            notes.append("required")
        if action.option_strings and (default := _written(action.default)):
            notes.append(f"default: {default}")
        return text + (f" ({'; '.join(notes)})" if notes else "")

    def _split_lines(self, text: str, width: int) -> list[str]:
        """Lines that break at blanks alone, so that names stay whole."""
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False, break_long_words=False)


def _plain(text: str) -> str:
    """Text without the markup of docstrings."""
    return re.sub(r":\w+:`~?([^`]+)`", r"\1", text).replace("``", "")


def _choices(action: Action) -> list[str]:
    """The words that an option takes, if it takes nothing else."""
    literals = [member for member in _members(_type(action)) if typing.get_origin(member) is Literal]
    others = [member for member in _members(_type(action)) if member is not type(None) and member not in literals]
    return [str(word) for member in literals for word in typing.get_args(member)] if not others else []


def _written(default: object) -> str:
    """A default as it is typed; '' where there is none, or nothing to type."""
    if default is None or default is False or default == SUPPRESS or default == {}:
        return ""
    if isinstance(default, list | tuple):
        return ",".join(map(str, default))
    return "true" if default is True else str(default)


def _names(configs: Path | None) -> list[str]:
    """Names of the bundled configurations."""
    return sorted(file.stem for file in configs.glob("*.yaml")) if configs else []


def _type(action: Action) -> object:
    """Type of an option's values."""
    return getattr(action, "_typehint", None)


def _members(hint: object) -> tuple[object, ...]:
    """The types of a union; the type itself if it is not one."""
    return (
        typing.get_args(hint)
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
        else (hint,)
    )


def _is_list(action: Action) -> bool:
    """Whether an option takes a list of text, and a word alone would not do."""
    members = _members(_type(action))
    return list[str] in members and str not in members


WITH_COMMAS = ("method", "task")
"""Options of text that may hold several names."""


def _takes_several(action: Action | None) -> bool:
    """Whether an option takes a list, or text with commas between names."""
    if action is None:
        return False
    return action.dest in WITH_COMMAS or any(typing.get_origin(m) in (list, tuple) for m in _members(_type(action)))


def _refuse_empty(values: Mapping[str, object], parser: ArgumentParser) -> None:
    """Raise ValueError for an empty value, unless that is the default: a variable of the shell may have been empty."""
    for action in parser._actions:
        value = values.get(action.dest, action.default)
        may_be_none = _type(action) is None or type(None) in _members(_type(action))
        if value is None and action.default is not None and not may_be_none:
            raise ValueError(f"`{_option(action)}` is empty, as of a line without a value: leave it out, or give one.")
        if value != action.default and (value == "" or (isinstance(value, list) and "" in value)):
            raise ValueError(f"`{_option(action)}` is empty: leave it out, or give a value.")


def _option(action: Action) -> str:
    """An option as it is typed."""
    return action.dest if not action.option_strings else f"--{action.dest.replace('_', '-')}"


def _spell(arguments: list[str], parser: ArgumentParser) -> list[str]:
    """Words as the parser takes them: underscores, flags with values, lists as JSON."""
    actions = parser._option_string_actions
    spelled, rest = _first_list(arguments, parser)
    for word, following in pairwise([*rest, ""]):
        before = spelled[-1] if spelled else ""
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            name = "--" + name[2:].replace("-", "_")
            if name in actions and _type(actions[name]) is bool and not equals and following not in ("true", "false"):
                equals, value = "=", "true"
            elif name in actions and _is_list(actions[name]) and equals:
                value = _as_json(value)
            word = f"{name}{equals}{value}"
        elif before in actions and _is_list(actions[before]):
            word = _as_json(word)
        spelled.append(word)
    return spelled


def _first_list(arguments: list[str], parser: ArgumentParser) -> tuple[list[str], list[str]]:
    """The words before the first option as one list, if the first place wants a list; and the other words."""
    first = next((action for action in parser._actions if not action.option_strings), None)
    count = next((place for place, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    if first is None or not _is_list(first) or not count:
        return [], arguments
    return [arguments[0] if arguments[0].startswith("[") else json.dumps(arguments[:count])], arguments[count:]


def _as_json(value: str) -> str:
    """A list that was written with commas, as JSON."""
    return value if value.startswith("[") or value == "null" else json.dumps(value.split(","))


def _check(words: list[str], parser: ArgumentParser, configs: Path | None) -> None:
    """Refuse unknown options, on the command line and in files; put bundled files in place of their names.

    Raises:
        ValueError: If an option is unknown, or takes a list and is given twice, or a file cannot be read.
    """
    given: set[str] = set()
    for place, (before, word) in enumerate(pairwise(["", *words])):
        name, equals, value = word.partition("=")
        if before == "--config" or (name == "--config" and equals):
            file = _config_file(word if before == "--config" else value, configs)
            words[place] = str(file) if before == "--config" else f"--config={file}"
            for key in _keys(file):
                _check_name(key, parser, f"{str(file)!r} has no option {key!r}", "")
        elif name.startswith("--") and name != "--":
            _check_name(name[2:], parser, f"no option {name.replace('_', '-')!r}", "--")
            if name in given and _takes_several(parser._option_string_actions.get(name)):
                raise ValueError(f"{name.replace('_', '-')!r} is given twice: give it once, with commas between.")
            given.add(name)


def _check_name(name: str, parser: ArgumentParser, complaint: str, prefix: str) -> None:
    """Raise ValueError for a name that is not an option, with its near match which begins with ``prefix``."""
    known = {option[2:]: action for option, action in parser._option_string_actions.items() if option.startswith("--")}
    known |= {action.dest: action for action in parser._actions if not action.option_strings}
    parts = name.split(".")
    outer = [".".join(parts[:count]) for count in range(1, len(parts))]
    if name in known or any(_takes_keys(known[start]) for start in outer if start in known):
        return
    groups = {option.partition(".")[0] for option in known if "." in option}
    if name in groups:
        return
    raise ValueError(complaint + did_you_mean(name, [*known, *groups], prefix))


def _takes_keys(action: Action) -> bool:
    """Whether an option is a mapping, whose keys are free."""
    return any(member is dict or typing.get_origin(member) is dict for member in _members(_type(action)))


def _config_file(name: str, configs: Path | None) -> Path:
    """The configuration file of this path or, of the bundled ones, of this name.

    Raises:
        ValueError: If there is none.
    """
    bundled = configs / f"{name}.yaml" if configs else Path(name)
    if Path(name).is_file():
        return Path(name)
    if bundled.is_file():
        return bundled
    close = difflib.get_close_matches(name, _names(configs), n=1)
    also = ", and no configuration of that name" if configs else ""
    raise ValueError(f"there is no file {name!r}{also}" + (f": did you mean {close[0]!r}?" if close else "."))


def _keys(file: Path) -> Iterator[str]:
    """Dotted names of all options in a configuration file.

    Raises:
        ValueError: If it is not a YAML file of a reasonable size with options in it.
    """
    try:
        root = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{str(file)!r} is not a YAML file: {error}.") from error
    if not isinstance(root, yaml.MappingNode):
        raise ValueError(f"{str(file)!r} holds no options: write one a line, as `seed: 1`.")
    if _count(root, {}) > NODES:
        raise ValueError(
            f"{str(file)!r} holds more than {NODES} values (its aliases repeat themselves): write it plainly."
        )
    try:
        yield from _key_names(root, "")
    except _GivenTwice as error:
        raise ValueError(f"{str(file)!r} gives {str(error)!r} twice: keep one.") from error


def _count(node: yaml.Node, counted: dict[int, float]) -> float:
    """Number of values below a node, with every alias written out; infinite if a node holds itself."""
    if id(node) not in counted:
        counted[id(node)] = float("inf")
        inside = [] if isinstance(node, yaml.ScalarNode) else node.value
        children = [child for item in inside for child in (item if isinstance(item, tuple) else (item,))]
        counted[id(node)] = 1.0 + sum(_count(child, counted) for child in children)
    return counted[id(node)]


class _GivenTwice(ValueError):
    """A mapping has a key twice, of which YAML's readers keep the last without a word."""


def _key_names(node: yaml.MappingNode, prefix: str) -> Iterator[str]:
    """Dotted names of the values in a mapping."""
    known = set()
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        if name in known:
            raise _GivenTwice(name)
        known.add(name)
        if isinstance(value, yaml.MappingNode):
            yield from _key_names(value, f"{name}.")
        else:
            yield name


def _refusal(message: str, parser: ArgumentParser) -> str:
    """A parser's complaint in one plain sentence."""
    key = re.search(r'Parser key "([\w.]+)"', message)
    given = re.search(r"(?:Got value|Given value): (.*)", message, re.DOTALL)
    action = next((action for action in parser._actions if key and action.dest == key[1]), None)
    if action is not None and EMPTY in message:
        return f"`{_option(action)}` is empty: name a path, '.' for the current folder"
    if action is not None and "surrogates not allowed" in message:
        return f"`{_option(action)}` holds bytes that are not UTF-8: rename the file or folder, or name it by a link"
    if action is not None and NO_PATH in message:
        value = message.partition(NO_PATH)[2].splitlines()[0]
        return f"`{_option(action)}` must be a path, got {value}: names that look like numbers need quotation marks"
    if key and given and action is not None and _type(action) is not None:
        value = " ".join(given[1].split())
        remedy = _remedy(value) if float in _members(_type(action)) else ""
        return f"`{_option(action)}` must be {_expected(_type(action))}, got {value}{remedy}"
    if surplus := re.match(r"unrecognized arguments: (.*)", message):
        return f"nothing takes {surplus[1]!r}: an option before it may be missing, or quotation marks around a blank"
    if missing := re.search(r"argument (--[\w.]+): expected one argument", message):
        return f"`{missing[1].replace('_', '-')}` needs a value"
    return " ".join(message.split())


def _remedy(value: str) -> str:
    """A remedy for a percentage or a decimal comma: the number as Python writes it; empty for anything else.

    A comma before three digits may part thousands as well: nothing is said of it, unless a 0 stands before it.

    Example:
        >>> _remedy("12,5 %"), _remedy("0,1"), _remedy("1,000")
        (': write 0.125', ': write 0.1', '')
    """
    found = re.fullmatch(r"(-?\d+(?:[.,]\d+)?) *(%?)", value.strip("'\""))
    if not found or re.fullmatch(r"-?[1-9]\d*,\d{3}", found[1]):
        return ""
    return f": write {float(found[1].replace(',', '.')) / (100 if found[2] else 1):.10g}"


def _expected(hint: object) -> str:
    """The values of a type, in words."""
    if typing.get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    members = _members(hint)
    if len(members) > 1:
        return " or ".join(map(_expected, members))
    if typing.get_origin(hint) is typing.Annotated:
        return _expected(typing.get_args(hint)[0])
    words: dict[object, str] = {list: "a list", tuple: "a list", dict: "a mapping"}
    return WORDS.get(hint) or words.get(typing.get_origin(hint)) or str(getattr(hint, "__name__", hint))
