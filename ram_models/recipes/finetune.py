"""Fine-tuning of the layers that a ranking selects, on whole images; all other layers are frozen.

Run it with ``ram finetune --config ram_models/configs/tiny-swinir-finetune.yaml --data.clean IMAGES
--selection.ranking importance.nc --out RUN``. Every field of :class:`Config` is also an option.
"""

__all__ = ["Config", "LayerChoice", "Start", "main", "pretrained", "select", "tune"]

from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from macattr.atomic_files import write_text
from macattr.methods.catalogue import METHODS
from macattr.methods.provenance import hash_parameters, hash_tensors
from macattr.ranking.importance import LayerImportance
from macattr.ranking.rank import rank_layers
from macattr.ranking.run import World
from macattr.selection.official import read_official_ranking
from macattr.selection.trainable import TrainableMask
from macattr.statistics.ranks import top_count
from macattr.user_warnings import warn_user
from ram_models.networks.checkpoints import BUNDLED, build
from ram_models.training.batches import Crops
from ram_models.training.config import Compute, Data, Log, Optim, check_run
from ram_models.training.crops import fingerprint, training_crops
from ram_models.training.loop import fit, start
from ram_models.training.losses import whole_l1
from ram_models.training.validation import Validation, whole_views


@dataclass(frozen=True)
class Start:
    """Network to fine-tune.

    Args:
        name: Name of the network: ram-swinir-tiny, ram-denoise-tiny, ram-swinir, ram-promptir-tiny or
            ram-promptir.
        weights: Pre-trained weights, a file or a Hugging Face repository as owner/name; null takes the bundled ones of
            that name.
    """

    name: str = "ram-swinir-tiny"
    weights: str | None = None


@dataclass(frozen=True)
class LayerChoice:
    """Choice of the layers to train.

    Args:
        ranking: A method such as mac, which ranks the layers on training crops first; or a file or folder of macattr
            rank, or a folder with the authors' filter_*.txt (./mac, if it is called like a method).
        fraction: Fraction of the layers that is trained, from the top of the ranking, in (0, 1].
        crops: Number of training crops to rank on, if "ranking" is a method.
    """

    ranking: str = "mac"
    fraction: float = 0.1
    crops: int = 24

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"`selection.fraction` must lie in (0, 1], got {self.fraction}.")
        if self.crops < 1:
            raise ValueError(f"`selection.crops` must be at least 1, got {self.crops}.")


@dataclass(frozen=True)
class Config:
    """Fine-tune the layers at the top of a ranking on whole images; all other layers are frozen.

    A run continues from the last checkpoint in its folder when the same command is given again.

    Args:
        data: Training data.
        out: Folder for weights.safetensors, layers.txt, metrics.csv, timing.csv, config.yaml, starts.yaml,
            checkpoints/, tensorboard/, and importance.nc if the layers are ranked first.
        network: Network to fine-tune.
        selection: Choice of the layers to train.
        optim: Optimiser and schedule.
        compute: Use of the machine.
        log: Records of the run.
        seed: Seed of the data.
    """

    data: Data
    out: Path
    network: Start = field(default_factory=Start)
    selection: LayerChoice = field(default_factory=LayerChoice)
    optim: Optim = field(default_factory=Optim)
    compute: Compute = field(default_factory=Compute)
    log: Log = field(default_factory=Log)
    seed: int = 0

    def __post_init__(self) -> None:
        check_run(self)


def pretrained(start: Start) -> nn.Module:
    """Network with its pre-trained weights.

    Raises:
        ValueError: If no weights are given and none are bundled, or they do not fit.
    """
    if start.weights is None and not (BUNDLED / f"{start.name}.safetensors").is_file():
        raise ValueError(f"`network.weights` must name pre-trained weights: none are bundled for {start.name!r}.")
    return build(start.name, start.weights)


def select(network: nn.Module, selection: LayerChoice, crops: Crops, out: Path) -> TrainableMask:
    """Layers at the top of a ranking, which is read from a file or, if ``selection`` names a method, made.

    All processes of a run must call it together, because they share the work of a new ranking.

    Args:
        network: Network to rank.
        selection: Ranking and fraction of its layers.
        crops: Items (degraded, clean) to rank on.
        out: Folder that keeps importance.nc of a new ranking; one of the same weights and crops is read.

    Raises:
        ValueError: If there is no such ranking or method, or the fraction is outside (0, 1].

    Warns:
        UserWarning: If a ranking was made for other weights.
    """
    source = Path(selection.ranking)
    if selection.ranking in METHODS:
        ranked = _names(_rank(network, selection, crops, out / "importance.nc"))
    elif any(source.glob("filter_*.txt")):
        ranked = list(read_official_ranking(source))
    elif source.exists():
        importance = LayerImportance.load(source)
        if importance.dataset.attrs.get("model_sha256") != hash_parameters(network):
            warn_user(f"the ranking {selection.ranking!r} was made for other weights than those that are fine-tuned.")
        ranked = _names(importance)
    else:
        raise ValueError(
            f"there is no ranking {selection.ranking!r}: name a file, a folder or one of {', '.join(METHODS)}."
        )
    return TrainableMask(tuple(ranked[: top_count(selection.fraction, len(ranked))]))


def _names(importance: LayerImportance) -> list[str]:
    """Layers, most important first."""
    return [str(name) for name in importance.ranking()["layer"]]


def _rank(network: nn.Module, selection: LayerChoice, crops: Crops, kept: Path) -> LayerImportance:
    """Ranking by this method on the first crops: the one in the folder of the run, if it is just that, or a new one."""
    items = [crops[number] for number in range(selection.crops)]
    of = {
        "method": selection.ranking,
        "model_sha256": hash_parameters(network),
        "crops_sha256": hash_tensors(*(image for item in items for image in item)),
    }
    if kept.is_file() and of.items() <= (stored := LayerImportance.load(kept)).dataset.attrs.items():
        return stored
    inputs = [
        {"image": degraded, "clean": clean, "name": f"training crop {number}"}
        for number, (degraded, clean) in enumerate(items)
    ]
    importance = rank_layers(network, inputs, selection.ranking, show_progress=True)
    importance.dataset.attrs.update(of)
    if World.around(network).is_first:  # every process has looked for the file by now: all took part in the ranking
        importance.save(kept)
    return importance


def _keep_layers(mask: TrainableMask, file: Path) -> None:
    """Write the selected layers into a file; raise if it holds other ones, of a run that this one would continue."""
    text = "\n".join(mask.layers) + "\n"
    if file.is_file() and file.read_text() != text:
        raise ValueError(f"{str(file)!r} lists other layers than are selected now: choose another `out`.")
    write_text(file, text)


def tune(config: Config, mask: TrainableMask) -> None:
    """Train these layers on whole images, or continue; ``config.selection`` is not used.

    Raises:
        ValueError: If the run in ``config.out`` trains other layers, or see :func:`ram_models.training.loop.fit`.
    """
    accelerator = start(config.compute, config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    crops, held_out = training_crops(config.data, config.optim, config.compute, config.seed)
    network = pretrained(config.network).to(accelerator.device)
    with accelerator.main_process_first():  # it writes the list that the others compare with
        _keep_layers(mask, config.out / "layers.txt")
    mask.apply(network)
    validation = Validation(held_out, ("input", "whole"), whole_views)
    fit(
        network=network,
        crops=crops,
        loss=whole_l1,
        validation=validation,
        run=config,
        accelerator=accelerator,
        data_id=fingerprint(crops),
        train_mode=mask.train_mode,
    )


def check_ranking(config: Config) -> None:
    """Raise if a method is to rank on more crops than the run has: a ValueError."""
    crops = config.optim.steps * config.optim.batch_size
    if config.selection.ranking in METHODS and config.selection.crops > crops:
        raise ValueError(
            f"`selection.crops` {config.selection.crops} is more than the {crops} training crops of the run "
            "(`optim.steps` x `optim.batch_size`): lower it, or train longer."
        )


def main(config: Config) -> None:
    """Select layers, then train them, or continue."""
    check_ranking(config)
    accelerator = start(config.compute, config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    crops, _ = training_crops(config.data, config.optim, config.compute, config.seed)
    network = pretrained(config.network).to(accelerator.device)
    mask = select(network, config.selection, crops, config.out)
    accelerator.print(mask.apply(network))
    tune(config, mask)
