"""What the classes promise: formats, defaults, refusals. tests/laws and tests/reference have the numbers."""

import numpy as np
import pytest
import torch
from captum.attr import LayerAttribution, NoiseTunnel
from torch import nn

import macattr
from macattr import (
    InternalInfluence,
    LayerConductance,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    MaskAttributeConductance,
)
from macattr.attribution.arguments import OF_SAMPLES
from macattr.methods.objectives import OBJECTIVES
from macattr.paths.inputs import LinearPath, MaskAttributePath, random_order
from macattr.paths.objectives import PLAIN_OBJECTIVES, GradientMagnitude, OutputSum
from macattr.paths.presets import OFFICIAL, PAPER, RANKING
from ram_models.networks.swinir import SwinIR

ALONG_A_PATH = [LayerConductance, InternalInfluence, LayerIntegratedGradients]
ROUNDING = {"rtol": 1e-10, "atol": 1e-12}
"""float64 sums of at most 50 terms of order one."""


class Pair(nn.Module):
    def forward(self, x):
        return x, 2 * x


class TwoOutputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.pair, self.last = Pair(), nn.Conv2d(1, 1, 1)

    def forward(self, x):
        a, b = self.pair(x)
        return self.last(a * b)


@pytest.fixture
def options(images):
    return {"order": random_order(48, 1), "n_steps": 8}


# Formats.


@pytest.mark.parametrize("layer", ["0", "module"])
def test_one_layer_gives_a_tensor_in_the_shape_of_its_output(smooth_net, images, layer):
    attribution = MaskAttributeConductance(smooth_net, smooth_net[0] if layer == "module" else layer)
    assert attribution.attribute(images, n_steps=2).shape == (2, 3, 6, 8)


def test_a_list_of_layers_gives_a_list_equal_to_one_layer_at_a_time(smooth_net, images, options):
    together = MaskAttributeConductance(smooth_net, ["4", smooth_net[0]]).attribute(images, **options)
    alone = [MaskAttributeConductance(smooth_net, name).attribute(images, **options) for name in ("4", "0")]
    assert isinstance(together, list)
    torch.testing.assert_close(together, alone, **ROUNDING)


def test_a_list_of_one_layer_gives_a_list(smooth_net, images):
    assert isinstance(MaskAttributeConductance(smooth_net, ["0"]).attribute(images, n_steps=2), list)


def test_a_layer_with_two_outputs_gives_a_tuple(images):
    got = MaskAttributeConductance(TwoOutputs().double(), "pair").attribute(images, n_steps=2)
    assert isinstance(got, tuple)
    assert len(got) == 2


def test_modules_of_a_function_need_no_names(smooth_net, images, options):
    got = MaskAttributeConductance(lambda x: smooth_net(x), [smooth_net[0], smooth_net[4]]).attribute(images, **options)
    want = MaskAttributeConductance(smooth_net, ["0", "4"]).attribute(images, **options)
    torch.testing.assert_close(got, want, **ROUNDING)


@pytest.mark.parametrize("name", [cls.__name__ for cls in (MaskAttributeConductance, *ALONG_A_PATH)])
def test_classes_are_captum_attributions(name):
    assert issubclass(getattr(macattr, name), LayerAttribution)


def test_the_layer_is_known_as_in_captum(smooth_net):
    assert MaskAttributeConductance(smooth_net, "2").layer is smooth_net[2]
    assert MaskAttributeConductance(smooth_net, ["2", "0"]).layer == [smooth_net[2], smooth_net[0]]


# Defaults and options.


def test_mac_is_the_conductance_along_the_mask_path(smooth_net, images, options):
    path = MaskAttributePath(images, options["order"], torch.zeros_like(images), groups=2)
    want = LayerConductance(smooth_net, "0").attribute(
        images, path=path, n_steps=8, method="trapezoid", objective=GradientMagnitude()
    )
    got = MaskAttributeConductance(smooth_net, "0").attribute(images, **options, groups=2)
    torch.testing.assert_close(got, want, **ROUNDING)


def test_the_default_objective_is_gradient_magnitude(smooth_net, images, options):
    attribution = MaskAttributeConductance(smooth_net, "0")
    got, want = (
        attribution.attribute(images, **options, objective=objective) for objective in (None, GradientMagnitude())
    )
    torch.testing.assert_close(got, want, **ROUNDING)


def test_a_target_is_an_objective(images):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(48, 3)).double()
    attribution = MaskAttributeConductance(net, "0")
    got = attribution.attribute(images, target=1, n_steps=4)
    want = attribution.attribute(images, objective=lambda output: output[:, 1], n_steps=4)
    torch.testing.assert_close(got, want, **ROUNDING)


def test_the_reference_is_zero_unless_the_model_has_one(smooth_net, images, options):
    attribution = MaskAttributeConductance(smooth_net, "0")
    black, grey = (attribution.attribute(images, baselines, **options) for baselines in (0.0, 0.4))
    torch.testing.assert_close(attribution.attribute(images, **options), black, **ROUNDING)
    smooth_net.reference_input = torch.tensor(0.4, dtype=torch.float64)
    torch.testing.assert_close(attribution.attribute(images, **options), grey, **ROUNDING)
    torch.testing.assert_close(attribution.attribute(images, 0.0, **options), black, **ROUNDING)


def test_the_seed_determines_the_order(smooth_net, images):
    attribution = MaskAttributeConductance(smooth_net, "0")
    first, again, other = (attribution.attribute(images, n_steps=4, seed=seed) for seed in (3, 3, 4))
    torch.testing.assert_close(first, again, **ROUNDING)
    assert not torch.allclose(first, other)
    torch.testing.assert_close(attribution.attribute(images, n_steps=4, order=random_order(48, 3)), first)


def test_orders_may_differ_between_images(smooth_net, images):
    orders = torch.stack([random_order(48, 1), random_order(48, 2)])
    attribution = MaskAttributeConductance(smooth_net, "0")
    together = attribution.attribute(images, n_steps=4, order=orders)
    alone = [attribution.attribute(images[i : i + 1], n_steps=4, order=orders[i]) for i in range(2)]
    torch.testing.assert_close(together, torch.cat(alone), **ROUNDING)


@pytest.mark.parametrize("preset", [PAPER, OFFICIAL], ids=lambda preset: preset.name)
def test_a_preset_is_its_options_spelled_out(smooth_net, images, preset):
    attribution = MaskAttributeConductance(smooth_net, "0")
    got = attribution.attribute(images, preset=preset, n_steps=6)
    spelled = attribution.attribute(
        images,
        n_steps=6,
        r=0.5,
        gate=preset.gate,
        delta=1e4,
        method=f"riemann_{preset.tag}",
        include_end=preset.include_end,
        objective=preset.objective,
    )
    torch.testing.assert_close(got, spelled, **ROUNDING)


def test_the_delta_is_what_the_sum_misses_of_the_objectives_change(smooth_net, images, options):
    got, delta = MaskAttributeConductance(smooth_net, "0").attribute(images, **options, return_convergence_delta=True)
    path = MaskAttributePath(images, options["order"], torch.zeros_like(images))
    start, end = (GradientMagnitude()(smooth_net(path.at(torch.tensor([a]))[0])) for a in (0.5, 1.0))
    torch.testing.assert_close(delta, got.flatten(1).sum(1) - (end - start).detach(), **ROUNDING)


def test_the_input_residual_is_kept(smooth_net, images, options):
    attribution = MaskAttributeConductance(smooth_net, "0")
    assert attribution.input_residual is None
    attribution.attribute(images, **options, objective=OutputSum())
    assert attribution.input_residual.shape == (2,)
    assert attribution.input_residual.abs().max() < 0.01


def test_attributing_to_a_layers_input_attributes_to_the_layer_before(smooth_net, images, options):
    at_input = MaskAttributeConductance(smooth_net, "2").attribute(images, **options, attribute_to_layer_input=True)
    before = MaskAttributeConductance(smooth_net, "1").attribute(images, **options)
    torch.testing.assert_close(at_input, before, **ROUNDING)


def test_further_arguments_reach_the_model(images):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(1, 1, 1)

        def forward(self, x, scale):
            return self.layer(x) * scale

    net = Scaled().double()
    options = {"n_steps": 4, "objective": OutputSum(), "return_convergence_delta": True}
    once, _ = MaskAttributeConductance(net, "layer").attribute(images, additional_forward_args=1.0, **options)
    tripled, delta = MaskAttributeConductance(net, "layer").attribute(images, additional_forward_args=(3.0,), **options)
    torch.testing.assert_close(tripled, 3 * once, **ROUNDING)
    torch.testing.assert_close(delta, torch.zeros_like(delta), **ROUNDING)  # a linear network, with the same factor


def test_progress_is_shown_on_request(smooth_net, images, capsys):
    MaskAttributeConductance(smooth_net, "0").attribute(images, n_steps=2, show_progress=True)
    assert "3/3" in capsys.readouterr().err


# Straight-line methods.


@pytest.mark.parametrize("cls", ALONG_A_PATH)
def test_another_path_may_take_the_place_of_the_line(smooth_net, images, cls):
    line = LinearPath((images,), (torch.full_like(images, 0.2),))
    options = {"objective": OutputSum(), "n_steps": 5}
    got = cls(smooth_net, "0").attribute(images, path=line, **options)
    torch.testing.assert_close(got, cls(smooth_net, "0").attribute(images, 0.2, **options), **ROUNDING)


def test_internal_influence_is_the_mean_gradient(images):
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 1, 1)).double()
    got = InternalInfluence(net, "0").attribute(images, objective=lambda output: output.square().flatten(1).sum(1) / 2)
    mean_output = (net(images) + net(torch.zeros_like(images))) / 2  # the gradient is linear in alpha
    torch.testing.assert_close(got, net[1].weight[0, :, 0, 0, None, None] * mean_output, **ROUNDING)


def test_layer_integrated_gradients_are_complete_behind_any_layer(smooth_net, images):
    _, delta = LayerIntegratedGradients(smooth_net, "2").attribute(
        images, objective=OutputSum(), return_convergence_delta=True
    )
    # 50 Gauss nodes on a smooth function.
    torch.testing.assert_close(delta, torch.zeros_like(delta), rtol=0, atol=1e-10)


@pytest.mark.parametrize("cls", [LayerIntegratedGradients, LayerGradientXActivation])
def test_without_multiplication_the_gradient_alone_is_returned(images, cls):
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 1, 1)).double()
    got = cls(net, "0", multiply_by_inputs=False).attribute(images, objective=OutputSum())
    torch.testing.assert_close(got, net[1].weight.expand_as(got), **ROUNDING)


def test_gradient_x_activation_is_their_product_at_the_input(images):
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 1, 1)).double()
    got = LayerGradientXActivation(net, "0").attribute(images, objective=OutputSum())
    torch.testing.assert_close(got, net[1].weight.reshape(2, 1, 1) * net[0](images), **ROUNDING)


# Bad input.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r": 0.0}, r"`r` must lie in \(0, 1\], got 0.0: it is the masked fraction at the start of the path"),
        ({"r": 1.5}, r"`r` must lie in \(0, 1\], got 1.5: it is the masked fraction at the start of the path"),
        ({"n_steps": 0}, "`n_steps` must be at least 1, got 0"),
        ({"delta": 10.0}, "`delta` = 10.0 has no effect on the 'fade' gate"),
        ({"gate": "sigmoid", "groups": 3}, "`groups` = 3 has no effect on the 'sigmoid' gate"),
        ({"groups": 0}, "`patch_size` and `groups` must be at least 1, got 1 and 0"),
        ({"patch_size": 0}, "`patch_size` and `groups` must be at least 1, got 0 and"),
        ({"method": "gausslegendre", "include_end": True}, "`include_end` = True has no effect on the nodes of"),
        ({"seed": 1, "order": random_order(48, 0)}, "`seed` = 1 has no effect when `order` is given"),
        ({"target": 0, "objective": OutputSum()}, "`target` and `objective` exclude each other"),
        ({"order": torch.zeros(48, dtype=torch.long)}, "`order` must be a permutation of the 48 pixels"),
        ({"order": random_order(47, 0)}, r"`order` must be a permutation of the 48 pixels .* got shape \(47,\)"),
        ({"baselines": torch.zeros(5, 5)}, r"reference input of shape \(5, 5\) does not broadcast"),
        ({"internal_batch_size": 0}, "`internal_batch_size` must be at least 1, got 0"),
        ({"gate": "hard"}, "`gate` must be one of fade, sigmoid, one_sided, got 'hard'"),
        ({"method": "lift"}, "`method` must be one of left, .* got 'lift'"),
        ({"objective": lambda output: output.mean()}, r"one number per sample, shape \(2,\), got \(\)"),
        ({"objective": lambda output: (output - output.mean()).flatten(1).sum(1)}, "the objective mixes the batch"),
        ({"target": 0}, r"`target` 0 does not select one number of outputs of shape \(1, 6, 8\)"),
    ],
    ids=[
        "r_is_0", "r_above_1", "no_steps", "delta_without_effect", "groups_without_effect", "no_groups", "no_patch",
        "end_without_effect", "seed_and_order",
        "target_and_objective", "repeated_order", "short_order", "reference", "batch_size", "gate", "method",
        "scalar_objective", "mixing_objective", "target_of_images",
    ],
)  # fmt: skip
@pytest.mark.usefixtures("as_users_run_it")
def test_mac_refuses(smooth_net, images, options, message):
    with pytest.raises(ValueError, match=message):
        MaskAttributeConductance(smooth_net, "0").attribute(images, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": 2.5}, "`n_steps` must be a whole number, got 2.5"),
        ({"n_steps": True}, "`n_steps` must be a whole number, got True"),
        ({"internal_batch_size": 1.5}, "`internal_batch_size` must be a whole number, got 1.5"),
        ({"seed": -1}, "`seed` must be at least 0, got -1"),
        ({"seed": 2**70}, "`seed` must be at most 9223372036854775807"),
        ({"r": "0.5"}, r"`r` must lie in \(0, 1\], got '0.5'"),
        ({"preset": "papre"}, "`preset` must be a Preset or one of default, ranking, paper, official, got 'papre'"),
        ({"order": "random"}, "`order` must be a tensor of pixel indices, .* got str"),
        ({"order": [[1, 2], [3]]}, "`order` must hold pixel indices"),
        ({"gate": "sigmoid", "delta": float("nan")}, "`delta` must be positive and finite, got nan"),
        ({"baselines": float("nan")}, "the model's input is not finite at alpha = 0.5: `inputs`, `baselines` or the"),
        ({"objective": "psnr"}, "no objective 'psnr': the names here are gradient_magnitude"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("as_users_run_it")
def test_values_of_the_wrong_kind_are_named(smooth_net, images, options, message):
    with pytest.raises(ValueError, match=message):
        MaskAttributeConductance(smooth_net, "0").attribute(images, **({"n_steps": 4} | options))


@pytest.mark.parametrize("kind", [list, np.array, tuple], ids=["list", "numpy", "tuple"])
@pytest.mark.usefixtures("as_users_run_it")
def test_an_order_may_be_any_sequence(smooth_net, images, kind):
    order = random_order(48, 1)
    attribution = MaskAttributeConductance(smooth_net, "0")
    got = attribution.attribute(images, n_steps=4.0, order=kind(order.tolist()))
    torch.testing.assert_close(got, attribution.attribute(images, n_steps=4, order=order), rtol=0, atol=0)


@pytest.mark.parametrize("cls", [MaskAttributeConductance, *ALONG_A_PATH, LayerGradientXActivation])
@pytest.mark.usefixtures("as_users_run_it")
def test_a_batch_of_none_is_refused(smooth_net, images, cls):
    with pytest.raises(ValueError, match=r"at least one sample, got \(0, 1, 6, 8\)"):
        cls(smooth_net, "0").attribute(images[:0], objective=OutputSum())


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.ones(1, 1, 6, 8, dtype=torch.long), "inputs must be floating-point tensors, got torch.int64"),
        (torch.ones(6, 8), r"needs images \(B, C, H, W\), got inputs of shape \(6, 8\)"),
        ((torch.ones(1, 1, 6, 8),), r"needs one tensor of images \(B, C, H, W\), got tuple"),
    ],
    ids=["integers", "no_batch", "tuple"],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_mac_refuses_inputs_that_are_no_images(smooth_net, inputs, message):
    with pytest.raises(ValueError, match=message):
        MaskAttributeConductance(smooth_net, "0").attribute(inputs)


@pytest.mark.parametrize("cls", [*ALONG_A_PATH, LayerGradientXActivation])
@pytest.mark.usefixtures("as_users_run_it")
def test_integer_inputs_are_refused(cls):
    net = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 1))
    with pytest.raises(ValueError, match=r"inputs must be floating-point tensors, got torch\.int64"):
        cls(net, "0").attribute(torch.tensor([1, 2]))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("conv_frist", "no layer 'conv_frist'; did you mean 'conv_first'"),
        ("module.conv_first", "did you mean 'conv_first'.* A 'module.' prefix comes from DataParallel"),
        ("layers.0.attn", "no layer 'layers.0.attn'"),
        (nn.Conv2d(1, 1, 1), "the module Conv2d is not part of the model"),
        ([], "`layers` is empty"),
    ],
    ids=["near_match", "module_prefix", "no_match", "foreign_module", "empty"],
)
def test_layers_that_are_not_in_the_model_are_refused(layer, message):
    net = SwinIR(img_size=8, embed_dim=4, depths=(1,), num_heads=(1,))
    with pytest.raises(ValueError, match=message):
        MaskAttributeConductance(net, layer)


def test_names_need_a_network(smooth_net):
    with pytest.raises(ValueError, match="layer names need a network, got 'conv' with a function: pass the modules"):
        MaskAttributeConductance(lambda x: smooth_net(x), "conv")


def test_device_ids_are_refused(smooth_net):
    with pytest.raises(ValueError, match="`device_ids` is not supported"):
        MaskAttributeConductance(smooth_net, "0", device_ids=[0])


def test_a_layer_that_never_runs_is_refused(smooth_net, images):
    net = nn.ModuleDict({"used": smooth_net, "head": nn.Conv2d(1, 1, 1)})
    net.forward = net["used"].forward
    with pytest.raises(ValueError, match="layer 'head' never ran"):
        MaskAttributeConductance(net, "head").attribute(images)


def test_an_image_smaller_than_the_window_is_refused():
    net = SwinIR(img_size=8, embed_dim=4, depths=(1,), num_heads=(1,))
    with pytest.raises(ValueError, match="image of 4x4 pixels is too small to be reflect-padded to a multiple of 8"):
        MaskAttributeConductance(net, "conv_first").attribute(torch.rand(1, 3, 4, 4), n_steps=2)


def test_nan_in_weights_is_refused_with_layer_and_alpha(smooth_net, images):
    with torch.no_grad():
        smooth_net[2].bias[0] = torch.nan
    with pytest.raises(ValueError, match=r"the output of layer 2 is not finite at alpha = 0\.5: its weights"):
        MaskAttributeConductance(smooth_net, ["0", "2", "4"]).attribute(images)


def test_eps_of_zero_on_a_flat_image_is_refused(smooth_net):
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 1, 1))
    with pytest.raises(ValueError, match=r"gradient is not finite at layer 1.*pass `objective=GradientMagnitude"):
        MaskAttributeConductance(net, ["0", "1"]).attribute(torch.ones(1, 1, 4, 4), preset=OFFICIAL)


@pytest.mark.parametrize("cls", ALONG_A_PATH)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": 0, "method": "left"}, "`n_steps` must be at least 1, got 0"),
        ({"n_steps": 0}, "`n_steps` must be at least 1, got 0"),
        ({"method": "simpson"}, "`method` must be one of .*gausslegendre.*, got 'simpson'"),
        ({"target": 0}, "`target` and `objective` exclude each other"),
        ({"baselines": (0.0, 0.0)}, "1 inputs need as many baselines, got 2"),
        ({"path": LinearPath((torch.ones(2, 1, 6, 8),), (torch.ones(2, 1, 6, 8),))}, "`path` does not end at"),
        ({"path": LinearPath((torch.ones(1, 3),), (torch.zeros(1, 3),))}, "`path` does not end at `inputs`"),
    ],
    ids=["no_steps", "no_nodes", "method", "target_and_objective", "baselines", "other_end", "other_shape"],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_straight_line_methods_refuse(smooth_net, images, cls, options, message):
    with pytest.raises(ValueError, match=message):
        cls(smooth_net, "0").attribute(images, objective=OutputSum(), **options)


def test_a_path_has_its_own_start(smooth_net, images):
    path = LinearPath((images,), (torch.zeros_like(images),))
    with pytest.raises(ValueError, match="`baselines` has no effect when `path` is given"):
        LayerConductance(smooth_net, "0").attribute(images, 0.5, path=path, objective=OutputSum())


def test_without_target_a_network_of_images_needs_an_objective(smooth_net, images):
    with pytest.raises(ValueError, match=r"shape \(2, 1, 6, 8\) is not one number per sample: pass `target` or"):
        LayerConductance(smooth_net, "0").attribute(images)


@pytest.mark.parametrize("rows", [1, 3], ids="rows_{}".format)
def test_layer_ig_of_a_layer_with_tokens_first_does_not_depend_on_the_batch_size(rows):
    class TokensFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def forward(self, x):
            return self.inner(x.transpose(0, 1).flatten(0, 1)).tanh().unflatten(0, (3, -1)).sum((0, 2))

    torch.manual_seed(0)
    net, x = TokensFirst().double(), torch.rand(2, 3, 2, dtype=torch.float64)
    attribution = LayerIntegratedGradients(net, "inner")
    alone = attribution.attribute(x, n_steps=6, internal_batch_size=2)
    if rows == 1:
        torch.testing.assert_close(attribution.attribute(x, n_steps=6, internal_batch_size=1), alone)
        return
    with pytest.warns(UserWarning, match="does not keep the batch first"):
        together = attribution.attribute(x, n_steps=6, internal_batch_size=2 * rows)
    # The same float64 sums, one node at a time.
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


def test_layer_ig_of_a_tensor_that_all_rows_share_is_zero_without_a_warning():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(3, 1)

        def forward(self, x):
            return (x * self.table(torch.arange(3))[:, 0]).sin().sum(1)

    torch.manual_seed(0)
    net, x = Positions(), torch.rand(2, 3)
    got = LayerIntegratedGradients(net, "table").attribute(x, n_steps=6, internal_batch_size=8)
    torch.testing.assert_close(got, torch.zeros(3, 1), rtol=0, atol=0)


CLASSES = [MaskAttributeConductance, LayerConductance, InternalInfluence, LayerIntegratedGradients]


@pytest.mark.parametrize("attribution", CLASSES, ids=lambda kind: kind.__name__)
def test_names_go_without_the_prefix_of_a_wrapper(attribution):
    class Wrapper(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x)

    torch.manual_seed(0)
    net, x = (
        nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.Conv2d(2, 1, 3, padding=1)),
        torch.rand(1, 1, 4, 4),
    )
    options = {"n_steps": 4, "objective": OutputSum()}
    wrapped = attribution(Wrapper(net), "0", prefix="net").attribute(x, **options)
    torch.testing.assert_close(wrapped, attribution(net, "0").attribute(x, **options), rtol=0, atol=0)


@pytest.mark.parametrize("name", PLAIN_OBJECTIVES)
def test_objectives_have_the_names_that_rankings_give_them(smooth_net, images, name):
    by_name = MaskAttributeConductance(smooth_net, "0").attribute(images, n_steps=2, objective=name)
    made = MaskAttributeConductance(smooth_net, "0").attribute(images, n_steps=2, objective=PLAIN_OBJECTIVES[name]())
    torch.testing.assert_close(by_name, made, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("class", "number of the class as `target`"),
        ("similarity", r"`macattr\.paths\.objectives\.Similarity\(reference\)`"),
        ("loss", r'`output="loss"` give "sum" .* else a function of the output'),
        ("masked_loss", r"HiddenDistance\(clean, hidden\)` or `CrossEntropy\(labels\)`"),
    ],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_names_that_need_a_sample_are_refused_with_what_to_give(smooth_net, images, name, remedy):
    with pytest.raises(ValueError, match=f"no objective '{name}': the names here are gradient_magnitude, .*{remedy}"):
        LayerConductance(smooth_net, "0").attribute(images, objective=name)


def test_every_objective_of_rankings_has_a_name_or_a_remedy_here():
    assert PLAIN_OBJECTIVES.keys() | OF_SAMPLES.keys() == OBJECTIVES.keys()


def test_a_prefix_needs_a_network():
    with pytest.raises(ValueError, match="`prefix` = 'net' has no effect with a function"):
        LayerConductance(lambda x: x, nn.ReLU(), prefix="net")


def test_layer_ig_adds_up_the_calls_of_a_module():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 3)

        def forward(self, x):
            return self.inner(self.inner(x).tanh()).sum(1)

    net, x = Twice(), torch.rand(2, 3)
    got, each = (LayerIntegratedGradients(net, "inner").attribute(x, n_steps=3, calls=c) for c in ("sum", "each"))
    torch.testing.assert_close(got, each.sum(0))
    assert (each[1] != 0).all()


def test_layer_ig_refuses_what_is_not_finite():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    nn.init.constant_(net[0].weight, torch.nan)
    with pytest.raises(ValueError, match="the objective is not finite"):
        LayerIntegratedGradients(net, "0").attribute(torch.rand(1, 2))


def test_a_first_layer_in_place_works_everywhere():
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1))
    plain = nn.Sequential(nn.ReLU(), *net[1:])
    x = torch.randn(2, 3)
    for method in (LayerConductance, LayerIntegratedGradients):
        got, delta = method(net, "1").attribute(x, n_steps=4, return_convergence_delta=True)
        want, expected = method(plain, "1").attribute(x, n_steps=4, return_convergence_delta=True)
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(delta, expected)


def test_a_glob_gives_a_list():
    net = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1))
    assert len(LayerConductance(net, "[02]").attribute(torch.rand(1, 3), n_steps=2)) == 2


def test_a_layer_named_twice_is_refused():
    net = nn.Sequential(nn.Linear(3, 1))
    with pytest.raises(ValueError, match="`layer` names a layer twice: 2 entries for"):
        LayerConductance(net, ["0", net[0]])


def test_captum_s_noise_tunnel_takes_our_classes():
    net = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1))
    tunnel, x = NoiseTunnel(LayerConductance(net, net[0])), torch.rand(2, 3)
    without_noise = tunnel.attribute(x, nt_samples=3, stdevs=0.0, n_steps=4)
    torch.testing.assert_close(without_noise, LayerConductance(net, net[0]).attribute(x, n_steps=4))
    assert not torch.allclose(tunnel.attribute(x, nt_samples=3, n_steps=4), without_noise)
    assert LayerConductance(net, net[0]).has_convergence_delta()
    assert LayerConductance(net, net[0]).multiplies_by_inputs


@pytest.mark.parametrize("ours", ["left", "right", "trapezoid"])
def test_our_names_of_tags_and_presets_mean_what_captums_and_the_objects_do(smooth_net, images, ours):
    mac = MaskAttributeConductance(smooth_net, "0")
    named = mac.attribute(images, method=ours, preset="ranking", n_steps=6)
    torch.testing.assert_close(named, mac.attribute(images, method=f"riemann_{ours}", preset=RANKING, n_steps=6))
