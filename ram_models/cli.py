"""The command line ``ram``: every command is a recipe with its options."""

__all__ = ["COMMANDS", "main"]

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from macattr.cli.command import Command, Program

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
            "write degraded copies of clean images",
            "ram degrade PHOTOS NOISY --task noise",
        ),
        "reproduce": Command(
            "ram_models.experiments.reproduce",
            "measure a table or figure of the paper",
            "ram reproduce table5 --config tiny --data DATA",
        ),
        "bench": Command(
            "ram_models.experiments.layerbench.bench",
            "measure what the layers that each method chooses gain on real networks",
            "ram bench --data DATA --networks '[vgg7-noise1]' --seeds '[10]'",
            positional=False,
        ),
        "data check": Command(
            "ram_models.recipes.check",
            "find problems of data sets on disk",
            "ram data check DATA",
        ),
    }
)
"""All commands, in the order of the work."""

CONFIGS = Path(__file__).parent / "configs"
"""Bundled configurations."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; see :class:`macattr.cli.command.Program`.

    Args:
        arguments: Default those of the process.
    """
    purpose = "Restore Anything with Masks: from image folders to an evaluated network."
    return Program("ram", purpose, COMMANDS, CONFIGS).run(arguments)


if __name__ == "__main__":
    sys.exit(main())
