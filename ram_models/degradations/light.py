"""Low light: a dark exposure with the camera's noise."""

__all__ = ["darken"]

import torch
from jaxtyping import Float
from torch import Tensor

from ram_models.degradations.checks import require_between
from ram_models.degradations.noise import add_gaussian_noise


def darken(
    image: Float[Tensor, "*b c h w"], gamma: float, gain: float, sigma_255: float, generator: torch.Generator
) -> Float[Tensor, "*b c h w"]:
    r"""Image at low light, clipped to [0, 1].

    .. math:: I = g\,J^{\gamma} + n, \quad n \sim \mathcal N(0, \sigma^2)

    Args:
        image: The well lit scene J, values in [0, 1].
        gamma: Exponent that deepens the shadows, in [1, 10].
        gain: Brightness g that remains of white, in [0, 1].
        sigma_255: Standard deviation of the noise on the 0-255 scale, at least 0.
        generator: Source of randomness.

    Raises:
        ValueError: If a parameter is out of range.

    Source:
        Lv et al. 2018 (MBLLEN), who darken by gamma and gain and add noise.
    """
    require_between("gamma", gamma, 1, 10, "the exponent that deepens the shadows")
    require_between("gain", gain, 0, 1, "the brightness that remains of white")
    return add_gaussian_noise(gain * image.clamp(0, 1) ** gamma, sigma_255, generator)
