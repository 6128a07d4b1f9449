"""Results in the paper's tables: averages as the paper takes them, and its numbers beside ours."""

from pathlib import Path

import pandas as pd
import pytest

from ram_models.evaluation.protocols import PAPER
from ram_models.evaluation.tables import TABLES, beside_paper, by_setting, markdown, paper_rows, read_results, summarise

PUBLISHED = {
    "table1_seven_tasks": """method,dataset,psnr_db,ssim
RAM-SwinIR,SOTS,28.47,0.9689
RAM-SwinIR,Rain13k-Test,26.31,0.8486
RAM-SwinIR,BSD68,30.83,0.8611
RAM-SwinIR,GoPro,26.89,0.8200
RAM-SwinIR,LOL,21.62,0.8291
RAM-SwinIR,LSDIR-Blur,26.66,0.8514
RAM-SwinIR,LSDIR-Jpeg,30.22,0.9096
RAM-SwinIR,Average,27.28,0.8698
PromptIR,SOTS,28.70,0.9659
PromptIR,Rain13k-Test,27.46,0.8585
PromptIR,BSD68,30.84,0.8625
PromptIR,GoPro,27.71,0.8565
PromptIR,LOL,21.19,0.8356
PromptIR,LSDIR-Blur,31.01,0.9385
PromptIR,LSDIR-Jpeg,30.30,0.9117
PromptIR,Average,28.17,0.8899
""",
    "table2_gaussian_denoising": """method,dataset,sigma,psnr_db
PromptIR,BSD68,15,33.67
PromptIR,BSD68,25,31.06
PromptIR,BSD68,50,27.80
PromptIR,BSD68,average,30.84
PromptIR,Urban100,15,33.56
PromptIR,Urban100,25,31.08
PromptIR,Urban100,50,27.64
PromptIR,Urban100,average,30.76
""",
    "table6_ood_tradeoff": """method,finetuned_fraction,poisson_psnr_db,pepper_psnr_db,speckle_psnr_db,\
ood_average_psnr_db,in_distribution_psnr_db
SwinIR,,12.83,10.00,20.86,14.56,26.64
RAM-SwinIR,0.1,13.67,19.23,21.07,17.99,27.28
RAM-SwinIR,1.0,12.47,15.31,20.01,15.93,27.54
""",
    "table7_rain13k": """method,dataset,psnr_db,ssim
PromptIR,Rain100L,26.83,0.8609
PromptIR,Rain100H,25.29,0.8181
PromptIR,Test100,24.70,0.8254
PromptIR,Test1200,29.59,0.8746
PromptIR,Test2800,30.89,0.9135
PromptIR,Average,27.46,0.8585
""",
}
"""Rows of the paper's tables (Qin et al. 2024), in the form that ``--paper`` reads."""


@pytest.fixture
def paper(tmp_path) -> Path:
    for name, text in PUBLISHED.items():
        (tmp_path / f"{name}.csv").write_text(text)
    return tmp_path


def results(method: str, values: dict[str, list[tuple[float, float]]]) -> pd.DataFrame:
    """One row an image."""
    rows = [
        {"method": method, "setting": setting, "task": "noise", "psnr_db": psnr, "ssim": ssim}
        for setting, images in values.items()
        for psnr, ssim in images
    ]
    return pd.DataFrame(rows)


def line(text: str, start: str) -> list[str]:
    """Cells of the row that begins so."""
    (found,) = (row for row in text.splitlines() if row.startswith(f"| {start} |"))
    return [cell.strip() for cell in found.strip("|").split("|")][1:]


def test_every_setting_of_the_tables_is_tested():
    tested = {setting.name for setting in PAPER}
    shown = {name for table in TABLES.values() for column in table.columns for name in column.settings()}
    assert shown == tested


def test_a_summary_has_the_mean_and_spread_over_images():
    (row,) = summarise(results("a", {"LOL": [(20.0, 0.5), (22.0, 0.7)]})).itertuples()
    assert (row.method, row.setting, row.images) == ("a", "LOL", 2)
    assert (row.psnr_db, row.ssim) == pytest.approx((21.0, 0.6))
    assert (row.psnr_std, row.ssim_std) == pytest.approx((2**0.5, 0.2 / 2**0.5))


def test_averages_are_means_of_columns_whatever_their_number_of_images():
    values = {"SOTS-outdoor": 1.0, "GoPro": 2.0, "LOL": 3.0, "LSDIR blur k=15 sigma=2": 4.0, "LSDIR JPEG q=50": 5.0}
    values |= {name: 10.0 + i for i, name in enumerate(("Rain100L", "Rain100H", "Test100", "Test1200", "Test2800"))}
    values |= {f"BSD68 sigma={sigma}": float(sigma) for sigma in (15, 25, 50)}
    columns = {column.label: column.mean(values) for column in TABLES["table1_seven_tasks"].columns}
    assert columns["Rain13k-Test"] == 12
    assert columns["BSD68"] == 30
    assert columns["Average"] == pytest.approx((1 + 12 + 30 + 2 + 3 + 4 + 5) / 7)


def test_an_average_over_an_incomplete_row_is_left_out():
    summary = summarise(results("a", {"Rain100L": [(20.0, 0.5)]}))
    text = markdown(beside_paper("table7_rain13k", summary))
    assert line(text, "a (measured)") == ["20.00/0.5000", "-", "-", "-", "-", "-"]


def test_incomplete_sets_say_how_many_images():
    summary = summarise(results("a", {"Rain100L": [(20.0, 0.5)] * 7}))
    assert line(markdown(beside_paper("table7_rain13k", summary)), "a: images")[0] == "7 of 100"


def test_complete_sets_need_no_count():
    summary = summarise(results("a", {"Rain100L": [(20.0, 0.5)] * 100}))
    assert "a: images" not in markdown(beside_paper("table7_rain13k", summary))


def test_all_methods_stand_side_by_side():
    first, second = results("a", {"LOL": [(20.0, 0.5), (22.0, 0.5)]}), results("b", {"LOL": [(7.0, 0.1)]})
    text = by_setting(summarise(pd.concat([first, second])))
    assert line(text, "LOL") == ["noise", "2", "21.00 ± 1.41 / 0.5000 ± 0.0000", "7.00 (1 of 2 images) / 0.1000"]


@pytest.mark.parametrize("name", TABLES)
def test_the_paper_s_columns_are_ours(paper, name):
    rows = paper_rows(name, paper)
    assert list(dict.fromkeys(rows["column"])) == [column.label for column in TABLES[name].columns]
    assert rows["psnr_db"].notna().all()


@pytest.mark.parametrize("name", ["table1_seven_tasks", "table7_rain13k"])
def test_the_paper_s_averages_are_taken_as_ours(paper, name):
    """From its own columns, within the rounding to two decimals of what goes in and comes out."""
    average = TABLES[name].columns[-1]
    for method, rows in paper_rows(name, paper).groupby("method"):
        values = rows.set_index("column")["psnr_db"].to_dict()
        flat = type(average)(average.label, tuple(column.label for column in average.parts))
        assert flat.mean(values) == pytest.approx(values["Average"], abs=0.0101), method


def test_the_paper_s_columns_are_means_of_other_tables(paper):
    """Table 1 holds the means of Table 2 (BSD68) and Table 7 (rain): so Column describes them."""
    first, second, seventh = (
        paper_rows(f"table{name}", paper).set_index(["method", "column"])["psnr_db"]
        for name in ("1_seven_tasks", "2_gaussian_denoising", "7_rain13k")
    )
    assert first["PromptIR", "BSD68"] == pytest.approx(
        sum(second["PromptIR", f"BSD68 {sigma}"] for sigma in (15, 25, 50)) / 3, abs=0.01
    )
    assert first["PromptIR", "Rain13k-Test"] == seventh["PromptIR", "Average"]


def test_a_method_of_the_paper_is_compared_with_it(paper):
    summary = summarise(results("RAM-SwinIR", {"LOL": [(22.62, 0.8)]}))
    text = markdown(beside_paper("table1_seven_tasks", summary, paper))
    assert line(text, "RAM-SwinIR (paper)")[4] == "21.62/0.8291"
    assert line(text, "RAM-SwinIR (measured)")[4] == "22.62/0.8000"
    assert line(text, "RAM-SwinIR: ours - paper") == ["-"] * 4 + ["+1.00/-0.0291"] + ["-"] * 3


def test_shares_of_table_6_belong_to_the_method(paper):
    methods = list(dict.fromkeys(paper_rows("table6_ood_tradeoff", paper)["method"]))
    assert methods == ["SwinIR", "RAM-SwinIR 10%", "RAM-SwinIR 100%"]


def test_a_folder_without_the_tables_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file '.*table7_rain13k\.csv'"):
        paper_rows("table7_rain13k", tmp_path)
    (tmp_path / "table7_rain13k.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="does not have the expected columns: 'dataset'"):
        paper_rows("table7_rain13k", tmp_path)


INF = float("inf")


@pytest.mark.parametrize(
    ("images", "identical", "mean", "shown"),
    [
        ([(INF, 1.0), (20.0, 0.5), (22.0, 0.6)], 1, 21.0, "21.00 ± 1.41 (1 identical) / 0.7000 ± 0.2646"),
        ([(INF, 1.0), (INF, 1.0), (20.0, 0.4)], 2, 20.0, "20.00 (2 identical) / 0.8000 ± 0.3464"),
        ([(INF, 1.0), (INF, 1.0)], 2, INF, "inf (2 identical) / 1.0000 ± 0.0000"),
        ([(20.0, 0.5)], 0, 20.0, "20.00 / 0.5000"),
    ],
    ids=["one", "all but one", "all", "none"],
)
def test_identical_pairs_are_counted_and_left_out_of_the_mean(images, identical, mean, shown):
    summary = summarise(results("a", {"LOL": images}))
    assert (summary["identical"].item(), summary["psnr_db"].item()) == (identical, mean)
    assert line(by_setting(summary), "LOL") == ["noise", str(len(images)), shown]


def test_a_table_of_the_paper_states_the_number_of_identical_pairs():
    sets = ("Rain100L", "Rain100H", "Test100", "Test1200", "Test2800")
    values = {name: [(20.0, 0.5), (INF, 1.0)] if name == "Test100" else [(20.0, 0.5)] for name in sets}
    long = beside_paper("table7_rain13k", summarise(results("a", values)))
    assert list(long["identical"]) == [0, 0, 1, 0, 0, 1]
    assert line(markdown(long), "a: identical") == ["0", "0", "1", "0", "0", "1"]
    assert long["psnr_db"].tolist() == pytest.approx([20.0] * 6)


def test_an_average_over_a_set_of_identical_pairs_alone_is_left_out():
    sets = ("Rain100L", "Rain100H", "Test100", "Test1200", "Test2800")
    values = {name: [(INF if name == "Test100" else 20.0, 1.0)] for name in sets}
    text = markdown(beside_paper("table7_rain13k", summarise(results("a", values)), None))
    assert line(text, "a (measured)")[2:] == ["inf/1.0000", "20.00/1.0000", "20.00/1.0000", "-"]


@pytest.mark.parametrize("name", ["1e3", "007", "NA", "nan", "0x1F", "True", "", "1_000", " 5", "2024-01-01"])
def test_names_stay_text_whatever_they_look_like(tmp_path, name):
    written = results(name, {name: [(20.0, 0.5), (INF, 1.0)]}).assign(image=[name, "a"])
    written.to_csv(tmp_path / "a.csv", index=False)
    read = read_results(tmp_path / "a.csv")
    pd.testing.assert_frame_equal(read, written, check_dtype=False)
    assert summarise(read)["method"].tolist() == [name]


def test_a_name_with_the_sign_of_a_column_keeps_its_column():
    text = by_setting(summarise(results("a|b", {"LOL": [(20.0, 0.5)]})))
    assert "| a\\|b |" in text.splitlines()[0]
