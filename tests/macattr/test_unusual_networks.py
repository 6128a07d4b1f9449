"""Networks that are not written as most are: what they give is right, and what cannot be given is said."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

import macattr
from macattr.methods.catalogue import METHODS, register_method
from macattr.methods.kinds import JointMethod
from macattr.selection.controls import convolutions
from macattr.weights.files import copy_weights

line = partial(macattr.rank_layers, path="line", n_steps=4)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def by_name(importance):
    scores = importance.scores()
    return dict(zip(scores["layer"].values.tolist(), scores.values.tolist(), strict=True))


class Twice(nn.Module):
    """One layer runs twice."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 1)

    def forward(self, x):
        return self.b(self.a(torch.tanh(self.a(x))))


class Opposite(nn.Module):
    """One layer returns +1 and -1."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.a.weight)

    def forward(self, x):
        return self.a(x) * self.a(-x)


def test_products_are_formed_before_the_calls_of_a_layer_are_added_up():
    network, x = Twice().eval(), torch.rand(1, 3)
    calls = []
    hook = network.a.register_forward_hook(lambda _, __, out: calls.append(out))
    network(torch.zeros(1, 3))
    before = [call.detach() for call in calls]
    calls.clear()
    output = network(x).sum()
    gradients = torch.autograd.grad(output, calls)
    expected = abs(float(sum((g * (y.detach() - y0)).sum() for g, y, y0 in zip(gradients, calls, before, strict=True))))
    hook.remove()
    for how in ("sum", "each"):
        found = macattr.rank_layers(network, x, "attribution_patching", path="line", objective="sum", calls=how)
        assert by_name(found)["a"] == pytest.approx(expected, rel=1e-5)


def test_outputs_of_several_calls_do_not_cancel():
    found = macattr.rank_layers(Opposite().eval(), [torch.ones(1)], "activation")
    assert by_name(found) == {"a": 1.0}
    assert "every call has neurons of its own" in found.dataset.attrs["calls"]


@pytest.mark.parametrize("of", [macattr.LayerConductance, macattr.LayerIntegratedGradients])
def test_the_convergence_delta_belongs_to_samples_whatever_counts_of_the_calls(of):
    network, x = Twice().eval(), torch.rand(2, 3)
    deltas = [
        of(network, "a").attribute(x, method="trapezoid", return_convergence_delta=True, calls=calls)[1]
        for calls in ("sum", "each")
    ]
    torch.testing.assert_close(deltas[1], deltas[0], rtol=1e-4, atol=1e-6)
    alone = of(network, "a").attribute(x[1:], method="trapezoid", return_convergence_delta=True, calls="each")[1]
    torch.testing.assert_close(deltas[1][1:], alone, rtol=1e-4, atol=1e-6)


class SequenceFirst(nn.Module):
    """Tokens come first inside."""

    def __init__(self):
        super().__init__()
        self.inside, self.head = nn.Linear(3, 3), nn.Linear(3, 1)

    def forward(self, x):
        return self.head(self.inside(x.transpose(0, 1)).transpose(0, 1).sum(1))


@pytest.mark.filterwarnings("ignore:layer inside")
@pytest.mark.parametrize("of", [macattr.LayerConductance, macattr.LayerIntegratedGradients])
def test_the_convergence_delta_of_several_samples_needs_the_batch_first(of):
    delta = partial(of(SequenceFirst().eval(), "inside").attribute, method="trapezoid", return_convergence_delta=True)
    torch.testing.assert_close(delta(torch.rand(1, 4, 3))[1], torch.zeros(1), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"'inside' does not keep the batch first.*one sample at a time"):
        delta(torch.rand(2, 4, 3))


def test_an_unknown_choice_of_calls_is_refused_before_anything_runs(as_users_run_it):
    of = macattr.LayerConductance(Twice().eval(), "a")
    with pytest.raises(ValueError, match="`calls` must be one of sum, each, last, got 'frist'"):
        of.attribute(torch.rand(1, 3), calls="frist")


class Tokens(nn.Module):
    """Embeddings and one layer."""

    def __init__(self):
        super().__init__()
        self.embed, self.layer = nn.Embedding(5, 3), nn.Linear(3, 2, bias=False)

    def forward(self, ids):
        return self.layer(self.embed(ids)).sum(1)


def test_a_hook_of_the_users_on_the_layer_of_a_path_applies_once():
    network, ids = Tokens().eval(), torch.tensor([[1, 2, 3]])
    network.embed.register_forward_hook(lambda _, __, out: out * 3)
    found = macattr.LayerConductance(network, "layer").attribute(
        {"ids": ids}, at="embed", objective="sum", n_steps=4, method="trapezoid"
    )
    torch.testing.assert_close(found.sum(), network(ids).sum(), rtol=1e-5, atol=1e-6)


class Referred(nn.Sequential):
    """Has a reference input of its own."""

    reference_input = 0.7


def test_a_networks_own_reference_holds_inside_of_data_parallel():
    network = Referred(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1)).eval()
    image, wrapped = torch.rand(1, 3, 8, 8), nn.DataParallel(network)
    assert by_name(line(wrapped, image)) == by_name(line(network, image))
    of = [macattr.MaskAttributeConductance(some, "0").attribute(image, n_steps=4) for some in (network, wrapped)]
    assert torch.equal(*of)


class Padded(nn.Module):
    """torch's own encoder, whose fast path returns nested tensors where a mask says what is padding."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1)
        self.head = nn.Linear(8, 2)

    def forward(self, x, mask):
        return self.head(self.encoder(x, src_key_padding_mask=mask))


@pytest.mark.filterwarnings("ignore:left out 1 layers")
@pytest.mark.parametrize("method", ["conductance", "layer_ig", "cka", "activation"])
def test_an_encoder_with_a_padding_mask_is_ranked(method):
    sample = {"x": torch.rand(1, 5, 8), "mask": torch.tensor([[False] * 3 + [True] * 2])}
    options = {} if method in ("cka", "activation") else {"n_steps": 4, "objective": "sum"}
    options |= {} if method == "cka" else {"path": "line"} if method != "activation" else {}
    found = macattr.rank_layers(Padded().eval(), [sample] * 3, method, **options)
    assert "encoder.layers.0.linear1" in by_name(found)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr"])
def test_a_sparse_buffer_is_used_and_left_as_it_was(layout):
    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("adjacency", getattr(torch.eye(3) + 1, layout)())
            self.register_buffer("count", torch.zeros(1))
            self.layer = nn.Linear(3, 2)

        def forward(self, x):
            self.count.add_(1)
            return self.layer((self.adjacency @ x.T).T)

    network = Graph().eval()
    found = macattr.LayerConductance(network, "layer").attribute(torch.rand(1, 3), objective="sum")
    assert found.shape == (1, 2)
    assert network.count == 0
    assert by_name(macattr.rank_layers(network, None, "magnitude"))["layer"] > 0
    assert by_name(line(network, torch.rand(1, 3), "conductance", objective="sum"))["layer"] > 0


def test_a_cache_that_was_filled_in_inference_mode_and_an_attribute_without_values_do_no_harm():
    class Cached(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.cache, self.kept = nn.Linear(3, 3), {}, []
            self.shape_alone = torch.empty(3, device="meta")

        def forward(self, x):
            if "positions" not in self.cache:
                self.cache["positions"] = torch.arange(3.0)
                self.kept.append(torch.ones(3))
            return self.layer(x * self.cache["positions"] * self.kept[0])

    fresh, used = Cached().eval(), Cached().eval()
    used.load_state_dict(fresh.state_dict())
    x = torch.rand(1, 3)
    with torch.inference_mode():
        used(x)
    scores = [by_name(line(some, x, "conductance", objective="sum")) for some in (fresh, used)]
    assert scores[0] == scores[1]
    assert used.cache["positions"].is_inference()
    assert used.kept[0].is_inference()


def test_methods_without_a_path_score_layers_that_run_on_the_image_alone():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.b(self.a(x)) if x.abs().sum() > 0 else self.a(x)

    sample = {"image": torch.rand(3, 8, 8), "clean": torch.rand(3, 8, 8)}
    for method in ("fisher", "magnitude", "cosine"):
        assert set(by_name(macattr.rank_layers(Gated().eval(), [sample], method))) == {"a", "b"}


def test_labels_by_keyword_are_the_class_whose_score_is_attributed():
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, pixel_values, labels=None):
            return {"logits": self.layer(pixel_values)}

    network, pixels = Classifier().eval(), torch.rand(1, 3)
    rank = partial(line, network, method="conductance", objective="class")
    for label in range(4):
        by_keyword = rank([{"pixel_values": pixels, "labels": torch.tensor([label])}])
        assert by_name(by_keyword) == by_name(rank([{"pixel_values": pixels, "target": torch.tensor([label])}]))


class Two(nn.Module):
    """Takes two inputs, and a third if there is one."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, a, b, c=None):
        return self.layer(a + 2 * b) + (0 if c is None else c.sum())


class OwnLine:
    """A straight line of a user's own through two inputs."""

    interval, groups = (0.0, 1.0), 1

    def __init__(self, *inputs):
        self.ends = inputs

    def at(self, alpha):
        return tuple((alpha.reshape(-1, 1, 1).to(end) * end).flatten(0, 1) for end in self.ends)


def test_a_path_of_ones_own_through_two_inputs_passes_each_once():
    of, a, b = macattr.LayerConductance(Two().eval(), "layer"), torch.rand(1, 3), torch.rand(1, 3)
    options = {"objective": "sum", "method": "trapezoid", "n_steps": 4}
    torch.testing.assert_close(of.attribute((a, b), path=OwnLine(a, b), **options), of.attribute((a, b), **options))


def test_the_input_of_a_layer_may_come_by_keyword():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x):
            return self.layer(input=x)

    network, x = Named().eval(), torch.rand(1, 3)
    of = partial(macattr.LayerConductance(network, "layer").attribute, objective="sum", attribute_to_layer_input=True)
    found = of(x)
    network.forward = lambda x: network.layer(x)
    torch.testing.assert_close(found, of(x))


def test_no_further_arguments_are_none():
    network, x = nn.Sequential(nn.Linear(3, 2)).eval(), torch.rand(1, 3)
    rank = partial(line, network, x, "conductance", objective="sum")
    assert by_name(rank(additional_forward_args=None)) == by_name(rank())


def test_a_token_and_baselines_exclude_each_other():
    network, ids = Tokens().eval(), {"ids": torch.tensor([[1, 2, 3]])}
    path = macattr.TokenMaskPath(0.5, token=0)
    with pytest.raises(ValueError, match=r"`baselines` has no effect when `path` names a token"):
        macattr.LayerConductance(network, "layer").attribute(ids, at="embed", path=path, baselines=9.0)
    with pytest.raises(ValueError, match=r"`baselines` = 9.0 has no effect"):
        macattr.rank_layers(network, [ids], "conductance", at="embed", path=path, baselines=9.0, objective="sum")


def test_averaged_weights_without_running_statistics_are_refused(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    other = copy.deepcopy(network)
    torch.save({"params_ema": dict(other.named_parameters())}, tmp_path / "ema.pth")
    with pytest.raises(ValueError, match=r"missing: 2 entries .1.running_mean, 1.running_var"):
        copy_weights(network, tmp_path / "ema.pth")


class Tied(nn.Module):
    """The first and the last layer share a weight."""

    def __init__(self):
        super().__init__()
        self.first, self.middle, self.last = (nn.Linear(3, 3, bias=False) for _ in range(3))
        self.last.weight = self.first.weight

    def forward(self, x):
        return self.last(torch.tanh(self.middle(self.first(x))))


PAIRS = [{"image": torch.rand(3), "target": torch.rand(3)} for _ in range(2)]


def test_a_shared_weight_counts_for_each_of_its_layers():
    network = Tied().eval()
    for options in ({"method": "lca"}, {"method": "fisher"}, {"method": "faig", "start_weights": {}}):
        if "start_weights" in options:
            options["start_weights"] = {name: 0 * value for name, value in network.state_dict().items()}
        both = by_name(macattr.rank_layers(network, PAIRS, layers=["first", "middle", "last"], **options))
        assert both["first"] == both["last"] > 0
        alone = by_name(macattr.rank_layers(network, PAIRS, layers=["last"], **options))
        assert alone["last"] == pytest.approx(both["last"])


class Spectral(nn.Module):
    """Has complex weights and returns real values."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3, dtype=torch.complex64))

    def forward(self, x):
        return (x.to(self.weight.dtype) @ self.weight).abs()


@pytest.mark.filterwarnings("ignore:Casting complex")
def test_complex_weights_are_no_quantised_ones():
    network = nn.Sequential(nn.Linear(3, 3), Spectral()).eval()
    for method in ("fisher", "lca"):
        with pytest.raises(ValueError, match="holds complex weights"):
            macattr.rank_layers(network, PAIRS, method)
    assert by_name(line(network, PAIRS, "conductance", objective="sum"))["1"] > 0


def test_layers_of_a_wrapped_network_are_found_by_their_kernels():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3))
    assert convolutions(nn.DataParallel(network)).layers == convolutions(network).layers


def test_what_is_frozen_by_hand_after_a_mask_was_taken_back_is_a_constant():
    network = nn.Sequential(*(nn.Linear(3, 3) for _ in range(3)))
    outer = macattr.TrainableMask(("0",)).apply(network)
    inner = macattr.TrainableMask(("1",)).apply(network)
    inner.restore()
    assert list(by_name(macattr.rank_layers(network, None, "magnitude"))) == ["0", "1", "2"]
    outer.restore()
    network[:2].requires_grad_(False)
    with pytest.warns(UserWarning, match="left out 2 layers"):
        found = macattr.rank_layers(network, None, "magnitude")
    assert list(by_name(found)) == ["2"]


class Root(nn.Module):
    """Has no gradient where its first layer returns 0."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3, bias=False), nn.Linear(3, 3)

    def forward(self, x):
        return self.b(self.a(x).square().sum(-1, keepdim=True).sqrt().expand(-1, 3))


def test_a_score_that_is_no_number_is_refused_with_image_and_layer():
    samples = [
        {"image": x, "target": torch.ones(3), "name": str(n)} for n, x in enumerate((torch.rand(3), torch.zeros(3)))
    ]
    with pytest.raises(macattr.RankingInterrupted, match=r"'fisher' gives the layer 'a' the score nan.*'1'"):
        macattr.rank_layers(Root().eval(), samples, "fisher")
    with pytest.raises(ValueError, match="'snr' gives the layer 'a' the score nan"):
        macattr.rank_layers(Root().eval(), samples, "snr")


def test_similarity_of_outputs_that_are_no_numbers_is_none():
    images = [torch.rand(3), torch.rand(3), torch.full((3,), torch.nan)]
    with pytest.raises(ValueError, match="'cka' gives the layer 'a' the score nan"):
        macattr.rank_layers(Root().eval(), images, "cka")


def test_a_method_of_ones_own_must_score_every_layer():
    short = JointMethod("short", "one score", "ours", lambda task, samples: [1.0], needs_images=False)
    register_method(short)
    try:
        with pytest.raises(ValueError, match="'short' gives 1 scores for 2 layers"):
            macattr.rank_layers(Root().eval(), None, "short")
    finally:
        del METHODS["short"]
