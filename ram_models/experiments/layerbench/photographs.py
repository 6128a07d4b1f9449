"""Problems with photographs: crops and their degraded copies, made on the fly, the same for all methods."""

__all__ = [
    "JUDGED",
    "RANKED",
    "Fidelity",
    "Photographs",
]

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from macattr.image_files import center_crop, read_image
from ram_models.data.crops import DecodedImages, unit_range
from ram_models.evaluation.metrics import psnr
from ram_models.experiments.layerbench import training
from ram_models.experiments.layerbench.networks import Pretrained
from ram_models.experiments.layerbench.problems import Problem, Sample
from ram_models.experiments.layerbench.shifts import SHIFTS, Shift
from ram_models.experiments.layerbench.training import Batch, Training
from ram_models.seeds import seeded

RANKED, RANKED_SIDE = 6, 24
"""Crops that layers are ranked on, and their side in the output's pixels."""

JUDGED, JUDGED_SIDE = 24, 64
"""Images that networks are judged by, and the side of the crop in the middle of each."""

HELD_OUT = 24
"""Training photographs that are never trained on, for the choice of rates."""

SUFFIXES = (".jpg", ".png")


@dataclass(frozen=True)
class Fidelity:
    """Judges networks by fixed pairs.

    Args:
        pairs: Inputs and targets (3, h, w), all of one size.
    """

    pairs: Sequence[tuple[Tensor, Tensor]]

    @torch.no_grad()
    def __call__(self, network: nn.Module) -> float:
        """Mean PSNR in dB.

        Args:
            network: In eval mode; runs in float32.
        """
        network.eval()
        outputs = [network(degraded[None])[0].float().clamp(0, 1) for degraded, _ in self.pairs]
        values = [psnr(output, clean) for output, (_, clean) in zip(outputs, self.pairs, strict=True)]
        return sum(values) / len(values)


@dataclass(frozen=True)
class Photographs:
    """The photographs of the bench.

    Args:
        data: Folder with ``train/BSDS500`` and ``test/CBSD68``.

    Raises:
        ValueError: If a folder has too few images.
    """

    data: Path

    def __post_init__(self) -> None:
        for folder, least in ((self.data / "train" / "BSDS500", 2 * HELD_OUT), (self.data / "test" / "CBSD68", JUDGED)):
            if len(found := _images(folder)) < least:
                raise ValueError(
                    f"{str(folder)!r} holds {len(found)} images, less than the {least} that the bench needs: `data` "
                    "must be a folder with train/BSDS500 and test/CBSD68 in it (docs/datasets.md)."
                )

    @cached_property
    def files(self) -> list[Path]:
        """Photographs of the training split."""
        return _images(self.data / "train" / "BSDS500")

    @cached_property
    def read(self) -> DecodedImages:
        """Reader that keeps them in memory."""
        return DecodedImages(256.0)

    def settings(self) -> tuple[object, ...]:
        """What all numbers depend on beside networks and shifts."""
        return RANKED, RANKED_SIDE, JUDGED, JUDGED_SIDE, HELD_OUT

    def words(self, shift: str) -> str:
        """A shift as the page describes it.

        Args:
            shift: Its name in :data:`ram_models.experiments.layerbench.shifts.SHIFTS`.
        """
        return SHIFTS[shift].words

    def test(self, shift: str) -> Fidelity:
        """Judge by the test split.

        Args:
            shift: Name of what is done to it.
        """
        return self._judge(_spread(_images(self.data / "test" / "CBSD68"), JUDGED), SHIFTS[shift])

    def validation(self, shift: str) -> Fidelity:
        """Judge by photographs of the training split that are never trained on.

        Args:
            shift: Name of what is done to them.
        """
        return self._judge(self.files[-HELD_OUT:], SHIFTS[shift])

    def problem(self, network: Pretrained, shift: str, seed: int) -> Problem:
        """A network before a shift.

        Args:
            network: Which.
            shift: Name of what is done to its data.
            seed: Of crops and noise.
        """
        degraded_by = SHIFTS[shift]
        batches = _Batches(self, network, degraded_by, seed)
        how = Training(training.LENGTH, precision=network.precision, channels_last=network.channels_last)
        side = RANKED_SIDE * degraded_by.scale
        ranked = [self._pair(degraded_by, f"ranked {index}", seed, side) for index in range(RANKED)]
        samples: list[Sample] = [
            {"image": degraded, "clean": clean, "name": f"crop {index}"}
            for index, (degraded, clean) in enumerate(ranked)
        ]
        return Problem(
            network.name,
            shift,
            seed,
            build=network.build,
            samples=samples,
            batch=batches,
            training=how,
            restores=degraded_by.scale == 1,
        )

    def _pair(self, shift: Shift, name: str, seed: int, side: int) -> tuple[Tensor, Tensor]:
        """Degraded and clean crop of a training photograph, turned and mirrored at random."""
        source = seeded(f"{shift.name} {name}", seed)
        pick = partial(_pick, source)
        pixels = self.read(self.files[pick(len(self.files) - HELD_OUT)])
        top, left = pick(pixels.shape[1] - side + 1), pick(pixels.shape[2] - side + 1)
        crop = unit_range(pixels[:, top : top + side, left : left + side])
        crop = crop.rot90(pick(4), (1, 2))
        clean = (crop.flip(2) if pick(2) else crop).contiguous()
        return shift.degrade(clean, source), clean

    def _judge(self, files: Sequence[Path], shift: Shift) -> Fidelity:
        """Judge by the middle of these images; the noise of an image depends on its name alone."""
        pairs = []
        for file in files:
            clean = center_crop(read_image(file), JUDGED_SIDE)
            pairs.append((shift.degrade(clean, seeded(f"{shift.name} {file.name}")), clean))
        return Fidelity(pairs)


class _Batches:
    """Training pairs of every step, kept once they are made: all that is trained on a problem sees the same."""

    def __init__(self, photographs: Photographs, network: Pretrained, shift: Shift, seed: int) -> None:
        self.photographs, self.network, self.shift, self.seed = photographs, network, shift, seed
        self.kept: dict[int, Batch] = {}

    def __call__(self, step: int) -> Batch:
        """Inputs and targets of a step from 0."""
        if step not in self.kept:
            side = self.network.crop * self.shift.scale
            names = (f"{self.network.name} {step} {index}" for index in range(self.network.batch))
            pairs = [self.photographs._pair(self.shift, name, self.seed, side) for name in names]
            inputs, targets = zip(*pairs, strict=True)
            self.kept[step] = torch.stack(inputs), torch.stack(targets)
        return self.kept[step]


def _pick(source: torch.Generator, count: int) -> int:
    """One of the numbers below ``count``."""
    return int(torch.randint(count, (), generator=source))


def _images(folder: Path) -> list[Path]:
    """Image files below a folder, sorted by name; without ``val`` of BSDS500, where the test images come from."""
    found = (file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    visible = (file for file in found if not file.name.startswith("."))
    return sorted(
        (file for file in visible if "val" not in file.relative_to(folder).parts), key=lambda file: (file.name, file)
    )


def _spread(files: Sequence[Path], count: int) -> list[Path]:
    """So many of the files, from the whole list."""
    return [files[index * len(files) // count] for index in range(count)]
