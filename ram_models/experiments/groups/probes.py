"""Probes: every group of layers trained alone for a few steps, and judged on crops that are never trained on."""

__all__ = [
    "COLUMNS",
    "NOTHING",
    "BlockCrops",
    "Probe",
    "Quality",
    "gains",
    "quality",
    "read_crops",
    "read_probes",
    "run_probes",
    "tune",
]

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from macattr.atomic_files import write_text
from macattr.methods.weight_paths import adam_states
from macattr.selection.trainable import TrainableMask
from ram_models.evaluation.metrics import psnr
from ram_models.experiments.groups.partition import Group
from ram_models.experiments.study.config import Block, Study
from ram_models.experiments.study.networks import load, weights_hash
from ram_models.experiments.study.parallel import in_parallel
from ram_models.training.batches import Crops
from ram_models.training.crops import training_crops

NOTHING = "nothing"
"""Name of the network before any training in the table of probes; its rate is 0."""

KEY = ("pretrained", "seed", "group", "lr")
"""What tells one probe from another."""

COLUMNS = (*KEY, "parameters", "steps", "loss", "psnr_db", "seconds", "device", "precision", "made_with")
"""Columns of probes.csv: ``loss`` and ``psnr_db`` are means over the held-out crops."""


BATCH = 8
"""Crops in a forward pass when a network is judged."""


class Quality(NamedTuple):
    """Means over held-out crops.

    Args:
        loss: Mean absolute error, in [0, 1].
        psnr_db: PSNR in dB.
    """

    loss: float
    psnr_db: float


@dataclass(frozen=True)
class Probe:
    """A group that is trained alone.

    Args:
        block: What is trained, and with which crops.
        group: Which layers; None trains nothing.
        lr: Peak learning rate; 0 for nothing.
    """

    block: Block
    group: Group | None
    lr: float

    @property
    def key(self) -> tuple[object, ...]:
        """Its values of :data:`KEY`."""
        name = self.group.name if self.group else NOTHING
        return (self.block.pretrained.name, self.block.seed, name, self.lr)


def run_probes(study: Study, probes: Sequence[Probe], file: Path) -> pd.DataFrame:
    """Run the probes that are not finished.

    Args:
        study: How; ``probed`` gives the number of steps.
        probes: Of one block, in the order in which they are run.
        file: Finished ones, columns :data:`COLUMNS`; what is run is added at once.

    Returns:
        All finished probes of the file.

    Raises:
        ValueError: If one of the probes stands there, but was made with other settings, weights or layers.
    """
    finished = read_probes(file)
    made = dict(zip(finished[list(KEY)].itertuples(index=False, name=None), finished["made_with"], strict=True))
    for probe in probes:
        if made.get(probe.key, wanted := _made_with(study, probe)) != wanted:
            raise ValueError(
                f"{str(file)!r} holds {' / '.join(map(str, probe.key))}, made with other settings, weights or layers "
                "than now: choose another `results`, or delete its rows."
            )
    waiting = [probe for probe in probes if probe.key not in made]
    print(f"groups: {len(waiting)} of {len(probes)} probes to go; what is finished stands in {file}")
    crops = read_crops(study, probes[0].block)
    for _, row in in_parallel(partial(_run, study, crops), waiting, study.processes, "probe"):
        finished = pd.DataFrame([*finished.to_dict("records"), row], columns=list(COLUMNS))
        _write(finished, file)
    return finished


def read_probes(file: Path) -> pd.DataFrame:
    """Finished probes, columns :data:`COLUMNS`; empty without a file.

    Args:
        file: Where they are.
    """
    return pd.read_csv(file) if file.exists() else pd.DataFrame(columns=list(COLUMNS))


def gains(probes: pd.DataFrame) -> pd.DataFrame:
    """What every group gained over the network before training, at the better of the rates that all groups have.

    Args:
        probes: Finished probes of one block.

    Returns:
        By group: ``parameters``, ``lr``, ``loss_gain`` (decrease of the mean absolute error, at the rate where it is
        largest), and ``psnr_gain_db`` at that rate.
    """
    before = probes[probes["group"] == NOTHING].iloc[0]
    trained = probes[probes["group"] != NOTHING]
    counts = trained.groupby("lr")["group"].nunique()
    trained = trained[trained["lr"].isin(counts.index[counts == trained["group"].nunique()])]
    trained = trained.assign(
        loss_gain=before["loss"] - trained["loss"], psnr_gain_db=trained["psnr_db"] - before["psnr_db"]
    )
    best = trained.loc[trained.groupby("group", sort=False)["loss_gain"].idxmax()]
    return best.set_index("group")[["parameters", "lr", "loss_gain", "psnr_gain_db"]]


@torch.no_grad()
def quality(network: nn.Module, degraded: Float[Tensor, "b 3 h w"], clean: Float[Tensor, "b 3 h w"]) -> Quality:
    """Quality of a network on crops, in single precision.

    Args:
        network: In eval mode.
        degraded: Crops, in [0, 1].
        clean: The same, undegraded.
    """
    restored = torch.cat([network(part) for part in degraded.split(BATCH)])
    ratios = [psnr(one.clamp(0, 1), other) for one, other in zip(restored, clean, strict=True)]
    return Quality(float((restored - clean).abs().mean()), sum(ratios) / len(ratios))


@dataclass(frozen=True)
class BlockCrops:
    """All crops of a block: every probe sees the same ones in the same order.

    Args:
        batches: Degraded and clean crops of every step.
        held_out: Degraded and clean crops that are never trained on.
    """

    batches: list[tuple[Tensor, Tensor]]
    held_out: tuple[Tensor, Tensor]


def read_crops(study: Study, block: Block) -> BlockCrops:
    """The crops of a block.

    Args:
        study: Training data, batch size and number of steps.
        block: Its seed decides the crops.
    """
    optim = replace(study.finetune, steps=study.probed.steps)
    crops, held_out = training_crops(study.training_data(), optim, study.compute, block.seed)
    batches = [
        _stack(crops, range(first, first + optim.batch_size)) for first in range(0, len(crops), optim.batch_size)
    ]
    return BlockCrops(batches, _stack(held_out, range(len(held_out))))


def _stack(crops: Crops, numbers: Iterable[int]) -> tuple[Tensor, Tensor]:
    """Degraded and clean crops of these numbers."""
    degraded, clean = zip(*(crops[number] for number in numbers), strict=True)
    return torch.stack(degraded), torch.stack(clean)


def tune(study: Study, network: nn.Module, group: Group, lr: float, crops: BlockCrops) -> nn.Module:
    """The network after a group was trained alone, by Adam at a rate that falls linearly to 0.

    Args:
        study: Precision of the computation.
        network: In eval mode; it is changed.
        group: What is trained.
        lr: Peak learning rate.
        crops: What it is trained on, a step a batch.
    """
    steps, batches = len(crops.batches), iter(crops.batches)

    def loss(call: Callable[..., Tensor]) -> Tensor:
        degraded, clean = next(batches)
        with torch.autocast(study.device, torch.bfloat16, enabled=study.compute.precision == "bf16"):
            return (call(degraded.to(study.device)) - clean.to(study.device)).abs().mean()

    names = TrainableMask(group.layers).parameter_names(network)
    states = adam_states(network, loss, steps, lambda step: lr * (1 - step / steps), names)
    network.load_state_dict(deque(states, maxlen=1).pop(), strict=False)
    return network


def _run(study: Study, crops: BlockCrops, probe: Probe) -> dict[str, object]:
    """The row of a probe."""
    began = time.monotonic()
    network = load(study, probe.block.pretrained).to(study.device)
    if probe.group is not None:
        tune(study, network, probe.group, probe.lr, crops)
    held_out = [part.to(study.device) for part in crops.held_out]
    made = (
        probe.group.parameters if probe.group else 0,
        len(crops.batches) if probe.group else 0,
        *quality(network, *held_out),
        round(time.monotonic() - began),
        study.device,
        study.compute.precision,
        _made_with(study, probe),
    )
    return dict(zip(COLUMNS, (*probe.key, *made), strict=True))


def _made_with(study: Study, probe: Probe) -> str:
    """What a probe's quality depends on, as a hash."""
    layers = probe.group.layers if probe.group else ()
    weights = weights_hash(study, probe.block.pretrained)
    return study.made_with(study.finetune, weights, layers, probe.lr, study.probed.steps, study.compute.precision)


def _write(probes: pd.DataFrame, file: Path) -> None:
    """Replace the table of finished probes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = probes.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    write_text(file, text)
