"""Ways to score layers, by name: what each reads, what it costs and where it comes from."""

__all__ = ["METHODS", "find_methods", "refuse_missing_images", "register_method"]

import difflib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from macattr.arguments import as_names
from macattr.methods import parameter_scores as parameters
from macattr.methods import similarity, warm_up
from macattr.methods import weight_scores as weights
from macattr.methods.aliases import explain_alias
from macattr.methods.kernel import kernel_gain
from macattr.methods.kinds import JointMethod, Method, PathMethod, SampleMethod, Sums, needs_images
from macattr.methods.layer_ig import layer_integrated_gradients, options_of_path
from macattr.methods.samples import Sample
from macattr.methods.task import Task


def _conductance(sums: Sums) -> Tensor:
    """Gradient times change of the output, summed along the path."""
    return sums["conductance"]


def _drift(sums: Sums) -> Tensor:
    """Change of the output between the ends of the path, relative to its size at the start.

    Where it is 0 there, it is relative to its size at the end; an output of 0 at both ends has not changed.
    """
    start, end = sums["start_output"], sums["end_output"]
    sizes = [size for size in (start.norm(), end.norm()) if size > 0]
    return (end - start) / sizes[0] if sizes else torch.zeros_like(start)


def _patching(sums: Sums) -> Tensor:
    """First-order effect on the objective of putting the start's output in place of the end's."""
    return sums["end_gradient"] * (sums["end_output"] - sums["start_output"])


def _random(task: Task, samples: Sequence[Sample]) -> list[float]:
    """Uniform random numbers from the task's seed."""
    return torch.rand(len(task.layers), generator=torch.Generator().manual_seed(task.seed), device="cpu").tolist()


def _depth(task: Task, samples: Sequence[Sample]) -> list[float]:
    """Number of layers from this one on."""
    return [float(rest) for rest in range(len(task.layers), 0, -1)]


def _magnitude(task: Task, samples: Sequence[Sample]) -> list[float]:
    """Mean absolute weight of every layer's own parameters, as the forward pass uses them."""
    return [weights.mean_magnitude(name, module) for name, module in task.layers.items()]


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
        options=frozenset({"path", "n_steps", "tag", "include_end", "objective", "reduction"}),
        further_options=options_of_path,
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
        adds_calls=False,
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
        adds_calls=False,
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
        adds_calls=False,
    ),
    SampleMethod(
        name="fisher",
        summary="sum of squared gradients of the loss",
        source="Sung et al. 2021 (FISH)",
        score=parameters.fisher,
        options=LOSS,
        of_parameters=True,
    ),
    SampleMethod(
        name="rgn",
        summary="norm of the loss's gradient / norm of the weights",
        source="Lee et al. 2023 (surgical fine-tuning)",
        score=parameters.relative_gradient_norm,
        options=LOSS,
        of_parameters=True,
    ),
    JointMethod(
        name="snr",
        summary="mean of (mean gradient)^2 / variance over the images",
        source="Lee et al. 2023 (surgical fine-tuning)",
        score=parameters.signal_to_noise,
        evaluations=lambda task: 1,
        price="1 an image",
        options=LOSS,
        of_parameters=True,
    ),
    JointMethod(
        name="adam_gain",
        summary="sum of (mean gradient)^2 / root mean square over the images: decrease by a step of Adam",
        source="ours",
        score=parameters.adam_gain,
        evaluations=lambda task: 1,
        price="1 an image",
        options=LOSS,
        of_parameters=True,
    ),
    JointMethod(
        name="adam_gain_warm",
        summary="the same after a short training of the ends, which mends what all layers could",
        source="ours; Kumar et al. 2022 (LP-FT)",
        score=warm_up.adam_gain_warm,
        evaluations=lambda task: warm_up.PASSES + 1,
        price=f"{warm_up.PASSES + 1} an image",
        options=LOSS,
        of_parameters=True,
    ),
    JointMethod(
        name="kernel",
        summary="what the layer adds to the others' gain, in greedy order by parameter; what layers share counts once",
        source="ours; F3OCUS (arXiv:2411.11912)",
        score=kernel_gain,
        evaluations=lambda task: 2,
        price="2 an image",
        options=LOSS | {"seed"},
        of_parameters=True,
    ),
    JointMethod(
        name="lca",
        summary="decrease of the loss, allocated along a short fine-tuning of all layers",
        source="Lan et al. 2019",
        score=parameters.loss_change_allocation,
        evaluations=parameters.lca_evaluations,
        price=parameters.LCA_PRICE,
        options=LOSS,
        of_parameters=True,
    ),
    SampleMethod(
        name="faig",
        summary="|change of the loss| allocated along the line to this network's weights from others",
        source="Xie et al. 2021; from weights of 0, IGU-LoRA's joint path (arXiv:2603.13792)",
        score=parameters.weight_line,
        evaluations=lambda task: task.preset.n_steps + 1,
        price="n_steps + 1 an image",
        options=frozenset({"loss", "start_weights", "n_steps"}),
        of_parameters=True,
    ),
    JointMethod(
        name="taylor",
        summary="mean |weight x mean gradient of the loss|: the first-order cost of removing weights",
        source="GoRA (arXiv:2502.12171)",
        score=parameters.taylor,
        evaluations=lambda task: 1,
        price="1 an image",
        options=LOSS,
        of_parameters=True,
    ),
    JointMethod(
        name="kappa",
        summary="1 / condition number of the weights (largest / smallest singular value): the best conditioned first",
        source="KappaTune (arXiv:2506.16289)",
        score=weights.condition_score,
        needs_images=False,
        of_parameters=True,
    ),
    JointMethod(
        name="spectrum",
        summary="place within its type by signal-to-noise ratio of the singular values: a top share of every type",
        source="Spectrum (arXiv:2406.06623)",
        score=weights.spectral_score,
        needs_images=False,
        of_parameters=True,
    ),
    JointMethod(
        name="cka",
        summary="1 - linear CKA of input and output over the images: how far a block changes what it is given",
        source="arXiv:2602.05988",
        score=similarity.cka_change,
        evaluations=lambda task: 1,
        price="1 forward pass an image",
        is_general=False,
    ),
    SampleMethod(
        name="cosine",
        summary="1 - cosine of input and output, for blocks that keep the shape: the cheap form of cka",
        source="arXiv:2406.17415",
        score=similarity.cosine_change,
        price="1 forward pass an image",
        is_general=False,
    ),
    JointMethod(
        name="magnitude",
        summary="mean |weight|",
        source="a control",
        score=_magnitude,
        needs_images=False,
        of_parameters=True,
    ),
    JointMethod(
        name="depth",
        summary="the first layers first",
        source="a control",
        score=_depth,
        needs_images=False,
    ),
    JointMethod(
        name="random",
        summary="a random ranking",
        source="a control",
        score=_random,
        options=frozenset({"seed"}),
        needs_images=False,
    ),
    JointMethod(
        name="uniform",
        summary="all layers alike",
        source="a control",
        score=lambda task, samples: [1.0] * len(task.layers),
        needs_images=False,
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


def find_methods(names: str | Iterable[str]) -> list[Method]:
    """Methods by name; ``all`` stands for all that score any layer and need no other weights, but perhaps clean images.

    Raises:
        ValueError: If a name is unknown (with near matches, or what is there in place of a name of the field) or there
            is none.
    """
    every = [
        name
        for name, method in METHODS.items()
        if isinstance(method, PathMethod) or (method.is_general and "start_weights" not in method.options)
    ]
    given = as_names("method", names)
    wanted = every if given == ("all",) else list(dict.fromkeys(given))
    if not wanted:
        raise ValueError(f"`method` is empty; there are {', '.join(METHODS)}.")
    for name in wanted:
        if name not in METHODS:
            near = difflib.get_close_matches(name.lower().replace("-", "_"), METHODS, n=3)
            hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(METHODS)}."
            raise ValueError(f"no method {name!r}; {explain_alias(name) or hint}")
    return [METHODS[name] for name in wanted]


def refuse_missing_images(methods: Sequence[Method], remedy: str) -> None:
    """Raise unless all methods rank without images.

    Args:
        methods: Methods that are to rank.
        remedy: What is missing, and what to do.

    Raises:
        ValueError: If one of them reads images.
    """
    if reading := [method.name for method in methods if needs_images(method)]:
        without = ", ".join(name for name, method in METHODS.items() if not needs_images(method))
        raise ValueError(f"{remedy}. {reading[0]!r} reads them; {without} need none.")
