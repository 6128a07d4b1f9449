"""Networks that have nothing to do with restoration: a residual classifier, several inputs, a vision transformer."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from macattr.paths.objectives import Target
from macattr.ranking.rank import rank_layers, rank_methods
from macattr.selection.rules import SelectionRule


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, channels, stride=1):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, stride, 1)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1)
        self.shortcut = nn.Conv2d(channels, channels, 1, stride)

    def forward(self, x):
        return F.relu(self.second(F.relu(self.norm(self.first(x)))) + self.shortcut(x), inplace=True)


class Classifier(nn.Module):
    """A small ResNet."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.stages = nn.Sequential(Residual(6), Residual(6, stride=2), Residual(6, stride=2))
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.stages(self.stem(x)).mean((2, 3)))


class Conditioned(nn.Module):
    """An image and a vector that modulates its features."""

    def __init__(self):
        super().__init__()
        self.image = nn.Conv2d(3, 4, 3, padding=1)
        self.scale = nn.Linear(2, 4)
        self.out = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x, condition):
        return self.out(self.image(x).tanh() * self.scale(condition)[:, :, None, None])


@pytest.fixture
def images():
    return torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.filterwarnings("ignore:top .* at random")
def test_a_residual_classifier_is_ranked_by_a_class(images):
    torch.manual_seed(0)
    network = Classifier().eval()
    importance = rank_layers(network, images, objective=Target(2), n_steps=40)
    assert list(importance.dataset["layer"].values) == [
        name for name, module in network.named_modules() if any(True for _ in module.parameters(False))
    ]
    assert float(abs(importance.dataset["input_residual"]).max()) < 0.05  # 40 steps over ReLU kinks
    with pytest.warns(UserWarning, match=r"3 frozen layers keep statistics"):
        trained = importance.select(SelectionRule(0.2), network).mask().apply(network)
    assert trained.trained == sum(p.numel() for p in network.parameters() if p.requires_grad)


def test_a_classifier_is_ranked_by_a_loss(images):
    torch.manual_seed(0)
    network = Classifier().eval()

    def cross_entropy(logits):
        return F.cross_entropy(logits, torch.full((len(logits),), 2), reduction="none")

    found = rank_methods(network, images, ["fisher", "rgn", "adam_gain"], loss=cross_entropy)
    assert all(np.isfinite(importance.scores()).all() for importance in found.values())


def test_every_image_may_bring_inputs_of_its_own(images):
    torch.manual_seed(0)
    network = Conditioned().eval()
    conditions = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    items = [{"image": images[i], "forward_args": (conditions[i : i + 1],)} for i in range(2)]
    found = rank_layers(network, items, n_steps=10).values
    alone = [
        rank_layers(network, images[i], n_steps=10, orders=torch.randperm(144)[None],
                    additional_forward_args=(conditions[i : i + 1],)).values for i in range(2)
    ]  # fmt: skip
    assert found.shape == (2, 1, 3)
    assert (found > 0).sum() == (np.concatenate(alone) > 0).sum()


def test_a_vision_transformer_of_another_library_is_ranked(images):
    transformers = pytest.importorskip("transformers", reason="needs transformers, which the peft extra brings")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=12, patch_size=4,
        num_labels=4,
    )  # fmt: skip
    vit = transformers.ViTForImageClassification(config).eval()

    class Logits(nn.Module):
        """The model's logits alone."""

        def __init__(self):
            super().__init__()
            self.vit = vit

        def forward(self, x):
            return self.vit(x).logits

    importance = rank_layers(Logits().eval(), images, objective=Target(1), n_steps=40)
    names = importance.dataset["layer"].values.tolist()
    assert sum("attention" in name for name in names) >= 6
    assert (importance.scores() > 0).all()
    assert float(abs(importance.dataset["input_residual"]).max()) < 0.02


@pytest.mark.parametrize("method", ["conductance", "magnitude", "fisher"])
def test_quantised_layers_whose_weights_nobody_sees_are_refused(method):
    plain = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.ao.quantization.quantize_dynamic(plain, {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(ValueError, match=r"layer '0' is quantised \(Linear of torch\.ao\) and hides its weights"):
        rank_layers(quantised, [torch.rand(4)], method, objective="norm" if method == "conductance" else None)
