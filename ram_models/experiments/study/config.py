"""What a study is: networks, runs, tests and margins; the configuration of ``ram reproduce``."""

__all__ = [
    "PROBES_SEED",
    "RATES_SEED",
    "SEED_STEP",
    "Block",
    "JudgeSettings",
    "Pretraining",
    "ProbeSettings",
    "RankingSettings",
    "Rate",
    "Study",
]

import hashlib
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ram_models.training.config import Compute, Data, Optim

What = Literal[
    "card", "denoising", "fig3", "fig4", "fig14", "groups", "page", "rates", "table3", "table4", "table5", "table6"
]


RATES_SEED, PROBES_SEED = 97, 98
"""Seeds of the blocks in which rates are compared, and groups of layers trained alone, which no other block has."""

SEED_STEP = 100
"""Between the seeds of blocks of different pre-trainings."""


@dataclass(frozen=True)
class JudgeSettings:
    """What networks are judged by: the same crops with the same noise for all.

    Args:
        tasks: Trained tasks, and the settings of :mod:`ram_models.evaluation.protocols` that test each.
        unseen: Degradations that are never trained with, likewise.
        crop: The middle of every image, at most this many pixels a side; null for whole images.
        images: Images of every setting, spread over its sorted files; null for all.
        seed: Seed of synthesised degradations and twin masks, together with the name of each image.
    """

    tasks: dict[str, list[str]] = field(default_factory=dict)
    unseen: dict[str, list[str]] = field(default_factory=dict)
    crop: int | None = None
    images: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class RankingSettings:
    """What layers are ranked on: training crops, in equal numbers of every task.

    Args:
        crops: Number of crops.
        size: Side of the crops in pixels.
        official_crops: Number of crops, the first of these, for the authors' procedure, which takes seven times the
            steps.
        seed: Seed of the crops; one that no training run has.
    """

    crops: int = 28
    size: int = 32
    official_crops: int = 7
    seed: int = 1000


@dataclass(frozen=True)
class ProbeSettings:
    """How groups of layers are trained alone, to see what each can do.

    Args:
        steps: Optimiser steps of every probe.
        rates: Peak learning rates; the better one counts.
        budgets: Shares of the parameters of all groups, in (0, 1), that are filled with groups.
    """

    steps: int = 80
    rates: list[float] = field(default_factory=lambda: [2e-3, 6e-3])
    budgets: list[float] = field(default_factory=lambda: [0.1, 0.25])

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.rates or min(self.rates) <= 0:
            raise ValueError(
                f"`probed.steps` must be at least 1 and `probed.rates` above 0, got {self.steps}, {self.rates}."
            )
        if not self.budgets or not 0 < min(self.budgets) <= max(self.budgets) < 1:
            raise ValueError(f"`probed.budgets` must be shares of the parameters in (0, 1), got {self.budgets}.")


@dataclass(frozen=True)
class Rate:
    """A learning rate that was found good for one budget.

    Args:
        share: Share of the network's parameters that are trained, in (0, 1].
        lr: Peak learning rate.
    """

    share: float
    lr: float


@dataclass(frozen=True)
class Pretraining:
    """A pre-trained network of a study.

    Args:
        seed: Seed of its pre-training.
        ratio: Share of hidden pixels; None hides none, the pair-wise baseline.
        patch_size: Side of the hidden blocks in pixels.
        target: What is predicted: the clean image of a pair, or a clean image from itself.
        short: Whether it has the optimiser of the short pre-trainings.
    """

    seed: int
    ratio: float | None = 0.5
    patch_size: int = 1
    target: Literal["paired", "ground_truth"] = "paired"
    short: bool = False

    @property
    def name(self) -> str:
        """Name in results and folders: what differs from RAM's own pre-training, and the seed."""
        if self.ratio is None:
            return f"pairwise-{self.seed}"
        parts = ["short"] if self.short else []
        parts += [f"ratio{self.ratio:g}"] if self.ratio != 0.5 else []
        parts += [f"patch{self.patch_size}"] if self.patch_size != 1 else []
        parts += ["ground-truth"] if self.target == "ground_truth" else []
        return "-".join([*(parts or ["masked"]), str(self.seed)])


@dataclass(frozen=True)
class Block:
    """One pre-trained network and one seed of fine-tuning; all arms of a block see the same crops in the same order.

    Args:
        pretrained: What is fine-tuned.
        seed: Seed of the crops.
    """

    pretrained: Pretraining
    seed: int


@dataclass(frozen=True)
class Study:
    """One table or figure of the paper, measured again.

    Args:
        what: Which one; rates compares learning rates of every arm on blocks of their own, at full length; groups
            trains groups of layers alone and asks which score predicts their gains; denoising asks what a choice of
            layers is worth where noise alone is trained with (``--config denoising``); page draws the figures and
            writes reproduction.md from the results that are there; card draws that of the bundled networks' card.
        data: Folder with the data sets, in train/ and test/.
        out: Folder for runs; what is in it is continued.
        results: Folder for tables; runs that stand there are never measured twice.
        docs: Folder of the page and, in images/, of its figures.
        network: Name of the network, see :func:`ram_models.networks.checkpoints.build`.
        bundled: Take the pre-trained weights that come with the package where there are some.
        pretrained: Folder of further pre-trained weights, one file a network; those that are trained are kept there.
            Null keeps them in the folders of their runs.
        seeds: Seeds of the pre-trainings.
        finetune_seeds: Seeds of the fine-tunings; every pair of both is a block, with crops of its own: 100 times the
            seed of the pre-training is added.
        blocks: Stop after this many blocks; null goes through all.
        pretrain_missing: Whether table3, table4 and fig3 train the short pre-trainings, and denoising the networks
            without masks, that are not there; false leaves these out, so that tables can be written of those that are.
        crops: Training data of both stages, but for its folders.
        pretrain_crop: Side of the crops of all pre-trainings in pixels; null takes that of ``crops``.
        pretrain: Optimiser of the pre-training.
        short_pretrain: Optimiser of the pre-trainings of table3, table4 and fig3.
        finetune: Optimiser of the fine-tuning, but for its learning rate.
        tuned: Learning rate of every arm that has one of its own, by the arm's name: the best of ``rates``.
        arms: Whose arms ``rates`` compares: those of the paper's tables, or of ``denoising``.
        compared: Names of the arms whose rates ``rates`` compares; empty for all.
        ladder: Learning rates that ``rates`` compares, ascending, by about the same factor.
        rates: Learning rates by budget for arms without one of their own and for table3, table4 and fig3, the smallest
            budget first, as [{share: 0.1, lr: 0.002}, {share: 1, lr: 0.001}]; between them they are interpolated, on
            logarithmic scales, and beyond them constant.
        ranked: What layers are ranked on.
        probed: How groups of layers are trained alone.
        judged: What networks are judged by.
        margin: Largest difference in dB in distribution that would not matter.
        margin_unseen: The same on unseen noise.
        compute: Use of the machine.
        processes: Runs at the same time, with one thread each; 1 gives one run all threads.
    """

    what: What
    data: Path | None = None
    out: Path = Path("runs/reproduce")
    results: Path = Path("results")
    docs: Path = Path("docs")
    network: str = "ram-swinir-tiny"
    bundled: bool = True
    pretrained: Path | None = None
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    finetune_seeds: list[int] = field(default_factory=lambda: [10, 11])
    blocks: int | None = None
    pretrain_missing: bool = True
    crops: Data = field(default_factory=Data)
    pretrain_crop: int | None = None
    pretrain: Optim = field(default_factory=Optim)
    short_pretrain: Optim = field(default_factory=Optim)
    finetune: Optim = field(default_factory=Optim)
    tuned: dict[str, float] = field(default_factory=dict)
    arms: Literal["paper", "denoising"] = "paper"
    compared: list[str] = field(default_factory=list)
    ladder: list[float] = field(default_factory=lambda: [8e-5, 2e-4, 5e-4, 1.25e-3])
    rates: list[Rate] = field(default_factory=lambda: [Rate(1.0, 2e-4)])
    ranked: RankingSettings = field(default_factory=RankingSettings)
    probed: ProbeSettings = field(default_factory=ProbeSettings)
    judged: JudgeSettings = field(default_factory=JudgeSettings)
    margin: float = 0.05
    margin_unseen: float = 0.2
    compute: Compute = field(default_factory=Compute)
    processes: int = 1

    def __post_init__(self) -> None:
        shares = [rate.share for rate in self.rates]
        if not shares or shares != sorted(set(shares)) or not 0 < shares[0] <= shares[-1] <= 1:
            raise ValueError(f"`rates` must have ascending shares in (0, 1], got {shares}.")
        if len(self.ladder) < 3 or self.ladder != sorted(set(self.ladder)) or not self.ladder[0] > 0:
            raise ValueError(f"`ladder` must be three or more ascending rates above 0, got {self.ladder}.")
        if self.processes < 1:
            raise ValueError(f"`processes` must be at least 1, got {self.processes}.")
        self._check_seeds()

    def _check_seeds(self) -> None:
        """Refuse seeds with which two trainings would see the same crops: a ValueError."""
        blocks = [seed + SEED_STEP * number for seed in self.finetune_seeds for number in self.seeds]
        of_rates = [seed + SEED_STEP * number for seed in (RATES_SEED, PROBES_SEED) for number in self.seeds]
        for other, whose in (
            (self.seeds, "a pre-training"),
            (of_rates, "the comparison of rates or of groups of layers"),
            ([self.ranked.seed], "the rankings"),
        ):
            if shared := set(blocks) & set(other):
                raise ValueError(
                    f"`seeds` {self.seeds} and `finetune_seeds` {self.finetune_seeds} give a block the seed "
                    f"{min(shared)}, so that it would see the crops of {whose} again: choose other `finetune_seeds`."
                )
        if len(set(blocks)) < len(blocks):
            raise ValueError(
                f"`seeds` {self.seeds} and `finetune_seeds` {self.finetune_seeds} give two blocks the same crops: "
                f"their seeds, finetune_seed + {SEED_STEP} x seed, must differ."
            )

    def folder(self, split: Literal["train", "test"]) -> Path:
        """Where the data sets for training or testing are.

        Raises:
            ValueError: If there is no such folder.
        """
        if self.data is None or not (self.data / split).is_dir():
            raise ValueError(f"`data` must be a folder with train/ and test/ in it, got {self.data}.")
        return self.data / split

    def training_data(self, target: Literal["paired", "ground_truth"] = "paired") -> Data:
        """Training data of a run."""
        return replace(self.crops, folders=self.folder("train"), target=target)

    def masked(self) -> list[Pretraining]:
        """RAM's own pre-training, once for every seed."""
        return [Pretraining(seed) for seed in self.seeds]

    def all_blocks(self) -> list[Block]:
        """Pairs of a pre-trained network and a seed: every network once before any comes again."""
        pairs = [
            Block(network, seed + SEED_STEP * network.seed) for seed in self.finetune_seeds for network in self.masked()
        ]
        return pairs[: self.blocks]

    def lr(self, share: float) -> float:
        """Learning rate for a share of trained parameters, without one of an arm's own."""
        shares, lrs = ([getattr(rate, name) for rate in self.rates] for name in ("share", "lr"))
        return float(np.exp(np.interp(np.log(share), np.log(shares), np.log(lrs))))

    def made_with(self, *more: object) -> str:
        """Changes if crops, tests or anything else that is named changes; 12 hexadecimal digits.

        A setting that is None does not count, so that results outlive the arrival of an option that is off.
        """
        return _hash(self.crops, self.judged, *more)

    @property
    def ranked_with(self) -> str:
        """Changes if the crops that layers are ranked on change; 12 hexadecimal digits."""
        return _hash(self.crops, self.ranked)

    @property
    def device(self) -> str:
        """Where networks are ranked and judged."""
        return "cuda" if torch.cuda.is_available() and not self.compute.cpu else "cpu"


def _hash(*parts: object) -> str:
    """Hash of some settings, 12 hexadecimal digits."""
    return hashlib.sha256(repr([_settings(part) for part in parts]).encode()).hexdigest()[:12]


def _settings(part: object) -> object:
    """The settings of a group of them that are not None; anything else as it is."""
    if not is_dataclass(part):
        return part
    return {name: value for name, value in vars(part).items() if value is not None}
