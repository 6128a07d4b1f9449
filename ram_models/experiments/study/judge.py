"""How networks are judged in a study: PSNR and SSIM on fixed crops of every task and every unseen noise."""

__all__ = ["SCORES", "Affine", "Item", "Judge", "Restoration", "fit_affine"]

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ram_models.data.recognition import read_sets
from ram_models.data.sets import Pair
from ram_models.evaluation.metrics import psnr, ssim
from ram_models.evaluation.protocols import PROTOCOLS, Evaluation
from ram_models.experiments.study.config import JudgeSettings, Study
from ram_models.networks.inference import Restorer, restore_any_size, restorer
from ram_models.seeds import seeded
from ram_models.training.batches import Crops

SCORES = ("kind", "task", "setting", "image", "psnr_db", "ssim", "kept_db")
"""Columns of the scores of a network: ``kind`` is "trained" or "unseen"; ``kept_db`` is the PSNR of the output against
the degraded input, which is high where a network does little."""


@dataclass(frozen=True)
class Item:
    """A test image.

    Args:
        kind: "trained" or "unseen".
        task: Task or noise that it tests.
        setting: Name of the test setting.
        image: Name of the image.
        degraded: Degraded crop, in [0, 1].
        clean: Clean crop, in [0, 1].
    """

    kind: str
    task: str
    setting: str
    image: str
    degraded: Float[Tensor, "3 h w"]
    clean: Float[Tensor, "3 h w"]


class Restoration(NamedTuple):
    """What a network makes of a test image.

    Args:
        item: The image.
        restored: Answer of the network, in [0, 1].
    """

    item: Item
    restored: Float[Tensor, "3 h w"]


class Judge:
    """The fixed tests of a study.

    Args:
        study: Its ``data`` and ``judged`` say what is tested.

    Raises:
        ValueError: If nothing is tested, a setting is unknown, or its images are missing.
    """

    def __init__(self, study: Study) -> None:
        self.judged: JudgeSettings = study.judged
        if not self.judged.tasks:
            raise ValueError(
                "`judged.tasks` is empty: take `--config tiny` or `paper`, or name settings for each task."
            )
        sets = read_sets(study.folder("test"))
        evaluations = {
            test.setting.name: test for name in ("sets", "paper", "noises") for test in PROTOCOLS[name](sets).tests
        }
        self.tests: list[tuple[str, str, Evaluation]] = []
        for kind, by_task in (("trained", self.judged.tasks), ("unseen", self.judged.unseen)):
            for task, settings in by_task.items():
                for name in settings:
                    if name not in evaluations:
                        raise ValueError(f"no images to test {name!r} on; there are {', '.join(evaluations)}.")
                    self.tests.append((kind, task, evaluations[name]))

    def items(self) -> Iterator[Item]:
        """Every image, cropped and degraded."""
        for kind, task, test in self.tests:
            for pair in _spread(test.pairs, self.judged.images):
                degraded, clean = test.read(pair, self.judged.seed, self.judged.crop)
                yield Item(kind, task, test.setting.name, pair.name, degraded, clean)

    def score(self, network: nn.Module, twins: bool = False) -> pd.DataFrame:
        """One row an image, columns :data:`SCORES`.

        Args:
            network: In eval mode.
            twins: Whether every pixel is predicted while it is hidden.
        """
        rows = [
            {
                "kind": item.kind,
                "task": item.task,
                "setting": item.setting,
                "image": item.image,
                "psnr_db": psnr(restored, item.clean),
                "ssim": ssim(restored, item.clean),
                "kept_db": psnr(restored, item.degraded),
            }
            for item, restored in self.restorations(network, twins)
        ]
        return pd.DataFrame(rows, columns=list(SCORES))

    def restorations(self, network: nn.Module, twins: bool = False) -> Iterator[Restoration]:
        """Every image with its restoration, clipped to [0, 1].

        Args:
            network: In eval mode.
            twins: Whether every pixel is predicted while it is hidden.
        """
        device = next(network.parameters(), torch.empty(0)).device
        for item in self.items():
            masks = seeded(f"twin masks of {item.setting}/{item.image}", self.judged.seed)
            restore: Restorer = restorer(network, twins, masks, device)
            yield Restoration(item, restore_any_size(restore, item.degraded))


def _spread(pairs: tuple[Pair, ...], count: int | None) -> list[Pair]:
    """So many of the pairs, from the whole list."""
    if count is None or len(pairs) <= count:
        return list(pairs)
    return [pairs[index * len(pairs) // count] for index in range(count)]


class Affine(nn.Module):
    """A network followed by one affine map of colours: twelve numbers.

    Args:
        network: Called as ``network(image)``.
        matrix: From (r, g, b, 1) to each output channel.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], matrix: Float[Tensor, "3 4"]) -> None:
        super().__init__()
        self.network, self.matrix = network, nn.Parameter(matrix, requires_grad=False)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Restored images."""
        restored = self.network(image)
        mapped = torch.einsum("oc,bchw->bohw", self.matrix[:, :3], restored)
        return mapped + self.matrix[:, 3, None, None]


@torch.no_grad()
def fit_affine(network: nn.Module, crops: Crops, count: int) -> Affine:
    """The network with the map of colours that brings its answer to whole inputs closest to the clean crops.

    Args:
        network: In eval mode.
        crops: Training crops (degraded, clean).
        count: Number of crops, from the first.

    Returns:
        Least squares over all pixels of these crops.
    """
    outputs, targets = [], []
    device = next(network.parameters(), torch.empty(0)).device
    for number in range(count):
        degraded, clean = crops[number]
        outputs.append(network(degraded[None].to(device))[0].cpu().flatten(1))
        targets.append(clean.flatten(1))
    inputs = torch.cat([torch.cat(outputs, 1), torch.ones(1, sum(part.shape[1] for part in outputs))])
    solution = torch.linalg.lstsq(inputs.T, torch.cat(targets, 1).T).solution
    return Affine(network, solution.T.contiguous().to(device))
