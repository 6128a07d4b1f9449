"""The report in a real browser: the slider moves everything, copying copies, nothing is fetched, nothing sticks out."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from macattr import LayerImportance, write_report

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
NAMES = [
    "conv_first",
    *(
        f"layers.{i}.residual_group.blocks.{j}.{role}"
        for i in (0, 1, 2)
        for j in (0, 1)
        for role in ("attn", "mlp.fc1")
    ),
    "conv_last",
]
SAME = {NAMES[1]: NAMES[2]}
WIDTHS = pytest.mark.parametrize("width", [390, 768, 1280], ids=["phone", "tablet", "desktop"])

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium, or set CHROMIUM")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def importance(made_up) -> LayerImportance:
    return made_up(NAMES, same=SAME)


@pytest.fixture
def file(made_up, importance, tmp_path) -> Path:
    rankings = {"mac": importance, "drift": made_up(NAMES, seed=1, method="drift", same=SAME)}
    write_report(rankings, tmp_path / "report.html", fraction=0.3)
    return tmp_path / "report.html"


@pytest.fixture
def page(browser, file) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: troubles.append(request.url) if request.url != file.as_uri() else None)
    page.goto(file.as_uri())
    yield page
    page.close()
    assert troubles == []


def chosen(page: Page) -> list[str]:
    """Names of the chosen rows that can be seen."""
    return page.locator(".ranking:visible .layers tr.chosen:visible .name").all_inner_texts()


def exported(page: Page, label: str) -> str:
    return page.locator(f'.ranking:visible pre[aria-label="{label}"]').text_content() or ""


def move(page: Page, k: int) -> None:
    page.locator("#slider").evaluate(
        "(slider, k) => { slider.value = k; slider.dispatchEvent(new Event('input', { bubbles: true })); }", k
    )


def test_the_slider_changes_layers_counts_and_exports(page, importance):
    ranking = importance.ranking()["layer"].tolist()
    assert chosen(page) == ranking[:4]
    page.locator("#slider").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert chosen(page) == ranking[:7]
    selected = importance.dataset["parameters"].sel(layer=ranking[:7])
    assert page.locator('.ranking:visible [data-show="parameters"]').inner_text() == f"{int(selected.sum()):,}"
    assert page.locator("#count").input_value() == "7"
    assert page.locator("#slider").get_attribute("aria-valuetext") == "7 of 14 layers, 50.0 %"
    assert json.loads(exported(page, "JSON list")) == exported(page, "Names").splitlines() == ranking[:7]
    assert "--count 7 " in exported(page, "Command")
    cells = page.locator(".ranking:visible .map .cell.chosen[title]").all()
    assert {cell.get_attribute("title").partition(":")[0] for cell in cells} == set(ranking[:7])


def test_probabilities_follow_the_slider(page, importance):
    move(page, 6)
    expected = importance.probability_in_top(6 / len(NAMES))[importance.ranking()["layer"]]
    shown = page.locator(".ranking:visible .layers tbody .top").all_inner_texts()
    numbers = [float(text.split()[0]) / 100 for text in shown]
    assert numbers == pytest.approx(expected[: len(numbers)].tolist(), abs=0.0101)  # percent


@pytest.mark.parametrize(("typed", "k"), [("5", 5), ("0", 4), ("999", len(NAMES)), ("", 4), ("-3", 1)])
def test_a_typed_number_is_kept_in_range(page, typed, k):
    page.locator("#count").fill(typed)
    page.locator("#count").press("Enter")
    assert (page.locator("#slider").input_value(), page.locator("#count").input_value()) == (str(k), str(k))


def test_every_export_is_the_same_before_and_after_the_slider_moved(page):
    before = page.locator("pre").all_text_contents()
    move(page, 9)
    assert page.locator("pre").first.text_content() != before[0]
    move(page, 4)
    assert page.locator("pre").all_text_contents() == before


def test_copying_fills_the_clipboard_and_says_so(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for tab in page.locator(".ranking:visible [role=tab]").all():
        tab.click()
        (button,) = page.locator(".ranking:visible [data-copy]:visible").all()
        label = (button.get_attribute("aria-label") or "").removeprefix("Copy ")
        assert label == tab.inner_text()
        button.click()
        assert page.evaluate("navigator.clipboard.readText()") == exported(page, label)
        assert button.inner_text() == "Copied \N{CHECK MARK}"
        assert page.locator("[role=status]").text_content() == f"{label} copied"


def test_copying_works_without_the_clipboard_interface(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('not here')); }")
    page.locator(".ranking:visible [role=tab]", has_text="Names").click()
    page.locator('.ranking:visible [aria-label="Copy Names"]').click()
    assert page.evaluate("navigator.clipboard.readText()") == exported(page, "Names")


def test_a_text_that_cannot_be_copied_is_selected_for_the_keyboard(page):
    page.evaluate("navigator.clipboard.writeText = () => Promise.reject(); document.execCommand = () => false")
    page.locator(".ranking:visible [role=tab]", has_text="Names").click()
    page.locator('.ranking:visible [aria-label="Copy Names"]').click()
    page.wait_for_function("getSelection().toString() !== ''")
    assert page.evaluate("getSelection().toString()").split() == exported(page, "Names").split()
    assert "Ctrl+C" in (page.locator("[role=status]").text_content() or "")


@pytest.mark.parametrize("pause", [0, 200])  # ms; the page writes its link 200 ms after a change
def test_another_ranking_can_be_looked_at(page, made_up, pause):
    other = made_up(NAMES, seed=1, same=SAME).ranking()["layer"].tolist()
    page.evaluate(
        """pause => {
          document.querySelectorAll("[name=ranking]")[1].click();
          setTimeout(() => {
            slider.value = 5;
            slider.dispatchEvent(new Event("input", { bubbles: true }));
          }, pause);
        }""",
        pause,
    )
    page.wait_for_url("**#k=5&ranking=drift", timeout=3000)
    assert chosen(page) == exported(page, "Names").split() == other[:5]
    first = page.evaluate("data.shared['0 1'][4]")
    assert page.locator('[data-pair="0 1"]').all_inner_texts() == [str(first)] * 2
    assert page.locator('[data-show="common"]').inner_text() == str(first)


def test_the_page_does_not_read_the_link_that_it_wrote_itself(page):
    page.evaluate("() => { window.read = 0; window.addEventListener('hashchange', () => { window.read += 1; }); }")
    entries = page.evaluate("history.length")
    page.get_by_text("drift", exact=True).first.click()
    page.wait_for_url("**#k=4&ranking=drift")
    page.wait_for_timeout(100)
    assert page.evaluate("window.read") == 0
    assert page.evaluate("history.length") == entries  # a slider is no trail of pages


def test_a_pasted_link_wins_over_a_change_that_is_not_yet_in_the_link(page):
    move(page, 9)
    page.evaluate("location.hash = '#k=3&ranking=drift'")
    page.wait_for_timeout(300)
    assert page.locator("#count").input_value() == page.locator("#slider").input_value() == "3"
    assert page.url.endswith("#k=3&ranking=drift")


def test_a_link_overtaken_by_the_page_before_it_was_read_still_counts(page):
    page.evaluate(
        "() => { location.hash = '#k=3'; history.replaceState(null, '', '#k=9'); }"  # hashchange comes after both
    )
    expect(page.locator("#count")).to_have_value("3")
    page.wait_for_url("**#k=3")


def test_the_back_button_leads_to_the_choice_before_the_pasted_link(page):
    page.get_by_text("drift", exact=True).first.click()
    move(page, 6)
    page.wait_for_url("**#k=6&ranking=drift")
    page.evaluate("location.hash = '#k=2'")
    expect(page.locator("#count")).to_have_value("2")
    page.go_back()
    expect(page.locator("#count")).to_have_value("6")
    assert page.locator(".ranking:visible h2").first.inner_text().startswith("drift: train 6 of 14")
    assert page.locator("[name=ranking]:checked").get_attribute("value") == "1"
    page.go_forward()
    expect(page.locator("#count")).to_have_value("2")


def test_a_number_that_is_being_typed_is_left_alone(page):
    move(page, 9)
    page.locator("#count").fill("1")
    page.locator("#count").press("2")
    page.wait_for_timeout(300)
    assert page.locator("#count").input_value() == "12"
    page.locator("#count").press("Enter")
    page.wait_for_url("**#k=12")
    assert page.locator("#slider").input_value() == "12"


def test_quick_clicks_end_at_the_last(page):
    page.evaluate(
        """() => {
          const [mac, drift] = document.querySelectorAll("[name=ranking]");
          for (let i = 0; i < 5; i++) { drift.click(); mac.click(); }
          drift.click();
          for (const k of [14, 2, 11, 5]) {
            slider.value = k;
            slider.dispatchEvent(new Event("input", { bubbles: true }));
          }
          document.querySelector(".ranking:not([hidden]) thead [data-sort=size]").click();
          document.querySelector(".ranking:not([hidden]) thead [data-sort=name]").click();
        }"""
    )
    page.wait_for_url("**#k=5&ranking=drift")
    assert page.locator("#count").input_value() == "5"
    assert page.locator(".ranking:visible h2").first.inner_text().startswith("drift: train 5 of 14")
    assert shown_names(page) == sorted(NAMES)


def test_a_search_and_an_order_outlast_another_number_and_ranking(page):
    page.locator(".ranking:visible [data-search]").fill("blocks.1")
    page.locator(".ranking:visible [data-sorting]").select_option("depth")
    wanted = [name for name in NAMES if "blocks.1" in name]
    assert shown_names(page) == wanted
    move(page, 8)
    assert shown_names(page) == wanted
    page.get_by_text("drift", exact=True).first.click()
    page.wait_for_url("**#k=8&ranking=drift")
    page.get_by_text("mac", exact=True).first.click()
    assert shown_names(page) == wanted


@pytest.mark.parametrize("way", ["reload", "back"])
def test_controls_and_table_agree_when_the_page_is_opened_again(page, file, way):
    move(page, 9)
    page.locator(".ranking:visible [data-search]").fill("attn")
    page.locator(".ranking:visible [data-sorting]").select_option("depth")
    page.locator("[data-to]").select_option("mac")
    page.wait_for_url("**#k=9")
    if way == "reload":
        page.reload()
    else:
        page.goto("about:blank")
        page.go_back()
    page.wait_for_timeout(100)
    words = page.locator(".ranking:visible [data-search]").input_value()
    order = page.locator(".ranking:visible [data-sorting]").input_value()
    names = shown_names(page)
    ranks = [NAMES.index(name) for name in names]
    assert page.locator("#count").input_value() == page.locator("#slider").input_value() == "9"
    assert all(words in name for name in names)
    assert (ranks == sorted(ranks)) == (order == "depth")
    target = page.locator("[data-to] option:checked").inner_text()
    assert f" to {target}, " in page.locator("[data-sentence]").inner_text()


def test_a_picture_is_named_after_the_ranking_that_it_shows(page):
    with page.expect_download() as download:
        page.evaluate(
            """() => {
              document.querySelector('.ranking:not([hidden]) [data-picture="png"]').click();
              document.querySelectorAll("[name=ranking]")[1].click();
            }"""
        )
    assert download.value.suggested_filename == "mac-layers.png"


def test_a_picture_leaves_the_map_where_it_was_scrolled(page):
    page.set_viewport_size({"width": 200, "height": 800})
    scroll = page.locator(".ranking:visible .map .scroll")
    scroll.evaluate("element => { element.scrollLeft = 20; }")
    before = scroll.evaluate("element => element.scrollLeft")
    with page.expect_download():
        page.locator('.ranking:visible [data-picture="svg"]').click()
    assert before > 0
    assert scroll.evaluate("element => element.scrollLeft") == before


def test_the_message_of_a_second_copy_stays_its_full_time(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tabs = page.locator(".ranking:visible [role=tab]")
    tabs.filter(has_text="Names").click()
    page.locator('.ranking:visible [aria-label="Copy Names"]').click()
    page.wait_for_timeout(2000)
    tabs.filter(has_text="YAML").click()
    page.locator('.ranking:visible [aria-label="Copy YAML"]').click()
    page.wait_for_timeout(1000)
    assert page.locator("[role=status]").text_content() == "YAML copied"


@pytest.mark.parametrize("k", [1, 4, 9, len(NAMES)])
@pytest.mark.parametrize(("before", "after"), [("mac", "drift"), ("drift", "mac"), ("mac", "mac")])
def test_what_changes_from_one_ranking_to_another_is_shown(page, importance, made_up, k, before, after):
    rankings = {"mac": importance, "drift": made_up(NAMES, seed=1, same=SAME)}
    page.locator("[data-from]").select_option(before)
    page.locator("[data-to]").select_option(after)
    move(page, k)
    ranks = {name: rankings[name].ranking().set_index("layer")["rank"] for name in (before, after)}
    first, second = (set(ranks[name].index[ranks[name] <= k]) for name in (before, after))
    moved = len(first - second)
    text = f"From {before} to {after}, {k - moved} of the top {k} layers stay in the top. "
    text += f"{moved} enter and {moved} leave it." if moved else "None enters or leaves it."
    assert page.locator("[data-sentence]").inner_text() == text
    for side, name in (("before", before), ("after", after)):
        names, numbers = (page.locator(f"[data-{side}] li {part}").all_inner_texts() for part in ("span", "b"))
        shown = dict(zip(names, map(int, numbers), strict=True))
        assert shown == ranks[name][ranks[name].index.isin(first | second)].to_dict()
        assert list(shown.values()) == sorted(shown.values())
    lines = {kind: page.locator(f"[data-lines] .{kind}").count() for kind in ("stays", "enters", "leaves")}
    assert lines == {"stays": k - moved, "enters": moved, "leaves": moved}


def test_all_layers_can_be_shown(page):
    button = page.locator(".ranking:visible [data-all]")
    assert button.inner_text() == f"Show all {len(NAMES)} layers"
    button.click()
    assert page.locator(".ranking:visible .layers tbody tr:visible").count() == len(NAMES)
    assert button.get_attribute("aria-expanded") == "true"


@WIDTHS
def test_nothing_sticks_out(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    for k in (1, len(NAMES)):
        move(page, k)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


TEXTS = (
    ".slope li, .slope li span, .names, dd > span, .legend span, .doubt, .cell span, .outside .cell, td small, "
    ".matrix td, pre, summary, .tools label, thead th, .layers .name, h3 small"
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_colour_schemes(page, scheme):
    page.emulate_media(color_scheme=scheme)
    (paper,) = page.evaluate(SHADES, "body")
    assert (paper["back"] < 0.05) == (scheme == "dark")
    assert lowest_contrast(page, TEXTS) >= 4.5  # WCAG 2, level AA


@pytest.mark.parametrize("layers", [14, 92, 263])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_cell_of_a_heat_map_stands_out_and_has_a_colour_of_its_own(browser, made_up, tmp_path, layers, scheme):
    blocks = (layers - 2) // 7
    names = ["conv_first", *(f"layers.{i // 6}.blocks.{i % 6}.role{j}" for i in range(blocks) for j in range(7))]
    names += [f"last{i}" for i in range(layers - len(names))]
    write_report(made_up(names), tmp_path / "report.html")
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    page.goto((tmp_path / "report.html").as_uri())
    contrast = lowest_contrast(page, ".map .cell[title]")
    colours = page.eval_on_selector_all(".map .cell[title]", "all => all.map(e => getComputedStyle(e).backgroundColor)")
    page.close()
    assert len(colours) == layers
    assert contrast >= 4.5
    assert len(set(colours)) >= min(layers, 101)  # shades are whole percents


@pytest.mark.parametrize("blocks", [2, 4, 9])  # with 9, the map is dense
def test_columns_are_alike_however_long_the_names_of_their_groups_are(browser, made_up, tmp_path, blocks):
    groups = {"encoder_level_with_a_long_name": 1, "latent": blocks, "up": blocks}
    inside = [f"{group}.{i}" for group, number in groups.items() for i in range(number)]
    names = [f"{block}.{role}" for block in inside for role in ("attn", "fc")]
    write_report(made_up(names), tmp_path / "report.html")
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((tmp_path / "report.html").as_uri())
    widths = page.eval_on_selector_all(".heat tbody .cell", "all => all.map(e => e.getBoundingClientRect().width)")
    heading = page.locator(".heat th[scope=colgroup]").first
    cut = heading.evaluate("e => e.scrollWidth > e.clientWidth")
    page.close()
    assert len(widths) == len(names)
    assert max(widths) - min(widths) < 1  # pixel
    assert not cut


def lowest_contrast(page: Page, selector: str) -> float:
    """Lowest contrast of text and background over all visible elements."""
    pairs = [sorted(shades.values()) for shades in page.evaluate(SHADES, selector)]
    assert pairs
    return min((light + 0.05) / (dark + 0.05) for dark, light in pairs)


SHADES = """selector => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const luminance = colours => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    const linear = [...canvas.getImageData(0, 0, 1, 1).data].map(v => v / 255)
      .map(v => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  return [...document.querySelectorAll(selector)].filter(e => e.checkVisibility()).map(element => {
    const behind = [];
    for (let e = element; e; e = e.parentElement) behind.unshift(getComputedStyle(e).backgroundColor);
    return { back: luminance(behind), text: luminance([...behind, getComputedStyle(element).color]) };
  });
}"""
"""Luminance of text and background of all visible elements that a selector finds."""


def shown_names(page: Page) -> list[str]:
    return page.locator(".ranking:visible .layers tbody tr:visible .name").all_inner_texts()


def test_a_search_shows_the_rows_whose_name_holds_every_word(page):
    page.locator(".ranking:visible [data-search]").fill("blocks.1 FC1")
    expected = {name for name in NAMES if "blocks.1" in name and "fc1" in name}
    assert set(shown_names(page)) == expected
    assert page.locator(".ranking:visible [data-hits]").inner_text() == f"{len(expected)} of {len(NAMES)} layers"
    page.locator(".ranking:visible [data-search]").fill("")
    assert len(shown_names(page)) >= 10


def test_rows_are_sorted_by_every_column(page, importance):
    table = importance.ranking()
    orders = {
        "depth": table.sort_values("depth"),
        "size": table.sort_values(["parameters", "rank"], ascending=[False, True]),
        "rank": table,
    }
    for by, expected in orders.items():
        page.locator(".ranking:visible [data-sorting]").select_option(by)
        assert shown_names(page) == expected["layer"].tolist()[: len(shown_names(page))]
    page.locator(".ranking:visible thead [data-sort=name]").focus()
    page.keyboard.press("Enter")
    assert shown_names(page) == sorted(NAMES)
    assert page.locator(".ranking:visible thead [aria-sort]").get_attribute("data-sort") == "name"


def test_sorting_by_probability_follows_the_slider(page):
    page.locator(".ranking:visible thead [data-sort=top]").click()
    for k in (2, 7):
        move(page, k)
        shown = page.locator(".ranking:visible .layers tbody .top").all_inner_texts()
        numbers = [int(text.split()[0]) for text in shown]
        assert numbers == sorted(numbers, reverse=True)


def test_a_cell_leads_to_its_row_and_a_row_to_its_cells(page, importance):
    last = importance.ranking()["layer"].iloc[-1]
    cell = page.locator(f'.ranking:visible .map .cell[title^="{last}:"]')
    cell.click()
    assert page.locator(".ranking:visible tr.located:visible .name").inner_text() == last
    first = importance.ranking()["layer"].iloc[0]
    page.locator(".ranking:visible .layers tbody .name").first.click()
    titles = [cell.get_attribute("title") for cell in page.locator(".ranking:visible .cell.located").all()]
    assert {title.partition(":")[0] for title in titles} == {first}
    assert len(titles) == 2


def test_a_link_opens_the_page_with_its_number_of_layers_and_its_ranking(browser, file, page):
    move(page, 7)
    page.wait_for_url("**#k=7")
    other = browser.new_page()
    other.goto(f"{file.as_uri()}#k=3&ranking=drift")
    count, heading = other.locator("#count").input_value(), other.locator(".ranking:visible h2").first.inner_text()
    other.evaluate("location.hash = '#k=999'")
    expect(other.locator("#count")).to_have_value(str(len(NAMES)))
    back = other.locator(".ranking:visible h2").first.inner_text()
    other.close()
    assert (count, heading) == ("3", "drift: train 3 of 14 layers (21.4 %), freeze the rest")
    assert back.startswith("mac: train 14 of 14")


def test_the_table_is_downloaded_as_csv(page, importance, tmp_path):
    move(page, 5)
    with page.expect_download() as download:
        page.locator(".ranking:visible [data-csv]").click()
    download.value.save_as(tmp_path / "layers.csv")
    assert download.value.suggested_filename == "mac-layers.csv"
    table = pd.read_csv(tmp_path / "layers.csv", dtype={"layer": str, "type": str}, keep_default_na=False)
    expected = importance.intervals()
    assert table["layer"].tolist() == expected["layer"].tolist()
    columns = ["score", "score_low", "score_high", "rank_low", "rank_high"]
    np.testing.assert_allclose(table[columns], expected[columns], rtol=1e-12)  # written in full
    assert table["chosen"].tolist() == [1] * 5 + [0] * (len(NAMES) - 5)
    assert table["percent_in_top_5"].sum() == pytest.approx(500, abs=len(NAMES))  # whole percents


def test_one_export_is_shown_and_arrows_lead_to_the_next(page):
    tabs = page.locator(".ranking:visible [role=tab]")
    tabs.first.focus()
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.textContent") == tabs.last.inner_text() == "Command"
    page.keyboard.press("ArrowRight")
    assert page.locator(".ranking:visible pre:visible").get_attribute("aria-label") == tabs.first.inner_text()
    assert page.locator('.ranking:visible [aria-selected="true"]').all_inner_texts() == ["Python"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_map_is_downloaded_as_svg_with_every_cell_in_its_colour(page, tmp_path, scheme):
    page.emulate_media(color_scheme=scheme)
    move(page, 3)
    with page.expect_download() as download:
        page.locator('.ranking:visible [data-picture="svg"]').click()
    download.value.save_as(tmp_path / "map.svg")
    root = ElementTree.parse(tmp_path / "map.svg").getroot()
    boxes = root.findall("{*}rect")[1:]
    assert len(boxes) == 2 * len(NAMES)
    assert sum(box.get("stroke") is not None for box in boxes) == 3
    assert len(root.findall("{*}path")) == 3  # notches, which are seen in grey too
    assert {text.text for text in root.findall("{*}text")} >= {"conv_first", "conv_last", "attn", "mlp.fc1", "1", "14"}
    width, height = (float(root.get(side)) for side in ("width", "height"))
    for box in boxes:
        assert float(box.get("x")) + float(box.get("width")) <= width
        assert 0 < float(box.get("y")) <= height


def test_the_map_is_downloaded_as_png(page, tmp_path):
    with page.expect_download() as download:
        page.locator('.ranking:visible [data-picture="png"]').click()
    download.value.save_as(tmp_path / "map.png")
    assert download.value.suggested_filename == "mac-layers.png"
    image = Image.open(tmp_path / "map.png").convert("RGB")
    assert image.width > 2000
    assert len(set(image.resize((400, 200)).getdata())) > len(NAMES)


@pytest.fixture
def mixed(made_up) -> LayerImportance:
    kinds = ["noise", "blur", "noise", "blur", "noise", "blur"]
    return LayerImportance(made_up(NAMES).dataset.assign_coords(degradation=("sample", kinds)))


@WIDTHS
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_ranks_of_every_degradation_stand_beside_the_ranking(browser, mixed, tmp_path, width, scheme):
    write_report(mixed, tmp_path / "r.html")
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto((tmp_path / "r.html").as_uri())
    move(page, 5)
    ranked = mixed.degradation_ranks()
    shown = {kind: page.locator(f'[data-kind="{kind}"]').all_text_contents() for kind in ("noise", "blur")}
    chosen = page.locator("[data-kind].chosen").count()
    common = page.locator('[data-show="common_kinds"]').inner_text()
    contrast = lowest_contrast(page, "[data-kind]")
    overflow = page.evaluate("document.documentElement.scrollWidth") - width
    page.close()
    assert {kind: [int(rank) for rank in texts] for kind, texts in shown.items()} == ranked.to_dict("list")
    assert chosen == 10
    assert int(common) == (ranked <= 5).all(axis=1).sum()
    assert contrast >= 4.5
    assert overflow <= 0


def test_print_leaves_controls_out_and_states_the_choice(page):
    move(page, 5)
    page.emulate_media(media="print", color_scheme="dark")
    assert not page.locator("#slider").is_visible()
    assert page.locator("button:visible").count() == 0
    assert "train 5 of 14 layers" in page.locator("h2:visible").first.inner_text()
    (paper,) = page.evaluate(SHADES, "body")
    assert paper["back"] > 0.9


def test_controls_have_names_and_everything_scrollable_is_reached_by_keyboard(page):
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, input')].filter("
        "e => !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim())).length"
    )
    assert nameless == 0
    unreachable = page.evaluate(
        "[...document.querySelectorAll('.scroll, pre')].filter(e => e.tabIndex < 0 || !e.getAttribute('aria-label'))"
        ".length"
    )
    assert unreachable == 0


def test_without_scripts_the_answer_stands(browser, file, importance):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    text = page.locator("h2").first.inner_text()
    names = page.locator('pre[aria-label="Names"]').first.inner_text().split()
    shown = page.locator("#slider").is_visible()
    context.close()
    assert text == "mac: train 4 of 14 layers (28.6 %), freeze the rest"
    assert names == importance.ranking()["layer"][:4].tolist()
    assert not shown
