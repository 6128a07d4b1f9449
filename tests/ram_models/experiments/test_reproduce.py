"""``ram reproduce`` from end to end on a few small pictures: what it writes, and that it never measures twice."""

import re
import shutil
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from macattr.ranking.rank import rank_layers
from ram_models.cli import main
from ram_models.experiments import rates
from ram_models.experiments.denoising.arms import DENOISING, EQUAL
from ram_models.experiments.denoising.arms import SMALL as SMALL_BUDGET
from ram_models.experiments.page.page import page_text
from ram_models.experiments.paper_arms import ALL, LONGER, LONGER_MAC
from ram_models.experiments.reproduce import EXPERIMENTS
from ram_models.experiments.study import blocks, networks
from ram_models.experiments.study.config import What
from ram_models.experiments.variants import BEFORE
from ram_models.networks import checkpoints
from ram_models.networks.rgb import RGBSwinIR

pytestmark = [
    pytest.mark.slow,  # one small study from end to end, 20 s
    pytest.mark.filterwarnings("ignore:of the 2 held-out crops, these equal the clean ones"),  # of so small crops
]

SMALL = """
seeds: [0]
finetune_seeds: [10]
bundled: false
crops: {crop: 16, tasks: [lowlight, noise], held_out: 1}
pretrain: {steps: 2, batch_size: 2, warmup: 0}
short_pretrain: {steps: 2, batch_size: 2, warmup: 0}
finetune: {steps: 10, batch_size: 2, warmup: 0}
tuned: {MAC: 3.0e-4}
ranked: {crops: 2, size: 16, official_crops: 2}
judged:
  tasks: {lowlight: [LOL], noise: [CBSD68 sigma=25]}
  unseen: {poisson: [BSD68 poisson], pepper: [BSD68 pepper], speckle: [BSD68 speckle]}
  crop: 16
  images: 1
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data, and the configuration of a study that takes seconds."""
    folder = tmp_path_factory.mktemp("study")
    for split, name in (("train", "our485"), ("test", "eval15")):
        for side, factor in (("high", 1.0), ("low", 0.5)):
            (folder / "data" / split / "LOL" / name / side).mkdir(parents=True)
            for number in range(4):
                save(folder / f"data/{split}/LOL/{name}/{side}/{number}.png", number, factor)
    (folder / "data/test/CBSD68").mkdir()
    save(folder / "data/test/CBSD68/0.png", 9)
    (folder / "small.yaml").write_text(SMALL)
    return folder


def save(path, seed, factor=1.0):
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3)) * factor
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def rank_in_few_steps(network, images, method="mac", **options):
    walks = method in ("mac", "internal_influence")
    return rank_layers(network, images, method, **options, **({"n_steps": 4} if walks else {}))


def reproduce(what, folder, *options):
    places = [f"--{name}={folder / name}" for name in ("data", "out", "results", "docs")]
    return main(["reproduce", what, "--config", str(folder / "small.yaml"), *places, *options])


@pytest.fixture(scope="module", autouse=True)
def narrow():
    """A network of fewer blocks and channels under the name of the small one, ranked in fewer steps."""
    arguments = {"img_size": 16, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "NETWORKS", {"ram-swinir-tiny": (RGBSwinIR, arguments)})
        patch.setattr(networks, "rank_layers", rank_in_few_steps)
        yield


NOISE = (
    f"tuned: {dict.fromkeys(DENOISING.by_name, 3.0e-4)}"
    + """
arms: denoising
crops: {crop: 16, tasks: [noise], held_out: 1}
judged:
  tasks: {noise: [BSD68 sigma=25]}
  unseen:
    poisson: [BSD68 poisson]
    speckle: [BSD68 speckle]
    correlated: [BSD68 correlated]
    strong: [BSD68 sigma=70]
    pepper: [BSD68 pepper]
    salt_and_pepper: [BSD68 salt_and_pepper]
  crop: 16
  images: 1
"""
)


@pytest.fixture(scope="module")
def denoised(folder, tmp_path_factory):
    """The experiment on denoising."""
    place = tmp_path_factory.mktemp("denoising")
    shutil.copytree(folder / "data", place / "data")
    (place / "small.yaml").write_text(
        re.sub(r"^(crops|judged|tuned):.*\n(?:  .*\n)*", "", SMALL, flags=re.MULTILINE) + NOISE
    )
    assert reproduce("denoising", place, f"--pretrained={place / 'kept'}") == 0
    return place


@pytest.fixture(scope="module")
def measured(folder):
    """Everything but the learning rates, and the page."""
    for what in ("fig4", "fig14", "table5", "table6", "table4", "page"):
        assert reproduce(what, folder) == 0
    return folder


def test_every_arm_of_table_5_has_its_row(measured):
    table = pd.read_csv(measured / "results/table5.csv").set_index("arm")
    untuned = ["input", "whole", "colours", "twins"]
    assert table.loc[untuned, "blocks"].isna().all()
    shuffled = ["MAC shuffled", "MAC shuffled over stages"]  # three layers, none of them in a block
    assert (table["blocks"].drop([*untuned, *shuffled]) == 1).all()
    assert table.loc["MAC", "parameters"] < table.loc["all", "parameters"]
    assert table.loc["random, equal parameters", "parameters"] == pytest.approx(
        table.loc["MAC", "parameters"], rel=0.05
    )
    assert table.loc[["whole", "twins"], "closed"].tolist() == [0.0, 1.0]


def test_one_block_decides_nothing(measured):
    for name in ("table5", "table6", "table4"):
        verdicts = pd.read_csv(measured / f"results/{name}-claims.csv")["verdict"]
        assert set(verdicts) <= {"undecided", "the same layers", "not tested"}


def test_full_fine_tuning_is_scored_on_its_way(measured):
    scores = pd.read_csv(measured / "results/scores.csv")
    points = scores.groupby("arm")["progress"].unique()
    for arm in (ALL, LONGER):
        assert sorted(points[arm.name]) == [0.1, 0.3, 0.6, 1.0]
        assert sorted(points[arm.interpolated]) == [0.4, 0.6, 0.8]


def test_longer_arms_take_four_times_the_steps(measured):
    steps = pd.read_csv(measured / "results/runs.csv").set_index("arm")["steps"]
    assert steps[LONGER.name] == steps[LONGER_MAC.name] == 4 * steps[ALL.name]


def test_the_pairwise_baseline_has_as_many_supervised_pixels(measured):
    last = pd.read_csv(measured / "out/pretrain/pairwise-0/metrics.csv")["step"].iloc[-1]
    assert last == 1  # half of the steps, each with a loss on all pixels instead of half of them


def test_the_page_shows_every_claim_and_every_figure(measured):
    page = (measured / "docs/reproduction.md").read_text()
    claims = pd.concat([pd.read_csv(file) for file in (measured / "results").glob("*-claims.csv")])
    assert all(claim in page for claim in claims["claim"])
    figures = {file.name for file in (measured / "docs/images").glob("*.png")}
    assert figures == {
        f"reproduction-{name}.png" for name in ("fig4", "fig14-mac", "fig14-ig", "table5", "table6", "table4")
    }
    assert all(f"images/{name}" in page for name in figures)
    assert "Not measured yet: `ram reproduce table3" in page


def test_what_stands_in_the_results_is_not_measured_again(measured, monkeypatch):
    def forbidden(*_):
        raise AssertionError("measured twice")

    for name in ("score_untuned", "tune"):
        monkeypatch.setattr(blocks, name, forbidden)
    before = (measured / "results/table5.csv").read_text()
    assert reproduce("table5", measured) == 0
    assert (measured / "results/table5.csv").read_text() == before


@pytest.mark.parametrize("option", ["--finetune.steps=20", "--judged.crop=12"])
def test_results_of_other_settings_are_refused(measured, capsys, option):
    assert reproduce("table5", measured, option) == 2
    assert "made with other settings, weights, tests or layers than now" in capsys.readouterr().err


def test_the_table_says_how_every_short_pre_training_was_made(measured):
    made = pd.read_csv(measured / "results/table4-pretrainings.csv").set_index("pretrained")
    assert list(made.index) == ["short-0", "short-ground-truth-0"]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert set(made["device"]) == {device}
    said = f"Pre-trainings on {device}: paired (1), ground truth only (1)."
    assert said in (measured / "docs/reproduction.md").read_text()
    runs = pd.read_csv(measured / "results/short/runs.csv").set_index("pretrained")
    pd.testing.assert_series_equal(made["weights_sha256"], runs["weights_sha256"], check_like=True)


def test_the_page_says_which_variants_were_trained_on_another_device(measured, tmp_path):
    results = shutil.copytree(measured / "results", tmp_path / "results")
    file = results / "table4-pretrainings.csv"
    pd.read_csv(file).assign(device=["cuda", "cpu"]).to_csv(file, index=False)
    page = page_text(results, [])
    assert "Pre-trainings on cuda: paired (1); on cpu: ground truth only (1). A seed has the same crops" in page


def test_a_short_pre_training_of_other_settings_is_refused_and_the_table_says_how_each_was_made(
    measured, tmp_path, capsys
):
    assert reproduce("table4", measured, f"--results={tmp_path}", "--short_pretrain.steps=5") == 2
    assert "was trained with optim.steps = 2, got 5" in capsys.readouterr().err
    assert set(pd.read_csv(measured / "results/table4-pretrainings.csv")["steps"]) == {2}


def test_a_table_can_be_written_of_the_pre_trainings_that_are_there(measured, tmp_path):
    places = [f"--results={tmp_path}", "--pretrain_missing=false"]
    assert reproduce("fig3", measured, *places) == 0
    table = pd.read_csv(tmp_path / "fig3.csv").set_index("arm")
    assert table.loc["1x1", "blocks"] == 1
    assert table.loc[["4x4", "8x8"], "in distribution"].isna().all()
    assert set(pd.read_csv(tmp_path / "fig3-claims.csv")["verdict"]) == {"not tested"}


def test_a_table_of_no_pre_training_is_refused(measured, tmp_path, capsys):
    assert reproduce("fig3", measured, f"--out={tmp_path}", "--pretrain_missing=false") == 2
    assert "has no network of fig3" in capsys.readouterr().err


def test_the_floor_of_short_pre_trainings_is_the_degraded_input(measured):
    table = pd.read_csv(measured / "results/table4.csv").set_index("arm")
    assert list(table.index) == ["input", "paired", "ground truth only"]
    floor = pd.read_csv(measured / "results/table6.csv").set_index("arm").loc["input", "in distribution"]
    assert table.loc["input", "in distribution"] == pytest.approx(floor, abs=1e-4)
    assert table.loc["input", ["blocks", *BEFORE.values()]].isna().all()
    assert table.loc[["paired", "ground truth only"], list(BEFORE.values())].notna().all().all()


def test_every_study_is_an_experiment():
    assert set(get_args(What)) == set(EXPERIMENTS)


def test_learning_rates_are_compared_on_held_out_training_images(folder, measured):
    ladder = ["--ladder=[0.001,0.002,0.004]", "--compared=[MAC,ends]"]
    assert reproduce("rates", folder, *ladder) == 0
    table = pd.read_csv(folder / "results/rates.csv")
    assert table["arm"].unique().tolist() == ["MAC", "ends"]
    assert table.groupby("arm")["best"].sum().eq(1).all()
    for _, of in table.groupby("arm"):
        inside = not (of["best"] & of["edge"]).any()
        assert inside or len(of) == 3 + rates.EXTENSIONS  # an edge that is the best is moved
        assert of["lr"].is_monotonic_increasing
    page = page_text(folder / "results", [])
    assert page.count("| **") >= 2
    assert "In Tables 5 and 6 every arm has its best rate, except: " in page


def test_the_tables_say_which_rates_their_arms_had(measured):
    lr = pd.read_csv(measured / "results/table5.csv").set_index("arm")["lr"]
    assert lr["MAC"] == 3e-4
    assert lr["all"] == 2e-4
    claims = pd.read_csv(measured / "results/table5-claims.csv")
    assert not claims["tuned"][claims["mean_db"].notna()].any()  # one arm of each has the rate of its parameters


def test_every_arm_of_denoising_keeps_to_its_budget(denoised):
    table = pd.read_csv(denoised / "results/arms.csv").set_index("arm")
    shuffled = "MAC shuffled over stages"  # three layers, none of them in a block
    sizes = table.loc[[name for name in DENOISING.by_name if name != shuffled], "parameters"]
    assert sizes.notna().all()
    small = sizes[[name for name in sizes.index if name.endswith(SMALL_BUDGET)]]
    assert (small <= 0.05 * sizes["all"] / table.loc["all", "share"]).all()
    equal = sizes[[name for name in sizes.index if name.endswith(EQUAL)]]
    assert (equal <= sizes["MAC"]).all()


def test_denoising_holds_unseen_noise_against_trained_noise(denoised):
    blocks = pd.read_csv(denoised / "results/blocks.csv")
    unlike = blocks[["poisson", "speckle", "correlated", "strong"]].mean(axis=1)
    pd.testing.assert_series_equal(blocks["unlike masks"], unlike, check_names=False, rtol=1e-5)
    extra = blocks["like masks, above trained noise"]
    expected = blocks[["pepper", "salt_and_pepper"]].mean(axis=1) - blocks["noise"]
    pd.testing.assert_series_equal(extra, expected, check_names=False, atol=1e-4)


def test_the_page_on_denoising_shows_every_claim_and_what_is_missing(denoised):
    page = " ".join((denoised / "docs/denoising.md").read_text().split())
    claims = pd.read_csv(denoised / "results/claims.csv")
    assert all(claim in page for claim in claims["claim"])
    assert set(claims["verdict"]) <= {"undecided", "the same layers", "not tested"}
    means = pd.read_csv(denoised / "results/arms.csv").set_index("arm")["noise"]
    assert f"by {means['MAC'] - means['input']:+.1f} dB with 10 % of the layers by MAC" in page
    against = pd.read_csv(denoised / "results/baseline-claims.csv")
    assert all(claim in page for claim in against["claim"])
    assert (against["blocks"] == 1).all()
    assert "1 networks were trained without masks" in page
    assert f"- **Undecided:** {(claims['verdict'] != 'the same layers').sum()} of {len(claims)} claims" in page
    assert "each fine-tuned once for 10 steps." in page
    assert "**Not finished:** 1 of 6 blocks are finished; never run: MAC shuffled within role, over all stages." in page
    assert (denoised / "docs/images/denoising.png").is_file()


def test_denoising_is_refused_without_a_rate_for_every_arm(denoised, capsys, tmp_path):
    config = (denoised / "small.yaml").read_text()
    (tmp_path / "small.yaml").write_text(config.replace("'norms': 0.0003, ", ""))
    (tmp_path / "data").symlink_to(denoised / "data")
    assert reproduce("denoising", tmp_path, f"--pretrained={tmp_path / 'kept'}") == 2
    assert "`tuned` has no learning rate for 'norms' (1 arms have none)" in capsys.readouterr().err
    assert (tmp_path / "kept/masked-0.safetensors").is_file()


def test_pre_trainings_that_are_kept_are_not_trained_again(denoised, monkeypatch, tmp_path):
    def forbidden(*_):
        raise AssertionError("trained twice")

    kept = sorted(file.name for file in (denoised / "kept").iterdir())
    assert kept == ["masked-0.safetensors", "pairwise-0.safetensors"]
    monkeypatch.setattr(networks.recipe, "main", forbidden)
    assert reproduce("denoising", denoised, f"--pretrained={denoised / 'kept'}", f"--out={tmp_path}") == 0


def test_rates_of_denoising_are_those_of_its_own_arms(denoised):
    options = ["--ladder=[0.001,0.002,0.004]", "--compared=[norms]", f"--pretrained={denoised / 'kept'}"]
    assert reproduce("rates", denoised, *options) == 0
    assert pd.read_csv(denoised / "results/rates.csv")["arm"].unique().tolist() == ["norms"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds=[0,10]"], r"`seeds` \[0, 10\] and `finetune_seeds` \[10\] give a block the seed 10"),
        (["--rates=[{share: 0.5, lr: 0.1}, {share: 0.1, lr: 0.1}]"], "`rates` must have ascending shares"),
        (["--ladder=[0.1,0.2]"], "`ladder` must be three or more ascending rates"),
        (["--processes=0"], "`processes` must be at least 1, got 0"),
        (["--tuned={MAK: 0.1}"], "there is no arm 'MAK' in `tuned` or `compared`; MAC, "),
    ],
    ids=["seeds", "rates", "ladder", "processes", "tuned"],
)
def test_a_study_that_cannot_be_meant_is_refused(folder, capsys, options, message):
    assert reproduce("table5", folder, *options) == 2
    assert re.search(message, capsys.readouterr().err)
