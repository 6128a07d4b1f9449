"""The networks of the bench: real weights, and what each is trained on."""

__all__ = ["NETWORKS", "PROBLEMS", "Pretrained"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

from torch import nn

from ram_models.networks import realesrgan, waifu2x
from ram_models.networks.checkpoints import ram_swinir_tiny
from ram_models.networks.minilm import minilm


@dataclass(frozen=True)
class Pretrained:
    """A pre-trained network.

    Args:
        name: In results.
        words: What it is and what it was trained for, on the page.
        build: Gives it, in eval mode.
        crop: Side of the training crops that it takes, in pixels; 0 for texts.
        batch: Crops or texts of a training step.
        precision: Of the training's forward pass, whichever is faster on a CPU with AMX.
        channels_last: Likewise, for the layout of images.
    """

    name: str
    words: str
    build: Callable[[], nn.Module]
    crop: int
    batch: int
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    channels_last: bool = True


NETWORKS: Mapping[str, Pretrained] = MappingProxyType(
    {
        network.name: network
        for network in (
            Pretrained(
                "vgg7-noise1", "waifu2x vgg7, drawings with little compression", partial(waifu2x.vgg7, 1), 36, 4
            ),
            Pretrained(
                "vgg7-noise3", "waifu2x vgg7, drawings with strong compression", partial(waifu2x.vgg7, 3), 36, 4
            ),
            Pretrained("resnet10-noise2", "waifu2x resnet10, compressed drawings", partial(waifu2x.resnet10, 2), 32, 4),
            Pretrained("upconv7-noise1", "waifu2x upconv7, drawings x2", partial(waifu2x.upconv7, 1), 24, 4),
            Pretrained("srvgg-x2", "Real-ESRGAN SRVGG, videos of drawings x2", partial(realesrgan.srvgg, 2), 24, 4),
            Pretrained(
                "ram-swinir-tiny",
                "this project's RAM-SwinIR, seven degradations, half of the pixels hidden",
                ram_swinir_tiny,
                24,
                4,
                channels_last=False,
            ),
            Pretrained("minilm", "all-MiniLM-L6-v2, vectors of sentences", minilm, 0, 16, channels_last=False),
        )
    }
)
"""Every network by its name."""

PROBLEMS: tuple[tuple[str, str], ...] = (
    ("vgg7-noise1", "noise-25"),
    ("resnet10-noise2", "noise-25"),
    ("upconv7-noise1", "x2-blurred"),
    ("srvgg-x2", "x2-noisy"),
    ("ram-swinir-tiny", "noise-25"),
    ("vgg7-noise3", "jpeg-50"),
    ("resnet10-noise2", "jpeg-20"),
    ("upconv7-noise1", "x2-noisy"),
    ("srvgg-x2", "x2-blurred"),
    ("vgg7-noise1", "jpeg-20"),
    ("ram-swinir-tiny", "jpeg-20"),
    ("vgg7-noise3", "noise-15"),
    ("minilm", "package"),
    ("minilm", "section"),
)
"""Pairs of a network and a shift, in the order in which they are run: every network once before any comes again."""
