"""Results in the paper's tables: averages as the paper takes them, and its numbers beside ours."""

from pathlib import Path

import pandas as pd
import pytest

from ram_models.evaluation.protocols import PAPER
from ram_models.evaluation.tables import TABLES, beside_paper, by_setting, markdown, mean_of, paper_rows, summarise

PAPER_TABLES = Path(__file__).parents[4] / "shared/paper/tables"

needs_shared = pytest.mark.skipif(not PAPER_TABLES.is_dir(), reason="needs the paper's numbers of ../shared/paper")


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
    columns = {column.label: mean_of(column, values) for column in TABLES["table1_seven_tasks"].columns}
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
    assert line(text, "LOL") == ["noise", "2", "21.00 ± 1.41 / 0.5000 ± 0.0000", "7.00 / 0.1000"]


@needs_shared
@pytest.mark.parametrize("name", TABLES)
def test_the_paper_s_columns_are_ours(name):
    rows = paper_rows(name, PAPER_TABLES)
    assert list(dict.fromkeys(rows["column"])) == [column.label for column in TABLES[name].columns]
    assert rows["psnr_db"].notna().all()


@needs_shared
@pytest.mark.parametrize("name", ["table1_seven_tasks", "table7_rain13k"])
def test_the_paper_s_averages_are_taken_as_ours(name):
    """From its own columns, within the rounding to two decimals of what goes in and comes out."""
    average = TABLES[name].columns[-1]
    for method, of in paper_rows(name, PAPER_TABLES).groupby("method"):
        values = of.set_index("column")["psnr_db"].to_dict()
        flat = type(average)(average.label, tuple(column.label for column in average.of))
        assert mean_of(flat, values) == pytest.approx(values["Average"], abs=0.0101), method


@needs_shared
def test_the_paper_s_columns_are_means_of_other_tables():
    """Table 1 holds the means of Table 2 (BSD68) and Table 7 (rain): so Column describes them."""
    first, second, seventh = (
        paper_rows(f"table{name}", PAPER_TABLES).set_index(["method", "column"])["psnr_db"]
        for name in ("1_seven_tasks", "2_gaussian_denoising", "7_rain13k")
    )
    assert first["PromptIR", "BSD68"] == pytest.approx(
        sum(second["PromptIR", f"BSD68 {sigma}"] for sigma in (15, 25, 50)) / 3, abs=0.01
    )
    assert first["PromptIR", "Rain13k-Test"] == seventh["PromptIR", "Average"]


@needs_shared
def test_a_method_of_the_paper_is_compared_with_it():
    summary = summarise(results("RAM-SwinIR", {"LOL": [(22.62, 0.8)]}))
    text = markdown(beside_paper("table1_seven_tasks", summary, PAPER_TABLES))
    assert line(text, "RAM-SwinIR (paper)")[4] == "21.62/0.8291"
    assert line(text, "RAM-SwinIR (measured)")[4] == "22.62/0.8000"
    assert line(text, "RAM-SwinIR: ours - paper") == ["-"] * 4 + ["+1.00/-0.0291"] + ["-"] * 3


@needs_shared
def test_shares_of_table_6_belong_to_the_method():
    methods = list(dict.fromkeys(paper_rows("table6_ood_tradeoff", PAPER_TABLES)["method"]))
    assert methods == ["SwinIR", "RAM-SwinIR 10%", "RAM-SwinIR 20%", "RAM-SwinIR 50%", "RAM-SwinIR 100%"]


def test_a_folder_without_the_tables_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file '.*table7_rain13k\.csv'"):
        paper_rows("table7_rain13k", tmp_path)
    (tmp_path / "table7_rain13k.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="is no table of the expected columns: 'dataset'"):
        paper_rows("table7_rain13k", tmp_path)
