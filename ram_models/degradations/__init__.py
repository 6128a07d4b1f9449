"""The degradations of RAM, as functions of an image in [0, 1] and their parameters.

Images are RGB of shape (3, h, w); a grey image is one with three equal channels. Every size works, but blur needs 8
pixels a side and motion blur 16. Randomness comes from a ``torch.Generator`` alone, device and dtype follow the image,
and the image that is given is never changed.
"""

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
    "add_correlated_noise",
    "add_gaussian_noise",
    "add_haze",
    "add_pepper",
    "add_poisson_noise",
    "add_rain",
    "add_salt_and_pepper",
    "add_speckle",
    "camera_shake",
    "compress_jpeg",
    "darken",
    "degrade",
    "draw",
    "gaussian_blur",
    "motion_blur",
    "motion_kernel",
    "rain_streaks",
    "random_depth",
]

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
from ram_models.degradations.tasks import (
    DEGRADATIONS,
    JPEG,
    TASKS,
    UNSEEN,
    CorrelatedNoise,
    Darkening,
    Degradation,
    GaussianBlur,
    GaussianNoise,
    Haze,
    MotionBlur,
    Pepper,
    PoissonNoise,
    Rain,
    SaltAndPepper,
    Speckle,
    degrade,
    draw,
)
