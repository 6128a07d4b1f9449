"""Scores are read from the files of other tools, and what is none is refused."""

import json

import pytest

from macattr.selection.official import read_official_ranking, write_official_ranking
from macattr.selection.score_files import read_scores

SNR = {
    "model.layers.0.mlp.fc": {"snr": 0.25, "type": "mlp.fc"},
    "model.layers.1.mlp.fc": {"snr": 0.5, "type": "mlp.fc"},
    "model.layers.0.norm": {"snr": float("inf"), "type": "norm"},
    "model.layers.1.norm": {"snr": float("inf"), "type": "norm"},
    "lm_head": {"snr": 8.0, "type": "lm_head"},
}
SHARES = {"model.layers.0.mlp.fc": 0.0, "model.layers.1.mlp.fc": 0.5, "model.layers.0.norm": 0.25}
SHARES |= {"model.layers.1.norm": 0.25, "lm_head": 0.0}


def test_published_ratios_become_places_within_their_types(tmp_path):
    file = tmp_path / "snr_results.json"
    file.write_text(json.dumps(SNR))
    assert read_scores(file) == SHARES


def test_ratios_sorted_by_type_are_read_too(tmp_path):
    grouped: dict[str, dict[str, float]] = {}
    for name, entry in SNR.items():
        grouped.setdefault(entry["type"], {})[name] = entry["snr"]
    file = tmp_path / "snr_results_sorted.json"
    file.write_text(json.dumps(grouped))
    assert read_scores(file) == SHARES


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"a": 1, "b": 0.5}'),
        ("a.csv", "a,1\nb,0.5\n"),
        ("a.csv", "layer,score\r\na,1\r\nb,0.5\r\n"),
        ("A.CSV", "\ufeffrank,layer,score,type\n1,a,1.0,Linear\n2,b,0.5,Linear\n\n"),
        ("a.csv", "snr,module\n1,a\n0.5,b\n"),
    ],
    ids=["json", "two columns", "header", "our own", "other names"],
)
def test_plain_scores_are_read(tmp_path, name, text):
    (tmp_path / name).write_text(text, newline="")
    assert read_scores(tmp_path / name) == {"a": 1.0, "b": 0.5}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", None, "No such file"),
        ("a.json", "{", "Expecting property name"),
        ("a.json", "[1, 2]", "no mapping from names to scores"),
        ("a.json", "{}", "holds no score"),
        ("a.json", '{"a": true}', "the score of 'a' is no number: True"),
        ("a.json", '{"a": null}', "the score of 'a' is no number: None"),
        ("a.json", '{"a": NaN}', "the score of 'a' is nan"),
        ("a.json", '{"kind": "macattr selection", "layers": []}', "an exported selection"),
        ("a.csv", "", "holds no score"),
        ("a.csv", "a,b,c\n1,2,3\n", "no columns 'layer' and 'score', but 'a', 'b', 'c'"),
        ("a.csv", "layer,score\na\n", "a row is too short: 'a'"),
        ("a.csv", "layer,score\na,high\n", "the score of 'a' is no number: 'high'"),
        ("a.csv", "layer,score\na,10%\n", "'10%'; write a percentage as a number"),
        ("a.csv", "layer;score\na;1\n", "its columns are separated by ';': write it with commas"),
        ("a.csv", "layer\tscore\na\t1\n", r"separated by '.t'"),
        ("a.csv", "layer,score\n,1\nb,2\n", "a row has no name: ',1'"),
        ("a.json", '{"a": 1, "b": 2, "a": 3}', "'a' stands there more than once"),
        ("a.json", '{"fc": {"a": 1}, "conv": {"a": 2}}', "'a' stands there more than once"),
        ("a.json", '[{"layer": "a", "score": 1}]', "it is a list of rows"),
        ("a.csv", "a,1\na,2\n", "stands there more than once"),
    ],
)
def test_what_holds_no_scores_is_explained(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_scores(tmp_path / name)


def test_an_exported_selection_is_no_ranking(tmp_path):
    file = tmp_path / "selection.csv"
    file.write_text("layer,score,type,block,parameters,trains\na,1,Linear,,2,own parameters\n")
    with pytest.raises(ValueError, match="it is an exported selection"):
        read_scores(file)


@pytest.mark.parametrize(
    ("names", "scores", "message"),
    [("a a b", "3 2 1", "names 1 layers more than once"), ("a b c", "3 x 1", "hold something else than numbers")],
)
def test_official_lists_that_cannot_be_read_are_refused(tmp_path, names, scores, message):
    for part, text in {"name": names, "cond": scores, "index": "0 1 2"}.items():
        (tmp_path / f"filter_{part}.txt").write_text(text.replace(" ", "\n"))
    with pytest.raises(ValueError, match=message):
        read_official_ranking(tmp_path)


def test_names_with_blanks_have_no_place_in_the_official_lists(tmp_path):
    with pytest.raises(ValueError, match="cannot hold 'a b'"):
        write_official_ranking({"a b": 1.0}, ["a b"], tmp_path / "lists")
    assert not (tmp_path / "lists").exists()
