"""Fine-tunings are paired and repeatable, and rates climb to the best of the ladder."""

import pytest
import torch
from torch import nn

from ram_models.experiments.layerbench import rates
from ram_models.experiments.layerbench.choices import Choice
from ram_models.experiments.layerbench.rates import LADDER, rate_class, tune
from ram_models.experiments.layerbench.training import Training, train


def pairs(step):
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(step))
    return images, images / 2


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_chosen_parameters_move_and_the_loss_falls(precision):
    start, tuned = network(), network()
    training = Training(60, precision=precision)
    assert train(tuned, Choice(("1.weight", "1.bias")), pairs, training, 1e-2) == 111
    assert torch.equal(start[0].weight, tuned[0].weight)
    images, targets = pairs(1000)
    before, after = ((each(images) - targets).abs().mean().detach().item() for each in (start.eval(), tuned))
    assert after < 0.7 * before
    assert not tuned.training


def test_the_same_training_gives_the_same_weights():
    ends = []
    for _ in range(2):
        ends.append(network())
        train(ends[-1], Choice(("0.weight",)), pairs, Training(5), 1e-2)
    assert torch.equal(ends[0][0].weight, ends[1][0].weight)


def test_a_diverged_training_is_refused():
    with pytest.raises(FloatingPointError, match="diverged at lr = 1e\\+30: lower it"):
        train(network(), Choice(("0.weight", "1.weight")), pairs, Training(20, precision="float32"), 1e30)


def test_the_rate_rises_to_its_peak_and_falls():
    factors = [Training(100).rate(step) for step in range(100)]
    assert max(factors) == factors[9] == 1
    assert factors[:10] == sorted(factors[:10])
    assert factors[9:] == sorted(factors[9:], reverse=True)
    assert 0 < factors[-1] < 0.01


@pytest.mark.parametrize("best", LADDER)
@pytest.mark.parametrize("start", [1e-4, 3e-3])
def test_tuning_finds_the_peak_and_asks_each_rate_once(best, start):
    asked = []

    def measure(lr):
        asked.append(lr)
        return -abs(LADDER.index(lr) - LADDER.index(best))

    assert tune(measure, start) == best
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize(
    ("share", "kind", "name"),
    [
        (0.01, "layers", "2 %"),
        (0.02, "layers", "2 %"),
        (0.03, "layers", "5 %"),
        (1.0, "layers", "all"),
        (0.01, "affine", "affine"),
        (0.1, "adapters", "adapters"),
    ],
)
def test_a_set_has_the_class_of_its_own_size(share, kind, name):
    assert rate_class(kind, share) == name
    assert name in rates.CLASSES
