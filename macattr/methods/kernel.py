r"""The gain that a set of layers has together, from the kernel of their gradients; greedy selection by it.

:math:`h_{ip}` is the gradient of image i's loss with respect to parameter p, and :math:`v_p` its mean square over the
images. A layer's kernel compares the images by it, with Adam's scale of every parameter:
:math:`K_l[i, j] = \sum_{p \in l} h_{ip} h_{jp} / \sqrt{v_p}`.
"""

__all__ = ["SKETCH", "gain", "greedy_order", "kernel_gain", "layer_kernels", "ridge_of"]

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from macattr.methods.parameter_scores import EPS, gradient_moments, loss_gradients, parameter_vectors
from macattr.methods.samples import Sample
from macattr.methods.task import Task

SKETCH = 4096
"""Numbers that a longer gradient is folded into, with random signs: inner products stay right on average."""

USER = "the method 'kernel'"


def kernel_gain(task: Task, samples: Sequence[Sample]) -> list[float]:
    """What every layer adds to the :func:`gain` of those before it in the :func:`greedy_order` of all layers.

    The scores add up to the gain of all layers together. A layer whose gradients repeat those of others adds little.
    Divided by the layer's parameters (``SelectionRule(per_parameter=True)``) they give the greedy order back wherever
    returns diminish.

    Source:
        Ours. The layers' tangent kernels rank layers in F3OCUS (arXiv:2411.11912), one by one.
    """
    kernels = layer_kernels(task, samples)
    sizes = [parameters.numel() for parameters in parameter_vectors(task)]
    scores = [0.0] * len(sizes)
    for layer, added in greedy_order(kernels, sizes, ridge_of(kernels)):
        scores[layer] = added
    return scores


def layer_kernels(task: Task, samples: Sequence[Sample]) -> Float[Tensor, "layers n n"]:
    """Kernels of all layers over n images, in float64 on the CPU.

    Every image's loss is differentiated twice. Gradients longer than :data:`SKETCH` are sketched, so that n times as
    many numbers a layer are held, whatever its size.

    Args:
        task: Network, layers and loss.
        samples: Images.

    Raises:
        ValueError: If the loss cannot be computed or is not finite.
    """
    scales = [(square.sqrt() + EPS).rsqrt() for _, square in gradient_moments(task, samples, USER)]
    signs = [_signs(scale, task.seed + number) for number, scale in enumerate(scales)]
    rows: list[list[Tensor]] = [[] for _ in scales]
    for sample in samples:
        for row, gradient, scale, sign in zip(rows, loss_gradients(task, sample, USER), scales, signs, strict=True):
            row.append(_folded(gradient.double() * scale, sign).cpu())
    stacked = [torch.stack(row) for row in rows]
    return torch.stack([gradients @ gradients.T for gradients in stacked])


def gain(kernel: Float[Tensor, "*sets n n"], ridge: float) -> Float[Tensor, "*sets"]:
    r"""Share of the images' common step that a set of layers can make, in [0, 1).

    .. math:: \frac1n \mathbf 1^T K_S (K_S + \lambda I)^{-1} \mathbf 1, \qquad K_S = \sum_{l \in S} K_l

    For a large :math:`\lambda` it is the sum of the layers' Adam gains times :math:`n / \lambda`; for a small one, what
    they have in common counts once.

    Args:
        kernel: Kernel of each set, symmetric and positive semi-definite.
        ridge: :math:`\lambda`, positive.

    Example:
        >>> gain(torch.ones(2, 2, dtype=torch.float64), ridge=2.0)
        tensor(0.5000, dtype=torch.float64)
    """
    number = kernel.shape[-1]
    ones = kernel.new_ones(number, 1)
    solved: Tensor = torch.linalg.solve(
        kernel + ridge * torch.eye(number, dtype=kernel.dtype, device=kernel.device), ones.expand(*kernel.shape[:-1], 1)
    )
    shares: Tensor = 1 - ridge * solved.sum((-2, -1)) / number
    return shares


def ridge_of(kernels: Float[Tensor, "layers n n"]) -> float:
    """Ridge in proportion to the gradients: the mean diagonal of all layers' kernel; 1 where all of it is 0.

    Args:
        kernels: Of all layers.
    """
    return float(kernels.sum(0).diagonal().mean()) or 1.0


def greedy_order(
    kernels: Float[Tensor, "layers n n"], sizes: Sequence[int], ridge: float, budget: int | None = None
) -> list[tuple[int, float]]:
    """Layers in the order in which the :func:`gain` grows most for each parameter, with what each added to it.

    All candidates are tried at every step. The lazy kind of greedy selection would not do: returns need not diminish.
    Gradients of a layer that cancel over the images add nothing alone, and something beside another layer.

    Args:
        kernels: Of the layers.
        sizes: Parameters of every layer; a layer without any is left out.
        ridge: Ridge of the gain.
        budget: Number of parameters; a layer that does not fit into what is left is passed over. None takes all layers.

    Returns:
        Pairs of a layer's number and what it added.

    Source:
        Khuller et al. 1999 for greedy selection by gain per cost.

    Example:
        >>> same, other = torch.ones(2, 2).double(), torch.tensor([[1.0, 0.0], [0.0, 0.0]]).double()
        >>> [layer for layer, _ in greedy_order(torch.stack([same, same, other]), [20, 22, 5], ridge=0.1)]
        [2, 0, 1]
    """
    left = [layer for layer, size in enumerate(sizes) if size]
    rest = sum(sizes) if budget is None else budget
    taken, reached = kernels.new_zeros(kernels.shape[1:]), 0.0
    order: list[tuple[int, float]] = []
    while left := [layer for layer in left if sizes[layer] <= rest]:
        added = gain(taken + kernels[left], ridge) - reached
        best = int((added / added.new_tensor([sizes[layer] for layer in left])).argmax())
        layer = left.pop(best)
        taken, reached, rest = taken + kernels[layer], reached + float(added[best]), rest - sizes[layer]
        order.append((layer, float(added[best])))
    return order


def _signs(like: Tensor, seed: int) -> Tensor:
    """Random signs for a gradient that is longer than a sketch; none for others."""
    if like.numel() <= SKETCH:
        return torch.empty(0, dtype=torch.int8, device="cpu")
    draws = torch.randint(
        0, 2, (like.numel(),), generator=torch.Generator().manual_seed(seed), dtype=torch.int8, device="cpu"
    )
    return (2 * draws - 1).to(like.device)


def _folded(gradient: Tensor, signs: Tensor) -> Tensor:
    """A gradient as it is, or folded into a sketch."""
    if not signs.numel():
        return gradient
    padded = torch.nn.functional.pad(gradient * signs, (0, -gradient.numel() % SKETCH))
    return padded.view(-1, SKETCH).sum(0)
