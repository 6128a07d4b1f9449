"""The command line ``ram``: every command is a recipe with its options."""

__all__ = ["COMMANDS", "Command", "main"]

import difflib
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType, ModuleType


@dataclass(frozen=True)
class Command:
    """A recipe that the command line offers.

    Args:
        module: Module with a dataclass ``Config`` and ``main(config)``, which may return an exit code.
        summary: What it does, in a line.
        example: A call that works as it stands, but for the paths.
        positional: Whether fields without default are given by place; else as options.
    """

    module: str
    summary: str
    example: str
    positional: bool = True


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "pretrain": Command(
            "ram_models.recipes.pretrain",
            "train a network to predict hidden pixels",
            "ram pretrain --config ram_models/configs/tiny-swinir.yaml --data.clean PHOTOS --out runs/tiny",
            positional=False,
        ),
        "finetune": Command(
            "ram_models.recipes.finetune",
            "train selected layers of a pre-trained network on whole images",
            "ram finetune --data.clean PHOTOS --selection.ranking mac --selection.fraction 0.1 --out runs/tuned",
            positional=False,
        ),
        "evaluate": Command(
            "ram_models.recipes.evaluate",
            "PSNR and SSIM on test sets, in the paper's tables",
            "ram evaluate DATA --protocol pairs --network ram-swinir-tiny --twins",
        ),
        "restore": Command(
            "ram_models.recipes.restore",
            "restore an image or a folder of images of any size",
            "ram restore photo.jpg restored.png --twins",
        ),
        "degrade": Command(
            "ram_models.recipes.degrade",
            "write degraded versions of clean images",
            "ram degrade PHOTOS NOISY --task noise",
        ),
        "reproduce": Command(
            "ram_models.recipes.reproduce",
            "measure a table or figure of the paper again",
            "ram reproduce table5 --config tiny --data DATA",
        ),
        "data check": Command(
            "ram_models.recipes.check",
            "look for what is wrong with data sets on disk",
            "ram data check DATA",
        ),
    }
)
"""All commands, in the order of the work."""

CONFIGS = Path(__file__).parent / "configs"
"""Configurations that come with the package."""

EXTRAS = MappingProxyType({"accelerate": "train", "tensorboard": "train", "huggingface_hub": "hub", "peft": "peft"})
"""Which extra of the package brings a module that the core does without."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; bad input gives one line on stderr and 2, an interruption 130."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = next((name for name in COMMANDS if given[: len(name.split())] == name.split()), None)
    if name is None:
        return _explain(given)
    try:
        return _run(name, given[len(name.split()) :])
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        return _complain(f"ram {name}", f"needs {error.name}, which is not installed: pip install 'macattr[{extra}]'")
    except (ValueError, OSError) as error:
        return _complain(f"ram {name}", str(error))
    except KeyboardInterrupt:
        _complain(f"ram {name}", "interrupted; what was finished is kept")
        return 130


def _run(name: str, arguments: list[str]) -> int:
    """Exit code of a command."""
    from jsonargparse import ArgumentError, ArgumentParser

    command = COMMANDS[name]
    recipe: ModuleType = importlib.import_module(command.module)
    parser = ArgumentParser(
        prog=f"ram {name}",
        description=f"{command.summary[0].upper()}{command.summary[1:]}.",
        epilog=f"example: {command.example}",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        action="config",
        help=f"YAML file with any of the options below, or the name of one that comes along: {_configs()}.",
    )
    parser.add_class_arguments(recipe.Config, as_positional=command.positional)
    try:
        options = parser.instantiate(parser.parse_args(_spell(_find_configs(arguments), recipe.Config)))
    except ArgumentError as error:
        raise ValueError(f"{error} (see `ram {name} --help`)") from error
    given = {field.name: options[field.name] for field in fields(recipe.Config)}
    return int(recipe.main(recipe.Config(**given)) or 0)


def _configs() -> str:
    """Names of the configurations that come with the package."""
    return ", ".join(sorted(file.stem for file in CONFIGS.glob("*.yaml")))


def _find_configs(arguments: Sequence[str]) -> list[str]:
    """The file of the package in place of every ``--config NAME`` that is no file itself."""
    found = []
    for before, argument in pairwise(["", *arguments]):
        option = "--config=" if argument.startswith("--config=") else ""
        name = argument.removeprefix(option)
        file = CONFIGS / f"{name}.yaml"
        wanted = bool(option or before == "--config") and not Path(name).is_file()
        if wanted and not file.is_file() and (close := difflib.get_close_matches(name, _configs().split(", "), n=1)):
            raise ValueError(
                f"there is no file {name!r}, and no configuration of that name: did you mean {close[0]!r}?"
            )
        found.append(f"{option}{file}" if wanted and file.is_file() else argument)
    return found


def _spell(arguments: Sequence[str], config: type) -> list[str]:
    """Options with dashes as with underscores, and flags without a value."""
    flags, spelled = set(_flags(config)), []
    for argument, following in pairwise([*arguments, ""]):
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            name = "--" + name[2:].replace("-", "_")
            if name in flags and not equals and following not in ("true", "false"):
                equals, value = "=", "true"
        spelled.append(f"{name}{equals}{value}")
    return spelled


def _flags(config: type, prefix: str = "--") -> Iterator[str]:
    """Options of a configuration that are true or false."""
    for field in fields(config):
        if field.type is bool:
            yield prefix + field.name
        elif isinstance(field.type, type) and is_dataclass(field.type):
            yield from _flags(field.type, f"{prefix}{field.name}.")


def _explain(given: Sequence[str]) -> int:
    """List the commands; an error if something else than that was asked for."""
    if given and given[0] not in ("-h", "--help"):
        words = " ".join(given[: 2 if given[0] == "data" else 1])
        close = difflib.get_close_matches(words, COMMANDS, n=1)
        hint = f"did you mean `ram {close[0]}`?" if close else "`ram --help` lists them."
        return _complain("ram", f"no command {words!r}: {hint}")
    width = max(map(len, COMMANDS))
    print("usage: ram COMMAND ...\n\nRestore Anything with Masks: from image folders to an evaluated network.\n")
    print("\n".join(f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()))
    print("\nexamples:\n" + "\n".join(f"  {command.example}" for command in COMMANDS.values()))
    print("\n`ram COMMAND --help` explains the options of a command.")
    return 0


def _complain(prog: str, message: str) -> int:
    """Print one line on stderr; the exit code of bad input."""
    print(f"{prog}: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
