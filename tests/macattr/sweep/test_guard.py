"""The guard: threads, functions that hide networks, inference mode; and models that are no function of their inputs."""

import functools
import random
import threading

import numpy as np
import pytest
import torch
from torch import nn

from macattr import LayerConductance, MaskAttributeConductance
from macattr.paths.objectives import OutputSum
from macattr.ranking.rank import rank_layers
from macattr.sweep.guard import modules_of, undisturbed


def convolutions():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 1)).eval()


class Behind(nn.Module):
    """Something that happens behind the last layer."""

    def __init__(self, act):
        super().__init__()
        self.layer, self.act = nn.Conv2d(3, 3, 1), act

    def forward(self, x):
        return self.act(self.layer(x))


@pytest.fixture
def images():
    return torch.rand(1, 3, 6, 6)


def count_up(state={"calls": 0}):  # noqa: B006
    state["calls"] += 1
    return state["calls"]


NO_FUNCTIONS = {
    "divided_by_the_largest": lambda y: y / y.abs().amax(),
    "divided_by_the_mean": lambda y: y / y.abs().mean(),
    "normalised_over_rows": lambda y: (y - y.mean(0)) / (1 + y.std(0, unbiased=False)),
    "cumulative_over_rows": lambda y: y.cumsum(0),
    "numpy_noise": lambda y: y + float(np.random.default_rng().normal()),
    "counter_outside": lambda y: y * count_up(),
    "own_generator": functools.partial(
        lambda y, generator: y + torch.rand(y.shape, generator=generator), generator=torch.Generator().manual_seed(0)
    ),
}


@pytest.mark.parametrize("rows", [4, 7])
@pytest.mark.parametrize("kind", NO_FUNCTIONS)
def test_a_model_that_is_no_function_of_its_input_is_refused(images, kind, rows):
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"the model (mixes the batch|is not a function of its inputs): "):
        rank_layers(Behind(NO_FUNCTIONS[kind]).eval(), images, n_steps=6, internal_batch_size=rows)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rows", [4, 7])
def test_mixing_by_the_largest_value_is_seen_wherever_that_value_is(seed, rows):
    torch.manual_seed(seed)
    net, image = Behind(lambda y: y / y.abs().amax()).eval(), torch.rand(1, 3, 6, 6)
    with pytest.raises(ValueError, match=r"mixes the batch.*pass `internal_batch_size=1`"):
        rank_layers(net, image, n_steps=6, internal_batch_size=rows)
    assert rank_layers(net, image, n_steps=6, internal_batch_size=1).values.shape == (1, 1, 1)


def test_samples_that_mix_are_refused_one_node_at_a_time_too():
    torch.manual_seed(0)
    net = Behind(lambda y: y - y.mean(0)).eval()
    with pytest.raises(ValueError, match=r"mixes the batch.*pass one sample at a time"):
        MaskAttributeConductance(net, "layer").attribute(torch.rand(3, 3, 6, 6), n_steps=4, internal_batch_size=1)


DRAWS = {
    "torch": (lambda: torch.get_rng_state().tolist(), lambda: torch.rand(1)),
    "numpy": (lambda: np.random.get_state()[1].tolist(), np.random.rand),
    "python": (random.getstate, random.random),
}


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.usefixtures("as_users_run_it")
def test_generators_go_on_as_if_nothing_had_been_drawn(kind):
    (state, draw), network = DRAWS[kind], convolutions()
    before = state()
    with undisturbed(network):
        draw()
    assert state() == before


def test_threads_wait_for_each_other(images):
    net = convolutions()
    want = rank_layers(net, images, n_steps=6).values
    results = []

    def work():
        results.append(rank_layers(net, images, n_steps=6).values)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for values in results:
        np.testing.assert_array_equal(values, want)
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_a_model_made_in_inference_mode_is_attributed_and_keeps_its_tensors(images):
    with torch.inference_mode():
        net = convolutions()
    before = list(net.parameters())
    got = MaskAttributeConductance(net, "0").attribute(images, n_steps=4)
    torch.testing.assert_close(got, MaskAttributeConductance(convolutions(), "0").attribute(images, n_steps=4))
    assert all(now is then and now.requires_grad for now, then in zip(net.parameters(), before, strict=True))


@pytest.mark.parametrize(
    "wrap",
    [lambda net: lambda x: net(x), lambda net: net.forward, lambda net: functools.partial(lambda f, x: f(x), net)],
    ids=["closure", "method", "partial"],
)
def test_networks_inside_functions_are_guarded(wrap):
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).train()
    assert set(map(id, modules_of(wrap(net)).values())) == set(map(id, net.modules()))
    with pytest.raises(ValueError, match=r"BatchNorm1d '1' mixes the batch: call `model.eval\(\)`"):
        LayerConductance(wrap(net), net[0]).attribute(torch.rand(2, 3), objective=OutputSum())
    assert torch.equal(net[1].running_mean, torch.zeros(3))


def test_models_on_the_meta_device_are_refused(images):
    net = convolutions().to("meta")
    with pytest.raises(ValueError, match="is on the meta device, without values: load weights"):
        MaskAttributeConductance(net, "0").attribute(images, n_steps=2)


def test_native_writes_are_undone():
    net = nn.BatchNorm1d(3)
    before = net.running_mean.clone()
    with undisturbed(net.eval()):
        net.train()(torch.rand(4, 3))  # the kernel writes to running_mean without counting
    torch.testing.assert_close(net.running_mean, before, rtol=0, atol=0)
    assert not net.training


class Nothing(torch.autograd.Function):
    """A step without a derivative whose backward function returns None."""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, gradient):
        return None


def test_a_backward_function_that_returns_none_is_a_gradient_of_zero(images):
    net = Behind(lambda y: Nothing.apply(y) + 0 * y[:, :1]).eval()
    got = MaskAttributeConductance(net, "layer").attribute(images, n_steps=4, objective=OutputSum())
    assert got.abs().max() == 0


def test_complex_outputs_need_an_objective_of_real_numbers(images):
    net = Behind(torch.fft.fft2).eval()
    with pytest.raises(ValueError, match="the objective must return real numbers, got complex ones"):
        MaskAttributeConductance(net, "layer").attribute(
            images, n_steps=4, objective=lambda output: output.sum((1, 2, 3))
        )
    got = MaskAttributeConductance(net, "layer").attribute(
        images, n_steps=4, objective=lambda output: output.abs().sum((1, 2, 3))
    )
    assert got.isfinite().all()


def test_hidden_layers_are_refused_with_the_reason(images):
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return nn.functional.conv2d(x, self.conv.weight)

    with pytest.raises(ValueError, match=r"layer 'conv' never ran, .* Functional use of weights"):
        rank_layers(Functional().eval(), images, n_steps=2)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here")
def test_recurrent_layers_on_a_gpu_have_gradients_in_eval_mode():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 1)

        def forward(self, x):
            return self.head(self.lstm(x)[0][:, -1])

    torch.manual_seed(0)
    net, x, before = Recurrent().eval(), torch.rand(2, 5, 3), torch.backends.cudnn.enabled
    found, expected = (
        LayerConductance(net.to(device), "head").attribute(x.to(device), n_steps=4).cpu() for device in ("cuda", "cpu")
    )
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    assert torch.backends.cudnn.enabled == before


def test_settings_of_the_process_are_back_when_the_last_guard_ends():
    """Two threads are inside at once, and the first one in is the first one out."""
    torch.compile(nn.Linear(1, 1), backend="eager")(torch.rand(1, 1))  # torch's compiler is imported
    before, inside, out = torch._dynamo.eval_frame._stance.stance, threading.Event(), threading.Event()

    def second():
        with undisturbed(nn.Linear(2, 2)):
            inside.set()
            out.wait(10)

    thread = threading.Thread(target=second)
    with undisturbed(nn.Linear(1, 1)):
        thread.start()
        assert inside.wait(10)
    assert torch._dynamo.eval_frame._stance.stance == "force_eager"  # the second is still inside
    out.set()
    thread.join()
    assert torch._dynamo.eval_frame._stance.stance == before
