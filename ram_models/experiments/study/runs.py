"""One run of the fine-tuning experiments: an arm of a block, trained and scored."""

__all__ = ["Job", "RunResult", "interpolate", "made_with", "train", "tune", "validate"]

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from macattr.selection.trainable import TrainableMask
from ram_models.experiments.study.arms import Arm
from ram_models.experiments.study.config import Block, Study
from ram_models.experiments.study.judge import Judge
from ram_models.experiments.study.networks import WEIGHTS, load, weights_file, weights_hash
from ram_models.experiments.study.store import RUN_COLUMNS, RunKey, keyed
from ram_models.networks.checkpoints import build, create, load_weights
from ram_models.recipes import finetune
from ram_models.recipes.pretrain import masked_loss, masked_views
from ram_models.training.config import Log
from ram_models.training.crops import MaskedCrops, fingerprint, training_crops
from ram_models.training.loop import fit, start
from ram_models.training.validation import Validation

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
        arm: What is trained, and for how long.
        layers: Names of the layers that it trains.
        lr: Peak learning rate.
    """

    block: Block
    arm: Arm
    layers: tuple[str, ...]
    lr: float

    @property
    def key(self) -> RunKey:
        """What tells it from other runs."""
        return RunKey(self.block.pretrained.name, self.block.seed, self.arm.name, self.lr)


@dataclass(frozen=True)
class RunResult:
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
        return self.config.out / WEIGHTS


def made_with(study: Study, job: Job) -> str:
    """What a run's scores depend on, as a hash: if it changes, they are those of another run."""
    weights, precision = weights_hash(study, job.block.pretrained), study.compute.precision
    other = () if precision == "fp32" else (precision,)  # so that results outlive the arrival of other precisions
    return study.made_with(study.finetune, weights, job.layers, job.lr, job.arm.length, *other)


def train(study: Study, job: Job) -> RunResult:
    """Fine-tune, or continue; a run that is finished takes no further step.

    Raises:
        ValueError: If the run in its folder has other settings or layers.
    """
    began = time.monotonic()
    start_file = weights_file(study, job.block.pretrained)
    network, mask = create(study.network), TrainableMask(job.layers)
    sha256 = load_weights(network, start_file).sha256[:16]
    counted = mask.apply(network)
    steps = round(study.finetune.steps * job.arm.length)
    often = max(1, steps // ON_THE_WAY)
    block, arm = f"{job.block.pretrained.name}-{job.block.seed}", job.arm.name.replace("/", " ")
    config = finetune.Config(
        data=study.training_data(),
        out=study.out / f"finetune-{steps}" / block / f"{arm} lr {job.lr:.3g}",
        network=finetune.Start(study.network, str(start_file)),
        optim=replace(study.finetune, steps=steps, lr=job.lr, warmup=round(study.finetune.warmup * job.arm.length)),
        compute=study.compute,
        log=Log(often, steps, often, keep=ON_THE_WAY + 1 if job.arm.whole else 1, tensorboard=False),
        seed=job.block.seed,
    )
    (continue_masked if job.arm.masked else finetune.tune)(config, mask)
    return RunResult(config, counted.trained, counted.trained / counted.total, sha256, time.monotonic() - began)


def validate(study: Study, job: Job) -> float:
    """PSNR of a run in dB on held-out training images."""
    metrics = pd.read_csv(train(study, job).config.out / "metrics.csv")
    return float(metrics["psnr_whole"].iloc[-1])


def tune(study: Study, job: Job) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train and score a run.

    Returns:
        Its scores, and the row that says how it was made.
    """
    trained, judge = train(study, job), Judge(study)
    run = {
        **job.key._asdict(),
        "parameters": trained.parameters,
        "share": trained.share,
        "steps": trained.config.optim.steps,
        "seconds": round(trained.seconds),
        "device": study.device,
        "weights_sha256": trained.sha256,
        "layers": "every" if job.arm.every else " ".join(job.layers),
    }
    network = build(study.network, trained.weights).to(study.device)
    scores = [keyed(judge.score(network, twins=job.arm.masked), job.key, 1.0)]
    if job.arm.whole:
        scores += _frontier(study, job, trained, judge)
    return pd.concat(scores).assign(made_with=made_with(study, job)), pd.DataFrame([run], columns=list(RUN_COLUMNS))


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
        validation=validation,
        run=config,
        accelerator=accelerator,
        data_id=fingerprint(crops),
        train_mode=mask.train_mode,
    )


def _frontier(study: Study, job: Job, trained: RunResult, judge: Judge) -> Iterator[pd.DataFrame]:
    """Scores of full fine-tuning on its way, and of points on the straight line from its start to its end."""
    often = trained.config.log.save_every
    for progress in PROGRESS:
        step = round(progress * ON_THE_WAY) * often
        (file,) = (trained.config.out / "checkpoints").glob(f"step-{step:08d}-*.pt")
        yield keyed(judge.score(build(study.network, file).to(study.device)), job.key, progress)
    line = job.key._replace(arm=job.arm.interpolated)
    for weight in INTERPOLATED:
        mixed = interpolate(load(study, job.block.pretrained), trained.weights, weight).to(study.device)
        yield keyed(judge.score(mixed), line, weight)


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
