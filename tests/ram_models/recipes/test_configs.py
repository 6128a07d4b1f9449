"""The configurations that are shipped: they parse, hold the paper's settings, and refuse what they do not know."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser, auto_cli

from ram_models.experiments.denoising.arms import DENOISING
from ram_models.experiments.denoising.contrasts import Contrasts
from ram_models.experiments.study import networks
from ram_models.experiments.study.config import Study
from ram_models.experiments.verdicts.means import BASELINE, TRAINED_NOISE, above_trained
from ram_models.recipes import finetune, pretrain
from ram_models.training.loop import _learning_rate

CONFIGS = Path(pretrain.__file__).parents[1] / "configs"
OVERLAYS = {"ground-truth", "pairwise"}
STUDIES = {"denoising", "paper", "tiny"}
NAMES = sorted(file.stem for file in CONFIGS.glob("*.yaml") if file.stem not in OVERLAYS | STUDIES)
TASKS = {"haze", "rain", "lowlight", "motion_blur", "noise", "blur", "jpeg"}


BASELINES = 3
"""Networks without masks that were trained for the study on denoising."""


def parse(*names, options=()):
    recipe = finetune.Config if "finetune" in names[0] else pretrain.Config
    files = [argument for name in names for argument in ("--config", str(CONFIGS / f"{name}.yaml"))]
    return auto_cli(recipe, as_positional=False, args=[*files, "--out=run", *options])


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_is_complete_but_for_the_data(name):
    config = parse(name)
    assert config.optim.steps >= 450
    assert _learning_rate(config.optim.steps, config.optim) == pytest.approx(config.optim.lr_final)


@pytest.mark.parametrize(("network", "crop", "batch"), [("swinir", 64, 12), ("promptir", 128, 4)])
def test_pre_training_has_the_papers_settings(network, crop, batch):
    """Qin et al. 2024, Sec. 3.2 and 4.1: the numbers of the text."""
    config = parse(f"{network}-pretrain")
    assert (config.network.name, config.data.crop, config.optim.batch_size) == (f"ram-{network}", crop, batch)
    assert (config.optim.lr, config.optim.lr_final, config.optim.ema) == (1e-4, 6e-5, 0.995)
    assert (config.masks.ratio, config.masks.patch_size, config.data.target) == (0.5, 1, "paired")
    assert set(config.data.tasks) == TASKS


@pytest.mark.parametrize(("network", "crop"), [("swinir", 64), ("promptir", 128)])
def test_fine_tuning_has_the_papers_settings(network, crop):
    """Qin et al. 2024, Sec. 4.1 and A.2: 10 % of the layers, ranked on 10 images of each of the seven tasks."""
    config = parse(f"{network}-finetune")
    assert (config.network.name, config.data.crop, config.optim.batch_size) == (f"ram-{network}", crop, 4)
    assert (config.optim.lr, config.optim.lr_final) == (2e-4, 1e-7)
    assert (config.selection.ranking, config.selection.fraction, config.selection.crops) == ("mac", 0.1, 70)
    assert set(config.data.tasks) == TASKS


def test_a_second_configuration_changes_what_it_names_and_nothing_else():
    base, baseline = parse("swinir-pretrain"), parse("swinir-pretrain", "pairwise")
    assert (baseline.masks.ratio, baseline.masks.patch_size) == (None, 1)
    assert (baseline.optim, baseline.data) == (base.optim, base.data)
    ground_truth = parse("swinir-pretrain", "ground-truth")
    assert (ground_truth.data.target, ground_truth.data.crop) == ("ground_truth", 64)
    assert (ground_truth.masks, ground_truth.optim) == (base.masks, base.optim)


def test_options_go_before_the_file():
    config = parse("tiny-swinir", options=["--optim.lr=2e-4", "--masks.ratio=0.8", "--masks.patch_size=8"])
    assert (config.optim.lr, config.masks.ratio, config.masks.patch_size) == (2e-4, 0.8, 8)
    assert config.optim.steps == 450


def study(name):
    parser = ArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Study, as_positional=False)
    given = parser.instantiate(parser.parse_args(["--config", str(CONFIGS / f"{name}.yaml"), "--what=table5"]))
    return Study(**{field.name: given[field.name] for field in fields(Study)})


def test_the_study_of_the_papers_size_trains_as_its_recipes_do():
    full, before, after = study("paper"), parse("swinir-pretrain"), parse("swinir-finetune")
    assert full.network == before.network.name
    assert full.pretrain == before.optim
    assert replace(full.finetune, lr=after.optim.lr) == after.optim
    assert {rate.lr for rate in full.rates} == {after.optim.lr}
    assert full.ranked.crops == after.selection.crops


def test_the_small_study_pre_trains_as_its_recipe_does():
    small, recipe = study("tiny"), parse("tiny-swinir")
    assert small.pretrain == recipe.optim
    assert replace(small.crops, crop=small.pretrain_crop, folders=[]) == replace(recipe.data, folders=[])


def test_denoising_differs_from_the_small_study_in_its_task_and_a_shorter_pre_training():
    small, noise = study("tiny"), study("denoising")
    assert noise.pretrain == replace(small.pretrain, steps=300)
    for name in ("network", "pretrain_crop", "finetune", "ladder", "rates", "ranked", "processes"):
        assert getattr(noise, name) == getattr(small, name)
    assert (noise.crops.tasks, noise.crops.crop, noise.crops.held_out) == (["noise"], small.crops.crop, 24)
    assert len(noise.all_blocks()) == 6


def test_the_claims_on_denoising_are_about_arms_and_noises_that_there_are():
    contrasts, judged = Contrasts.read(), study("denoising").judged
    assert set(judged.tasks) == {TRAINED_NOISE}
    assert {noise for kinds in contrasts.noises.values() for noise in kinds} == set(judged.unseen)
    columns = {TRAINED_NOISE, *contrasts.noises, *map(above_trained, contrasts.noises)}
    for claim in contrasts.baseline:
        assert claim.b == BASELINE
    for claim in (*contrasts.claims, *contrasts.baseline):
        assert {claim.a, claim.b} <= {*DENOISING.by_name, BASELINE}
        assert claim.column in columns
        assert claim.matched in (None, TRAINED_NOISE)


@pytest.mark.parametrize("name", ["paper", "tiny"])
def test_a_study_tests_every_task_and_every_unseen_noise(name):
    tested = study(name).judged
    assert set(tested.tasks) == TASKS
    assert set(tested.unseen) == {"poisson", "pepper", "speckle"}


@pytest.mark.parametrize(
    ("content", "message"),
    [("optim: {lrr: 1.0}", "lrr"), ("steps: 5", "steps"), ("optim: {steps: many}", "steps")],
    ids=["nested", "top", "type"],
)
def test_wrong_keys_and_values_end_with_exit_code_2(tmp_path, capsys, content, message):
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(SystemExit) as caught:
        auto_cli(pretrain.Config, as_positional=False, args=["--config", str(tmp_path / "a.yaml"), "--out=run"])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err.partition("error:")[2]


def test_the_kept_networks_of_the_denoising_study_are_those_of_its_configuration(tmp_path):
    (tmp_path / "train").mkdir()
    config = replace(study("denoising"), data=tmp_path)
    config = replace(config, pretrained=CONFIGS.parents[1] / config.pretrained)
    baselines = [replace(network, ratio=None) for network in config.masked()[:BASELINES]]
    trained = [*config.masked(), *baselines]
    assert all(networks.weights_file(config, network).is_file() for network in trained)
    for network in trained:
        networks.pretrain(config, network)  # it refuses weights of other settings
