"""Pre-trained networks of a study: which file is whose, and how large the crops are."""

from ram_models.experiments.study import networks
from ram_models.experiments.study.config import Pretraining, Study
from ram_models.networks.checkpoints import BUNDLED
from ram_models.training.config import Data


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
