"""How far layers change what they are given, against definitions written out with numpy."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from macattr.methods.samples import Sample
from macattr.methods.similarity import cka_change, linear_cka
from macattr.methods.task import Task
from macattr.ranking.rank import rank_layers

IMAGES = torch.rand(5, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def network(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*layers).double().eval()


def alignment(x: np.ndarray, y: np.ndarray) -> float:
    """Kornblith's feature form, where the library computes the kernels'."""
    x, y = x - x.mean(0), y - y.mean(0)
    return float(np.linalg.norm(x.T @ y) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))


@pytest.mark.parametrize(("p", "q"), [(3, 3), (2, 9), (40, 7)])
def test_the_alignment_is_kornbliths(p, q):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(6, p)), random.normal(size=(6, q))
    found = linear_cka(torch.from_numpy(x), torch.from_numpy(y))
    assert found == pytest.approx(alignment(x, y), rel=1e-12)
    turned, _ = np.linalg.qr(random.normal(size=(p, p)))
    same = linear_cka(torch.from_numpy(x), torch.from_numpy(5 * x @ turned + 3))
    assert same == pytest.approx(1, abs=1e-12)


def test_cka_compares_the_mean_over_the_positions():
    net = network(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3, padding=1))
    found = rank_layers(net, IMAGES, "cka", ["0", "1"]).scores().values
    hidden = [IMAGES, net[0](IMAGES).detach(), net[:2](IMAGES).detach()]
    means = [values.mean((2, 3)).numpy() for values in hidden]
    expected = [1 - alignment(before, after) for before, after in pairwise(means)]
    assert found == pytest.approx(expected, abs=1e-12)


class Tokens(nn.Module):
    """From an image to the tokens of its pixels and back."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 3), nn.Tanh())

    def forward(self, image):
        return self.block(image.flatten(2).mT).mT.reshape(image.shape)


@pytest.mark.parametrize(
    ("tokens", "pick"), [("mean", lambda t: t.mean(1)), ("first", lambda t: t[:, 0]), ("last", lambda t: t[:, -1])]
)
def test_a_sequence_stands_for_its_mean_its_first_or_its_last_token(tokens, pick):
    torch.manual_seed(0)
    net = Tokens().double().eval()
    task = Task(net, {"block": net.block})
    samples = [Sample(image[None], str(number)) for number, image in enumerate(IMAGES)]
    before = IMAGES.flatten(2).mT
    expected = 1 - alignment(pick(before).numpy(), pick(net.block(before)).detach().numpy())
    assert cka_change(task, samples, tokens=tokens) == pytest.approx([expected], abs=1e-12)


def test_channels_may_come_last():
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 4)

        def forward(self, image):
            return self.fc(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    torch.manual_seed(0)
    net = Last().double().eval()
    found = rank_layers(net, IMAGES, "cka").scores().values
    after = net(IMAGES).detach().mean((2, 3)).numpy()
    assert found == pytest.approx([1 - alignment(IMAGES.mean((2, 3)).numpy(), after)], abs=1e-12)


def test_cosine_is_the_mean_over_the_positions():
    net = network(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh())
    found = rank_layers(net, IMAGES, "cosine", ["0", "1"])
    hidden = [IMAGES, net[0](IMAGES).detach(), net(IMAGES).detach()]
    for number, (before, after) in enumerate(pairwise(hidden)):
        cosines = (before * after).sum(1) / (before.norm(dim=1) * after.norm(dim=1))
        assert found.values[:, 0, number] == pytest.approx(1 - cosines.mean((1, 2)).numpy(), abs=1e-12)


def test_a_layer_that_writes_into_its_input_is_compared_with_what_it_was_given():
    net = network(nn.Conv2d(3, 3, 1), nn.LeakyReLU(-1.0, inplace=True), nn.Conv2d(3, 3, 1))
    plain = network(nn.Conv2d(3, 3, 1), nn.LeakyReLU(-1.0), nn.Conv2d(3, 3, 1))
    for method in ("cka", "cosine"):
        found, expected = (rank_layers(each, IMAGES, method, "1").scores().values for each in (net, plain))
        assert found == pytest.approx(expected, abs=1e-12)
        assert found[0] > 0.01


def test_layers_that_change_nothing_score_zero_and_constants_one():
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same, self.value, self.last = nn.Identity(), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
            nn.init.zeros_(self.value.weight)

        def forward(self, image):
            image = self.same(image)
            return self.last(image + self.value(image))

    torch.manual_seed(0)
    net = Constant().eval()
    found = rank_layers(net, IMAGES.float(), "cka", ["same", "value"]).scores().values
    assert found == pytest.approx([0.0, 1.0], abs=1e-6)


def test_a_shared_layer_scores_the_mean_over_its_calls():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, image):
            return self.conv(self.conv(image).tanh())

    torch.manual_seed(0)
    net = Twice().double().eval()
    first = net.conv(IMAGES).detach()
    calls = [(IMAGES, first), (first.tanh(), net(IMAGES).detach())]
    expected = np.mean([1 - alignment(*(part.mean((2, 3)).numpy() for part in call)) for call in calls])
    assert rank_layers(net, IMAGES, "cka").scores().values == pytest.approx([expected], abs=1e-12)


def test_a_layer_without_a_float_input_scores_zero():
    class Looked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.fc = nn.Embedding(4, 3), nn.Linear(3, 3)

        def forward(self, image):
            ids = (image[:, 0].flatten(1) * 3.99).long()
            return self.fc(self.embed(ids)).mT.reshape(len(image), 3, *image.shape[2:]) + image

    torch.manual_seed(0)
    for method in ("cka", "cosine"):
        found = rank_layers(Looked().double().eval(), IMAGES, method).scores().values
        assert found[0] == 0 < found[1]


def test_two_images_are_too_few():
    with pytest.raises(ValueError, match="'cka' needs at least 3 images, got 2"):
        rank_layers(network(nn.Conv2d(3, 3, 1)), IMAGES[:2], "cka")


def test_a_cosine_of_other_shapes_is_refused_with_a_remedy():
    with pytest.raises(ValueError, match=r"'0' makes \(1, 4, 6, 6\) of \(1, 3, 6, 6\), .* or take the method 'cka'"):
        rank_layers(network(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)), IMAGES, "cosine")


def test_hooks_are_gone_afterwards_also_after_an_error():
    net = network(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1))
    rank_layers(net, IMAGES, "cka")
    with pytest.raises(ValueError, match="needs equal shapes"):
        rank_layers(net, IMAGES, "cosine")
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_measured_in_single(dtype):
    net = network(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1))
    exact = rank_layers(net, IMAGES, "cka").scores().values
    half = rank_layers(net.to(dtype), IMAGES, "cka").scores().values
    assert half == pytest.approx(exact, abs=0.05)  # 8 bits of mantissa
