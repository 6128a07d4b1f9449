"""Ways to score layers, by name: what each reads, what it costs and where it comes from."""

__all__ = [
    "METHODS",
    "JointMethod",
    "Method",
    "PathMethod",
    "SampleMethod",
    "find_methods",
    "is_ordered",
    "register_method",
    "walks_of",
]

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from macattr import parameter_scores as parameters
from macattr.layer_lines import layer_integrated_gradients
from macattr.reductions import REDUCTIONS
from macattr.samples import Sample
from macattr.setup import PathLike, Setup, WalkName

Sums = Mapping[str, Tensor]

MASK_ARGUMENTS = {"r", "gate", "delta", "groups", "patch_size", "orders", "seed"}
"""Options of the mask path."""


@dataclass(frozen=True)
class PathMethod:
    """A method that walks a path and sums outputs and gradients; methods that share a path share its sweep.

    Args:
        name: How it is called.
        summary: What the score is, in a line.
        source: Where it comes from.
        walks: Names of its paths; the score is the mean over them. See :meth:`macattr.setup.Setup.path`.
        needs: Names of the sums that it reads; see :data:`macattr.measuring.SUMS`.
        neurons: From these sums to the quantity that is reduced to a score.
        reads: All nodes of the ``path``, its two ``ends``, or the whole image at its ``end`` alone.
        reduction: The only reduction that it has; None: the user's choice.
        hidden_loss: Whether the objective is the mean absolute error, to the clean image, over the pixels hidden at
            the start of the path.
        symbol: What a neuron's value is called.
    """

    name: str
    summary: str
    source: str
    walks: tuple[WalkName, ...]
    needs: tuple[str, ...]
    neurons: Callable[[Sums], Tensor]
    reads: Literal["path", "ends", "end"] = "path"
    reduction: str | None = None
    hidden_loss: bool = False
    symbol: str = "C"

    def cost(self, setup: Setup) -> int:
        """Evaluations for one image and pixel order if it walks alone."""
        return len(self.walks) * (setup.options.n_nodes if self.reads == "path" else 2)

    @property
    def price(self) -> str:
        """Evaluations in words."""
        nodes = f"{len(self.walks)} x (n_steps + 1)" if len(self.walks) > 1 else "n_steps + 1"
        nodes = nodes if self.reads == "path" else "2"
        ordered = self.reads != "end" and {"mask", "twin"} & set(self.walks)
        return f"{nodes} an image" + (" and pixel order" if ordered else "")

    def unit(self, setup: Setup) -> str:
        """What the score is of the neurons' values."""
        return REDUCTIONS[self.reduction or setup.reduction].formula.replace("C", self.symbol)

    def arguments(self, setup: Setup) -> set[str]:
        """Options that have an effect on the score."""
        walks = set(walks_of(self, setup))
        gradients = not {"start_output", "end_output"} >= set(self.needs)
        found = {"objective"} if gradients and not self.hidden_loss else set()
        found |= {"reduction"} if self.reduction is None else set()
        found |= {"n_steps", "quadrature", "include_end"} if self.reads == "path" else set()
        if self.reads == "end":
            return found
        found |= {"path", "baselines"} if not self.hidden_loss else {"baselines"}
        found |= {"r"} if walks & {"mask", "twin", "tail"} else set()
        found |= MASK_ARGUMENTS if walks & {"mask", "twin"} else set()
        return found if isinstance(setup.orders, int) else found - {"seed"}


@dataclass(frozen=True)
class _WithoutPath:
    """What methods share that walk no path of inputs; :class:`SampleMethod` explains the fields."""

    name: str
    summary: str
    source: str
    score: Callable[..., Sequence[float]]
    evaluations: Callable[[Setup], int] = lambda setup: 1
    price: str = "1 an image"
    options: frozenset[str] = frozenset()

    def cost(self, setup: Setup) -> int:
        """Evaluations for one image."""
        return self.evaluations(setup)

    def unit(self, setup: Setup) -> str:
        """What the score is."""
        return self.summary

    def arguments(self, setup: Setup) -> set[str]:
        """Options that have an effect on the score."""
        return set(self.options)


@dataclass(frozen=True)
class SampleMethod(_WithoutPath):
    """A method that scores the layers on one image at a time.

    Args:
        name: How it is called.
        summary: What the score is, in a line.
        source: Where it comes from.
        score: From setup and image to the score of every layer, in the setup's order.
        evaluations: From setup to the evaluations for one image.
        price: The same in words.
        options: Names of the arguments of :func:`macattr.rank_layers` that have an effect on it.
    """

    score: Callable[[Setup, Sample], Sequence[float]]


@dataclass(frozen=True)
class JointMethod(_WithoutPath):
    """A method that scores the layers once, on all images together or on none; other fields as :class:`SampleMethod`.

    Args:
        score: From setup and all images to the score of every layer, in the setup's order.
        evaluations: From setup to the evaluations for one image.
        price: The same in words.
    """

    score: Callable[[Setup, Sequence[Sample]], Sequence[float]]
    evaluations: Callable[[Setup], int] = lambda setup: 0
    price: str = "nothing"


Method = PathMethod | SampleMethod | JointMethod
"""A way to score layers: along a path, image by image, or on all images together."""


def walks_of(method: PathMethod, setup: Setup) -> tuple[WalkName | PathLike, ...]:
    """The paths that a method walks: its own, or the one that was chosen for all.

    Raises:
        ValueError: If the method needs hidden pixels and the chosen path has none.
    """
    if setup.walk is None or (method.hidden_loss and setup.walk == "mask"):
        return method.walks
    if method.hidden_loss:
        raise ValueError(f"the method {method.name!r} reads hidden pixels, so it walks the mask path only.")
    return (setup.walk,)


def is_ordered(method: Method, setup: Setup) -> bool:
    """Whether the method's score depends on a pixel order."""
    if not isinstance(method, PathMethod) or method.reads == "end":
        return False
    return any(walk in ("mask", "twin") for walk in walks_of(method, setup))


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
