"""Methods without a path, on networks that write, cache, checkpoint or ask for more than an image."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import macattr

LOSSES = ("fisher", "rgn", "taylor", "adam_gain", "lca", "faig")
"""Methods that read gradients of the weights."""


def conv(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def pairs(count=2, side=8):
    torch.manual_seed(1)
    return [{"image": torch.rand(3, side, side), "clean": torch.rand(3, side, side)} for _ in range(count)]


def scores(network, inputs, method, **options):
    if method in ("mac", "conductance", "layer_ig", "faig"):
        options = {"n_steps": 4} | options
    if method == "faig":
        options["start_weights"] = {name: value.detach() / 2 for name, value in network.named_parameters()}
    found = macattr.rank_layers(network, inputs, method=method, **options).scores().values
    return torch.as_tensor(found, device="cpu")


class Writes(nn.Module):
    """Subtracts a mean from its input, in place or not."""

    def __init__(self, kind, in_place):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = (conv(3, 4), conv(4, 3)) if kind == "convolutions" else (nn.Linear(8, 8), nn.Linear(8, 8))
        self.in_place = in_place

    def forward(self, x, shift=None):
        for value in (x, shift):
            if self.in_place and value is not None:
                value -= 0.5
        if not self.in_place:
            x, shift = x - 0.5, None if shift is None else shift - 0.5
        return self.b(torch.tanh(self.a(x if shift is None else x + shift)))


@pytest.mark.filterwarnings("ignore:.* is read as one image")
@pytest.mark.parametrize("kind", ["convolutions", "linear"])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        *((method, {}) for method in (*LOSSES, "mac", "cka", "activation", "kernel")),
        ("conductance", {"at": "a", "n_steps": 4}),
        ("mac", {"objective": "similarity"}),
    ],
    ids=str,
)
def test_a_network_that_writes_into_its_input_has_the_scores_of_one_that_does_not(kind, method, options):
    inputs = pairs(4)
    before = copy.deepcopy(inputs)
    if "at" in options:
        options = options | {"layers": "b"}
    expected = scores(Writes(kind, in_place=False).eval(), before, method, **options)
    torch.testing.assert_close(scores(Writes(kind, in_place=True).eval(), inputs, method, **options), expected)
    for mine, theirs in zip(inputs, before, strict=True):
        assert torch.equal(mine["image"], theirs["image"])
    assert expected.abs().max() > 0


@pytest.mark.parametrize("method", ["fisher", "mac", "cka"])
def test_further_arguments_may_be_written_into(method):
    inputs = [{**pair, "forward_args": (torch.rand(1, 3, 8, 8),)} for pair in pairs(4)]
    before = copy.deepcopy(inputs)
    expected = scores(Writes("convolutions", in_place=False).eval(), before, method)
    torch.testing.assert_close(scores(Writes("convolutions", in_place=True).eval(), inputs, method), expected)
    assert torch.equal(inputs[0]["forward_args"][0], before[0]["forward_args"][0])


class Block(nn.Module):
    """A residual block with a layer that does not see the input."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.bias = conv(4, 4), conv(4, 4), nn.Linear(2, 4)

    def forward(self, x):
        gate = torch.sigmoid(self.bias(x.new_ones(1, 2)))[:, :, None, None]
        return x + gate * self.b(torch.relu(self.a(x)))


class Checkpointed(nn.Module):
    """A block that runs as it is, or twice."""

    def __init__(self, reentrant=None):
        super().__init__()
        torch.manual_seed(0)
        self.head, self.block, self.tail = conv(3, 4), Block(), conv(4, 3)
        self.run = None if reentrant is None else partial(checkpoint, use_reentrant=reentrant)

    def forward(self, x):
        x = self.head(x)
        return self.tail(self.block(x) if self.run is None else self.run(self.block, x))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize(
    ("method", "options"),
    [*((method, {}) for method in (*LOSSES, "mac", "layer_ig")), ("conductance", {"at": "block.a", "layers": "tail"})],
    ids=str,
)
def test_checkpointed_blocks_have_the_scores_of_plain_ones(method, options, reentrant):
    expected = scores(Checkpointed().eval(), pairs(), method, **options)
    torch.testing.assert_close(scores(Checkpointed(reentrant).eval(), pairs(), method, **options), expected)


def test_checkpoints_run_twice_again_after_a_ranking():
    runs = 0

    class Counting(nn.Module):
        def forward(self, x):
            nonlocal runs
            runs += 1
            return x.square()

    block = Counting()
    scores(Checkpointed(False).eval(), pairs(), "fisher")
    for reentrant in (True, False):
        runs = 0
        checkpoint(block, torch.rand(2, requires_grad=True), use_reentrant=reentrant).sum().backward()
        assert runs == 2


class Caches(nn.Module):
    """Keeps what it makes of a parameter from call to call."""

    def __init__(self, keeps):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.keeps, self.cache = conv(3, 4), conv(4, 3), keeps, {}
        self.bias = nn.Parameter(torch.randn(8))

    def forward(self, x):
        if not self.keeps:
            return self.b(self.a(x) * self.bias[torch.arange(8)])
        if "bias" not in self.cache:
            self.cache["bias"] = self.bias[torch.arange(8)]
        return self.b(self.a(x) * self.cache["bias"])


@pytest.mark.parametrize("method", ["fisher", "lca", "faig", "adam_gain_warm"])
def test_a_cache_of_what_the_network_made_of_its_weights_does_not_outlive_a_call(method):
    network = Caches(keeps=True).eval()
    expected = scores(Caches(keeps=False).eval(), pairs(), method)
    torch.testing.assert_close(scores(network, pairs(), method), expected)
    assert network.cache == {}


@pytest.mark.parametrize("method", [*LOSSES, "mac"])
def test_data_parallel_networks_have_the_scores_of_the_network_inside(method):
    network = Caches(keeps=False).eval()
    expected = scores(network, pairs(), method)
    torch.testing.assert_close(scores(nn.DataParallel(network), pairs(), method), expected)


@pytest.mark.parametrize("method", ["fisher", "lca"])
def test_sparse_gradients_of_an_embedding_count_as_they_are(method):
    class Text(nn.Module):
        def __init__(self, sparse):
            super().__init__()
            torch.manual_seed(0)
            self.table, self.head = nn.Embedding(20, 4, sparse=sparse), nn.Linear(4, 5)

        def forward(self, tokens):
            return self.head(self.table(tokens).mean(1))

    inputs = [{"tokens": torch.tensor([[3, 1, 4, 1, 5]]), "target": torch.tensor([2])}]
    torch.testing.assert_close(scores(Text(True).eval(), inputs, method), scores(Text(False).eval(), inputs, method))


class Conditioned(nn.Module):
    """Takes a noise level by position, and a vector inside of a keyword argument."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.embed, self.b = conv(3, 8), nn.Linear(6, 8), conv(8, 3)

    def forward(self, x, sigma=None, extra=None):
        x = self.a(x)
        if sigma is not None:
            x = x * sigma[:, None, None, None]
        if extra is not None:
            x = x + self.embed(extra["text"]["embeds"])[:, :, None, None]
        return self.b(torch.tanh(x))


@pytest.mark.parametrize("method", ["fisher", "conductance", "cka"])
@pytest.mark.parametrize("kind", ["forward_args", "nested"])
def test_a_batch_with_a_value_for_each_sample_is_those_samples(kind, method):
    torch.manual_seed(2)
    images, sigma, text = torch.rand(3, 3, 8, 8), torch.tensor([0.5, 1.0, 2.0]), 3 * torch.randn(3, 6)

    def rows(some):
        if kind == "forward_args":
            return {"image": images[some], "forward_args": [sigma[some]]}
        return {"x": images[some], "extra": {"text": {"embeds": text[some]}}}

    def loss(output):
        return output.square().mean()

    network = Conditioned().eval()
    layers = {"layers": ["a", "b"]} if kind == "forward_args" else {}
    options = layers | ({"loss": loss} if method == "fisher" else {})
    expected = scores(network, [rows(slice(number, number + 1)) for number in range(3)], method, **options)
    torch.testing.assert_close(scores(network, rows(slice(None)), method, **options), expected)


def test_nested_numbers_take_the_type_of_the_network():
    network = Conditioned().eval().double()
    item = {"x": torch.rand(1, 3, 8, 8), "extra": {"text": {"embeds": torch.rand(1, 6)}}}
    assert scores(network, [item], "conductance").isfinite().all()


@pytest.mark.parametrize("method", ["mac", "conductance", "layer_ig", "magnitude", "fisher", "kernel", "cka", "random"])
def test_the_default_device_does_not_matter(method):
    """As after ``torch.set_default_device("cuda")``, with a network that stayed where it was."""
    network, inputs = Checkpointed().eval(), pairs(4)
    expected = scores(network, inputs, method)
    torch.set_default_device("meta")
    try:
        found = scores(network, inputs, method)
    finally:
        torch.set_default_device(None)
    torch.testing.assert_close(found, expected)


class Scale(nn.Module):
    """Scales a tensor in place."""

    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.tensor([[[0.5]], [[2.0]], [[1.5]], [[-1.0]]]))

    def forward(self, x):
        return x.mul_(self.gamma)


class Statement(nn.Module):
    """Calls a layer that works in place without taking what it returns, and writes over its output afterwards."""

    def __init__(self, in_place):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.scale, self.b, self.in_place = conv(3, 4), Scale(), conv(4, 3), in_place

    def forward(self, x):
        y = self.a(x)
        if self.in_place:
            self.scale(y)
            y.add_(1)
        else:
            y = self.scale(y.clone()) + 1
        return self.b(torch.tanh(y))


def test_layers_in_place_that_are_called_as_statements_have_the_scores_of_plain_ones():
    expected, found = (
        scores(Statement(in_place).eval(), pairs(), "conductance", layers=["scale", "b"]) for in_place in (False, True)
    )
    torch.testing.assert_close(found, expected)


class Gated(nn.Module):
    """Runs its last layer on bright images alone."""

    def __init__(self):
        super().__init__()
        self.a, self.b = conv(3, 3), conv(3, 3)

    def forward(self, x):
        return self.b(self.a(x)) if float(x.detach().mean()) > 0.1 else self.a(x)


def test_a_layer_that_runs_at_one_end_of_a_line_alone_is_named():
    with pytest.raises(ValueError, match=r"layer b returns nothing at the start of the path and .* at its end: which"):
        macattr.LayerIntegratedGradients(Gated().eval(), "b").attribute(torch.rand(1, 3, 8, 8), objective="sum")


def test_layers_without_parameters_are_in_no_top():
    network = nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 3)).eval()
    found = macattr.rank_layers(network, pairs(4), layers=["0", "1", "2"], n_steps=4)
    assert sorted(found.probability_in_top(0.67).index) == ["0", "2"]
    assert len(found.top(0.67).layers) == found.probability_in_top(0.67).sum().round() == 1


@pytest.mark.parametrize("method", ["fisher", "taylor"])
def test_a_cache_that_was_filled_before_the_call_is_said(method):
    network = nn.Sequential(Caches(keeps=True)).eval()
    assert not macattr.rank_layers(network, pairs(), method).doubts
    network(pairs()[0]["image"][None])
    (words,) = macattr.rank_layers(network, pairs(), method).doubts
    assert "1 layer with parameters scores 0 on every image, such as '0'" in words
    assert "`model.train()` and then `model.eval()`" in words


@pytest.mark.parametrize("method", ["fisher", "rgn"])
def test_small_gradients_in_half_precision_are_not_squared_away(method):
    network = nn.Sequential(conv(3, 3)).eval()

    def loss(output, item):
        return 1e-3 * output.mean()

    wide = scores(network, pairs(), method, loss=loss)
    half = [{name: image.half() for name, image in pair.items()} for pair in pairs()]
    torch.testing.assert_close(scores(network.half(), half, method, loss=loss), wide, rtol=0.2, atol=0)
