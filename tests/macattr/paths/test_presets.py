import pytest
import torch

from macattr.paths.objectives import GradientMagnitude, OutputSum
from macattr.paths.partitions import every_nth_node
from macattr.paths.presets import DEFAULT, OFFICIAL, PAPER, RANKING, Preset
from macattr.selection.official import read_official_ranking, write_official_ranking


@pytest.fixture
def image():
    return torch.rand(1, 1, 8, 8)


def nodes(preset, image):
    return preset.partition(preset.path(image, torch.zeros_like(image), None)).nodes


@pytest.mark.parametrize("preset", [DEFAULT, PAPER], ids=lambda preset: preset.name)
def test_nodes_run_from_the_masked_to_the_whole_image(preset, image):
    assert nodes(preset, image).tolist() == pytest.approx([0.5 + 0.5 * j / 200 for j in range(201)])


def test_official_nodes_never_reach_the_whole_image(image):
    assert nodes(OFFICIAL, image).tolist() == pytest.approx([0.5 + 0.5 * j / 200 for j in range(200)])


@pytest.mark.parametrize(
    ("preset", "gate", "tag", "eps"),
    [(DEFAULT, "fade", "trapezoid", 1e-6), (PAPER, "sigmoid", "left", 1e-6), (OFFICIAL, "one_sided", "right", 0.0)],
    ids=["default", "paper", "official"],
)
def test_presets_bundle_the_options_of_the_design_table(preset, gate, tag, eps, image):
    path = preset.path(image, torch.zeros_like(image), None)
    assert (path.gate, preset.partition(path).tag, preset.objective) == (gate, tag, GradientMagnitude(eps))


@pytest.mark.parametrize(("n_steps", "groups"), [(200, 5), (30, 3), (12, 1), (3, 1)])
def test_the_fade_of_a_preset_has_a_group_for_every_10_steps_and_at_most_5(image, n_steps, groups):
    assert Preset(n_steps=n_steps).path(image, torch.zeros_like(image), None).groups == groups


@pytest.mark.parametrize("n_steps", [3, 10, 30, 200, 400])
def test_other_steps_keep_the_groups_and_with_them_the_path(image, n_steps):
    changed = RANKING.override(n_steps=n_steps)
    assert changed.path(image, torch.zeros_like(image), None).groups == 3
    assert RANKING.override(n_steps=n_steps, groups=2).n_groups == 2
    assert RANKING.override(n_steps=2).n_groups == 2  # borders of groups are nodes


def test_every_second_node_is_there_for_any_even_number_of_steps(image):
    preset = RANKING.override(n_steps=10)
    path = preset.path(image, torch.zeros_like(image), None)
    partition = preset.partition(path, halved=True)
    assert len(every_nth_node(partition, path.interval, path.groups).nodes) == 6


@pytest.mark.parametrize(
    ("preset", "tag", "count"),
    [
        (DEFAULT, "trapezoid", 13),
        (DEFAULT, "riemann_middle", 13),
        (DEFAULT, "gausslegendre", 13),
        (OFFICIAL, "right", 12),
        (OFFICIAL, "gausslegendre", 13),
    ],
)
def test_the_number_of_nodes_is_known_beforehand(image, preset, tag, count):
    preset = preset.override(tag=tag, n_steps=12)
    assert preset.n_nodes == len(nodes(preset, image)) == count


def test_overriding_nothing_changes_nothing():
    assert OFFICIAL.override() == OFFICIAL


def test_every_option_can_be_overridden():
    options = {
        "r": 0.3, "n_steps": 7, "gate": "sigmoid", "delta": 5.0, "tag": "left", "include_end": False,
        "objective": OutputSum(),
    }  # fmt: skip
    overridden = DEFAULT.override(**options)
    assert {name: getattr(overridden, name) for name in options} == options
    assert DEFAULT.override(groups=3).groups == 3


@pytest.mark.parametrize(
    ("preset", "options", "message"),
    [
        (DEFAULT, {"delta": 1.0}, "`delta` = 1.0 has no effect on the 'fade' gate: choose gate='sigmoid' or"),
        (PAPER, {"groups": 5}, "`groups` = 5 has no effect on the 'sigmoid' gate: choose gate='fade'"),
        (
            DEFAULT,
            {"include_end": False, "tag": "gausslegendre"},
            "`include_end` = False has no effect on the nodes of 'gausslegendre'",
        ),
        (DEFAULT, {"n_steps": 0}, "`n_steps` must be at least 1, got 0"),
        (DEFAULT, {"n_steps": -3}, "`n_steps` must be at least 1, got -3"),
        (DEFAULT, {"tag": "simpson"}, "`tag` must be one of left, .* got 'simpson'"),
    ],
    ids=["delta", "groups", "include_end", "no_steps", "negative_steps", "tag"],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_options_without_effect_or_out_of_range_are_refused(preset, options, message):
    with pytest.raises(ValueError, match=message):
        preset.override(**options)


def test_a_random_order_follows_from_its_seed(image):
    orders = [DEFAULT.path(image, torch.zeros_like(image), None, seed=seed).order for seed in (1, 1, 2)]
    assert orders[0].equal(orders[1])
    assert not orders[0].equal(orders[2])


def test_patches_take_an_order_of_blocks(image):
    assert len(DEFAULT.path(image, torch.zeros_like(image), None, patch_size=3).order) == 9


def write_ranking(folder, names="b c a", scores="0.3 0.2 0.1", index="1 2 0"):
    for part, text in (("name", names), ("cond", scores), ("index", index)):
        (folder / f"filter_{part}.txt").write_text("\n".join(text.split()))


def test_official_rankings_are_read_most_important_first(tmp_path):
    write_ranking(tmp_path)
    assert list(read_official_ranking(tmp_path).items()) == [("b", 0.3), ("c", 0.2), ("a", 0.1)]


@pytest.mark.parametrize(
    "lists",
    [{"names": "b c"}, {"scores": "0.3 0.2"}, {"index": "1 2"}, {"index": "1 2 3"}, {"index": "0 0 1"}],
    ids=["name_missing", "score_missing", "index_missing", "index_from_one", "index_repeated"],
)
def test_official_lists_that_do_not_fit_together_are_refused(tmp_path, lists):
    write_ranking(tmp_path, **lists)
    with pytest.raises(ValueError, match="do not fit"):
        read_official_ranking(tmp_path)


def test_an_incomplete_official_ranking_is_refused(tmp_path):
    write_ranking(tmp_path)
    (tmp_path / "filter_cond.txt").unlink()
    with pytest.raises(ValueError, match=r"three files; missing: .*filter_cond\.txt"):
        read_official_ranking(tmp_path)


def test_official_rankings_are_written_as_they_are_read(tmp_path):
    scores = {"tie_b": 0.1 + 0.2, "tie_a": 0.1 + 0.2, "high": 7e10, "low": 1e-30}
    write_official_ranking(scores, ["low", "tie_a", "tie_b", "high"], tmp_path / "new")
    assert list(read_official_ranking(tmp_path / "new").items()) == [
        ("high", 7e10), ("tie_b", 0.1 + 0.2), ("tie_a", 0.1 + 0.2), ("low", 1e-30)
    ]  # fmt: skip
    assert (tmp_path / "new" / "filter_index.txt").read_text().split() == ["3", "2", "1", "0"]


def test_a_ranking_of_other_layers_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="scores and layers do not fit: a, c stand in one of them only"):
        write_official_ranking({"a": 1.0, "b": 2.0}, ["b", "c"], tmp_path)
