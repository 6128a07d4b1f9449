"""Every way to score layers, against its definition."""

import copy
import math

import numpy as np
import pytest
import torch
from captum.attr import LayerIntegratedGradients
from torch import nn

from macattr.methods.catalogue import METHODS, find_methods, register_method
from macattr.methods.kinds import JointMethod, SampleMethod
from macattr.methods.readings import estimate_evaluations, plan_sweeps
from macattr.methods.reductions import REDUCTIONS
from macattr.methods.task import Options, Task
from macattr.paths.inputs import LinearPath, MaskAttributePath, order_by_score, random_order
from macattr.paths.objectives import Distance, HiddenDistance, OutputSum
from macattr.paths.presets import OFFICIAL
from macattr.ranking.rank import rank_layers, rank_methods

LAYERS = ["first", "norm", "last"]
ROUNDING = {"rtol": 1e-12, "atol": 1e-13}
"""float64 scores of order one at most; 0 may come out as rounding."""


class Net(nn.Module):
    """Three layers in a row, each a cut."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3, padding=1)
        self.norm = nn.GroupNorm(1, 3)
        self.last = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, image):
        return self.last(self.norm(self.first(image)).tanh())


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Net().double().eval()


@pytest.fixture
def pairs():
    """Three degraded images with their clean ones."""
    generator = torch.Generator().manual_seed(1)
    clean = torch.rand(3, 2, 6, 6, generator=generator, dtype=torch.float64)
    noise = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    return [{"image": clean[i] + 0.1 * noise[i], "clean": clean[i], "name": str(i)} for i in range(3)]


def scores(network, inputs, method, **options):
    """Scores by layer, mean over images."""
    found = rank_layers(network, inputs, method, **options).scores()
    return dict(zip(found["layer"].values.tolist(), found.values.tolist(), strict=True))


def outputs(network, image):
    """What every layer returns."""
    kept = {}
    hooks = [
        getattr(network, name).register_forward_hook(lambda _, __, out, name=name: kept.update({name: out.detach()}))
        for name in LAYERS
    ]
    network(image[None])
    for hook in hooks:
        hook.remove()
    return kept


def gradients(network, pair):
    """Gradient of the mean absolute error, one vector a layer."""
    network.zero_grad()
    (network(pair["image"][None]) - pair["clean"]).abs().mean().backward()
    found = {name: torch.cat([p.grad.flatten() for p in getattr(network, name).parameters()]) for name in LAYERS}
    network.zero_grad(set_to_none=True)
    return found


def masked(image, order, r=0.5):
    """The image at the start of the mask path."""
    path = MaskAttributePath(image[None], order, torch.zeros_like(image)[None], r)
    return path.at(torch.tensor([1 - r]))[0][0]


def test_activation_is_the_mean_absolute_output(network, pairs):
    found = scores(network, pairs[:1], "activation")
    expected = {name: float(out.abs().mean()) for name, out in outputs(network, pairs[0]["image"]).items()}
    assert found == pytest.approx(expected, rel=1e-12)


def test_drift_is_the_relative_change_of_the_output(network, pairs):
    image, order = pairs[0]["image"], random_order(36, seed=5)
    whole, hidden = outputs(network, image), outputs(network, masked(image, order))
    expected = {name: float((whole[name] - hidden[name]).norm() / hidden[name].norm()) for name in LAYERS}
    assert scores(network, pairs[:1], "drift", orders=order[None]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("end", [nn.Identity(), nn.Softmax(1)], ids=["scores", "probabilities"])
@pytest.mark.parametrize("method", ["activation", "drift"])
def test_what_reads_outputs_alone_needs_no_objective(method, end):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.rand(2, 3, 8, 8)
    of_classes = scores(nn.Sequential(*body, nn.Linear(4, 5), end).eval(), images, method)
    of_images = scores(nn.Sequential(*body, nn.Linear(4, 12), nn.Unflatten(1, (3, 2, 2))).eval(), images, method)
    assert of_classes["0"] == pytest.approx(of_images["0"]), "what comes behind a layer does not change its output"
    with pytest.raises(ValueError, match="`objective` = class has no effect"):
        rank_layers(body.eval(), images, method, objective="class")


def test_a_loss_that_is_attributed_can_be_chosen(network, pairs):
    def squared(output, target):
        return (output - target).square().mean()

    def of_first(output):
        return squared(output, pairs[0]["clean"])[None]

    by_name = rank_layers(network, pairs[:1], "conductance", objective="loss", loss=squared)
    by_function = rank_layers(network, pairs[:1], "conductance", objective=of_first)
    np.testing.assert_allclose(by_name.scores(), by_function.scores(), **ROUNDING)
    assert "squared" in by_name.dataset.attrs["loss"]


class WithLoss(Net):
    """The same with a loss of its own."""

    def forward(self, image):
        return {"loss": super().forward(image).square().mean()}


def test_a_loss_is_refused_where_the_models_own_is_attributed(pairs):
    network = WithLoss().double().eval()
    with pytest.raises(ValueError, match=r"`loss` = .* has no effect"):
        rank_layers(network, pairs, "conductance", output="loss", loss=torch.nn.functional.mse_loss)


def test_attribution_patching_of_a_linear_network_is_the_change_of_the_objective(pairs):
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 1, 3)).double().eval()
    image, order = pairs[0]["image"], random_order(36, seed=5)
    change = float((linear(image[None]) - linear(masked(image, order)[None])).sum().detach())
    found = scores(linear, pairs[:1], "attribution_patching", orders=order[None], objective=OutputSum())
    assert found == pytest.approx({"0": abs(change), "1": abs(change)}, rel=1e-10)


def test_mac_loss_allocates_the_loss_change_on_the_hidden_pixels(network, pairs):
    image, clean, order = pairs[0]["image"], pairs[0]["clean"], random_order(36, seed=5)
    found = scores(network, pairs[:1], "mac_loss", orders=order[None], n_steps=200)
    changes = []
    for twin in (order, order.flip(0)):
        path = MaskAttributePath(image[None], twin, torch.zeros_like(image)[None])
        loss = HiddenDistance(clean[None], path.hidden())
        start, end = path.at(torch.tensor([0.5, 1.0]))[0][:, None]
        with torch.no_grad():
            changes.append(float(loss(network(end)) - loss(network(start))))
    # Every layer is a cut; the loss has kinks, at which the sum converges to first order.
    assert found == pytest.approx(dict.fromkeys(LAYERS, sum(changes) / 2), rel=5e-3)


@pytest.mark.parametrize(("side", "r", "hidden"), [(4, 0.5, 8), (3, 0.5, 4), (4, 0.25, 4), (4, 1.0, 16)])
def test_twin_masks_hide_as_many_pixels_from_both_ends_of_the_order(side, r, hidden):
    order = random_order(side**2, seed=0)
    path = MaskAttributePath(torch.ones(1, 1, side, side), order, torch.zeros(1, 1, side, side), r=r)
    for twin, places in ((path, order[-hidden:]), (path.reversed(), order[:hidden])):
        assert twin.hidden().flatten().nonzero().flatten().tolist() == sorted(places.tolist())


def test_grad_x_activation_reads_the_whole_image_also_from_a_shared_sweep(network, pairs):
    alone = scores(network, pairs, "grad_x_activation")
    shared = rank_methods(network, pairs, ["mac", "grad_x_activation"])["grad_x_activation"].scores().values
    np.testing.assert_allclose(shared, list(alone.values()), **ROUNDING)


def test_layer_ig_equals_captums_layer_by_layer(network, pairs):
    image = pairs[0]["image"][None]
    found = scores(network, pairs[:1], "layer_ig", n_steps=100, objective=OutputSum())
    for name in LAYERS:
        captum = LayerIntegratedGradients(lambda x: network(x).flatten(1).sum(1), getattr(network, name))
        expected = captum.attribute(image, n_steps=50).abs().mean()
        assert found[name] == pytest.approx(float(expected), rel=1e-4)  # Gauss against trapezoid of 100 steps


def test_fisher_sums_squared_gradients(network, pairs):
    expected = {name: float(h.square().sum()) for name, h in gradients(network, pairs[0]).items()}
    assert scores(network, pairs[:1], "fisher") == pytest.approx(expected, rel=1e-12)


def test_rgn_divides_the_gradients_norm_by_the_weights(network, pairs):
    own = {name: torch.cat([p.detach().flatten() for p in getattr(network, name).parameters()]) for name in LAYERS}
    expected = {name: float(h.norm() / own[name].norm()) for name, h in gradients(network, pairs[0]).items()}
    assert scores(network, pairs[:1], "rgn") == pytest.approx(expected, rel=1e-10)


def test_snr_divides_the_squared_mean_gradient_by_its_variance(network, pairs):
    stacked = {name: torch.stack([gradients(network, pair)[name] for pair in pairs]) for name in LAYERS}
    expected = {name: float((h.mean(0).square() / (h.var(0) + 1e-12)).mean()) for name, h in stacked.items()}
    assert scores(network, pairs, "snr") == pytest.approx(expected, rel=1e-8)


def test_adam_gain_is_the_decrease_by_a_step_of_adam_with_averages_over_the_images(network, pairs):
    stacked = [gradients(network, pair) for pair in pairs]
    copied = copy.deepcopy(network)
    optimiser = torch.optim.Adam(copied.parameters(), lr=0.0, betas=(1 - 1e-9, 1 - 1e-9), eps=1e-12)
    for pair in pairs:  # averages this slow weigh all images alike; the last step alone moves
        optimiser.zero_grad()
        (copied(pair["image"][None]) - pair["clean"]).abs().mean().backward()
        optimiser.param_groups[0]["lr"] = float(pair is pairs[-1])
        optimiser.step()
    expected = {}
    for name in LAYERS:
        before, after = (
            torch.cat([p.detach().flatten() for p in getattr(net, name).parameters()]) for net in (network, copied)
        )
        expected[name] = float(torch.stack([h[name] for h in stacked]).mean(0) @ (before - after))
    assert scores(network, pairs, "adam_gain") == pytest.approx(expected, rel=1e-5)


def test_lca_adds_up_to_the_decrease_of_the_loss(network, pairs):
    copied = Net().double().eval()
    copied.load_state_dict(network.state_dict())
    optimiser = torch.optim.Adam(copied.parameters(), 1e-4)

    def loss():
        return torch.stack([(copied(p["image"][None]) - p["clean"]).abs().mean() for p in pairs]).mean()

    before = float(loss().detach())
    for _ in range(20):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    found = scores(network, pairs, "lca")
    assert sum(found.values()) == pytest.approx(
        before - float(loss().detach()), rel=1e-3
    )  # kinks of the absolute value


def test_faig_of_one_layer_is_the_change_of_the_loss(pairs):
    torch.manual_seed(0)
    one = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1)).double().eval()
    start = {name: torch.zeros_like(p) for name, p in one.named_parameters()}
    before, after = (
        float((out - pairs[0]["clean"]).square().mean()) for out in (0.0, one(pairs[0]["image"][None]).detach())
    )
    loss = Distance(pairs[0]["clean"][None], "l2")
    found = scores(one, [pairs[0]["image"]], "faig", start_weights=start, loss=loss)
    assert found["0"] == pytest.approx(abs(after - before), rel=1e-10)  # quadratic: exact


def test_magnitude_is_the_mean_absolute_weight(network, pairs):
    expected = {
        n: float(torch.cat([p.detach().flatten() for p in getattr(network, n).parameters()]).abs().mean())
        for n in LAYERS
    }
    assert scores(network, pairs, "magnitude") == pytest.approx(expected, rel=1e-12)


def test_controls_rank_by_depth_chance_or_not_at_all(network, pairs):
    found = rank_methods(network, pairs, ["depth", "uniform", "random"], seed=3)
    assert found["depth"].ranking()["layer"].tolist() == LAYERS
    assert found["uniform"].ranking()["layer"].tolist() == LAYERS
    assert set(found["uniform"].scores().values) == {1.0}
    other = rank_layers(network, pairs, "random", seed=4).scores().values
    assert not np.array_equal(found["random"].scores().values, other)


def _halved(image):
    return LinearPath((image / 2,), (torch.zeros_like(image),))


@pytest.mark.parametrize(
    "path",
    [None, "mask", "line", "tail", "blur", "restore", _halved],
    ids=lambda path: getattr(path, "__name__", str(path)),
)
def test_methods_together_give_what_each_gives_alone(network, pairs, path):
    names = [
        "mac",
        "conductance",
        "internal_influence",
        "activation",
        "grad_x_activation",
        "drift",
        "attribution_patching",
        "layer_ig",
        "rgn",
    ]
    names += ["mac_loss"] if path in (None, "mask") else []
    pairs, options = (
        pairs[:2],
        {"n_steps": 6} | ({"orders": 2} if path in (None, "mask") else {}) | ({"path": path} if path else {}),
    )
    together = rank_methods(network, pairs, names, **options)
    for name in names:
        effective = METHODS[name].arguments(Task(network, {}, Options(**options)))
        alone = rank_layers(network, pairs, name, **{k: v for k, v in options.items() if k in effective})
        np.testing.assert_allclose(together[name].values, alone.values, **ROUNDING)


@pytest.mark.parametrize(
    ("names", "options", "sweeps"),
    [
        (["mac", "drift", "attribution_patching", "activation", "grad_x_activation"], {}, 1),
        (["mac", "conductance", "internal_influence"], {}, 3),
        (["mac", "conductance", "internal_influence"], {"path": "mask"}, 1),
        (["mac", "mac_loss"], {}, 3),
        (["mac", "activation"], {"preset": OFFICIAL}, 2),
    ],
    ids=["ends", "paths", "one path", "losses", "an end that is not whole"],
)
def test_methods_on_one_path_share_its_sweep(network, names, options, sweeps):
    task = Task(network, {"first": network.first}, Options(**options))
    assert len(plan_sweeps(find_methods(names), task)) == sweeps


def test_the_estimate_is_what_a_run_evaluates(network, pairs):
    names = ["mac", "mac_loss", "conductance", "drift", "internal_influence", "activation"]
    rows = []
    network.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    rank_methods(network, pairs, names, n_steps=10, orders=2)
    layers = {name: getattr(network, name) for name in LAYERS}
    task = Task(network, layers, Options(n_steps=10, orders=2))
    expected, saved = estimate_evaluations(find_methods(names), task, len(pairs))
    sweeps = len(pairs) * (2 * 3 + 2)  # 3 of each order, 2 without
    survey = 1  # for the only shape of image
    checks = sweeps + 2  # one node after every sweep, and both ends of the first
    assert sum(rows) == expected + survey + checks
    assert saved == len(pairs) * (2 * 2 + 2)  # drift in MAC's sweep, the activation in one that ends at the image


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mean_abs", 2.0), ("sum_abs", 8.0), ("abs_sum", 4.0), ("sum", -4.0), ("rms", math.sqrt(6)),
        ("norm", math.sqrt(24)), ("per_parameter", 8 / 20), ("per_unit", 2.0), ("per_activation", 0.5),
    ],
)  # fmt: skip
def test_reductions_have_closed_forms(name, expected):
    neurons, output = torch.tensor([2.0, -4.0, 0.0, -2.0]), torch.full((4,), -4.0)
    assert float(REDUCTIONS[name].function(neurons, output, 20, 4)) == pytest.approx(expected)


def test_a_path_can_be_chosen_for_all_methods(network, pairs):
    mac, conductance = scores(network, pairs, "mac", path="line"), scores(network, pairs, "conductance")
    assert mac == pytest.approx(conductance, rel=1e-12)


def test_the_path_restore_runs_from_the_degraded_to_the_clean_image(network, pairs):
    found = scores(network, pairs[:1], "conductance", path="restore")
    ends = (pairs[0]["clean"][None],), (pairs[0]["image"][None],)
    assert found == pytest.approx(scores(network, pairs[:1], "conductance", path=lambda image: LinearPath(*ends)))


def test_a_score_of_pixels_can_order_them(network, pairs):
    def by_brightness(image):
        return order_by_score(image[0].mean(0))

    found = rank_layers(network, pairs, orders=by_brightness, n_steps=4).values
    orders = [by_brightness(pair["image"][None])[None] for pair in pairs]
    each = [rank_layers(network, [p], orders=o, n_steps=4).values for p, o in zip(pairs, orders, strict=True)]
    np.testing.assert_allclose(found, np.concatenate(each), **ROUNDING)


def test_the_step_error_estimates_the_distance_to_the_limit(network, pairs):
    smooth = {"objective": OutputSum()}  # a gradient magnitude has kinks
    importance = rank_layers(network, pairs[:1], "conductance", n_steps=40, step_error=True, **smooth)
    limit = rank_layers(network, pairs[:1], "conductance", n_steps=320, **smooth).values
    estimated, true = importance.dataset["step_error"].values, np.abs(importance.values - limit)
    # rtol: the next order of the trapezoid. atol: the last layer is linear, so both are rounding (1e-17) or 0.
    np.testing.assert_allclose(estimated, true, rtol=0.1, atol=1e-12)
    np.testing.assert_allclose(importance.dataset["step_order"], 2, atol=0.1)


def test_steps_that_show_no_order_leave_a_lower_bound(network, pairs):
    found = rank_layers(network, pairs[:1], n_steps=6, groups=3, step_error=True).dataset  # 2 increments in a group
    assert bool(found["step_order"].isnull().all())
    assert bool((found["step_error"] > 0).all())


def test_a_tolerance_chooses_the_steps(network, pairs):
    smooth = {"objective": OutputSum()}
    loose, tight = (
        rank_layers(network, pairs[:1], "conductance", tolerance=t, **smooth).dataset.attrs for t in (1e-2, 1e-5)
    )
    assert loose["n_steps"] < tight["n_steps"]
    checked = rank_layers(network, pairs[:1], "conductance", n_steps=tight["n_steps"], step_error=True, **smooth)
    assert (checked.dataset["step_error"] / checked.dataset["score"] < 1e-5).all()


OPTIONS = {
    "r": 0.3,
    "n_steps": 7,
    "gate": "one_sided",
    "groups": 4,
    "include_end": False,
    "tag": "left",
    "objective": "sum",
    "baselines": 0.5,
    "path": "blur",
    "orders": 3,
    "patch_size": 2,
    "seed": 5,
    "reduction": "sum_abs",
    "loss": nn.functional.mse_loss,
    "start_weights": {name: 1.2 * value for name, value in Net().double().state_dict().items()},
}
UNSEEN = {("kernel", "seed"), ("drift", "gate"), ("attribution_patching", "gate"), ("mac_loss", "path")}
"""Read for large layers alone, or by its ends where they are soft; and a refusal of another kind."""


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"cosine"}))
def test_an_option_is_refused_where_it_has_no_effect_and_there_alone(method, network, pairs, monkeypatch):
    needed = {"start_weights": dict(network.state_dict(), **{"first.bias": torch.ones(3).double()})}
    own = needed if method == "faig" else {}
    pairs = pairs if method == "cka" else pairs[:2]
    before = scores(network, pairs, method, **own)
    refused = set()
    for name, value in OPTIONS.items():
        if (method, name) in UNSEEN:
            continue
        try:
            after = scores(network, pairs, method, **{**own, name: value})
        except ValueError as error:
            if "has no effect" not in str(error):
                raise
            refused.add(name)
        else:
            assert after != pytest.approx(before, rel=1e-9), f"{name} has no effect"
    monkeypatch.setattr("macattr.ranking.rank.refuse_idle", lambda methods, task: None)
    for name in refused:
        after = scores(network, pairs, method, **{**own, name: OPTIONS[name]})
        assert after == pytest.approx(before, rel=1e-9), f"{name} has an effect"


@pytest.mark.parametrize("method", ["mac", "conductance", "grad_x_activation", "attribution_patching"])
def test_gradients_can_end_at_the_layers(method, network, pairs):
    reached = []
    network.first.register_full_backward_hook(lambda *_: reached.append("first"))
    whole = rank_layers(network, pairs, method, layers=["last"])
    every = len(reached)
    ended = rank_layers(network, pairs, method, layers=["last"], with_input_residual=False)
    once_an_image = len(reached) - every
    assert once_an_image <= 1 + len(pairs) <= every
    assert bool(ended.dataset["input_residual"].isnull().all())
    np.testing.assert_allclose(ended.scores(), whole.scores(), **ROUNDING)


def test_methods_without_gradients_along_a_path_have_no_residual(network, pairs):
    with pytest.raises(ValueError, match="`with_input_residual` = False has no effect"):
        rank_layers(network, pairs, "fisher", with_input_residual=False)


@pytest.mark.parametrize("method", ["layer_ig", "faig", "activation", "fisher", "kappa"])
def test_a_tolerance_and_a_step_error_need_sums_along_a_path(method, network, pairs):
    weights = {"start_weights": OPTIONS["start_weights"]} if method == "faig" else {}
    for option in ({"tolerance": 0.01}, {"step_error": True}):
        with pytest.raises(ValueError, match="has no effect on the ranking by"):
            rank_layers(network, pairs, method, **option, **weights)


def test_a_function_of_ones_own_can_be_ranked_by(network, pairs):
    def brightness(task, sample):
        return [float(sample.image.mean()) * depth for depth, _ in enumerate(task.layers)]

    register_method(SampleMethod("mine", "nonsense", "ours", brightness))
    try:
        found = rank_layers(network, pairs, "mine")
    finally:
        del METHODS["mine"]
    assert found.ranking()["layer"].tolist() == LAYERS[::-1]
    assert found.dataset.sizes["sample"] == 3


def test_a_name_is_given_once():
    with pytest.raises(ValueError, match="there is a method 'mac' already"):
        register_method(JointMethod("mac", "nonsense", "ours", lambda task, samples: []))


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("fischer", {}, "no method 'fischer'; did you mean fisher"),
        ("fisher", {}, "'image 0' has no target, which the method 'fisher' needs: give mappings with `clean` "),
        ("mac_loss", {}, "'image 0' has no clean image, which the loss on hidden pixels needs"),
        ("mac_loss", {"path": "blur"}, "'mac_loss' reads hidden pixels, so it walks the mask path only"),
        ("faig", {"loss": OutputSum()}, "'faig' needs `start_weights`"),
        ("snr", {"loss": OutputSum()}, "'snr' needs at least 2 images"),
        ("fisher", {"loss": OutputSum(), "n_steps": 3}, "`n_steps` = 3 has no effect on the ranking by 'fisher'"),
        ("mac", {"loss": OutputSum()}, "`loss` = .* has no effect on the ranking by 'mac'"),
        ("drift", {"reduction": "rms"}, "`reduction` = rms has no effect on the ranking by 'drift'"),
        ("mac", {"tolerance": 0.1, "n_steps": 4}, "`tolerance` and `n_steps` exclude each other"),
        ("mac", {"step_error": True, "n_steps": 5}, "cannot be halved: choose `n_steps` as a multiple of"),
        ("layer_ig", {"reduction": "per_activation"}, "'per_activation' is not available for the method 'layer_ig'"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_measured_is_explained(network, method, options, message):
    with pytest.raises(ValueError, match=message):
        rank_layers(network, torch.rand(1, 2, 6, 6), method, **options)


def test_taylor_is_the_mean_weight_times_mean_gradient(network, pairs):
    means = {name: torch.stack([gradients(network, pair)[name] for pair in pairs]).mean(0) for name in LAYERS}
    expected = {
        n: float((torch.cat([p.detach().flatten() for p in getattr(network, n).parameters()]) * h).abs().mean())
        for n, h in means.items()
    }
    assert scores(network, pairs, "taylor") == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("method", ["taylor", "fisher", "rgn", "magnitude"])
def test_quantised_weights_are_refused_by_name(method):
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4, 1, dtype=torch.uint8), requires_grad=False)
            self.bias = nn.Parameter(torch.zeros(2))

        def forward(self, image):
            return image + self.bias[:, None, None]

    net = nn.Sequential(nn.Conv2d(2, 2, 1), Packed()).eval()
    with pytest.raises(ValueError, match="'1' holds uint8 values"):
        rank_layers(net, torch.rand(2, 2, 6, 6), method, **({} if method == "magnitude" else {"loss": OutputSum()}))


def test_integers_that_are_no_weights_are_left_alone(network, pairs):
    expected = scores(network, pairs, "taylor")
    network.norm.register_parameter("steps", nn.Parameter(torch.tensor([3]), requires_grad=False))
    assert scores(network, pairs, "taylor") == pytest.approx(expected, rel=1e-12)


def test_all_stands_for_methods_that_score_any_layer_on_any_images():
    names = {method.name for method in find_methods(["all"])}
    assert METHODS.keys() - names == {"faig", "cka", "cosine"}
