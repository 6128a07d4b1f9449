"""Ways to score layers, by name: what each reads, what it costs and where it comes from."""

__all__ = ["METHODS", "find_methods", "register_method"]

import difflib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from macattr.methods import parameter_scores as parameters
from macattr.methods.kinds import JointMethod, Method, PathMethod, SampleMethod, Sums
from macattr.methods.layer_ig import layer_integrated_gradients
from macattr.methods.samples import Sample
from macattr.methods.task import Setup


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


def _random(setup: Setup, samples: Sequence[Sample]) -> list[float]:
    """Uniform random numbers from the setup's seed."""
    return torch.rand(len(setup.layers), generator=torch.Generator().manual_seed(setup.seed)).tolist()


def _depth(setup: Setup, samples: Sequence[Sample]) -> list[float]:
    """Number of layers from this one on."""
    return [float(rest) for rest in range(len(setup.layers), 0, -1)]


def _magnitude(setup: Setup, samples: Sequence[Sample]) -> list[float]:
    """Mean absolute weight of every layer's own parameters."""
    return [_mean_absolute(module) for module in setup.layers.values()]


def _mean_absolute(module: nn.Module) -> float:
    """Mean absolute value of the parameters that a module owns; 0 without any."""
    own = [parameter.detach().abs().flatten() for parameter in module.parameters(recurse=False)]
    return float(torch.cat(own).mean()) if own else 0.0


def _line_nodes(setup: Setup) -> int:
    """Nodes of one line for every layer."""
    return len(setup.layers) * setup.options.n_nodes


RAM = "Qin et al. 2024 (RAM)"

LOSS = frozenset({"loss"})

BUILT_IN: tuple[Method, ...] = (
    PathMethod(
        "mac", "mean |conductance| along the mask path, from masked to whole image", f"{RAM}, Eq. 8-9",
        ("mask",), ("conductance",), _conductance,
    ),
    PathMethod(
        "mac_loss", "conductance of the loss on the hidden pixels, both twin masks; signed, > 0 raises the loss",
        "ours", ("mask", "twin"), ("conductance",), _conductance, reduction="sum", hidden_loss=True,
    ),
    PathMethod(
        "conductance", "mean |conductance| along the line from the reference input", "Dhamdhere et al. 2018",
        ("line",), ("conductance",), _conductance,
    ),
    PathMethod(
        "internal_influence", "mean |mean gradient| along the last r of that line: the 'IG' of RAM's Table 5",
        "Leino et al. 2018", ("tail",), ("mean_gradient",), lambda sums: sums["mean_gradient"], symbol="mean gradient",
    ),
    SampleMethod(
        "layer_ig", "mean |integrated gradients| in each layer's own space, one layer after the other",
        "Sundararajan et al. 2017", layer_integrated_gradients, _line_nodes,
        "layers x (n_steps + 1) an image",
        frozenset({"path", "baselines", "n_steps", "quadrature", "include_end", "objective", "reduction"}),
    ),
    PathMethod(
        "grad_x_activation", "mean |gradient x output| at the image", "Shrikumar et al. 2016", ("line",),
        ("end_product",), lambda sums: sums["end_product"], "end", symbol="gradient x output",
    ),
    PathMethod(
        "activation", "mean |output| at the image", "a control", ("line",), ("end_output",),
        lambda sums: sums["end_output"], "end", symbol="output",
    ),
    PathMethod(
        "drift", "change of the output from masked to whole image, relative to its norm", "a control", ("mask",),
        ("start_output", "end_output"), _drift, "ends", "norm", symbol="relative change",
    ),
    PathMethod(
        "attribution_patching", "|gradient at the image . change of the output from masked to whole image|",
        "Nanda 2023; Kramar et al. 2024", ("mask",), ("start_output", "end_output", "end_gradient"), _patching,
        "ends", "abs_sum", symbol="gradient x change",
    ),
    SampleMethod(
        "fisher", "sum of squared gradients of the loss", "Sung et al. 2021 (FISH)", parameters.fisher, options=LOSS
    ),
    SampleMethod(
        "rgn", "norm of the loss's gradient / norm of the weights", "Lee et al. 2023 (surgical fine-tuning)",
        parameters.relative_gradient_norm, options=LOSS,
    ),
    JointMethod(
        "snr", "mean of (mean gradient)^2 / variance over the images", "Lee et al. 2023 (surgical fine-tuning)",
        parameters.signal_to_noise, lambda setup: 1, "1 an image", LOSS,
    ),
    JointMethod(
        "adam_gain", "sum of (mean gradient)^2 / root mean square over the images: Adam's first step", "ours",
        parameters.adam_gain, lambda setup: 1, "1 an image", LOSS,
    ),
    JointMethod(
        "lca", "decrease of the loss, allocated along a short fine-tuning of all layers", "Lan et al. 2019",
        parameters.loss_change_allocation, parameters.lca_evaluations, parameters.LCA_PRICE, LOSS,
    ),
    SampleMethod(
        "faig", "|change of the loss| allocated along the line to this network's weights from others",
        "Xie et al. 2021", parameters.weight_line, lambda setup: setup.options.n_steps + 1, "n_steps + 1 an image",
        frozenset({"loss", "start_weights", "n_steps"}),
    ),
    JointMethod("magnitude", "mean |weight|", "a control", _magnitude),
    JointMethod("depth", "the first layers first", "a control", _depth),
    JointMethod("random", "a random ranking", "a control", _random, options=frozenset({"seed"})),
    JointMethod("uniform", "all layers alike", "a control", lambda setup, samples: [1.0] * len(setup.layers)),
)  # fmt: skip

METHODS: dict[str, Method] = {method.name: method for method in BUILT_IN}
"""All methods by name; :func:`register_method` adds to it."""


def register_method(method: Method) -> Method:
    """Make a method known by its name.

    Raises:
        ValueError: If the name is taken.

    Example:
        >>> bias = JointMethod("has_bias", "1 with bias, else 0", "ours", lambda setup, samples: [
        ...     float(getattr(layer, "bias", None) is not None) for layer in setup.layers.values()])
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
