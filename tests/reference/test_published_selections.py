"""Budgets of the authors' published lists, which selections by number must report as they are.

The numbers were computed beforehand from the published lists and the shapes of the released checkpoints.
"""

import math
from pathlib import Path

import numpy as np
import pytest

from macattr.layers.table import LayerDescription, LayerTable
from macattr.selection.controls import convolutions, random_parameters
from macattr.selection.rules import SelectionRule, select
from ram_models import ram_swinir

DATA = Path(__file__).parent / "data"
BUFFERS = ("attn_mask", "relative_position_index")


def published(name: str) -> tuple[dict[str, float], LayerTable]:
    """A ranking with the published top tenth, and the layers of the network from the shapes of its checkpoint."""
    sizes: dict[str, int] = {}
    for line in (DATA / f"ram_{name}_shapes.txt").read_text().splitlines():
        parameter, shape = line.split()
        owner, _, own_name = parameter.rpartition(".")
        if own_name not in BUFFERS:
            sizes[owner] = sizes.get(owner, 0) + math.prod(map(int, shape.split("x")))
    layers = (DATA / f"ram_{name}_layers.txt").read_text().split()
    top = (DATA / f"ram_{name}_top_tenth.txt").read_text().split()
    ranked = [*top, *(layer for layer in layers if layer not in top)]
    described = [LayerDescription(layer, "", depth, "", "", sizes[layer]) for depth, layer in enumerate(layers)]
    return {layer: 1 / rank for rank, layer in enumerate(ranked, 1)}, LayerTable.described(described)


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
