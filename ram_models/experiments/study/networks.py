"""The pre-trained networks of a study: their weights, their rankings, and their scores before any fine-tuning."""

__all__ = [
    "WEIGHTS",
    "load",
    "pretrain",
    "rank",
    "rank_all",
    "ranking_crops",
    "run_folder",
    "score_untuned",
    "weights_file",
    "weights_hash",
]

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pandas as pd
from safetensors import safe_open
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
from ram_models.training.run_folder import flat_settings

RENAMED = MappingProxyType({"influence": "internal_influence"})
"""Method of a ranking that has another name here than in the library."""

DEFAULT = Pretraining(0).name
"""The pre-trained network that a bundled file without suffix holds."""

RANKED_WITH = "ranked_with"
"""Attribute of a ranking: hash of the settings of its crops; rankings of earlier versions have none."""

WEIGHTS = "weights.safetensors"
"""Name of the weights in the folder of a run."""

DECISIVE = ("data.crop", "data.tasks", "data.target", "data.synthesised", "masks.", "network.", "optim.", "seed")
"""Beginnings of the names of settings that decide what a pre-training learns."""

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
    return run_folder(study, pretrained) / WEIGHTS


def run_folder(study: Study, pretrained: Pretraining) -> Path:
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
    """Train the network, or continue; nothing if its weights are there.

    Raises:
        ValueError: If they were trained with other settings than the study has now.
    """
    config, kept = _recipe(study, pretrained), weights_file(study, pretrained)
    if kept.is_file():
        if kept.parent != BUNDLED:
            _refuse_other_recipe(kept, config)
        return
    recipe.main(config)
    if kept.parent != config.out:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, lambda opened: opened.write((config.out / WEIGHTS).read_bytes()))


def _recipe(study: Study, pretrained: Pretraining) -> recipe.Config:
    """How a network is pre-trained."""
    optim = study.short_pretrain if pretrained.short else study.pretrain
    if pretrained.ratio is None:
        optim = replace(optim, steps=round(optim.steps * SUPERVISED))
    data = study.training_data(pretrained.target)
    return recipe.Config(
        data=replace(data, crop=study.pretrain_crop or data.crop),
        out=run_folder(study, pretrained),
        network=recipe.Network(study.network),
        masks=recipe.Masks(pretrained.ratio, pretrained.patch_size),
        optim=optim,
        compute=study.compute,
        log=Log(max(1, optim.steps // 48), max(1, optim.steps // 4), max(1, optim.steps // 12), tensorboard=False),
        seed=pretrained.seed,
    )


def _refuse_other_recipe(weights: Path, config: recipe.Config) -> None:
    """Raise if weights were trained otherwise, by the settings in their file: a ValueError."""
    with safe_open(weights, "pt") as opened:
        stored: dict[str, str] = json.loads((opened.metadata() or {}).get("settings", "{}"))
    for name, wanted in flat_settings(config).items():
        if name.startswith(DECISIVE) and stored.get(name, wanted) != wanted:
            raise ValueError(
                f"{str(weights)!r} was trained with {name} = {stored[name]}, got {wanted}: choose another `out` (or "
                "`pretrained`), or delete the file to train again."
            )


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
        ValueError: If the stored ranking is of other weights, or was made on other crops.
    """
    file = study.results / "rankings" / pretrained.name / f"{name}.nc"
    network = load(study, pretrained).to(study.device)
    if not file.is_file():
        if name == "official":
            ranking = rank_layers(network, ranking_crops(study, study.ranked.official_crops), preset=OFFICIAL)
        else:
            ranking = rank_layers(network, ranking_crops(study, study.ranked.crops), RENAMED.get(name, name))
        ranking.dataset.attrs[RANKED_WITH] = study.ranked_with
        file.parent.mkdir(parents=True, exist_ok=True)
        ranking.save(file)
    stored = LayerImportance.load(file)
    if stored.dataset.attrs.get(RANKED_WITH, study.ranked_with) != study.ranked_with:
        raise ValueError(
            f"{str(file)!r} was made on other crops than `ranked` and `crops` say: delete it to rank again."
        )
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
