"""Pre-trained networks of a study: which file is whose, and how large the crops are."""

from dataclasses import replace

import pytest

from ram_models.experiments.study import networks
from ram_models.experiments.study.config import Pretraining, Study
from ram_models.networks.checkpoints import BUNDLED, build
from ram_models.training.config import Data, Optim
from ram_models.training.run_folder import flat_settings, save_weights


def test_the_file_without_a_suffix_is_seed_0_and_the_others_are_named():
    study = Study("fig4")
    assert networks.weights_file(study, Pretraining(0)) == BUNDLED / "ram-swinir-tiny.safetensors"
    assert networks.weights_file(study, Pretraining(1)) == BUNDLED / "ram-swinir-tiny-masked-1.safetensors"
    pairwise = networks.weights_file(study, Pretraining(0, ratio=None))
    assert pairwise == BUNDLED / "ram-swinir-tiny-pairwise-0.safetensors"


def test_what_is_not_bundled_is_below_the_folder_of_runs(tmp_path):
    own = tmp_path / "pretrain" / "masked-0" / "weights.safetensors"
    assert networks.weights_file(Study("fig4", out=tmp_path, bundled=False), Pretraining(0)) == own
    short = networks.weights_file(Study("fig4", out=tmp_path), Pretraining(0, short=True))
    assert short == tmp_path / "pretrain" / "short-0" / "weights.safetensors"


def test_pre_trainings_may_have_larger_crops_than_fine_tunings(monkeypatch, tmp_path):
    (tmp_path / "train").mkdir()
    crops = []
    monkeypatch.setattr(networks.recipe, "main", lambda config: crops.append(config.data.crop))
    for side in (None, 64):
        study = Study("table3", tmp_path, tmp_path / "runs", crops=Data(crop=32), pretrain_crop=side)
        networks.pretrain(study, Pretraining(0, short=True))
    assert crops == [32, 64]


def test_weights_that_were_trained_otherwise_are_no_study_s(tmp_path, pictures):
    (tmp_path / "train").symlink_to(pictures)
    study = Study(
        "table3",
        tmp_path,
        tmp_path / "runs",
        bundled=False,
        crops=Data(clean=pictures, crop=16, tasks=["noise"], held_out=1),
        pretrain=Optim(steps=1, batch_size=1),
        pretrained=tmp_path / "kept",
    )
    recipe = networks._recipe(study, Pretraining(0))
    kept = networks.weights_file(study, Pretraining(0))
    kept.parent.mkdir()
    save_weights(build(study.network), kept, flat_settings(recipe))
    networks.pretrain(study, Pretraining(0))
    with pytest.raises(ValueError, match=r"masked-0\.safetensors' was trained with optim.lr = .*, got 0.5"):
        networks.pretrain(replace(study, pretrain=replace(study.pretrain, lr=0.5)), Pretraining(0))


def test_a_ranking_on_other_crops_is_not_taken_for_this_one(tmp_path, monkeypatch):
    made = []

    def rank_layers(network, crops, method):
        made.append(method)
        return library_rank_layers(network, None, "magnitude")

    library_rank_layers = networks.rank_layers
    monkeypatch.setattr(networks, "rank_layers", rank_layers)
    monkeypatch.setattr(networks, "ranking_crops", lambda study, count: [])
    study = Study("table5", results=tmp_path)
    for _ in range(2):
        networks.rank(study, Pretraining(0), "activation")
    assert made == ["activation"]
    with pytest.raises(ValueError, match="was made on other crops than `ranked` and `crops` say"):
        networks.rank(replace(study, ranked=replace(study.ranked, crops=4)), Pretraining(0), "activation")
