"""The report shows the library's own numbers, exports what the library exports, and needs nothing but itself."""

import json
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from torch import nn

from macattr import LayerImportance, SelectionRule, TrainableMask, write_report
from macattr.cli import main
from macattr.report.words import why_without_intervals
from macattr.selection.exports import export
from macattr.statistics.agreement import overlap_at, spearman

NAMES = [
    "conv_first",
    *(f"layers.{i}.blocks.{j}.{role}" for i in (0, 1) for j in (0, 1) for role in ("norm", "attn", "attn.proj", "fc")),
    *(f"layers.{i}.conv" for i in (0, 1)),
    "conv_last",
]
SAME = {name.removesuffix(".proj"): name for name in NAMES if name.endswith(".proj")}
HOSTILE = '</script><img src=x onerror="alert(1)">\'&{{7*7}}'
TO = "\N{EN DASH}"
REFERENCE = Path(__file__).parents[2] / "reference" / "data"


class Page(HTMLParser):
    """What a reader of the page finds: texts by attribute, rows of tables, addresses of resources."""

    def __init__(self, path) -> None:
        super().__init__()
        self.shown: dict[str, list[str]] = {}
        self.rows: list[list[str]] = []
        self.blocks: list[str] = []
        self.addresses: list[str] = []
        self.cells: dict[str, list[str]] = {}
        self.tags: list[str] = []
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.data = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset", "data")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "pre":
            self.blocks.append("")
        if name := found.get("data-show"):
            self.shown.setdefault(name, []).append("")
        if "data-rank" in found and found.get("title"):
            self.cells.setdefault(found["title"].partition(":")[0], []).append(found["class"] or "")
        if tag not in ("meta", "input", "wbr", "link", "img"):
            self._open.append((tag, found))

    def handle_endtag(self, tag) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, text) -> None:
        inside = {tag for tag, _ in self._open}
        if "td" in inside or "th" in inside:
            self.rows[-1][-1] += text
        if "pre" in inside:
            self.blocks[-1] += text
        if any(found.get("id") == "data" for _, found in self._open):
            self.data += text
        if name := self._open and self._open[-1][1].get("data-show"):
            self.shown[name][-1] += text

    def layers(self) -> list[list[str]]:
        """Rows of the layers, as words."""
        return [[" ".join(cell.split()) for cell in row] for row in self.rows if len(row) == 5 and TO in row[0]]

    def exports(self, k: int, ranking: int = 0) -> dict[str, str]:
        """The exports of the first k layers, from what the page's script reads."""
        data = json.loads(self.data)["rankings"][ranking]
        return {
            item["label"]: item["before"]
            + {"": "", "count": str(k), "summary": data["choices"][k - 1]["summary"]}[item["stated"]]
            + item["between"]
            + item["separator"].join(data["pieces"].get(item["pieces"], [])[:k])
            + item["end"]
            for item in data["exports"]
        }


@pytest.fixture
def importance(made_up) -> LayerImportance:
    return made_up(NAMES, same=SAME)


@pytest.fixture
def page(importance, tmp_path) -> Page:
    write_report(importance, tmp_path / "report.html", fraction=0.3)
    return Page(tmp_path / "report.html")


def quietly(importance, rule):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return importance.select(rule)


def test_rows_hold_scores_ranks_and_intervals_of_the_library(importance, page):
    intervals = importance.intervals()
    rows = page.layers()
    assert [row[1].split()[0] for row in rows] == importance.ranking()["layer"].tolist() == intervals["layer"].tolist()
    for row, expected in zip(rows, intervals.itertuples(), strict=True):
        assert row[0] == f"{expected.rank} {expected.rank_low}{TO}{expected.rank_high}"
        shown = [float(number.replace(",", "")) for number in row[2].replace(TO, "").split()]
        # Three digits are printed.
        np.testing.assert_allclose(shown, [expected.score, expected.score_low, expected.score_high], rtol=6e-3)


def test_probabilities_are_those_of_the_library_for_every_k(importance, page):
    tops = json.loads(page.data)["rankings"][0]["tops"]
    order = importance.ranking()["layer"]
    for k in range(1, len(NAMES) + 1):
        expected = importance.probability_in_top(k / len(NAMES))[order].to_numpy()
        shown = np.array([0 if k < first else (values + [100] * k)[k - first] for first, values in tops]) / 100
        # Printed in percent; 0 and 1 only where no resample or every one agrees.
        np.testing.assert_allclose(shown, expected, atol=0.0101)
        np.testing.assert_array_equal((shown == 0) | (shown == 1), (expected == 0) | (expected == 1))


def test_counts_and_shares_are_those_of_the_selection(importance, page):
    choices = json.loads(page.data)["rankings"][0]["choices"]
    for k, choice in enumerate(choices, start=1):
        selection = quietly(importance, SelectionRule(count=k))
        assert choice["summary"] == str(selection)
        assert choice["parameters"] == f"{selection.parameters:,}"
        assert float(choice["ratio"]) == pytest.approx(selection.parameters / selection.random_mean, rel=0.06)
        outputs = {SAME.get(name, name) for name in selection.layers}
        assert choice["outputs"] == str(len(outputs))
    assert page.shown["parameters"] == [choices[5]["parameters"]]
    assert set(page.shown["k"]) == {"6"}


@pytest.mark.parametrize("k", [1, 6, len(NAMES)])
def test_exports_are_those_of_the_library(importance, page, tmp_path, k):
    selection, texts = quietly(importance, SelectionRule(count=k)), page.exports(k)
    export(selection, tmp_path / "list.yaml", "spectrum")
    assert texts["YAML"] == (tmp_path / "list.yaml").read_text()
    assert json.loads(texts["JSON list"]) == texts["Names"].splitlines() == list(selection.layers)
    space = run(texts["Python"].replace("print(mask.apply(model))\n", ""))
    assert space["mask"] == TrainableMask(selection.layers)


def test_the_command_selects_the_same_layers(importance, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    importance.save(tmp_path / "a ranking.nc")
    main(["report", "a ranking.nc", "--out", "report.html"])
    command = Page(tmp_path / "report.html").exports(4)["Command"].split()
    assert command[:5] == ["macattr", "select", "'a", "ranking.nc'", "--count"]
    main(["select", "a ranking.nc", *command[4:]])
    written = json.loads((tmp_path / "layers.json").read_text())
    assert [layer["name"] for layer in written["layers"]] == importance.ranking()["layer"][:4].tolist()


def test_the_page_starts_with_what_its_script_would_show(page):
    # A browser drops the line break that follows <pre>.
    assert [block.removeprefix("\n") for block in page.blocks] == list(page.exports(6).values())


def test_the_peft_text_adapts_the_chosen_layers(made_up, tmp_path):
    pytest.importorskip("peft", reason="needs peft: pip install 'macattr[peft]'")
    model = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 4))
    write_report(made_up(["0", "1", "2"]), tmp_path / "report.html")
    adapted = run(Page(tmp_path / "report.html").exports(3)["peft"], model=model)["model"]
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[2] for name in trained} == {"0", "1", "2"}


def run(text: str, **space: object) -> dict[str, object]:
    """The names that a text defines."""
    exec(text, space)
    return space


def test_every_layer_is_drawn_once_by_depth_and_once_by_block(page):
    assert set(page.cells) == set(NAMES)
    assert {len(classes) for classes in page.cells.values()} == {2}


def test_chosen_layers_are_marked(importance, page):
    chosen = {name for name, classes in page.cells.items() if all("chosen" in some.split() for some in classes)}
    assert chosen == set(importance.ranking()["layer"][:6])


def test_layers_of_one_tensor_name_each_other(page):
    described = {row[1].split()[0]: row[1] for row in page.layers()}
    for one, other in SAME.items():
        assert described[one].endswith(f"same tensor as {other}")
        assert described[other].endswith(f"same tensor as {one}")


def test_nothing_is_fetched(page, tmp_path):
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.addresses == []
    assert not {"link", "img", "iframe", "object"}.intersection(page.tags)
    assert not re.search(r"https?:|url\(|@import|//\w", text)


def test_hostile_names_stay_text(made_up, tmp_path):
    names = [HOSTILE, f"blocks.0.{HOSTILE}", "blocks.1.é\u2028"]
    write_report(made_up(names, model=HOSTILE, method=HOSTILE, path=HOSTILE), tmp_path / "report.html", fraction=1.0)
    page = Page(tmp_path / "report.html")
    assert "img" not in page.tags
    assert page.tags.count("script") == 2
    assert set(json.loads(page.data)["rankings"][0]["pieces"]["names"]) == set(names)
    texts = page.exports(3)
    assert set(run(texts["Python"].replace("print(mask.apply(model))\n", ""))["mask"].layers) == set(names)
    patterns = yaml.safe_load(texts["YAML"])["unfrozen_parameters"]
    assert all(any(re.match(pattern, f"{name}.weight") for pattern in patterns) for name in names)


@pytest.mark.parametrize(
    ("file", "layers", "limit"), [("ram_swinir_layers.txt", 263, 700_000), ("ram_promptir_layers.txt", 445, 1_200_000)]
)
def test_full_size_networks_fit_on_a_page(made_up, tmp_path, file, layers, limit):
    write_report(made_up((REFERENCE / file).read_text().split()), tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert len(page.layers()) == layers
    assert {len(classes) for classes in page.cells.values()} == {2}
    assert (tmp_path / "report.html").stat().st_size < limit


def test_one_image_gives_no_intervals_and_says_so(made_up, tmp_path):
    write_report(made_up(NAMES, images=1), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "One image was measured, so there are no intervals" in text
    assert "P(top" not in text.partition("</style>")[2].partition("<script")[0]
    assert Page(tmp_path / "report.html").exports(2)["Names"].count("\n") == 2


def test_a_joint_method_gives_no_intervals_and_says_so(made_up, tmp_path):
    importance = made_up(NAMES, images=1, method="snr")
    joint = LayerImportance(importance.dataset.assign_coords(sample=["all images"]))
    write_report(joint, tmp_path / "report.html")
    assert "scores all images together, so there are no intervals" in (tmp_path / "report.html").read_text("utf-8")


def test_a_method_that_reads_no_image_says_so_where_images_were_given(made_up):
    importance = made_up(NAMES, images=1, method="magnitude")
    joint = LayerImportance(importance.dataset.assign_coords(sample=["all images"]))
    assert "looks at the network alone" in why_without_intervals(joint)


def test_negative_scores_are_drawn_on_a_linear_scale(made_up, tmp_path):
    importance = made_up(NAMES)
    shifted = LayerImportance(importance.dataset.assign(score=importance.dataset["score"] - 1))
    write_report(shifted, tmp_path / "report.html")
    assert "linear scale" in (tmp_path / "report.html").read_text("utf-8")
    assert [row[1].split()[0] for row in Page(tmp_path / "report.html").layers()] == shifted.ranking()["layer"].tolist()


def test_scores_that_are_summed_over_images_have_intervals_of_the_sum(made_up, tmp_path):
    importance = made_up(NAMES, across_images="sum")
    write_report(importance, tmp_path / "report.html")
    first, interval = Page(tmp_path / "report.html").layers()[0], importance.intervals().iloc[0]
    shown = [float(number.replace(",", "")) for number in first[2].replace(TO, "").split()]
    expected = [interval["score"], interval["score_low"], interval["score_high"]]
    np.testing.assert_allclose(shown, expected, rtol=6e-3)  # three digits
    assert shown[0] == pytest.approx(float(importance.scores().max()), rel=6e-3)


def test_layers_without_parameters_are_left_out(made_up, tmp_path):
    importance = made_up(NAMES, sizes={"conv_last": 0})
    write_report(importance, tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert "conv_last" not in page.cells
    assert len(page.layers()) == len(NAMES) - 1
    assert "Ranked layers without parameters are left out of this page: 1." in (tmp_path / "report.html").read_text(
        "utf-8"
    )


def test_rankings_are_compared(made_up, tmp_path):
    rankings = {name: made_up(NAMES, seed=seed, method=name) for seed, name in enumerate(("mac", "drift", "fisher"))}
    write_report(rankings, tmp_path / "report.html", fraction=0.3)
    page = Page(tmp_path / "report.html")
    means = [importance.scores().values for importance in rankings.values()]
    correlations = next(row for row in page.rows if len(row) == 4 and "." in row[1] and row[0] == "mac")
    assert correlations[1:] == [f"{spearman(means[0], mean):.2f}" for mean in means]
    data = json.loads(page.data)
    for k in range(1, len(NAMES) + 1):
        assert data["shared"]["1 2"][k - 1] == round(k * overlap_at(means[1], means[2], k))
        tops = [set(importance.ranking()["layer"][:k]) for importance in rankings.values()]
        assert data["common"][k - 1] == len(set.intersection(*tops))
    assert page.exports(2, ranking=1)["Names"].split() == rankings["drift"].ranking()["layer"][:2].tolist()


def test_equal_rankings_write_equal_pages(importance, tmp_path):
    for name in ("a.html", "b.html"):
        write_report(importance, tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_network_gives_shares_of_all_its_parameters(made_up, tmp_path):
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 4))
    write_report(made_up(["0"], sizes={"0": 25}), tmp_path / "report.html", model=model)
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "of the network&#39;s parameters" in text
    assert json.loads(Page(tmp_path / "report.html").data)["rankings"][0]["choices"][0]["parameter_share"] == "51.0 %"


def refused(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit, match="2"):
        main(["report", *arguments])
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.strip().splitlines()[-1]


def test_bad_files_end_with_one_line(importance, made_up, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    importance.save("a.nc")
    made_up(NAMES[:-1], method="drift").save("b.nc")
    made_up(NAMES, method="drift", sizes={"conv_last": 1}).save("c.nc")
    made_up(["relu"], sizes={"relu": 0}).save("none.nc")
    Path("broken.nc").write_bytes(b"\x89HDF\r\n\x1a\nbroken")
    assert "'nowhere.nc' cannot be read as a ranking" in refused(capsys, "nowhere.nc")
    assert "'broken.nc' cannot be read as a ranking" in refused(capsys, "broken.nc")
    assert "cover different layers, 19 are common: mac has conv_last" in refused(capsys, "a.nc", "b.nc")
    assert "layers of 'drift' have other sizes" in refused(capsys, "a.nc", "c.nc")
    assert "a ranking is given twice" in refused(capsys, "a.nc", "a.nc")
    assert "no ranked layer holds a parameter" in refused(capsys, "none.nc")
    assert f"`path` '{tmp_path}' is a folder" in refused(capsys, "a.nc", "--out", str(tmp_path))
    assert "`fraction` must lie in (0, 1], got 2" in refused(capsys, "a.nc", "--fraction", "2")
    assert not list(tmp_path.glob("*.html"))


def test_rankings_by_one_method_are_told_apart_by_their_paths(made_up, tmp_path, capsys):
    for seed, name in enumerate(("first", "second")):
        (tmp_path / name).mkdir()
        made_up(NAMES, seed=seed).save(tmp_path / name / "importance.nc")
    files = [str(tmp_path / name / "importance.nc") for name in ("first", "second")]
    main(["report", *files, "--out", str(tmp_path / "new" / "report.html")])
    assert f"written: {tmp_path / 'new' / 'report.html'}" in capsys.readouterr().out
    page = Page(tmp_path / "new" / "report.html")
    assert ["first", "1.00"] in [row[:2] for row in page.rows]
    assert files[1] in page.exports(1, ranking=1)["Command"]


def test_help_teaches(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["report", "--help"])
    assert "opens with the first" in capsys.readouterr().out


def visible(path: Path) -> str:
    """Text of the page without styles, data and scripts, in single spaces."""
    text = path.read_text("utf-8").partition("</style>")[2].partition('<script type="application/json"')[0]
    return " ".join(re.sub(r"<[^>]+>", " ", text).replace("&#39;", "'").split())


def test_an_inexact_measurement_is_a_warning_with_a_remedy(importance, tmp_path):
    for residual in (0.09, 0.16):
        data = importance.dataset.assign(input_residual=importance.dataset["input_residual"] * 0 + residual)
        write_report(LayerImportance(data), tmp_path / f"{residual}.html")
    assert "are not complete" not in visible(tmp_path / "0.09.html")
    assert "miss 16% of the objective's change" in visible(tmp_path / "0.16.html")
    assert "raise `n_steps`, which is 6" in visible(tmp_path / "0.16.html")


def test_the_page_explains_method_score_and_objective_in_plain_words(page, tmp_path):
    text = visible(tmp_path / "report.html")
    for part in (
        "mean |C|, where C, the conductance of a neuron, is the part of the objective's change along the path",
        "Total gradient magnitude of the output image",
        "6 images of 64 x 64 pixels (6 noise), each with 1 random pixel order.",
        "the parameters of a random pick of as many layers",
    ):
        assert part in text
    assert "GradientMagnitude(eps=1e-06)" not in text.partition("Provenance")[0]


@pytest.mark.parametrize(
    ("layers_differ", "answer"),
    [(True, "Yes. With 2 of the 6 images, 100.0 % of the"), (False, "No. Even with 6 other ")],
)
def test_whether_fewer_images_are_enough_is_answered_first(made_up, tmp_path, layers_differ, answer):
    importance = made_up(NAMES)
    generator = np.random.default_rng(1)
    # Layers a factor of e apart with images that differ by 1 %, or layers that differ by chance alone.
    log_scores = np.arange(len(NAMES)) * layers_differ + generator.normal(size=importance.values.shape) * (
        0.01 if layers_differ else 3.0
    )
    data = importance.dataset.assign(score=(("sample", "order", "layer"), np.exp(log_scores)))
    write_report(LayerImportance(data), tmp_path / "r.html", fraction=0.3)
    assert f"Would fewer images have been enough? {answer}" in visible(tmp_path / "r.html")


@pytest.mark.parametrize(
    ("stability", "doubted"),
    [("The top 4 of 20 layers is stable after 10 of 70 images.", False), ("The top 1 of 5 layers is not stable", True)],
)
def test_only_an_unstable_top_is_a_reason_to_doubt(made_up, tmp_path, stability, doubted):
    write_report(made_up(NAMES, images=12, stability=stability), tmp_path / "r.html")
    assert ('class="doubt"' in (tmp_path / "r.html").read_text("utf-8").partition("</style>")[2]) == doubted
    assert stability in visible(tmp_path / "r.html")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("restore", "In a straight line from the degraded to the clean image, in 6 steps."),
        (
            "mask, twin",
            "whole image, and from the same image with pixels hidden in the reversed order to the whole image",
        ),
        ("my_path", "Along my_path, in 6 steps."),
    ],
)
def test_the_page_describes_the_path_in_the_words_of_its_walk(made_up, tmp_path, path, words):
    write_report(made_up(NAMES, path=path), tmp_path / "r.html")
    assert words in visible(tmp_path / "r.html")


UNET = [f"{block}.{role}" for block in ("enc1", "enc2", "mid", "dec2", "dec1") for role in ("conv1", "norm", "conv2")]


def test_siblings_that_are_built_alike_make_columns(made_up, tmp_path):
    write_report(made_up([*UNET, "out"]), tmp_path / "r.html")
    page = Page(tmp_path / "r.html")
    assert ["", "enc1", "enc2", "mid", "dec2", "dec1"] in page.rows
    assert {len(classes) for classes in page.cells.values()} == {2}


def test_a_network_without_blocks_has_a_depth_profile_alone(made_up, tmp_path):
    write_report(made_up(["head", "middle", "tail"]), tmp_path / "r.html")
    page = Page(tmp_path / "r.html")
    assert {name: len(classes) for name, classes in page.cells.items()} == dict.fromkeys(("head", "middle", "tail"), 1)
    assert "Colour by rank" not in visible(tmp_path / "r.html")
    assert "By role and block" not in visible(tmp_path / "r.html")


def test_one_degradation_has_no_strip(page, tmp_path):
    assert "of every degradation alone" not in visible(tmp_path / "report.html")
