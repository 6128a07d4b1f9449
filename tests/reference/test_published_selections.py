"""Budgets of the authors' published lists, which selections by number must report as they are.

The numbers were computed beforehand from the published lists and the shapes of the released checkpoints.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from macattr.layers import LayerDescription, LayerTable
from macattr.selection.controls import convolutions, random_parameters
from macattr.selection.official import read_official_ranking
from macattr.selection.rules import SelectionRule, select
from ram_models import ram_swinir

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"
pytestmark = pytest.mark.skipif(
    not (REFERENCE / "official_mac").is_dir(), reason="needs the published lists in ../shared/reference"
)


def published(name: str) -> tuple[dict[str, float], LayerTable]:
    """The list of a network, and its layers from the shapes of its checkpoint."""
    ranking = read_official_ranking(REFERENCE / "official_mac" / f"ram_{name}")
    shapes = json.loads((REFERENCE / f"ram-{name}.state_dict.json").read_text())
    sizes: dict[str, int] = {}
    for parameter, shape in shapes["shapes"].items():
        if parameter not in shapes["buffers_in_state_dict"]:
            owner = parameter.rpartition(".")[0]
            sizes[owner] = sizes.get(owner, 0) + math.prod(shape)
    layers = (REFERENCE / f"layer_names_{name}.txt").read_text().split()
    described = [LayerDescription(layer, "", depth, "", "", sizes[layer]) for depth, layer in enumerate(layers)]
    return ranking, LayerTable.described(described)


@pytest.mark.parametrize(
    ("name", "count", "parameters", "ratio"),
    [("swinir", 26, 2_155_053, 1.9), ("promptir", 44, 616_007, 0.18)],
)
def test_the_published_tenth_of_names_is_no_tenth_of_parameters(name, count, parameters, ratio):
    ranking, table = published(name)
    with pytest.warns(UserWarning, match=rf"{ratio:.2g} x the [\d,]+ that as many at random"):
        chosen = select(ranking, table, SelectionRule(0.1))
    assert (len(chosen.layers), chosen.parameters) == (count, parameters)
    assert chosen.layers == tuple(ranking)[:count]


@pytest.mark.filterwarnings("ignore:top .* at random:UserWarning")
def test_random_controls_fill_the_published_budget():
    ranking, table = published("swinir")
    chosen = select(ranking, table, SelectionRule(0.1))
    for seed in range(5):
        control = random_parameters(chosen, np.random.default_rng(seed))
        assert 0.95 * chosen.parameters <= control.parameters <= chosen.parameters


def test_all_convolutions_and_ends_cost_as_much_as_the_published_tenth():
    control = convolutions(ram_swinir())
    # 2,048,043 of all 3x3 convolutions and conv_first, and the 720 of the two outer norms
    assert (control.parameters, control.table.total) == (2_048_043 + 720, 11_512_131)
