"""The degradations by task: their parameters, and the ranges from which training draws them."""

__all__ = [
    "DEGRADATIONS",
    "JPEG",
    "TASKS",
    "UNSEEN",
    "CorrelatedNoise",
    "Darkening",
    "Degradation",
    "GaussianBlur",
    "GaussianNoise",
    "Haze",
    "MotionBlur",
    "Pepper",
    "PoissonNoise",
    "Rain",
    "SaltAndPepper",
    "Speckle",
    "degrade",
    "draw",
]

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from ram_models.degradations.blur import camera_shake, gaussian_blur, motion_blur, motion_kernel
from ram_models.degradations.compression import compress_jpeg
from ram_models.degradations.haze import add_haze, random_depth
from ram_models.degradations.light import darken
from ram_models.degradations.noise import (
    add_correlated_noise,
    add_gaussian_noise,
    add_pepper,
    add_poisson_noise,
    add_salt_and_pepper,
    add_speckle,
)
from ram_models.degradations.rain import add_rain, rain_streaks


@dataclass(frozen=True)
class Degradation(ABC):
    """A degradation with its parameters, the fields, so that they can be recorded and set."""

    @classmethod
    @abstractmethod
    def draw(cls, generator: torch.Generator) -> "Degradation":
        """One with parameters drawn from the range that training uses."""

    @abstractmethod
    def __call__(self, image: Float[Tensor, "3 h w"], generator: torch.Generator) -> Float[Tensor, "3 h w"]:
        """The image degraded; noise, streaks, depths and paths come from ``generator``."""


@dataclass(frozen=True)
class Haze(Degradation):
    """Atmospheric scattering over a smooth random depth map, see :func:`.add_haze` and :func:`.random_depth`.

    Airlight and beta are drawn as for RESIDE's outdoor training set (Li et al. 2019). Depth: two of its pairs
    (0001_0.8_0.2, 0002_0.8_0.08) solved for d give 2.2 to 4.0; each image gets a part of that range.
    """

    airlight: float
    beta: float
    near: float
    far: float

    @classmethod
    def draw(cls, generator: torch.Generator) -> "Haze":
        """Airlight from [0.8, 1), beta from [0.04, 0.2), near from [2, 3), far from [3, 4)."""
        airlight, beta = _uniform(0.8, 1.0, generator), _uniform(0.04, 0.2, generator)
        return cls(airlight, beta, _uniform(2.0, 3.0, generator), _uniform(3.0, 4.0, generator))

    def __call__(self, image: Float[Tensor, "3 h w"], generator: torch.Generator) -> Float[Tensor, "3 h w"]:
        """Hazy image."""
        height, width = image.shape[-2:]
        depth = random_depth(height, width, self.near, self.far, generator)
        return add_haze(image, depth, self.airlight, self.beta)


@dataclass(frozen=True)
class Rain(Degradation):
    """Streaks of three sizes, see :func:`.rain_streaks`; from as light as Rain100L to as heavy as Rain100H.

    Fourteen Rain100H pairs and two of Rain100L: the streaks lie within 20 degrees of the vertical and add between 0.02
    and 0.39 to the mean of the image.
    """

    angle: float
    length: float
    coverage: float
    strength: float

    @classmethod
    def draw(cls, generator: torch.Generator) -> "Rain":
        """Angle from [-25, 25) degrees, length [20, 60) pixels, log coverage log [0.1, 2.5), strength [0.3, 0.9)."""
        angle, length = _uniform(-25.0, 25.0, generator), _uniform(20.0, 60.0, generator)
        return cls(angle, length, _log_uniform(0.1, 2.5, generator), _uniform(0.3, 0.9, generator))

    def __call__(self, image: Float[Tensor, "3 h w"], generator: torch.Generator) -> Float[Tensor, "3 h w"]:
        """Rainy image."""
        height, width = image.shape[-2:]
        streaks = rain_streaks(height, width, self.angle, self.length, self.coverage, generator)
        return add_rain(image, streaks, self.strength)


@dataclass(frozen=True)
class GaussianNoise(Degradation):
    """White noise of the paper's range, see :func:`.add_gaussian_noise`."""

    sigma_255: float

    @classmethod
    def draw(cls, generator: torch.Generator) -> "GaussianNoise":
        """Standard deviation from (0, 50]."""
        return cls(50 - _uniform(0.0, 50.0, generator))

    def __call__(self, image: Float[Tensor, "3 h w"], generator: torch.Generator) -> Float[Tensor, "3 h w"]:
        """Noisy image."""
        return add_gaussian_noise(image, self.sigma_255, generator)


@dataclass(frozen=True)
class MotionBlur(Degradation):
    """Blur of a shaking camera, see :func:`.camera_shake`.

    Kernels fitted to four GoPro pairs are nearly straight paths of 15 to 36 pixels, the eight of Levin et al. 2009 span
    9 to 22 pixels with hooks.
    """

    length: float
    turn: float

    @classmethod
    def draw(cls, generator: torch.Generator) -> "MotionBlur":
        """Length from [5, 30) pixels (so images need 16 a side), turn from [0, 1.5) radians."""
        return cls(_uniform(5.0, 30.0, generator), _uniform(0.0, 1.5, generator))

    def __call__(self, image: Float[Tensor, "3 h w"], generator: torch.Generator) -> Float[Tensor, "3 h w"]:
        """Blurred image."""
        return motion_blur(image, motion_kernel(camera_shake(self.length, self.turn, generator)))


@dataclass(frozen=True)
class Darkening(Degradation):
    """Low light, see :func:`.darken`.

    Powers fitted to the smoothed grey values of 20 LOL pairs have exponents of 1.6 to 3.0 and gains of 0.07 to 0.38;
    their noise is 1 to 2 levels of 255.
    """

    gamma: float
    gain: float
    sigma_255: float

    @classmethod
    def draw(cls, generator: torch.Generator) -> "Darkening":
        """Gamma from [1.5, 3), log gain from log [0.07, 0.4), noise from [0.5, 2.5)."""
        return cls(_uniform(1.5, 3.0, generator), _log_uniform(0.07, 0.4, generator), _uniform(0.5, 2.5, generator))

    def __call__(self, image: Float[Tensor, "3 h w"], generator: torch.Generator) -> Float[Tensor, "3 h w"]:
        """Dark image."""
        return darken(image, self.gamma, self.gain, self.sigma_255, generator)


@dataclass(frozen=True)
class GaussianBlur(Degradation):
    """Blur of the paper's range, with 15 x 15 taps, see :func:`.gaussian_blur`."""

    sigma: float

    @classmethod
    def draw(cls, generator: torch.Generator) -> "GaussianBlur":
        """Standard deviation from [0.1, 3.1) pixels."""
        return cls(_uniform(0.1, 3.1, generator))

    def __call__(self, image: Float[Tensor, "3 h w"], generator: torch.Generator) -> Float[Tensor, "3 h w"]:
        """Blurred image."""
        return gaussian_blur(image, self.sigma)


@dataclass(frozen=True)
class JPEG(Degradation):
    """Compression of the paper's range, see :func:`.compress_jpeg`."""

    quality: int

    @classmethod
    def draw(cls, generator: torch.Generator) -> "JPEG":
        """Quality from 20 to 90."""
        return cls(int(_uniform(20.0, 91.0, generator)))

    def __call__(self, image: Float[Tensor, "3 h w"], generator: torch.Generator) -> Float[Tensor, "3 h w"]:
        """Compressed image."""
        return compress_jpeg(image, self.quality)


@dataclass(frozen=True)
class PoissonNoise(Degradation):
    """Noise that training does not see, see :func:`.add_poisson_noise`."""

    peak: float = 30.0

    @classmethod
    def draw(cls, generator: torch.Generator) -> "PoissonNoise":
        """Always the default: a test has one strength."""
        return cls()

    def __call__(self, image: Float[Tensor, "3 h w"], generator: torch.Generator) -> Float[Tensor, "3 h w"]:
        """Noisy image."""
        return add_poisson_noise(image, self.peak, generator)


@dataclass(frozen=True)
class Pepper(Degradation):
    """Noise that training does not see, see :func:`.add_pepper`."""

    share: float = 0.1

    @classmethod
    def draw(cls, generator: torch.Generator) -> "Pepper":
        """Always the default: a test has one strength."""
        return cls()

    def __call__(self, image: Float[Tensor, "3 h w"], generator: torch.Generator) -> Float[Tensor, "3 h w"]:
        """Noisy image."""
        return add_pepper(image, self.share, generator)


@dataclass(frozen=True)
class Speckle(Degradation):
    """Noise that training does not see, see :func:`.add_speckle`."""

    sigma: float = 0.2

    @classmethod
    def draw(cls, generator: torch.Generator) -> "Speckle":
        """Always the default: a test has one strength."""
        return cls()

    def __call__(self, image: Float[Tensor, "3 h w"], generator: torch.Generator) -> Float[Tensor, "3 h w"]:
        """Noisy image."""
        return add_speckle(image, self.sigma, generator)


@dataclass(frozen=True)
class CorrelatedNoise(Degradation):
    """Noise that training does not see, see :func:`.add_correlated_noise`."""

    sigma_255: float = 25.0
    reach: float = 1.0

    @classmethod
    def draw(cls, generator: torch.Generator) -> "CorrelatedNoise":
        """Always the default: a test has one strength."""
        return cls()

    def __call__(self, image: Float[Tensor, "3 h w"], generator: torch.Generator) -> Float[Tensor, "3 h w"]:
        """Noisy image."""
        return add_correlated_noise(image, self.sigma_255, self.reach, generator)


@dataclass(frozen=True)
class SaltAndPepper(Degradation):
    """Noise that training does not see, see :func:`.add_salt_and_pepper`."""

    share: float = 0.1

    @classmethod
    def draw(cls, generator: torch.Generator) -> "SaltAndPepper":
        """Always the default: a test has one strength."""
        return cls()

    def __call__(self, image: Float[Tensor, "3 h w"], generator: torch.Generator) -> Float[Tensor, "3 h w"]:
        """Noisy image."""
        return add_salt_and_pepper(image, self.share, generator)


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    """A number from [low, high)."""
    return low + (high - low) * float(torch.rand((), generator=generator, device=generator.device))


def _log_uniform(low: float, high: float, generator: torch.Generator) -> float:
    """A number from [low, high), as often between x and 2 x for every x."""
    return math.exp(_uniform(math.log(low), math.log(high), generator))


def _draw_and_apply(kind: type[Degradation], image: Tensor, generator: torch.Generator) -> Tensor:
    """The image after a degradation of this kind, its parameters drawn first."""
    return kind.draw(generator)(image, generator)


DEGRADATIONS: Mapping[str, type[Degradation]] = MappingProxyType(
    {
        "haze": Haze,
        "rain": Rain,
        "noise": GaussianNoise,
        "motion_blur": MotionBlur,
        "lowlight": Darkening,
        "blur": GaussianBlur,
        "jpeg": JPEG,
        "poisson": PoissonNoise,
        "pepper": Pepper,
        "speckle": Speckle,
        "correlated": CorrelatedNoise,
        "salt_and_pepper": SaltAndPepper,
    }
)
"""Every degradation by its task's name."""

UNSEEN: Mapping[str, Callable[[Tensor, torch.Generator], Tensor]] = MappingProxyType(
    {
        name: partial(_draw_and_apply, DEGRADATIONS[name])
        for name in ("poisson", "pepper", "speckle", "correlated", "salt_and_pepper")
    }
)
"""The noises that are tested and never trained with, each called as ``task(image, generator)``.

The first three are the paper's, which does not state their strength; these are ours.
"""

TASKS: Mapping[str, Callable[[Tensor, torch.Generator], Tensor]] = MappingProxyType(
    {name: partial(_draw_and_apply, kind) for name, kind in DEGRADATIONS.items() if name not in UNSEEN}
)
"""The paper's seven tasks in the order of its Table 1, each called as ``task(image, generator)``.

Noise, blur and JPEG are synthesised as in the paper. The other four stand in for the real pairs that it trains with.
"""


def draw(task: str, generator: torch.Generator) -> Degradation:
    """The degradation of ``task`` with parameters drawn from the range that training uses.

    Raises:
        ValueError: If there is no such task.

    Example:
        >>> draw("speckle", torch.Generator())
        Speckle(sigma=0.2)
    """
    if task not in DEGRADATIONS:
        near = get_close_matches(task, DEGRADATIONS, 1)
        hint = f"did you mean {near[0]!r}? There" if near else "there"
        raise ValueError(f"no degradation {task!r}; {hint} are {', '.join(DEGRADATIONS)}.")
    return DEGRADATIONS[task].draw(generator)


def degrade(image: Float[Tensor, "3 h w"], task: str, generator: torch.Generator) -> Float[Tensor, "3 h w"]:
    """Image after the degradation of ``task``, its parameters drawn first: ``draw(task, generator)(image, generator)``.

    Args:
        image: RGB in [0, 1].
        task: Name in :data:`DEGRADATIONS`.
        generator: Source of the parameters and of noise.

    Raises:
        ValueError: If there is no such task, or the image is too small for it.
    """
    return draw(task, generator)(image, generator)
