"""The main call: how important every layer of a network is, by one method or by many that share their passes."""

__all__ = ["RankingInterrupted", "RankingOptions", "rank_layers", "rank_methods"]

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
from torch import Tensor, nn
from tqdm.auto import tqdm

from macattr.layers import LayerLike, resolve_layers
from macattr.methods.catalogue import find_methods
from macattr.methods.kinds import Method, PathMethod
from macattr.methods.readings import estimate_evaluations, measure
from macattr.methods.reductions import REDUCTIONS
from macattr.methods.samples import Item, count_samples, iterate_samples, refuse_iterator
from macattr.methods.task import Orders, PathLike, Setup
from macattr.paths.inputs import Gate, Reference
from macattr.paths.objectives import Objective
from macattr.paths.presets import RANKING, MacMethod, Preset
from macattr.ranking.importance import LayerImportance, assemble
from macattr.ranking.run import Stopped, World, run
from macattr.statistics.step_errors import steps_for_tolerance
from macattr.statistics.stopping import StableTop

SHARE_WITHIN = 0.95
"""Share of the layers whose step error a ``tolerance`` bounds: the rest scores near 0."""


class RankingInterrupted(RuntimeError):
    """A ranking that stopped half-way; what was finished is kept.

    Args:
        message: Where and why it stopped.
        rankings: By method, over the images that were finished.
    """

    def __init__(self, message: str, rankings: Mapping[str, LayerImportance]) -> None:
        super().__init__(message)
        self.rankings = rankings

    @property
    def finished(self) -> LayerImportance:
        """The ranking by the first method."""
        return next(iter(self.rankings.values()))


class RankingOptions(TypedDict, total=False):
    """Keyword arguments of :func:`rank_layers`, where they are explained."""

    r: float | None
    n_steps: int | None
    gate: Gate | None
    delta: float | None
    groups: int | None
    include_end: bool | None
    quadrature: MacMethod | None
    objective: Objective | None
    preset: Preset | None
    baselines: Reference | None
    path: PathLike | None
    orders: Orders
    patch_size: int
    seed: int | None
    reduction: str
    loss: Objective | None
    start_weights: Mapping[str, Tensor] | None
    additional_forward_args: tuple[object, ...]
    internal_batch_size: int | None
    memory_budget: float | None
    until: StableTop | None
    tolerance: float | None
    step_error: bool
    parts: Path | str | None
    show_progress: bool


def rank_layers(
    model: nn.Module,
    inputs: Tensor | Iterable[Item],
    method: str = "mac",
    layers: LayerLike | Sequence[LayerLike] | None = None,
    *,
    r: float | None = None,
    n_steps: int | None = None,
    gate: Gate | None = None,
    delta: float | None = None,
    groups: int | None = None,
    include_end: bool | None = None,
    quadrature: MacMethod | None = None,
    objective: Objective | None = None,
    preset: Preset | None = None,
    baselines: Reference | None = None,
    path: PathLike | None = None,
    orders: Orders = 1,
    patch_size: int = 1,
    seed: int | None = None,
    reduction: str = "mean_abs",
    loss: Objective | None = None,
    start_weights: Mapping[str, Tensor] | None = None,
    additional_forward_args: tuple[object, ...] = (),
    internal_batch_size: int | None = None,
    memory_budget: float | None = None,
    until: StableTop | None = None,
    tolerance: float | None = None,
    step_error: bool = False,
    parts: Path | str | None = None,
    show_progress: bool = False,
) -> LayerImportance:
    """Importance of every layer over images, all layers in one sweep for each image and pixel order.

    Arguments that are None take their value from ``preset``. Under ``torchrun``, with torch.distributed initialised,
    processes share the images and orders; all return the same, whatever their number.

    Args:
        model: Network, in eval mode. Images are moved to its device and dtype.
        inputs: Images: a tensor (C, H, W) or (B, C, H, W), or any iterable (list, DataLoader) of such tensors, of
            sequences whose first element is one (the second is the clean image), or of mappings with ``image`` and
            optionally ``clean``, ``name``, ``degradation`` and ``forward_args``. Sizes may differ.
        method: Name of a method; :data:`macattr.methods.catalogue.METHODS` holds all, ``macattr methods`` explains
            them. Of a layer that returns several tensors the first is scored.
        layers: Modules, names, globs or classes; None for every module that owns a parameter and runs.
        r: Masked fraction at the start of the path, in (0, 1].
        n_steps: Increments of alpha (default 30, see :data:`macattr.paths.presets.RANKING`).
        gate: How a pixel changes from hidden to visible: ``fade``, ``sigmoid`` or ``one_sided``.
        delta: Sharpness of the last two.
        groups: Groups of pixels of the ``fade`` gate.
        include_end: Whether the whole image is the last node.
        quadrature: Where the gradient is taken; ``method`` of :class:`macattr.paths.presets.Preset`.
        objective: What of the output is explained, (B, ...) to (B,).
        preset: Bundle of defaults, e.g. :data:`macattr.paths.presets.OFFICIAL`.
        baselines: Reference input; None: the model's ``reference_input`` if it has one, else 0.
        path: Path that replaces the method's own: ``mask``, ``line`` from the reference input, ``tail`` (its last
            share r), ``blur``, ``restore`` (degraded to clean), or a function from an image (1, C, H, W) to a path.
        orders: Number of random pixel orders for every image, the orders themselves (orders, H*W), or a function from
            an image to one order, e.g. by a saliency map with :func:`macattr.paths.inputs.order_by_score`.
        patch_size: Side in pixels of the blocks that are revealed together.
        seed: Seed of everything random (default 0); order j of image i depends on it, i and j alone.
        reduction: From neurons to a layer's score, by name; see :data:`macattr.methods.reductions.REDUCTIONS`.
        loss: What parameter-based methods differentiate, (B, ...) to (B,); None: the mean absolute error to ``clean``.
        start_weights: Parameters by name from which the path in weight space (``faig``) comes to the model's own.
        additional_forward_args: Further positional arguments of the model.
        internal_batch_size: Nodes in one forward pass; None chooses by memory.
        memory_budget: Bytes for activations and sums; layers are split over several sweeps if they need more.
        until: Stop adding images when the top layers are stable; images should come in random order.
        tolerance: Choose ``n_steps`` on the first image so that the relative step error of 95 % of the layers stays
            below it; excludes ``n_steps``.
        step_error: Estimate every layer's error by the finite number of steps, from every second node.
        parts: Folder that keeps every finished image and order at once; a run that was stopped continues from it.
        show_progress: Show a progress bar over all evaluations.

    Returns:
        Scores of every layer for every image and order, with how they were measured.

    Raises:
        RankingInterrupted: If it fails or is interrupted after the first image was finished; it holds the ranking over
            the finished ones.
        ValueError: If an argument is out of range or would have no effect, there is no image, or the sweep fails.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1)).eval()
        >>> importance = rank_layers(net, torch.rand(2, 3, 8, 8), n_steps=10)
        >>> sorted(importance.ranking()["layer"])
        ['0', '2']
    """
    return rank_methods(
        model, inputs, [method], layers, r=r, n_steps=n_steps, gate=gate, delta=delta, groups=groups,
        include_end=include_end, quadrature=quadrature, objective=objective, preset=preset, baselines=baselines,
        path=path, orders=orders, patch_size=patch_size, seed=seed, reduction=reduction, loss=loss,
        start_weights=start_weights, additional_forward_args=additional_forward_args,
        internal_batch_size=internal_batch_size, memory_budget=memory_budget, until=until, tolerance=tolerance,
        step_error=step_error, parts=parts, show_progress=show_progress,
    )[method]  # fmt: skip


def rank_methods(
    model: nn.Module,
    inputs: Tensor | Iterable[Item],
    methods: Sequence[str],
    layers: LayerLike | Sequence[LayerLike] | None = None,
    **options: Unpack[RankingOptions],
) -> dict[str, LayerImportance]:
    """Rankings by several methods, by name; those that walk the same path share its passes.

    Args:
        model: As in :func:`rank_layers`, like ``inputs``, ``layers`` and all options.
        inputs: Images.
        methods: Names; ``["all"]`` for every method but those that need other weights (``faig``).
        layers: Which layers.
        **options: Of :func:`rank_layers`; each must have an effect on one of the methods at least. ``until`` looks at
            the first method.

    Raises:
        RankingInterrupted: As there.
        ValueError: As there.
    """
    chosen = find_methods(methods)
    setup = _setup(model, layers, options)
    _check_effects(chosen, setup, options)
    walking = [method for method in chosen if isinstance(method, PathMethod)]
    if (tolerance := options.get("tolerance")) is not None:
        setup = _with_enough_steps(setup, walking, inputs, tolerance)
    parts = options.get("parts")
    world = World.current()
    total = count_samples(inputs)
    evaluations = total and estimate_evaluations(chosen, setup, total)[0] // world.size
    shown = bool(options.get("show_progress")) and world.rank == 0
    bar = tqdm(total=evaluations, unit="node", desc=", ".join(methods)) if shown else None
    try:
        with nullcontext() if bar is None else bar:
            finished = run(
                setup, chosen, inputs,
                drop_idle=layers is None, until=options.get("until"), parts=None if parts is None else Path(parts),
                step_error=bool(options.get("step_error")), advance=None if bar is None else bar.update,
                announce=None if bar is None else bar.set_postfix_str,
            )  # fmt: skip
    except Stopped as stopped:
        raise RankingInterrupted(str(stopped), assemble(stopped.finished)) from stopped.__cause__
    return assemble(finished)


def _setup(model: nn.Module, layers: LayerLike | Sequence[LayerLike] | None, options: RankingOptions) -> Setup:
    """What is measured, checked."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"`model` must be a torch.nn.Module, got {type(model).__name__}.")
    reduction = options.get("reduction", "mean_abs")
    if reduction not in REDUCTIONS:
        raise ValueError(f"`reduction` must be one of {', '.join(REDUCTIONS)}, got {reduction!r}.")
    orders = options.get("orders", 1)
    if isinstance(orders, int) and orders < 1:
        raise ValueError(f"`orders` must be at least 1, got {orders}.")
    if options.get("tolerance") is not None and options.get("n_steps") is not None:
        raise ValueError("`tolerance` and `n_steps` exclude each other: a tolerance chooses the steps.")
    preset = (options.get("preset") or RANKING).override(
        r=options.get("r"), n_steps=options.get("n_steps"), gate=options.get("gate"), delta=options.get("delta"),
        groups=options.get("groups"), include_end=options.get("include_end"), method=options.get("quadrature"),
        objective=options.get("objective"),
    )  # fmt: skip
    return Setup(
        model, resolve_layers(model, layers), preset, options.get("path"), orders, options.get("baselines"),
        options.get("patch_size", 1), options.get("seed") or 0, reduction, options.get("loss"),
        options.get("start_weights"), tuple(options.get("additional_forward_args", ())),
        options.get("internal_batch_size"), options.get("memory_budget"),
    )  # fmt: skip


def _check_effects(methods: Sequence[Method], setup: Setup, options: RankingOptions) -> None:
    """Raise for an option that none of the methods reads."""
    defaults = {"orders": 1, "patch_size": 1, "reduction": "mean_abs", "step_error": False}
    effective = set().union(*(method.arguments(setup) for method in methods))
    effective |= {"tolerance", "step_error"} if "n_steps" in effective else set()
    always = {"preset", "additional_forward_args", "internal_batch_size", "memory_budget", "until", "parts"}
    for name, value in options.items():
        usual = isinstance(value, int | str) and value == defaults.get(name)
        given = value is not None and not usual
        if given and name not in effective | always | {"show_progress"}:
            names = ", ".join(repr(method.name) for method in methods)
            raise ValueError(f"`{name}` = {str(value)[:40]} has no effect on the ranking by {names}: leave it out.")


def _with_enough_steps(
    setup: Setup, methods: Sequence[PathMethod], inputs: Tensor | Iterable[Item], tolerance: float
) -> Setup:
    """The same with as many steps as the first image needs."""
    refuse_iterator(inputs, "`tolerance` looks at the first image twice")
    sample = next(iterate_samples(inputs, setup.model))
    along = [method for method in methods if method.reads == "path"]
    readings = measure(setup, along, sample, setup.order(sample, 0), setup.seed, step_error=True)
    errors = [
        error / abs(score)
        for reading in readings.values()
        for error, score in zip(reading.step_error, reading.score, strict=True)
        if score and np.isfinite(error)
    ]
    steps = steps_for_tolerance(
        np.array(errors), setup.options.n_steps, tolerance, order=setup.options.order_of_convergence,
        share=SHARE_WITHIN, multiple=10,
    )  # fmt: skip
    return setup.with_steps(steps)
