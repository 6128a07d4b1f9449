"""The pre-trained networks of a study: their weights, their rankings, and their scores before any fine-tuning."""

__all__ = [
    "load",
    "pretrain",
    "rank",
    "rank_all",
    "ranking_crops",
    "score_untuned",
    "weights_file",
    "weights_hash",
]

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pandas as pd
from torch import Tensor, nn

from macattr.atomic_files import write_atomically
from macattr.methods.provenance import hash_parameters
from macattr.paths.presets import OFFICIAL
from macattr.ranking.importance import LayerImportance
from macattr.ranking.rank import rank_layers
from ram_models.experiments.study.config import Pretraining, Study
from ram_models.experiments.study.judge import Judge, fit_affine
from ram_models.experiments.study.store import UNTUNED_SEED, RunKey, keyed
from ram_models.networks.checkpoints import BUNDLED, build
from ram_models.recipes import pretrain as recipe
from ram_models.training.config import Log
from ram_models.training.crops import training_crops

RENAMED = MappingProxyType({"influence": "internal_influence"})
"""Method of a ranking that has another name here than in the library."""

DEFAULT = Pretraining(0).name
"""The pre-trained network that a bundled file without suffix holds."""

WEIGHTS = "weights.safetensors"
"""Name of the weights in the folder of a run."""

SUPERVISED = 0.5
"""Share of the pixels that RAM's masked loss is on; the pair-wise one is on all, so it gets this share of the steps."""


def weights_file(study: Study, pretrained: Pretraining) -> Path:
    """Where the weights of a network are, or will be."""
    suffix = "" if pretrained.name == DEFAULT else f"-{pretrained.name}"
    bundled = BUNDLED / f"{study.network}{suffix}.safetensors"
    if study.bundled and bundled.is_file():
        return bundled
    if study.pretrained is not None:
        return study.pretrained / f"{pretrained.name}.safetensors"
    return _run_folder(study, pretrained) / WEIGHTS


def _run_folder(study: Study, pretrained: Pretraining) -> Path:
    """Folder of the run that trains a network."""
    return study.out / "pretrain" / pretrained.name


def load(study: Study, pretrained: Pretraining) -> nn.Module:
    """The network, in eval mode.

    Raises:
        ValueError: If it was not trained yet.
    """
    return build(study.network, weights_file(study, pretrained))


def weights_hash(study: Study, pretrained: Pretraining) -> str:
    """Hash of the network's parameters, 16 digits."""
    return hash_parameters(load(study, pretrained))


def pretrain(study: Study, pretrained: Pretraining) -> None:
    """Train the network, or continue; nothing if its weights are there."""
    if (kept := weights_file(study, pretrained)).is_file():
        return
    optim = study.short_pretrain if pretrained.short else study.pretrain
    if pretrained.ratio is None:
        optim = replace(optim, steps=round(optim.steps * SUPERVISED))
    data = study.training_data(pretrained.target)
    config = recipe.Config(
        data=replace(data, crop=study.pretrain_crop or data.crop),
        out=_run_folder(study, pretrained),
        network=recipe.Network(study.network),
        masks=recipe.Masks(pretrained.ratio, pretrained.patch_size),
        optim=optim,
        compute=study.compute,
        log=Log(max(1, optim.steps // 48), max(1, optim.steps // 4), max(1, optim.steps // 12), tensorboard=False),
        seed=pretrained.seed,
    )
    recipe.main(config)
    if kept.parent != config.out:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, lambda opened: opened.write((config.out / WEIGHTS).read_bytes()))


def ranking_crops(study: Study, count: int) -> list[dict[str, Tensor | str]]:
    """Training crops to rank on, as many of every task."""
    data = replace(study.training_data(), crop=study.ranked.size)
    optim = replace(study.finetune, steps=count, batch_size=1)
    crops, _ = training_crops(data, optim, study.compute, study.ranked.seed)
    items = ((number, *crops[number]) for number in range(count))
    return [
        {"image": degraded, "clean": clean, "name": f"crop {number}", "degradation": crops.task(number)}
        for number, degraded, clean in items
    ]


def rank(study: Study, pretrained: Pretraining, name: str) -> LayerImportance:
    """A ranking of a network, read if it stands in the results.

    Args:
        study: How.
        pretrained: What is ranked.
        name: A method of the library; ``official``, MAC as the authors' scripts have it; or ``influence``, internal
            influence, the "IG" of Table 5.

    Raises:
        ValueError: If the stored ranking is of other weights.
    """
    file = study.results / "rankings" / pretrained.name / f"{name}.nc"
    network = load(study, pretrained).to(study.device)
    if not file.is_file():
        if name == "official":
            ranking = rank_layers(network, ranking_crops(study, study.ranked.official_crops), preset=OFFICIAL)
        else:
            ranking = rank_layers(network, ranking_crops(study, study.ranked.crops), RENAMED.get(name, name))
        file.parent.mkdir(parents=True, exist_ok=True)
        ranking.save(file)
    stored = LayerImportance.load(file)
    if stored.dataset.attrs["model_sha256"] != hash_parameters(network):
        raise ValueError(f"{str(file)!r} ranks other weights than {pretrained.name} has now: delete it to rank again.")
    return stored


def rank_all(study: Study, names: Sequence[str], pretrained: Pretraining) -> dict[str, LayerImportance]:
    """Rankings of a network, by name.

    Args:
        study: How.
        names: As :func:`rank` takes them.
        pretrained: What is ranked.
    """
    return {name: rank(study, pretrained, name) for name in names}


def score_untuned(study: Study, pretrained: Pretraining) -> pd.DataFrame:
    """Scores without fine-tuning, by arm.

    Of a masked network: ``input``, the degraded images; ``whole``, its answer to them; ``colours``, that after one map
    of colours; ``twins``. Of the pair-wise baseline its answer, as ``pairwise``.
    """
    judge, network = Judge(study), load(study, pretrained).to(study.device)
    if pretrained.ratio is None:
        scores = {"pairwise": judge.score(network)}
    else:
        crops, _ = training_crops(study.training_data(), study.finetune, study.compute, study.ranked.seed)
        scores = {
            "input": judge.score(nn.Identity()),
            "whole": judge.score(network),
            "colours": judge.score(fit_affine(network, crops, study.ranked.crops)),
            "twins": judge.score(network, twins=True),
        }
    rows = pd.concat([keyed(part, RunKey(pretrained.name, UNTUNED_SEED, arm), 0.0) for arm, part in scores.items()])
    return rows.assign(made_with=study.made_with(weights_hash(study, pretrained)))
