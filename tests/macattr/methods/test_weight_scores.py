"""Scores from singular values, against numpy's and peft's, on weights of every kind."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from macattr.methods.task import Task
from macattr.methods.weight_scores import condition_number, condition_score, matrices_of, spectral_score, spectral_snr
from macattr.ranking.rank import rank_layers, rank_methods

pytestmark = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")


class Experts(nn.Module):
    """Weights of several experts in one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.up_proj = nn.Parameter(torch.randn(3, 8, 6))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.norm = nn.Linear(6, 12), nn.Linear(12, 6), nn.LayerNorm(6)


def blocks(count: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"layers": nn.ModuleList(Block() for _ in range(count)), "head": nn.Linear(6, 3)})


def kappa_of(matrix) -> float:
    """By numpy, in the matrix's own precision."""
    values = np.linalg.svd(np.asarray(matrix), compute_uv=False)
    return float(values[0] / (values[-1] + 1e-8))


def scored(layers: dict[str, nn.Module], score) -> list[float]:
    model = nn.ModuleDict(layers)
    return score(Task(model, dict(model.items())), [])


def test_kappa_is_the_ratio_of_the_singular_values():
    network = blocks()
    found = rank_layers(network, method="kappa").scores()
    for name, score in zip(found["layer"].values.tolist(), found.values.tolist(), strict=True):
        layer = network.get_submodule(name)
        expected = 0.0 if isinstance(layer, nn.LayerNorm) else 1 / kappa_of(layer.weight.detach())
        assert score == pytest.approx(expected, rel=1e-4)  # float32


@pytest.mark.parametrize("top_p", [0.2, 0.5, 1.0])
def test_kappa_ranks_as_peft_selects(top_p):
    peft = pytest.importorskip("peft", reason="needs peft: pip install 'macattr[peft]'")
    network = blocks()
    network["experts"] = nn.ModuleDict({"a": Experts(), "b": Experts(), "c": Experts()})
    chosen = peft.helpers.find_kappa_target_modules(network, top_p=top_p, show_progress=False)
    ranked = rank_layers(network, method="kappa").ranking()["layer"].tolist()
    linear = [name for name in ranked if isinstance(network.get_submodule(name), nn.Linear)]
    assert linear[: len(chosen["target_modules"])] == chosen["target_modules"]
    experts = [f"{name}.up_proj" for name in ranked if name.startswith("experts")]
    assert experts[: len(chosen["target_parameters"])] == chosen["target_parameters"]


def test_the_condition_of_experts_is_their_mean():
    experts = Experts()
    expected = 1 / np.mean([kappa_of(expert) for expert in experts.up_proj.detach()])
    assert scored({"e": experts}, condition_score) == pytest.approx([expected], rel=1e-4)


def snr_of(matrix) -> float:
    """Spectrum's ratio, written with numpy from its formula."""
    values = np.linalg.svd(np.asarray(matrix), compute_uv=False)
    sigma = np.subtract(*np.quantile(values, [0.75, 0.25])) / 1.349
    edge = sigma * (1 + np.sqrt(min(matrix.shape) / max(matrix.shape)))
    return float(values[values > edge].sum() / values[values <= edge].sum() / values.max())


@pytest.mark.parametrize("shape", [(40, 40), (20, 60), (90, 30)], ids=str)
def test_the_signal_to_noise_ratio_is_spectrums(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    matrix = matrix * torch.linspace(0.01, 1, shape[1]) + 0.3
    assert spectral_snr(matrix) == pytest.approx(snr_of(matrix), rel=1e-10)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 1.0])
def test_a_threshold_on_spectrum_is_the_top_share_of_every_type(share):
    network = blocks(8)
    for number, block in enumerate(network["layers"]):  # a signal of another strength in every block
        with torch.no_grad():
            block.fc1.weight += 0.3 * ((3 * number) % 8)
            block.fc2.weight += 0.3 * ((5 * number) % 8)
    scores = rank_layers(network, method="spectrum").scores()
    chosen = set(scores["layer"].values[scores.values >= 1 - share].tolist())
    for role in ("fc1", "fc2"):
        names = [f"layers.{number}.{role}" for number in range(8)]
        ratios = {name: spectral_snr(network.get_submodule(name).weight.detach()) for name in names}
        assert {n for n in chosen if n.endswith(role)} == set(sorted(names, key=ratios.get)[8 - int(8 * share) :])
    assert scores.sel(layer="layers.0.norm") == 0


def test_layers_outside_of_blocks_are_compared_by_their_class():
    chain = nn.Sequential(*[nn.Linear(8, 8) for _ in range(4)])
    assert sorted(scored(dict(chain.named_children()), spectral_score)) == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("score", [condition_score, spectral_score])
@pytest.mark.parametrize(
    "layers",
    [
        lambda: [nn.Linear(4, 4)],
        lambda: [nn.Linear(1, 1), nn.Linear(5, 1), nn.Linear(1, 5)],
        lambda: [nn.LayerNorm(4), nn.PReLU(), nn.BatchNorm2d(3)],
        lambda: [nn.Conv1d(4, 6, 3), nn.Conv2d(4, 6, 3, groups=2), nn.Conv3d(2, 2, 1), nn.Conv2d(4, 4, 3, groups=4)],
        lambda: [nn.ConvTranspose1d(4, 6, 3), nn.ConvTranspose2d(4, 6, 3, groups=2)],
        lambda: [nn.Embedding(10, 4), nn.Bilinear(2, 3, 4), nn.LSTM(3, 4, 2), nn.MultiheadAttention(4, 2)],
        lambda: [weight_norm(nn.Linear(3, 4)), spectral_norm(nn.Conv2d(3, 4, 3))],
        lambda: [parametrizations.weight_norm(nn.Linear(3, 4)), parametrizations.orthogonal(nn.Linear(4, 4))],
        lambda: [nn.Linear(3, 4).half(), nn.Linear(3, 4).bfloat16(), nn.Linear(3, 4).double()],
        lambda: [nn.Linear(0, 3), nn.Linear(3, 3)],
    ],
    ids=["one", "thin", "none", "convolutions", "transposed", "others", "hooks", "parametrised", "dtypes", "empty"],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_weights_of_every_kind_have_finite_scores_in_the_unit_interval(score, layers):
    found = scored({str(number): layer for number, layer in enumerate(layers())}, score)
    assert all(0 <= value <= 1.0001 for value in found)  # rounding of float32


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_transposed_convolution_has_the_matrix_of_its_output_channels(groups):
    layer = nn.ConvTranspose2d(4, 8, 3, groups=groups)
    (matrix,) = matrices_of("up", layer)
    assert matrix.shape == (8, 4 // groups * 9)
    per, width = 4 // groups, 8 // groups
    for out in range(8):
        group = out // width
        expected = layer.weight[group * per : (group + 1) * per, out % width].flatten()
        torch.testing.assert_close(matrix[out], expected.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("make", [weight_norm, parametrizations.weight_norm, spectral_norm])
def test_a_computed_weight_is_scored_as_the_forward_pass_uses_it(make):
    layer = make(nn.Linear(5, 4)).eval()
    layer(torch.rand(2, 5))  # spectral norm divides here
    (matrix,) = matrices_of("fc", layer)
    torch.testing.assert_close(matrix, layer.weight.detach(), rtol=0, atol=0)


def test_weights_of_zeros_are_never_first():
    zeros = nn.Linear(4, 4)
    nn.init.zeros_(zeros.weight)
    layers = {"zeros": zeros, "usual": nn.Linear(4, 4)}
    assert scored(layers, condition_score)[0] == 0 < scored(layers, condition_score)[1]
    assert scored(layers, spectral_score)[0] == 0
    assert (condition_number(torch.zeros(3, 3)), spectral_snr(torch.zeros(3, 3))) == (math.inf, 0.0)


def test_matrices_without_noise_rank_first_in_their_type():
    torch.manual_seed(0)
    orthogonal = nn.Linear(16, 16)
    with torch.no_grad():
        orthogonal.weight.copy_(torch.eye(16))
    assert scored({"a": nn.Linear(16, 16), "b": orthogonal}, spectral_score) == [0.0, 0.5]


@pytest.mark.parametrize("method", ["kappa", "spectrum"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda n: n.to("meta"), "the weights of Sequential are on the meta device, without values"),
        (lambda n: n[0].weight.data.fill_(math.inf), "'0' holds NaN or infinity: mend the checkpoint"),
        (lambda n: n[0].weight.data[0, 0].fill_(math.nan), "'0' holds NaN or infinity"),
        (
            lambda n: setattr(n[0], "weight", nn.Parameter(torch.zeros(6, 1, dtype=torch.uint8), requires_grad=False)),
            "'0' holds uint8 values, which are no weights before they are dequantised",
        ),
    ],
    ids=["meta", "infinity", "nan", "quantised"],
)
def test_weights_without_usable_values_are_refused_by_name(method, spoil, message):
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    spoil(network)
    with pytest.raises(ValueError, match=message):
        rank_layers(network, method=method)


def test_a_layer_that_is_offloaded_is_refused_by_name():
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    network[1].to("meta")
    with pytest.raises(ValueError, match="'1' is on the meta device: load its weights first"):
        scored(dict(network.named_children()), condition_score)


def test_tied_weights_have_equal_scores():
    network = nn.ModuleDict({"embed": nn.Embedding(6, 4), "head": nn.Linear(4, 6, bias=False)})
    network["head"].weight = network["embed"].weight
    found = rank_layers(network, method="kappa").scores().values
    assert found[0] == found[1] > 0


def test_methods_that_read_no_image_rank_without_any():
    network = blocks()
    rankings = rank_methods(network, None, ["kappa", "spectrum", "magnitude", "depth", "random", "uniform"])
    for name, importance in rankings.items():
        assert importance.dataset.sizes["layer"] == 13, name
        assert importance.dataset["sample"].values.tolist() == ["no image"]
        assert "no image" in repr(importance)
        assert importance.dataset.attrs["evaluations"] == 0


@pytest.mark.parametrize(
    ("method", "message"), [("mac", "'mac' reads them; kappa, .* need none"), ("cka", "`inputs` is None")]
)
def test_other_methods_need_images(method, message):
    with pytest.raises(ValueError, match=message):
        rank_layers(blocks(), method=method)
    with pytest.raises(ValueError, match="`inputs` holds no image"):
        rank_layers(blocks(), [], "kappa")


def test_the_network_stays_as_it_is():
    network = nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 4)), nn.Linear(4, 4)).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    rank_methods(network, None, ["kappa", "spectrum"])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
