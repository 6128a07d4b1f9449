"""Attribution in weight space against Captum's integrated gradients of a function of the parameters."""

import torch
from captum.attr import IntegratedGradients
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector

from macattr.methods.weight_paths import allocate_loss_change, straight_weights


def test_the_straight_line_gives_integrated_gradients_of_the_parameters():
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, target = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    start = {name: parameter.detach() for name, parameter in net.named_parameters()}
    end = {name: torch.randn_like(parameter) for name, parameter in start.items()}

    def loss(call):
        return (call(x) - target).square().mean()

    def of_vectors(vectors):
        parts = [vector.split([parameter.numel() for parameter in start.values()]) for vector in vectors]
        states = [{n: v.reshape(start[n].shape) for n, v in zip(start, part, strict=True)} for part in parts]
        return torch.stack([loss(lambda x, s=state: functional_call(net, s, x)) for state in states])

    ends = [parameters_to_vector(state.values())[None] for state in (end, start)]
    want = IntegratedGradients(of_vectors).attribute(*ends, n_steps=30)  # Gauss-Legendre: exact to rounding here
    [change] = allocate_loss_change(net, straight_weights(start, end, 128), [loss])
    got = parameters_to_vector(change.parts.values())[None]
    # The trapezoid's error falls as 1/N^2: 1.6e-5 of the largest part at 128 steps.
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4 * float(want.abs().max()))
