"""Fine-tuning of the layers that a ranking selects: whole images in, all other layers frozen.

``ram finetune --config ram_models/configs/tiny-swinir-finetune.yaml --data.clean IMAGES
--selection.ranking importance.nc --out RUN``; every field of :class:`Config` is also an option. A run continues from
the last checkpoint of its folder.
"""

__all__ = ["Config", "Selection", "Start", "main", "pretrained", "select", "tune"]

from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from macattr.methods.catalogue import METHODS
from macattr.ranking.importance import LayerImportance
from macattr.ranking.rank import rank_layers
from macattr.ranking.run import World
from macattr.selection.official import read_official_ranking
from macattr.selection.trainable import TrainableMask
from macattr.statistics.certainty import top_count
from ram_models.networks.checkpoints import BUNDLED, build
from ram_models.training.batches import Crops
from ram_models.training.config import Compute, Data, Log, Optim
from ram_models.training.crops import fingerprint, training_crops
from ram_models.training.loop import fit, start
from ram_models.training.losses import whole_l1
from ram_models.training.validation import Validation, whole_views


@dataclass(frozen=True)
class Start:
    """What is fine-tuned.

    Args:
        name: See :func:`ram_models.networks.checkpoints.build`.
        weights: Pre-trained weights: a file, or what else :func:`ram_models.networks.checkpoints.build` takes; null
            takes the bundled ones of that name.
    """

    name: str = "ram-swinir-tiny"
    weights: str | None = None


@dataclass(frozen=True)
class Selection:
    """Which layers are trained.

    Args:
        ranking: An ``importance.nc`` of ``macattr rank``; or a folder with the authors' ``filter_*.txt``; or a method,
            as ``mac``, with which the layers are ranked first, on training crops.
        fraction: Share of the layers that is trained, from the top of the ranking, in (0, 1].
        crops: Training crops to rank on, if ``ranking`` is a method.
    """

    ranking: str = "mac"
    fraction: float = 0.1
    crops: int = 24


@dataclass(frozen=True)
class Config:
    """One fine-tuning run.

    Args:
        data: What is trained on.
        out: Folder of the run; appears there: weights.safetensors, layers.txt, metrics.csv, timing.csv, config.yaml,
            starts.yaml, checkpoints/, tensorboard/, and importance.nc if the layers are ranked here.
        network: What is fine-tuned.
        selection: Which layers are trained.
        optim: Optimiser and schedule.
        compute: Use of the machine.
        log: What is written, and when.
        seed: Seed of the data.
    """

    data: Data
    out: Path
    network: Start = field(default_factory=Start)
    selection: Selection = field(default_factory=Selection)
    optim: Optim = field(default_factory=Optim)
    compute: Compute = field(default_factory=Compute)
    log: Log = field(default_factory=Log)
    seed: int = 0


def pretrained(start: Start) -> nn.Module:
    """The network with its weights.

    Raises:
        ValueError: If no weights are given and none are bundled, or they do not fit.
    """
    if start.weights is None and not (BUNDLED / f"{start.name}.safetensors").is_file():
        raise ValueError(f"`network.weights` must name pre-trained weights: none are bundled for {start.name!r}.")
    return build(start.name, start.weights)


def select(network: nn.Module, selection: Selection, crops: Crops, out: Path) -> TrainableMask:
    """The layers at the top of a ranking that is read or, if ``selection`` names a method, made.

    Args:
        network: What is ranked.
        selection: Which ranking, and how much of it.
        crops: Items (degraded, clean) to rank on.
        out: Folder in which importance.nc of a new ranking is kept; if it is there already, it is read. All processes
            of a run must come here together: they share the work of a new ranking.

    Raises:
        ValueError: If there is no such ranking or method, or the fraction is outside (0, 1].
    """
    source = Path(selection.ranking)
    if source.is_dir():
        ranked = list(read_official_ranking(source))
    elif source.is_file():
        ranked = _names(LayerImportance.load(source))
    elif selection.ranking in METHODS:
        ranked = _names(_rank(network, selection, crops, out / "importance.nc"))
    else:
        raise ValueError(
            f"there is no ranking {selection.ranking!r}: name a file, a folder or one of {', '.join(METHODS)}."
        )
    return TrainableMask(tuple(ranked[: top_count(selection.fraction, len(ranked))]))


def _names(importance: LayerImportance) -> list[str]:
    """Layers, most important first."""
    return [str(name) for name in importance.ranking()["layer"]]


def _rank(network: nn.Module, selection: Selection, crops: Crops, kept: Path) -> LayerImportance:
    """The ranking of this method that is kept in the folder of the run, else a new one on the first training crops."""
    if kept.is_file() and (stored := LayerImportance.load(kept)).dataset.attrs["method"] == selection.ranking:
        return stored
    items = (crops[number] for number in range(selection.crops))
    inputs = [
        {"image": degraded, "clean": clean, "name": f"training crop {number}"}
        for number, (degraded, clean) in enumerate(items)
    ]
    importance = rank_layers(network, inputs, selection.ranking, show_progress=True)
    if World.current().rank == 0:  # no process can look for the file any more: all have taken part in the ranking
        importance.save(kept)
    return importance


def refuse_other_layers(mask: TrainableMask, file: Path) -> None:
    """Keep the selected layers in a file; raise if it holds others, from a run that this one would continue."""
    text = "\n".join(mask.layers) + "\n"
    if file.is_file() and file.read_text() != text:
        raise ValueError(f"{str(file)!r} lists other layers than are selected now: choose another `out`.")
    file.write_text(text)


def tune(config: Config, mask: TrainableMask) -> None:
    """Train these layers on whole images, or continue; ``config.selection`` has been made and is not looked at.

    Raises:
        ValueError: If the run in ``config.out`` trains other layers, or as :func:`ram_models.training.loop.fit`.
    """
    accelerator = start(config.compute, config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    crops, held_out = training_crops(config.data, config.optim, config.compute, config.seed)
    network = pretrained(config.network).to(accelerator.device)
    with accelerator.main_process_first():  # it keeps the list that the others compare with
        refuse_other_layers(mask, config.out / "layers.txt")
    mask.apply(network)
    validation = Validation(held_out, ("input", "whole"), whole_views)
    fit(network, crops, whole_l1, validation, config, accelerator, fingerprint(crops), train_mode=mask.train_mode)


def main(config: Config) -> None:
    """Select, then train, or continue."""
    accelerator = start(config.compute, config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    crops, _ = training_crops(config.data, config.optim, config.compute, config.seed)
    network = pretrained(config.network).to(accelerator.device)
    mask = select(network, config.selection, crops, config.out)
    accelerator.print(mask.apply(network))
    tune(config, mask)
