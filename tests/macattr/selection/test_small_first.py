"""Small layers come first, within their share of a budget, and matrices by score per parameter after them."""

import pytest
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from macattr.layers.table import LayerTable
from macattr.selection.rules import SelectionRule, select
from macattr.selection.small_first import ends, small_first, small_layers

BUDGET = SelectionRule(0.5, by="parameters", skips=9, fill=0.0)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)


def network() -> nn.Module:
    """Ends of 64 and 27 parameters; in each of two blocks a norm of 16 and matrices of 144 and 136; 683 in all."""
    blocks = nn.ModuleList([Block(), Block()])
    return nn.ModuleDict({"first": nn.Linear(7, 8), "blocks": blocks, "last": nn.Linear(8, 3)})


def test_ends_and_vectors_are_the_small_layers():
    assert small_layers(network(), 200) == ("first", "blocks.0.norm", "blocks.1.norm", "last")


@pytest.mark.parametrize(("most", "count"), [(15, 0), (16, 1), (59, 3), (122, 3), (123, 4)])
def test_the_smallest_come_first_as_long_as_they_fit(most, count):
    assert len(small_layers(network(), most)) == count


def test_an_end_that_is_large_is_none_of_them():
    large = nn.ModuleDict({"embedding": nn.Embedding(1000, 8), "blocks": network()["blocks"], "last": nn.Linear(8, 3)})
    assert small_layers(large, 1000) == ("blocks.0.norm", "blocks.1.norm", "last")


def test_a_weight_behind_a_parametrisation_is_a_matrix():
    flat = nn.Sequential(nn.Linear(2, 2), weight_norm(nn.Linear(2, 2)), nn.Linear(2, 2))
    assert small_layers(flat, 100) == ("0", "2")


def test_a_network_of_one_layer_has_one_end():
    assert ends(LayerTable.of(nn.Sequential(nn.Linear(2, 2)))) == ("0",)


def test_matrices_fill_the_budget_by_score_per_parameter():
    net = network()
    scores = {"blocks.0.fc1": 2.0, "blocks.0.fc2": 1.99, "blocks.1.fc1": 1.0, "blocks.1.fc2": 0.5, "first": 0.0}
    chosen = select(scores, LayerTable.of(net), small_first(BUDGET, net)).layers
    assert set(chosen) == {"first", "last", "blocks.0.norm", "blocks.1.norm", "blocks.0.fc2"}  # 259 of 341


def test_what_the_rule_excludes_stays_out_and_what_it_includes_stays_in():
    rule = SelectionRule(0.5, by="parameters", exclude=("*.norm",), include=("blocks.1.fc2",))
    found = small_first(rule, network())
    assert set(found.include) == {"blocks.1.fc2", "first", "last"}
    assert found.exclude == ("*.norm",)


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_the_share_is_a_part_of_the_budget(share):
    with pytest.raises(ValueError, match="`share` must lie in"):
        small_first(BUDGET, network(), share)


@pytest.mark.parametrize("rule", [SelectionRule(0.5), SelectionRule(0.5, by="parameters", per="block")], ids=str)
def test_only_a_budget_of_the_whole_network_is_filled(rule):
    with pytest.raises(ValueError, match="small layers come first in a budget of the whole network"):
        small_first(rule, network())
