"""Our attribution classes against Captum's, on Captum's own test models and arguments."""

import captum.attr
import pytest
import torch
from captum.testing.attr.helpers.test_config import config

import macattr
from macattr.layers.resolve import resolve_layers
from macattr.paths.inputs import LinearPath
from macattr.paths.objectives import GradientMagnitude
from macattr.paths.partitions import captum_nodes
from macattr.paths.sums import StieltjesSum
from macattr.sweep.trace import trace
from ram_models.networks.swinir import SwinIR

pytestmark = [
    pytest.mark.filterwarnings("ignore:Internal batch size cannot be less:UserWarning"),
    pytest.mark.filterwarnings("ignore:This method computes finite differences:UserWarning"),
    pytest.mark.filterwarnings("ignore:Multiple layers provided:UserWarning"),
]

METHODS = ["gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid"]
ALONG_A_PATH = ["LayerConductance", "LayerIntegratedGradients", "InternalInfluence"]


def cases():
    """Every entry of Captum's configuration for our classes, with every method, at outputs and inputs of layers."""
    for entry in config:
        for algorithm in entry["algorithms"]:
            name = algorithm.__name__
            methods = METHODS if name in ALONG_A_PATH else [None] if name == "LayerGradientXActivation" else []
            for method in methods:
                for at_input in (False, True):
                    where = "input" if at_input else "output"
                    label = "-".join(filter(None, [entry["name"], name, method, where]))
                    yield pytest.param(entry, algorithm, method, at_input, id=label)


def layer_of(entry):
    names, model = entry["layer"], entry["model"]
    return [model.get_submodule(n) for n in names] if isinstance(names, list) else model.get_submodule(names)


def flatten(attributions):
    return [attributions] if isinstance(attributions, torch.Tensor) else [t for a in attributions for t in flatten(a)]


@pytest.mark.parametrize(("entry", "algorithm", "method", "at_input"), cases())
def test_attributions_equal_those_of_captum(entry, algorithm, method, at_input):
    options = entry["attribute_args"] | {"attribute_to_layer_input": at_input}
    options |= {"method": method, "n_steps": 10} if method else {}
    ours = getattr(macattr, algorithm.__name__)(entry["model"], layer_of(entry)).attribute(**options)
    theirs_of = algorithm(entry["model"], layer_of(entry))
    if entry["name"] == "basic_layer_in_place" and algorithm.__name__ == "LayerIntegratedGradients" and at_input:
        with pytest.raises(RuntimeError, match="a leaf Variable that requires grad is being used in an in-place"):
            theirs_of.attribute(**options)
        return
    theirs = theirs_of.attribute(**options)
    assert type(ours) is type(theirs)
    ours, theirs = ([tensor.detach() for tensor in flatten(attributions)] for attributions in (ours, theirs))
    # Both in float32: rounding of ten terms, relative to the largest attribution.
    scale = max(1.0, *(float(tensor.abs().max()) for tensor in theirs))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * scale)


def test_every_class_of_ours_is_compared():
    compared = {algorithm.__name__ for _, algorithm, *_ in (case.values for case in cases())}
    assert compared == {*ALONG_A_PATH, "LayerGradientXActivation"}


@pytest.mark.parametrize("method", METHODS)
def test_convergence_delta_equals_that_of_captum(method):
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    options = {"target": 1, "method": method, "n_steps": 9, "return_convergence_delta": True}
    inputs = torch.rand(5, 3)
    _, ours = macattr.LayerConductance(net, net[0]).attribute(inputs, **options)
    _, theirs = captum.attr.LayerConductance(net, net[0]).attribute(inputs, **options)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


BLOCKS = "layers.0.residual_group.blocks"


@pytest.mark.parametrize("layer", [f"{BLOCKS}.{b}.attn{part}" for b in (0, 1) for part in ("", ".qkv", ".proj")])
def test_layer_conductance_runs_on_attention_windows_where_captum_raises(layer, by_definition):
    net = SwinIR(img_size=16, embed_dim=8, depths=(2,), num_heads=(2,)).eval()
    module, objective, inputs = net.get_submodule(layer), GradientMagnitude(), torch.rand(2, 3, 16, 16)
    with pytest.raises(RuntimeError, match="is invalid for input of size"):
        captum.attr.LayerConductance(lambda x: objective(net(x)), module).attribute(inputs, n_steps=4)
    got = macattr.LayerConductance(net, layer).attribute(inputs, n_steps=4, objective=objective)
    path = LinearPath((inputs,), (torch.zeros_like(inputs),))
    want = by_definition(net, module, path, captum_nodes((0.0, 1.0), 5, "gausslegendre"), objective)
    # float32, four increments; relative to the largest neuron.
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * float(want.abs().max()))


def test_layer_conductance_runs_on_all_263_layers_of_the_full_network():
    torch.manual_seed(0)
    net = SwinIR().eval()
    layers = list(resolve_layers(net))
    got = macattr.LayerConductance(net, layers).attribute(
        torch.rand(1, 3, 8, 8), n_steps=1, method="trapezoid", objective=GradientMagnitude()
    )
    assert len(got) == 263
    assert all(bool(values.isfinite().all()) and bool(values.abs().sum() > 0) for values in got)


def test_a_reused_module_counts_with_all_its_calls_where_captum_takes_the_last(by_definition):
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(self.layer(x).tanh()).sum(1)

    net, inputs = Twice().double(), torch.rand(2, 3, dtype=torch.float64)
    nodes = captum_nodes((0.0, 1.0), 11, "gausslegendre")
    layer_sum = StieltjesSum("left")
    path = LinearPath((inputs,), (torch.zeros_like(inputs),))
    result = trace(net, {"layer": net.layer}, path, nodes, lambda output: output, [layer_sum])
    first, last = (layer_sum.value(site) for site in result.survey.aliases)
    theirs = captum.attr.LayerConductance(net, net.layer).attribute(inputs, n_steps=10)
    torch.testing.assert_close(theirs, last, rtol=0, atol=1e-12)
    ours = macattr.LayerConductance(net, net.layer).attribute(inputs, n_steps=10)
    torch.testing.assert_close(ours, first + last, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        ours, by_definition(net, net.layer, path, nodes, lambda output: output), rtol=0, atol=1e-12
    )
