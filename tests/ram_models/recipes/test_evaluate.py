"""`ram evaluate`: measures what it says, keeps what is finished, and never mixes what was made differently."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from macattr.image_files import read_image
from ram_models.evaluation.metrics import Convention, psnr, ssim
from ram_models.evaluation.tables import read_results
from ram_models.recipes import evaluate
from ram_models.recipes.evaluate import Config, main


@pytest.fixture
def config(tmp_path):
    """Three pairs of LOL and two clean images of CBSD68; the degraded side of a pair is 0.8 times the clean one."""
    for side, factor in (("high", 1.0), ("low", 0.8)):
        (tmp_path / "data/LOL/eval15" / side).mkdir(parents=True)
        for number in range(3):
            save(tmp_path / f"data/LOL/eval15/{side}/{number}.png", number, factor)
    (tmp_path / "data/CBSD68").mkdir()
    for number in range(2):
        save(tmp_path / f"data/CBSD68/{number}.png", number)
    return Config(tmp_path / "data", tmp_path / "out", "identity", protocol="pairs")


def save(path, seed, factor=1.0):
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3)) * factor
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def rows(config: Config) -> pd.DataFrame:
    return read_results(config.out / f"{config.name}.csv")


def count_reads(monkeypatch) -> list[str]:
    """Names of the images that are measured from now on."""
    seen, real = [], evaluate.measure

    def measure(test, pair, *arguments):
        seen.append(f"{test.setting.name}/{pair.name}")
        return real(test, pair, *arguments)

    monkeypatch.setattr(evaluate, "measure", measure)
    return seen


def test_the_identity_measures_the_degraded_images(config):
    assert main(config) == 0
    measured = rows(config)
    assert list(measured["image"]) == ["0", "1", "2"]
    folder = config.data / "LOL/eval15"
    for row in measured.itertuples():
        images = read_image(folder / f"low/{row.image}.png"), read_image(folder / f"high/{row.image}.png")
        assert (row.psnr_db, row.ssim) == pytest.approx((psnr(*images), ssim(*images)), abs=1e-6)
        assert (row.setting, row.task, row.height, row.width) == ("LOL", "lowlight", 20, 24)


def test_results_say_how_they_were_made(config):
    main(replace(config, crop=16, convention=Convention("y", 1)))
    stored = json.loads((config.out / "identity.json").read_text())
    assert (stored["crop"], stored["seed"]) == (16, 0)
    assert stored["convention"] == {"channels": "y", "border": 1, "data_range": 1.0, "rounded": True}
    assert set(stored["versions"]) == {"torch", "torchmetrics", "Pillow", "macattr"}
    text = (config.out / "results.md").read_text()
    assert "Y of YCbCr (BT.601 as in MATLAB), rounded to 8 bits, 1 border pixels cut" in text
    assert "middle 16 pixels of each image" in text


def test_the_bundled_network_is_measured_whole_tiled_and_with_twin_masks(config):
    base = replace(config, network="ram-swinir-tiny", limit=1)
    runs = [base, replace(base, tile=16, overlap=0, method="tiled"), replace(base, twins=True)]
    assert [main(run) for run in runs] == [0, 0, 0]
    values = {run.name: float(rows(run)["psnr_db"].iloc[0]) for run in runs}
    assert len(set(values.values())) == 3
    assert list(values) == ["ram-swinir-tiny", "tiled", "ram-swinir-tiny with twin masks"]
    table = (config.out / "results.md").read_text()
    assert all(name in table for name in values)
    stored = json.loads((config.out / "ram-swinir-tiny.json").read_text())
    assert stored["weights_sha256"].startswith("0b7a2c96")


def test_the_paper_protocol_writes_its_tables_and_says_what_is_missing(config, capsys):
    run = replace(config, protocol="paper")
    assert main(run) == 0
    printed = capsys.readouterr().out
    assert "BSD68 speckle" in printed
    assert "missing below" in printed
    assert "SOTS-outdoor, Rain100L, Rain100H, Test100, Test1200, Test2800, GoPro, LSDIR, Urban100" in printed
    text = (config.out / "results.md").read_text()
    assert "### Table 1: seven tasks, PSNR in dB / SSIM" in text
    assert "| identity: images | - | - | 6 of 204 | - | 3 of 15 | - | - | - |" in text
    assert "- LSDIR JPEG q=50 (LSDIR val)" in text
    tables = pd.read_csv(config.out / "tables.csv")
    assert set(tables["table"]) == {"table1_seven_tasks", "table2_gaussian_denoising", "table6_ood_tradeoff"}


def test_noise_of_sigma_25_costs_what_it_must(config):
    """-20 log10(25 / 255) = 20.17 dB, and more by clipping, on uniform pixels about 0.3 dB."""
    main(replace(config, protocol="paper"))
    measured = rows(config).query("setting == 'BSD68 sigma=25'")["psnr_db"]
    assert measured.between(20.17, 20.8).all()


def test_a_stopped_run_continues_where_it_was(config, monkeypatch):
    real = evaluate.measure

    def stop(test, pair, *arguments):
        if pair.name == "2":
            raise KeyboardInterrupt
        return real(test, pair, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "measure", stop)
        with pytest.raises(KeyboardInterrupt):
            main(config)
    assert list(rows(config)["image"]) == ["0", "1"]
    seen = count_reads(monkeypatch)
    assert main(config) == 0
    assert seen == ["LOL/2"]
    assert list(rows(config)["image"]) == ["0", "1", "2"]


@pytest.mark.parametrize("kept", [0, 10, -1, -5])
def test_a_line_that_a_crash_cut_off_is_measured_again(config, kept):
    main(config)
    file = config.out / "identity.csv"
    whole = file.read_bytes()
    file.write_bytes(whole[: kept if kept >= 0 else len(whole) + kept])
    assert main(config) == 0
    assert file.read_bytes() == whole


def test_a_bad_image_does_not_lose_the_others(config, capsys):
    (config.data / "LOL/eval15/low/1.png").write_bytes(b"broken")
    assert main(config) == 2
    assert list(rows(config)["image"]) == ["0", "2"]
    captured = capsys.readouterr()
    (error,) = (row for row in captured.err.splitlines() if row.startswith("ram evaluate: error: "))
    assert "LOL, 1: " in error
    assert "1.png' cannot be read as an image" in error
    assert "| LOL | lowlight | 2 |" in captured.out


def test_images_of_two_sizes_are_reported(config, capsys):
    Image.new("RGB", (23, 20)).save(config.data / "LOL/eval15/low/1.png")
    assert main(config) == 2
    assert "they must be of one size" in capsys.readouterr().err


def test_a_set_without_any_good_image_leaves_clear_results(config, capsys):
    for number in range(3):
        (config.data / f"LOL/eval15/low/{number}.png").write_bytes(b"broken")
    assert main(config) == 2
    assert capsys.readouterr().err.count("cannot be read as an image") == 3


def test_equal_images_have_infinite_psnr(config):
    for number in range(3):
        save(config.data / f"LOL/eval15/low/{number}.png", number)
    assert main(config) == 0
    assert set(rows(config)["psnr_db"]) == {math.inf}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": 16}, "made with crop = None, got 16"),
        ({"seed": 1}, "made with seed = 0, got 1"),
        ({"convention": Convention("y")}, r"made with convention = .*'rgb'.*, got .*'y'"),
        ({"network": "ram-swinir-tiny", "method": "identity"}, "made with network = identity, got ram-swinir-tiny"),
        ({"method": "other", "crop": 16}, r"identity\.csv' were made with crop = None, got 16"),
    ],
    ids=["crop", "seed", "convention", "network", "other_method"],
)
def test_results_that_were_made_differently_are_not_mixed(config, change, message):
    main(config)
    before = (config.out / "identity.csv").read_bytes()
    with pytest.raises(ValueError, match=message):
        main(replace(config, **change))
    assert (config.out / "identity.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": 0}, "`crop` must be at least 1, got 0"),
        ({"crop": 8}, "`crop` must be at least 11, got 8: SSIM has windows of that size"),
        ({"crop": 12, "convention": Convention(border=1)}, "`crop` must be at least 13, got 12"),
        ({"limit": 0}, "`limit` must be at least 1, got 0"),
        ({"tile": 20}, "`tile` must be a positive multiple of 16"),
        ({"method": "a/b"}, "`method` must be usable as a file name other than 'results' and 'tables', got 'a/b'"),
        ({"method": "results"}, "`method` must be usable as a file name other than 'results'"),
        ({"method": "tables"}, "`method` must be usable as a file name other than 'results' and 'tables'"),
        ({"convention": Convention(data_range=255.0)}, "`convention.data_range` must be 1 here, got 255"),
        ({"layout": "nothing"}, "no layout 'nothing'"),
        ({"twins": True}, "`twins` has no effect on `network` identity: leave it out"),
        ({"paper": Path("nowhere")}, "`paper` has no numbers for `protocol` pairs: leave one of them out"),
        ({"paper": Path("nowhere"), "protocol": "paper"}, "`paper` must be the folder of the paper's tables as CSV"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_requests_that_cannot_be_met_are_refused_before_anything_is_done(config, options, message):
    with pytest.raises(ValueError, match=message):
        main(replace(config, **options))
    assert not config.out.exists()


@pytest.mark.parametrize("method", ["1e3", "NA", "007", "nan", "None"])
def test_the_name_of_a_method_stays_text(config, method, capsys):
    assert main(replace(config, method=method)) == 0
    assert list(read_results(config.out / "results.csv")["method"]) == [method]
    assert f"| setting | task | images | {method} |" in capsys.readouterr().out


def test_one_identical_pair_is_counted_and_left_out_of_the_mean(config, capsys):
    save(config.data / "LOL/eval15/low/1.png", 1)
    assert main(config) == 0
    finite = rows(config)["psnr_db"].iloc[[0, 2]]
    summary = read_results(config.out / "results.csv")
    assert summary["identical"].tolist() == [1]
    assert summary["psnr_db"].item() == pytest.approx(finite.mean(), abs=1e-4)  # written with four digits
    for text in (capsys.readouterr().out, (config.out / "results.md").read_text()):
        assert "(1 identical)" in text
        assert evaluate.IDENTICAL in text


def test_an_image_too_small_for_ssim_is_named_with_its_size(config, capsys):
    for side in ("low", "high"):
        Image.new("RGB", (24, 7)).save(config.data / f"LOL/eval15/{side}/1.png")
    assert main(config) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "low/1.png" in error
    assert "SSIM needs 11 pixels a side, got 7x24" in error


def test_names_that_are_no_text_are_shown_as_some(config):
    for side in ("low", "high"):
        folder = config.data / "LOL/eval15" / side
        for number, name in enumerate(("a\nb", "\udcff", 'quo"te,d')):
            (folder / f"{number}.png").rename(folder / f"{name}.png")
    assert main(config) == 0
    assert set(rows(config)["image"]) == {r"a\nb", r"\xff", 'quo"te,d'}
    assert main(config) == 0  # and are recognised as measured
    assert len(rows(config)) == 3


def own_pairs(folder, tasks):
    for number, task in enumerate(tasks):
        for side in ("clean", "degraded"):
            (folder / task / side).mkdir(parents=True, exist_ok=True)
            save(folder / task / side / "a.png", number, 1.0 if side == "clean" else 0.9)


def test_every_task_of_ones_own_pairs_is_measured(config, tmp_path):
    own_pairs(tmp_path / "own", ["noise", "rain", "other/rain"])
    assert main(replace(config, data=tmp_path / "own")) == 0
    found = rows(config)
    assert sorted(found["setting"]) == ["paired other/rain", "paired own/noise", "paired own/rain"]
    assert sorted(found["task"]) == ["noise", "rain", "rain"]


@pytest.mark.parametrize("method", [None, "other"])
def test_other_images_of_the_same_names_are_refused(config, method):
    main(config)
    before = (config.out / "identity.json").read_bytes()
    save(config.data / "LOL/eval15/low/1.png", 7, 0.5)
    with pytest.raises(ValueError, match=r"holds results of another image '1' of 'LOL' than .*low/1\.png'"):
        main(replace(config, method=method))
    assert (config.out / "identity.json").read_bytes() == before


def test_a_folder_of_data_may_move(config, tmp_path):
    main(config)
    moved = config.data.rename(tmp_path / "moved")
    before = rows(config)
    assert main(replace(config, data=moved)) == 0
    assert rows(config).equals(before)


def test_results_of_an_earlier_version_are_continued(config):
    main(config)
    file = config.out / "identity.csv"
    old = pd.read_csv(file).drop(columns="sha256")
    old.iloc[:1].to_csv(file, index=False)
    assert main(config) == 0
    assert list(pd.read_csv(file)) == list(old)
    assert len(rows(config)) == len(old)


def test_a_mean_over_fewer_images_says_so(config, capsys):
    file = config.data / "LOL/eval15/low/1.png"
    whole = file.read_bytes()
    file.write_bytes(b"broken")
    assert main(replace(config, method="other")) == 2
    file.write_bytes(whole)
    assert main(config) == 0
    assert "(2 of 3 images)" in (config.out / "results.md").read_text()
    assert capsys.readouterr().err.count("error") == 1


def test_errors_are_told_where_no_table_can_be_written(config, capsys):
    for number in range(2):
        (config.data / f"CBSD68/{number}.png").write_bytes(b"broken")
    for number in range(3):
        (config.data / f"LOL/eval15/low/{number}.png").write_bytes(b"broken")
    assert main(replace(config, protocol="paper")) == 2
    assert "cannot be read as an image" in capsys.readouterr().err


def test_a_file_of_another_tool_in_the_folder_is_passed_over(config):
    config.out.mkdir()
    (config.out / "check.json").write_text('{"sets": []}')
    assert main(config) == 0
