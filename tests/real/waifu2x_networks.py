"""The networks of the package waifu2x, with its weights: restoration of drawings, MIT licence.

The files hold arrays such as ``conv1/W``; the convolutions have no padding, so the image is padded first.
"""

import importlib.util
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

SLOPE = 0.1


class Vgg7(nn.Module):
    """Seven convolutions in a row."""

    def __init__(self, channels=3):
        super().__init__()
        widths = (channels, 32, 32, 64, 64, 128, 128, channels)
        for number in range(1, 8):
            self.add_module(f"conv{number}", nn.Conv2d(widths[number - 1], widths[number], 3))

    def forward(self, image):
        x = F.pad(image, (7,) * 4, mode="replicate")
        for number in range(1, 7):
            x = F.leaky_relu(self.get_submodule(f"conv{number}")(x), SLOPE)
        return self.conv7(x)


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(64, 64, 3), nn.Conv2d(64, 64, 3)

    def forward(self, x):
        return F.leaky_relu(self.conv2(F.leaky_relu(self.conv1(x), SLOPE)), SLOPE) + x[..., 2:-2, 2:-2]


class ResNet10(nn.Module):
    """Five blocks beside a shortcut."""

    def __init__(self, channels=3):
        super().__init__()
        self.conv_pre = nn.Conv2d(channels, 64, 3)
        for number in range(1, 6):
            self.add_module(f"res{number}", Block())
        self.conv_bridge = nn.Conv2d(64, 64, 3)
        self.conv_post = nn.Conv2d(64, channels, 3)

    def forward(self, image):
        start = x = F.leaky_relu(self.conv_pre(F.pad(image, (13,) * 4, mode="replicate")), SLOPE)
        for number in range(1, 6):
            x = self.get_submodule(f"res{number}")(x)
        return self.conv_post(F.leaky_relu(self.conv_bridge(x), SLOPE) + start[..., 11:-11, 11:-11])


class UpConv7(nn.Module):
    """Six convolutions, and a transposed one that doubles the size."""

    def __init__(self):
        super().__init__()
        widths = (3, 16, 32, 64, 128, 256, 256)
        for number in range(1, 7):
            self.add_module(f"conv{number}", nn.Conv2d(widths[number - 1], widths[number], 3))
        self.conv7 = nn.ConvTranspose2d(256, 3, 4, stride=2, padding=3, bias=False)

    def forward(self, image):
        x = F.pad(image, (7,) * 4, mode="replicate")
        for number in range(1, 7):
            x = F.leaky_relu(self.get_submodule(f"conv{number}")(x), SLOPE)
        return self.conv7(x)


def read_npz(name):
    """Weights of a file of the package, such as ``vgg7/anime_style_noise1_rgb``, by the names of the modules above."""
    package = Path(importlib.util.find_spec("waifu2x").submodule_search_locations[0])
    with np.load(package / "models" / f"{name}.npz") as arrays:
        values = {key: torch.from_numpy(arrays[key]) for key in sorted(arrays)}
    return {k.replace("/W", ".weight").replace("/b", ".bias").replace("/", "."): v for k, v in values.items()}


def _build(network, name):
    network.load_state_dict(read_npz(name))
    return network.eval()


def vgg7_noise1():
    return _build(Vgg7(), "vgg7/anime_style_noise1_rgb")


def vgg7_noise3():
    return _build(Vgg7(), "vgg7/anime_style_noise3_rgb")


def vgg7_grey():
    return _build(Vgg7(1), "vgg7/anime_style_noise1_y")


def resnet10_noise1():
    return _build(ResNet10(), "resnet10/anime_style_noise1_rgb")


def resnet10_noise2():
    return _build(ResNet10(), "resnet10/anime_style_noise2_rgb")


def upconv7_noise1():
    return _build(UpConv7(), "upconv7/anime_style_noise1_scale_rgb")
