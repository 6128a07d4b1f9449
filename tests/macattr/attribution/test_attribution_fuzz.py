"""A thousand random calls: each returns finite numbers or a ValueError of one line, and leaves the model alone."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from macattr import PAPER, MaskAttributeConductance
from macattr.paths.inputs import random_order
from macattr.paths.objectives import GradientMagnitude, OutputSum

NAN, INF = float("nan"), float("inf")

OPTIONS = {
    "r": st.sampled_from([0.5, 1, 0.0, -1.0, 1.5, NAN, "0.5", None]),
    "n_steps": st.sampled_from([1, 2, 5, 3.0, 2.5, 0, -1, True, "4", NAN, INF, None]),
    "gate": st.sampled_from(["fade", "sigmoid", "one_sided", "hard", 3, None]),
    "delta": st.sampled_from([1e4, 10, 0, -1.0, NAN, INF, "big", None]),
    "groups": st.sampled_from([1, 2, 0, 1.5, "two", None]),
    "method": st.sampled_from(["riemann_left", "riemann_trapezoid", "gausslegendre", "left", "simpson", None]),
    "internal_batch_size": st.sampled_from([1, 4, 100, 0, -3, 1.5, NAN, "4", None]),
    "include_end": st.sampled_from([True, False, None]),
    "objective": st.sampled_from([OutputSum(), GradientMagnitude(), lambda output: output.mean(), "psnr", 3, None]),
    "target": st.sampled_from([0, (0, 1, 1), (0, 9, 9), None]),
    "order": st.sampled_from([random_order(16, 0), list(range(16)), [0] * 16, [1.5] * 16, "random", 3, None]),
    "seed": st.sampled_from([0, 7, -1, 2**70, 1.5, None]),
    "baselines": st.sampled_from([0.0, 0.3, NAN, INF, torch.zeros(5), None]),
    "patch_size": st.sampled_from([1, 2, 0, -1, 1.5]),
    "preset": st.sampled_from([PAPER, "paper", None]),
    "return_convergence_delta": st.booleans(),
    "attribute_to_layer_input": st.booleans(),
}


@pytest.mark.slow
@pytest.mark.usefixtures("as_users_run_it")
@settings(max_examples=1000, suppress_health_check=list(HealthCheck))
@given(
    options=st.dictionaries(st.sampled_from(sorted(OPTIONS)), st.none(), max_size=4).flatmap(
        lambda names: st.fixed_dictionaries({name: OPTIONS[name] for name in names})
    ),
    shape=st.sampled_from([(1, 1, 4, 4)] * 6 + [(2, 1, 4, 4), (0, 1, 4, 4), (4, 4)]),
)
def test_any_call_is_finite_or_refused(options, shape):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.Conv2d(2, 1, 1))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    try:
        got = MaskAttributeConductance(net, "0").attribute(torch.rand(shape), **({"n_steps": 3} | options))
        values = got if isinstance(got, tuple) else (got,)
        assert all(bool(value.isfinite().all()) for value in values)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
