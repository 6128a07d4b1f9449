"""Ways to score layers, by name: what each reads, what it costs and where it comes from."""

__all__ = ["METHODS", "find_methods", "register_method"]

import difflib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from macattr.layers import own_parameters
from macattr.methods import parameter_scores as parameters
from macattr.methods.kinds import JointMethod, Method, PathMethod, SampleMethod, Sums
from macattr.methods.layer_ig import layer_integrated_gradients
from macattr.methods.samples import Sample
from macattr.methods.task import Task


def _conductance(sums: Sums) -> Tensor:
    """Gradient times change of the output, summed along the path."""
    return sums["conductance"]


def _drift(sums: Sums) -> Tensor:
    """Change of the output between the ends of the path, relative to its size at the start."""
    start: Tensor = sums["start_output"]
    change: Tensor = sums["end_output"] - start
    return change / start.square().sum().sqrt()


def _patching(sums: Sums) -> Tensor:
    """First-order effect on the objective of putting the start's output in place of the end's."""
    return sums["end_gradient"] * (sums["end_output"] - sums["start_output"])


def _random(task: Task, samples: Sequence[Sample]) -> list[float]:
    """Uniform random numbers from the task's seed."""
    return torch.rand(len(task.layers), generator=torch.Generator().manual_seed(task.seed)).tolist()


def _depth(task: Task, samples: Sequence[Sample]) -> list[float]:
    """Number of layers from this one on."""
    return [float(rest) for rest in range(len(task.layers), 0, -1)]


def _magnitude(task: Task, samples: Sequence[Sample]) -> list[float]:
    """Mean absolute weight of every layer's own parameters."""
    return [_mean_absolute(module) for module in task.layers.values()]


def _mean_absolute(module: nn.Module) -> float:
    """Mean absolute value of the parameters that a module owns; 0 without any."""
    own = [parameter.detach().abs().flatten() for parameter in own_parameters(module).values()]
    return float(torch.cat(own).mean()) if own else 0.0


def _line_nodes(task: Task) -> int:
    """Nodes of one line for every layer."""
    return len(task.layers) * task.preset.n_nodes


RAM = "Qin et al. 2024 (RAM)"

LOSS = frozenset({"loss"})

BUILT_IN: tuple[Method, ...] = (
    PathMethod(
        name="mac",
        summary="mean |conductance| along the mask path, from masked to whole image",
        source=f"{RAM}, Eq. 8-9",
        walks=("mask",),
        needs=("conductance",),
        neurons=_conductance,
    ),
    PathMethod(
        name="mac_loss",
        summary="conductance of the loss on the hidden pixels, both twin masks; signed, > 0 raises the loss",
        source="ours",
        walks=("mask", "twin"),
        needs=("conductance",),
        neurons=_conductance,
        reduction="sum",
        hidden_loss=True,
    ),
    PathMethod(
        name="conductance",
        summary="mean |conductance| along the line from the reference input",
        source="Dhamdhere et al. 2018",
        walks=("line",),
        needs=("conductance",),
        neurons=_conductance,
    ),
    PathMethod(
        name="internal_influence",
        summary="mean |mean gradient| along the last r of that line: the 'IG' of RAM's Table 5",
        source="Leino et al. 2018",
        walks=("tail",),
        needs=("mean_gradient",),
        neurons=lambda sums: sums["mean_gradient"],
        symbol="mean gradient",
    ),
    SampleMethod(
        name="layer_ig",
        summary="mean |integrated gradients| in each layer's own space, one layer after the other",
        source="Sundararajan et al. 2017",
        score=layer_integrated_gradients,
        evaluations=_line_nodes,
        price="layers x (n_steps + 1) an image",
        options=frozenset({"path", "baselines", "n_steps", "tag", "include_end", "objective", "reduction"}),
    ),
    PathMethod(
        name="grad_x_activation",
        summary="mean |gradient x output| at the image",
        source="Shrikumar et al. 2016",
        walks=("line",),
        needs=("end_product",),
        neurons=lambda sums: sums["end_product"],
        reads="end",
        symbol="gradient x output",
    ),
    PathMethod(
        name="activation",
        summary="mean |output| at the image",
        source="a control",
        walks=("line",),
        needs=("end_output",),
        neurons=lambda sums: sums["end_output"],
        reads="end",
        symbol="output",
    ),
    PathMethod(
        name="drift",
        summary="change of the output from masked to whole image, relative to its norm",
        source="a control",
        walks=("mask",),
        needs=("start_output", "end_output"),
        neurons=_drift,
        reads="ends",
        reduction="norm",
        symbol="relative change",
    ),
    PathMethod(
        name="attribution_patching",
        summary="|gradient at the image . change of the output from masked to whole image|",
        source="Nanda 2023; Kramar et al. 2024",
        walks=("mask",),
        needs=("start_output", "end_output", "end_gradient"),
        neurons=_patching,
        reads="ends",
        reduction="abs_sum",
        symbol="gradient x change",
    ),
    SampleMethod(
        name="fisher",
        summary="sum of squared gradients of the loss",
        source="Sung et al. 2021 (FISH)",
        score=parameters.fisher,
        options=LOSS,
    ),
    SampleMethod(
        name="rgn",
        summary="norm of the loss's gradient / norm of the weights",
        source="Lee et al. 2023 (surgical fine-tuning)",
        score=parameters.relative_gradient_norm,
        options=LOSS,
    ),
    JointMethod(
        name="snr",
        summary="mean of (mean gradient)^2 / variance over the images",
        source="Lee et al. 2023 (surgical fine-tuning)",
        score=parameters.signal_to_noise,
        evaluations=lambda task: 1,
        price="1 an image",
        options=LOSS,
    ),
    JointMethod(
        name="adam_gain",
        summary="sum of (mean gradient)^2 / root mean square over the images: Adam's first step",
        source="ours",
        score=parameters.adam_gain,
        evaluations=lambda task: 1,
        price="1 an image",
        options=LOSS,
    ),
    JointMethod(
        name="lca",
        summary="decrease of the loss, allocated along a short fine-tuning of all layers",
        source="Lan et al. 2019",
        score=parameters.loss_change_allocation,
        evaluations=parameters.lca_evaluations,
        price=parameters.LCA_PRICE,
        options=LOSS,
    ),
    SampleMethod(
        name="faig",
        summary="|change of the loss| allocated along the line to this network's weights from others",
        source="Xie et al. 2021",
        score=parameters.weight_line,
        evaluations=lambda task: task.preset.n_steps + 1,
        price="n_steps + 1 an image",
        options=frozenset({"loss", "start_weights", "n_steps"}),
    ),
    JointMethod(
        name="magnitude",
        summary="mean |weight|",
        source="a control",
        score=_magnitude,
    ),
    JointMethod(
        name="depth",
        summary="the first layers first",
        source="a control",
        score=_depth,
    ),
    JointMethod(
        name="random",
        summary="a random ranking",
        source="a control",
        score=_random,
        options=frozenset({"seed"}),
    ),
    JointMethod(
        name="uniform",
        summary="all layers alike",
        source="a control",
        score=lambda task, samples: [1.0] * len(task.layers),
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in BUILT_IN}
"""All methods by name; :func:`register_method` adds to it."""


def register_method(method: Method) -> Method:
    """Make a method known by its name.

    Raises:
        ValueError: If the name is taken.

    Example:
        >>> bias = JointMethod("has_bias", "1 with bias, else 0", "ours", lambda task, samples: [
        ...     float(getattr(layer, "bias", None) is not None) for layer in task.layers.values()])
        >>> register_method(bias).name
        'has_bias'
        >>> _ = METHODS.pop("has_bias")
    """
    if method.name in METHODS:
        raise ValueError(f"there is a method {method.name!r} already: choose another name.")
    METHODS[method.name] = method
    return method


def find_methods(names: Sequence[str]) -> list[Method]:
    """Methods by name; ``all`` stands for all that need nothing but images.

    Raises:
        ValueError: If a name is unknown (with near matches) or there is none.
    """
    every = [name for name, method in METHODS.items() if "start_weights" not in getattr(method, "options", ())]
    wanted = every if list(names) == ["all"] else list(dict.fromkeys(names))
    if not wanted:
        raise ValueError(f"`method` is empty; there are {', '.join(METHODS)}.")
    for name in wanted:
        if name not in METHODS:
            near = difflib.get_close_matches(name, METHODS, n=3)
            hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(METHODS)}."
            raise ValueError(f"no method {name!r}; {hint}")
    return [METHODS[name] for name in wanted]
