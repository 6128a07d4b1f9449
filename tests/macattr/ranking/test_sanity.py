"""Rankings of networks with randomised parameters."""

import numpy as np
import pytest
import torch
from torch import nn

from macattr.ranking.rank import rank_layers
from macattr.ranking.sanity import randomisation_test, randomised
from macattr.statistics.agreement import spearman


@pytest.fixture
def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)]
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2]).eval()


def test_parameters_are_random_inside_and_as_before_outside(network):
    before = {name: p.clone() for name, p in network.named_parameters()}
    with randomised(network, ["0", "4"], seed=3):
        assert not torch.equal(network[0].weight, before["0.weight"])
        torch.testing.assert_close(network[2].weight, before["2.weight"], rtol=0, atol=0)
        # 216 draws: the standard deviation is known to 5 %, four times that is allowed.
        now, then = network[0].weight.detach(), before["0.weight"].detach()
        assert float(now.std() / then.std()) == pytest.approx(1, abs=0.2)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter, before[name], rtol=0, atol=0)


def test_parameters_come_back_after_an_error(network):
    before = network[0].weight.clone()
    with pytest.raises(RuntimeError, match="inside"), randomised(network, ["0"]):
        raise RuntimeError("inside")
    torch.testing.assert_close(network[0].weight, before, rtol=0, atol=0)


@pytest.mark.parametrize(("cascading", "shares"), [(True, [1 / 3, 2 / 3, 1]), (False, [1 / 3] * 3)])
def test_groups_are_randomised_from_the_output_on(network, cascading, shares):
    table = randomisation_test(network, torch.rand(1, 3, 8, 8), "magnitude", cascading=cascading, steps=3, fraction=0.4)
    np.testing.assert_allclose(table["share"], shares)
    assert table["randomised"].str.startswith(("4", "2", "0")).all()


def test_a_ranking_that_reads_no_weights_survives_and_one_that_reads_them_does_not(network):
    images = torch.rand(2, 3, 8, 8)
    by_depth = randomisation_test(network, images, "depth", fraction=0.4)
    np.testing.assert_allclose(by_depth["spearman"], 1, atol=1e-12)  # a quotient in float64
    with torch.no_grad():  # few large weights: a small mean, of which random ones of the same spread have a large one
        network[0].weight.zero_()[0, 0, 0, 0] = 100
        network[2].weight.sign_()
    table = randomisation_test(network, images, "magnitude", steps=1, fraction=0.4)
    original = rank_layers(network, images, "magnitude").scores().values
    with randomised(network, ["0", "2", "4"]):
        random = rank_layers(network, images, "magnitude").scores().values
    assert table["spearman"].item() == pytest.approx(spearman(original, random))
    assert table["spearman"].item() < 1


def test_images_that_can_be_seen_once_only_are_refused(network):
    with pytest.raises(ValueError, match="pass a list, a tensor or a data loader instead of an iterator"):
        randomisation_test(network, iter([torch.rand(3, 8, 8)]), "mac")


@pytest.mark.parametrize("fraction", [0.1, 0.4])
def test_the_top_of_three_layers_holds_a_layer(network, fraction):
    table = randomisation_test(network, torch.rand(1, 3, 8, 8), "depth", steps=2, fraction=fraction)
    assert table["overlap"].tolist() == [1, 1]
    assert table["random_overlap"].tolist() == [1 / 3, 1 / 3]
