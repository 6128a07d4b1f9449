"""Haze: light scattered on its way from a scene of varying depth."""

__all__ = ["add_haze", "random_depth"]

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ram_models.degradations.checks import require_between


def add_haze(
    image: Float[Tensor, "*b c h w"], depth: Float[Tensor, "h w"], airlight: float, beta: float
) -> Float[Tensor, "*b c h w"]:
    r"""Image seen through haze.

    .. math:: I = J\,t + A\,(1 - t), \quad t = e^{-\beta d}

    Args:
        image: The clear scene J, values in [0, 1].
        depth: Distance d, at least 0, in the unit of 1 / ``beta``.
        airlight: Brightness A of haze without end, in [0, 1].
        beta: Scattering coefficient, at least 0.

    Raises:
        ValueError: If a parameter is out of range.

    Source:
        Koschmieder's law as in Li et al. 2019 (RESIDE), Eqs. 1 and 2.
    """
    require_between("airlight", airlight, 0, 1, "the brightness of haze without end")
    require_between("beta", beta, 0, math.inf, "the scattering coefficient")
    transmission = torch.exp(-beta * depth).to(image)
    return image * transmission + airlight * (1 - transmission)


def random_depth(
    height: int, width: int, near: float, far: float, generator: torch.Generator
) -> Float[Tensor, "height width"]:
    """A smooth depth map from ``near`` to ``far`` that mostly rises towards the top, as in landscapes.

    A ramp plus random numbers on grids of 3, 5 and 9 points a side, interpolated bicubically, each grid half as high as
    the one before.

    Args:
        height: Pixels from top to bottom.
        width: Pixels from left to right.
        near: Least depth, at least 0.
        far: Largest depth, at least ``near``.
        generator: Source of randomness.

    Raises:
        ValueError: If a parameter is out of range.
    """
    require_between("near", near, 0, math.inf, "the least depth")
    require_between("far", far, near, math.inf, "the largest depth, not below `near`")
    field = torch.linspace(1, -1, height, device=generator.device)[:, None].expand(height, width)
    for octave, points in enumerate((3, 5, 9)):
        grid = torch.randn(1, 1, points, points, generator=generator, device=generator.device)
        smooth = F.interpolate(grid, (height, width), mode="bicubic", align_corners=True)[0, 0]
        field = field + smooth / 2**octave
    lowest, highest = field.min(), field.max()
    return near + (far - near) * (field - lowest) / (highest - lowest).clamp(min=1e-12)
