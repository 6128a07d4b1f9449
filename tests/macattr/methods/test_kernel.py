"""The gain that layers have together: closed forms, what is shared counts once, and the greedy order."""

import pytest
import torch
from torch import nn

from macattr.layers.table import LayerTable
from macattr.methods import kernel
from macattr.methods.kernel import gain, greedy_order, layer_kernels, ridge_of
from macattr.methods.samples import iterate_samples
from macattr.methods.task import Options, Task
from macattr.ranking.rank import rank_layers, task_of
from macattr.selection.rules import SelectionRule, select

EXACT = {"rtol": 1e-10, "atol": 1e-12}
"""float64, numbers of order one."""


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).double().eval()


def pairs(count: int = 5) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    draw = torch.rand(count, 5, generator=generator, dtype=torch.float64)
    return [{"image": row[None, :3], "target": row[None, 3:]} for row in draw]


def task_and_samples(model, inputs):
    return task_of(model, None, Options()), list(iterate_samples(inputs, model))


def by_hand(model, inputs) -> dict[str, torch.Tensor]:
    """Kernels from the definition, by the gradients of every image."""
    found = {name: [] for name in ("0", "2", "4")}
    for pair in inputs:
        model.zero_grad()
        (model(pair["image"]) - pair["target"]).abs().mean().backward()
        for name, rows in found.items():
            rows.append(torch.cat([p.grad.flatten() for p in model.get_submodule(name).parameters()]))
    stacked = {name: torch.stack(rows) for name, rows in found.items()}
    return {name: (h / h.square().mean(0).sqrt().clamp(min=1e-300)) @ h.T for name, h in stacked.items()}


def test_the_kernel_is_the_product_of_the_images_gradients_scaled_as_adam_scales_them():
    found = layer_kernels(*task_and_samples(network(), pairs()))
    expected = torch.stack(list(by_hand(network(), pairs()).values()))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)  # EPS beside the root mean square


def test_the_mean_of_the_kernel_is_adams_gain():
    scores = rank_layers(network(), pairs(), "adam_gain").scores().values
    found = layer_kernels(*task_and_samples(network(), pairs())).mean((1, 2))
    torch.testing.assert_close(found, torch.from_numpy(scores).flatten(), rtol=1e-6, atol=1e-12)


def test_the_gain_of_a_common_step_has_a_closed_form():
    ones = torch.ones(4, 4, dtype=torch.float64)
    torch.testing.assert_close(gain(3 * ones, 2.0), torch.tensor(12 / 14, dtype=torch.float64), **EXACT)


@pytest.mark.parametrize("ridge", [1e4, 1e6])
def test_gains_add_up_where_the_ridge_is_large(ridge):
    kernels = layer_kernels(*task_and_samples(network(), pairs()))
    limit = kernels.mean((1, 2)) * len(pairs()) / ridge
    torch.testing.assert_close(gain(kernels, ridge), limit, rtol=100 / ridge, atol=0)  # the next order in 1 / ridge


def test_scores_add_up_to_the_gain_of_all_layers():
    kernels = layer_kernels(*task_and_samples(network(), pairs()))
    scores = rank_layers(network(), pairs(), "kernel").scores().values
    assert scores.sum() == pytest.approx(float(gain(kernels.sum(0), ridge_of(kernels))), rel=1e-10)
    assert (scores > 0).all()


def test_what_layers_have_in_common_counts_once():
    shared = torch.ones(3, 3, dtype=torch.float64)
    (_, alone), (_, repeated) = greedy_order(torch.stack([shared, shared]), [1, 1], ridge=0.01)
    assert repeated < 0.01 * alone


def test_returns_need_not_diminish():
    cancelling, one_sided = (torch.outer(v, v) for v in torch.tensor([[1.0, -1.0], [1.0, 0.0]], dtype=torch.float64))
    alone = gain(cancelling, 0.1)
    beside = gain(cancelling + one_sided, 0.1) - gain(one_sided, 0.1)
    assert float(alone) == pytest.approx(0.0, abs=1e-12)
    assert float(beside) > 0.1


def test_the_greedy_order_takes_the_largest_gain_for_each_parameter():
    kernels, sizes = layer_kernels(*task_and_samples(network(), pairs())), [16, 20, 10]
    ridge = ridge_of(kernels)
    chosen: list[int] = []
    for layer, added in greedy_order(kernels, sizes, ridge):

        def more(other, chosen=tuple(chosen)):
            before = kernels[list(chosen)].sum(0)
            return float(gain(before + kernels[other], ridge) - gain(before, ridge))

        rest = [other for other in range(3) if other not in chosen]
        assert layer == max(rest, key=lambda other: more(other) / sizes[other])
        assert added == pytest.approx(more(layer), rel=1e-9)
        chosen.append(layer)


def test_a_layer_that_does_not_fit_is_passed_over_and_does_not_count():
    large, small, other = (value * torch.eye(2, dtype=torch.float64) for value in (100.0, 1.0, 0.5))
    kernels = torch.stack([large, small, other])
    assert [layer for layer, _ in greedy_order(kernels, [10, 2, 2], 1.0, budget=5)] == [1, 2]
    assert greedy_order(kernels, [10, 2, 0], 1.0, budget=1) == []


def test_a_rule_by_score_per_parameter_gives_the_greedy_order_back():
    model = network()
    kernels = layer_kernels(*task_and_samples(model, pairs()))
    names = list(task_of(model, None, Options()).layers)
    order = [names[layer] for layer, _ in greedy_order(kernels, [16, 20, 10], ridge_of(kernels))]
    found = rank_layers(model, pairs(), "kernel").scores()
    scores = dict(zip(found["layer"].values.tolist(), found.values.tolist(), strict=True))
    rule = SelectionRule(1.0, by="parameters", per_parameter=True)
    assert list(select(scores, LayerTable.of(model), rule).layers) == order


def test_a_sketch_keeps_inner_products_on_average(monkeypatch):
    monkeypatch.setattr(kernel, "SKETCH", 64)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 300), nn.Tanh(), nn.Linear(300, 2)).double().eval()
    exact = torch.stack([value for value in _exact(model)])
    draws = torch.stack([_kernels(model, seed) for seed in range(40)])
    size = exact.diagonal(dim1=1, dim2=2).mean()
    assert (draws[0] - exact).abs().max() > 1e-3 * size  # it is a sketch
    spread = 3 * size * (2 / 64 / 40) ** 0.5  # three standard errors of the mean of 40 sketches of 64 numbers
    assert float((draws.mean(0) - exact).abs().mean()) < float(spread)


def _kernels(model, seed):
    task, samples = task_and_samples(model, pairs())
    return layer_kernels(Task(task.model, task.layers, Options(seed=seed)), samples)


def _exact(model):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "SKETCH", 10_000)
        return _kernels(model, 0)


def test_a_network_without_error_has_scores_of_zero():
    model = network()
    perfect = [{"image": pair["image"], "target": model(pair["image"]).detach()} for pair in pairs()]
    assert rank_layers(model, perfect, "kernel").scores().values.tolist() == [0.0, 0.0, 0.0]
