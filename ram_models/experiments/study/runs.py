"""One run of the fine-tuning experiments: an arm of a block, trained and scored."""

__all__ = [
    "AGAIN",
    "FULL",
    "LENGTHS",
    "LONGER",
    "LONGER_MAC",
    "MASKED",
    "WHOLE",
    "Job",
    "Trained",
    "interpolate",
    "made_with",
    "train",
    "tune",
    "validate",
]

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import pandas as pd
import torch
from torch import nn

from macattr.selection.trainable import TrainableMask
from ram_models.experiments.study.config import Block, Study
from ram_models.experiments.study.judge import Judge
from ram_models.experiments.study.networks import load, weights_file, weights_hash
from ram_models.experiments.study.store import RUN_COLUMNS, keyed
from ram_models.networks.checkpoints import build, create, load_weights
from ram_models.recipes import finetune
from ram_models.recipes.pretrain import masked_loss, masked_views
from ram_models.training.config import Log
from ram_models.training.crops import MaskedCrops, fingerprint, training_crops
from ram_models.training.loop import fit, start
from ram_models.training.validation import Validation

FULL = "all"
"""The arm that trains every layer."""

MASKED = "masked, all"
"""The arm that goes on with the pre-training, pixels hidden, for as many steps; scored with twin masks. It tells what
more training does from what closing the gap does."""

LONGER = "all, 4 times the steps"
"""The arm that trains every layer for longer, at the same learning rate: on its way it passes the quality in
distribution that few layers have, so that both can be compared there."""

LONGER_MAC = "MAC, 4 times the steps"
"""The arm that trains the layers of "MAC" for as long."""

AGAIN: Mapping[str, str] = MappingProxyType({LONGER: FULL, LONGER_MAC: "MAC", MASKED: FULL})
"""Arms that train the layers of another one."""

LENGTHS: Mapping[str, float] = MappingProxyType({LONGER: 4.0, LONGER_MAC: 4.0})
"""Factor of the steps and of the warm-up, of the arms where it is not 1."""

WHOLE = (FULL, LONGER)
"""Arms that train every layer on whole images; they are scored on their way too, and on the straight line to it."""

ON_THE_WAY = 10
"""Checkpoints that are kept of a run."""

PROGRESS = (0.1, 0.3, 0.6)
"""Shares of the steps after which they are scored."""

INTERPOLATED = (0.4, 0.6, 0.8)
"""Shares of the straight way from the pre-trained to the fully fine-tuned weights that are scored (WiSE-FT)."""


@dataclass(frozen=True)
class Job:
    """One run.

    Args:
        block: What is fine-tuned, and with which crops.
        arm: Name of the arm.
        layers: What it trains.
        factor: Factor of the learning rate of its class.
        length: Factor of the steps and of the warm-up.
    """

    block: Block
    arm: str
    layers: tuple[str, ...]
    factor: float = 1.0
    length: float = 1.0

    @property
    def key(self) -> tuple[str, int, str]:
        """Pre-training, seed and arm."""
        return self.block.pretrained.name, self.block.seed, self.arm


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Args:
        config: How it was made.
        parameters: Number of parameters that were trained.
        share: Their share in the network's.
        sha256: Of the pre-trained weights, first 16 digits.
        seconds: Wall-clock time; of what was left to do, if it was continued.
    """

    config: finetune.Config
    parameters: int
    share: float
    sha256: str
    seconds: float

    @property
    def weights(self) -> Path:
        """File of the fine-tuned weights."""
        return self.config.out / "weights.safetensors"


def made_with(study: Study, job: Job) -> str:
    """What a run's scores depend on, as a hash: if it changes, they are those of another run."""
    length = [] if job.length == 1 else [job.length]
    weights = weights_hash(study, job.block.pretrained)
    return study.made_with(study.finetune, study.rates, weights, job.layers, *length)


def train(study: Study, job: Job) -> Trained:
    """Fine-tune, or continue; a run that is finished takes no further step.

    Raises:
        ValueError: If the run in its folder has other settings or layers.
    """
    began = time.monotonic()
    start_file = weights_file(study, job.block.pretrained)
    network, mask = create(study.network), TrainableMask(job.layers)
    sha256 = load_weights(network, start_file).sha256[:16]
    counted = mask.apply(network)
    share = counted.trained / counted.total
    steps = round(study.finetune.steps * job.length)
    often = max(1, steps // ON_THE_WAY)
    pretrained, seed, arm = job.key
    lr = study.lr(share) * job.factor
    config = finetune.Config(
        data=study.training_data(),
        out=study.out / f"finetune-{steps}" / f"{pretrained}-{seed}" / f"{arm.replace('/', ' ')} lr {lr:.3g}",
        network=finetune.Start(study.network, str(start_file)),
        optim=replace(study.finetune, steps=steps, lr=lr, warmup=round(study.finetune.warmup * job.length)),
        compute=study.compute,
        log=Log(often, steps, often, keep=ON_THE_WAY + 1, tensorboard=False),
        seed=seed,
    )
    (continue_masked if arm == MASKED else finetune.tune)(config, mask)
    return Trained(config, counted.trained, share, sha256, time.monotonic() - began)


def validate(study: Study, job: Job) -> tuple[float, float]:
    """Learning rate of a run, and its PSNR in dB on held-out training images."""
    trained = train(study, job)
    metrics = pd.read_csv(trained.config.out / "metrics.csv")
    return trained.config.optim.lr, float(metrics["psnr_whole"].iloc[-1])


def tune(study: Study, job: Job) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train and score a run.

    Returns:
        Its scores, and the row that says how it was made.
    """
    trained, judge = train(study, job), Judge(study)
    optim = trained.config.optim
    layers = "every" if job.arm in (*WHOLE, MASKED) else " ".join(job.layers)
    run = pd.DataFrame(
        [
            (
                *job.key, trained.parameters, trained.share, optim.lr, optim.steps, round(trained.seconds),
                study.device, trained.sha256, layers,
            )
        ],
        columns=list(RUN_COLUMNS),
    )  # fmt: skip
    network = build(study.network, trained.weights).to(study.device)
    scores = [keyed(judge.score(network, twins=job.arm == MASKED), *job.key, 1.0)]
    if job.arm in WHOLE:
        scores += _frontier(study, job, trained, judge)
    return pd.concat(scores).assign(made_with=made_with(study, job)), run


def continue_masked(config: finetune.Config, mask: TrainableMask) -> None:
    """Go on with masked pre-training instead: the same crops, half of their pixels hidden, the loss on these."""
    accelerator = start(config.compute, config.seed)
    crops, held_out = training_crops(config.data, config.optim, config.compute, config.seed)
    network = finetune.pretrained(config.network)
    mask.apply(network)
    hidden, hidden_held_out = MaskedCrops(crops, config.seed), MaskedCrops(held_out, config.seed)
    validation = Validation(hidden_held_out, ("input", "whole", "twins"), masked_views)
    fit(
        network,
        hidden,
        masked_loss,
        validation,
        config,
        accelerator,
        fingerprint(crops),
        train_mode=mask.train_mode,
    )


def _frontier(study: Study, job: Job, trained: Trained, judge: Judge) -> Iterator[pd.DataFrame]:
    """Scores of full fine-tuning on its way, and of points on the straight line from its start to its end."""
    pretrained, seed, arm = job.key
    often = trained.config.log.save_every
    for progress in PROGRESS:
        step = round(progress * ON_THE_WAY) * often
        (file,) = (trained.config.out / "checkpoints").glob(f"step-{step:08d}-*.pt")
        yield keyed(judge.score(build(study.network, file).to(study.device)), pretrained, seed, arm, progress)
    for weight in INTERPOLATED:
        mixed = interpolate(load(study, job.block.pretrained), trained.weights, weight).to(study.device)
        yield keyed(judge.score(mixed), pretrained, seed, f"{arm}, interpolated", weight)


def interpolate(network: nn.Module, end: Path, weight: float) -> nn.Module:
    """The network with every parameter moved this share of the way to that of a weights file.

    Args:
        network: Where the way starts; it is changed.
        end: File of the weights at its end.
        weight: Share of the way, in [0, 1].

    Source:
        Wortsman et al. 2022 (WiSE-FT).
    """
    start = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    load_weights(network, end)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.lerp(start[name], parameter, weight))
    return network
