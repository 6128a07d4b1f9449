"""The networks of the package waifu2x, with its weights: restoration of drawings, MIT licence.

The files hold arrays such as ``conv1/W``; the convolutions have no padding, so the image is padded first.
"""

__all__ = ["ResNet10", "UpConv7", "Vgg7", "resnet10", "upconv7", "vgg7"]

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ram_models.networks.wheels import files_of

SLOPE = 0.1


class Vgg7(nn.Module):
    """Seven convolutions in a row.

    Args:
        channels: Of the image.
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        widths = (channels, 32, 32, 64, 64, 128, 128, channels)
        for number in range(1, 8):
            self.add_module(f"conv{number}", nn.Conv2d(widths[number - 1], widths[number], 3))

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Restored images."""
        x = F.pad(image, (7,) * 4, mode="replicate")
        for number in range(1, 7):
            x = F.leaky_relu(self.get_submodule(f"conv{number}")(x), SLOPE)
        restored: Tensor = self.get_submodule("conv7")(x)
        return restored


class _Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(64, 64, 3), nn.Conv2d(64, 64, 3)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c oh ow"]:
        """Features, two pixels fewer on every side."""
        return F.leaky_relu(self.conv2(F.leaky_relu(self.conv1(x), SLOPE)), SLOPE) + x[..., 2:-2, 2:-2]


class ResNet10(nn.Module):
    """Five blocks beside a shortcut.

    Args:
        channels: Of the image.
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv_pre = nn.Conv2d(channels, 64, 3)
        for number in range(1, 6):
            self.add_module(f"res{number}", _Block())
        self.conv_bridge = nn.Conv2d(64, 64, 3)
        self.conv_post = nn.Conv2d(64, channels, 3)

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Restored images."""
        start = x = F.leaky_relu(self.conv_pre(F.pad(image, (13,) * 4, mode="replicate")), SLOPE)
        for number in range(1, 6):
            x = self.get_submodule(f"res{number}")(x)
        restored: Tensor = self.conv_post(F.leaky_relu(self.conv_bridge(x), SLOPE) + start[..., 11:-11, 11:-11])
        return restored


class UpConv7(nn.Module):
    """Six convolutions, and a transposed one that doubles the size."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 64, 128, 256, 256)
        for number in range(1, 7):
            self.add_module(f"conv{number}", nn.Conv2d(widths[number - 1], widths[number], 3))
        self.conv7 = nn.ConvTranspose2d(256, 3, 4, stride=2, padding=3, bias=False)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 2*h 2*w"]:
        """Images of twice the size."""
        x = F.pad(image, (7,) * 4, mode="replicate")
        for number in range(1, 7):
            x = F.leaky_relu(self.get_submodule(f"conv{number}")(x), SLOPE)
        enlarged: Tensor = self.conv7(x)
        return enlarged


def _load(network: nn.Module, name: str) -> nn.Module:
    """The network with the weights of a file of the package, such as ``vgg7/anime_style_noise1_rgb``, in eval mode."""
    with np.load(files_of("waifu2x", "waifu2x") / "models" / f"{name}.npz") as arrays:
        values = {key: torch.from_numpy(arrays[key]) for key in sorted(arrays)}
    network.load_state_dict(
        {key.replace("/W", ".weight").replace("/b", ".bias").replace("/", "."): v for key, v in values.items()}
    )
    return network.eval()


def vgg7(noise: int, channels: int = 3) -> nn.Module:
    """Vgg7 for drawings.

    Args:
        noise: Strength of the JPEG compression that it removes, 0 to 3.
        channels: 3 for colours, 1 for luma.

    Raises:
        ValueError: If the package is not installed.
    """
    return _load(Vgg7(channels), f"vgg7/anime_style_noise{noise}_{'rgb' if channels == 3 else 'y'}")


def resnet10(noise: int) -> nn.Module:
    """ResNet10 for drawings in colour.

    Args:
        noise: As in :func:`vgg7`.

    Raises:
        ValueError: If the package is not installed.
    """
    return _load(ResNet10(), f"resnet10/anime_style_noise{noise}_rgb")


def upconv7(noise: int) -> nn.Module:
    """UpConv7 for drawings in colour, which doubles the size.

    Args:
        noise: As in :func:`vgg7`.

    Raises:
        ValueError: If the package is not installed.
    """
    return _load(UpConv7(), f"upconv7/anime_style_noise{noise}_scale_rgb")
