"""The main call: how important every layer of a network is, by one method or by many that share their passes."""

__all__ = ["RankingInterrupted", "effective_options", "rank_layers", "rank_methods", "rank_with", "task_of"]

import difflib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from tqdm.auto import tqdm

from macattr.layers.parameters import own_parameters
from macattr.layers.resolve import LayerLike, entries_of, left_out, matched_by_globs, resolve_layers
from macattr.methods.catalogue import find_methods, refuse_missing_images
from macattr.methods.kinds import Method, PathMethod
from macattr.methods.readings import estimate_evaluations, measure
from macattr.methods.samples import Files, Inputs, count_samples, iterate_samples, open_inputs, refuse_iterator
from macattr.methods.task import Loss, ObjectiveName, Options, Orders, PathLike, Task, Trial
from macattr.paths.inputs import Gate, Reference
from macattr.paths.objectives import Objective
from macattr.paths.presets import MOST_STEPS, MacTag, Preset
from macattr.paths.tokens import Token
from macattr.ranking.assembly import assemble
from macattr.ranking.importance import LayerImportance
from macattr.ranking.refusals import explained
from macattr.ranking.run import RunStopped, World, run
from macattr.statistics.step_errors import LEAST_ORDER, steps_for_tolerance
from macattr.statistics.stopping import StableTop
from macattr.sweep.allocator import keep_freed_memory
from macattr.sweep.calls import CallsName
from macattr.sweep.outputs import OutputChoice
from macattr.user_warnings import warn_user
from macattr.weights.values import missing_values, number_of_values, refuse_hidden

ALWAYS_READ = {
    "preset",
    "additional_forward_args",
    "internal_batch_size",
    "memory_budget",
    "flush_denormals",
    "until",
    "parts",
    "show_progress",
    "output",
    "at",
    "calls",
    "prefix",
}
"""Options that have an effect whatever the method."""

DEFAULTS = Options()

LEFT_OUT, LISTED = 0.01, 5
"""Share of the parameters from which layers that are not ranked are told, and names of those that are listed."""

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


def rank_layers(
    model: nn.Module,
    inputs: Inputs | Files | None = None,
    method: str = "mac",
    layers: LayerLike | Iterable[LayerLike] | None = None,
    *,
    r: float | None = None,
    n_steps: int | None = None,
    gate: Gate | None = None,
    delta: float | None = None,
    groups: int | None = None,
    include_end: bool | None = None,
    tag: MacTag | None = None,
    objective: Objective | ObjectiveName | None = None,
    preset: Preset | str | None = None,
    baselines: Reference | Token | None = None,
    path: PathLike | None = None,
    orders: Orders = 1,
    patch_size: int = 1,
    seed: int | None = None,
    reduction: str = "mean_abs",
    loss: Loss | None = None,
    start_weights: Mapping[str, Tensor] | None = None,
    additional_forward_args: Any = (),
    internal_batch_size: int | None = None,
    memory_budget: float | None = None,
    flush_denormals: bool = False,
    until: StableTop | None = None,
    tolerance: float | None = None,
    step_error: bool = False,
    with_input_residual: bool = True,
    parts: Path | str | None = None,
    show_progress: bool = False,
    output: OutputChoice = None,
    at: str | nn.Module | None = None,
    calls: CallsName = "sum",
    prefix: str = "",
) -> LayerImportance:
    """Importance of every layer over images, all layers in one sweep for each image and pixel order.

    Arguments that are None take their value from ``preset``. Under ``torchrun``, with torch.distributed initialised,
    processes share the images and orders; all return the same, whatever their number.

    Args:
        model: Network, in eval mode. Images are moved to its device and dtype.
        inputs: Images: a tensor (C, H, W) or (B, C, H, W); a folder of image files, or a list of files; or any iterable
            (list, DataLoader) or map-style data set of such tensors, of sequences whose first element is one (the
            second is the target), or of mappings with ``image`` and optionally ``clean`` or ``target``, ``name``,
            ``degradation`` and ``forward_args``. Sizes may differ. Other networks take tensors of any rank (B, ...),
            and mappings whose other keys (``pixel_values``, ``input_ids``, ...) are keyword arguments of the model; see
            :func:`macattr.methods.samples.iterate_samples`. None for methods that need no image
            (``kappa``, ``spectrum``, controls): they then score every layer, whether it runs or not.
        method: Name of a method; :data:`macattr.methods.catalogue.METHODS` holds all, ``macattr methods`` explains
            them. Of a layer that returns several tensors the first is scored.
        layers: Modules, names, globs or classes; None for every module inside the network that owns a parameter which
            requires a gradient, and runs; if no parameter of the network does, that owns any. What a glob or
            class matches and does not run is left out; a name that does not run is refused.
        r: Masked fraction at the start of the path, in (0, 1] (default 0.5).
        n_steps: Steps along the path (default 30).
        gate: How a pixel changes from hidden to visible: ``fade`` (default), ``sigmoid`` or ``one_sided``.
        delta: Sharpness of the gates ``sigmoid`` and ``one_sided``, per unit of the path (default 10,000).
        groups: Groups of pixels of the ``fade`` gate, at least 1 (default 3; a preset has its own).
        include_end: Whether the whole image is the last node (default true).
        tag: Where on a step the gradient is taken: ``left``, ``right`` or ``trapezoid`` (default), or Captum's nodes
            ``riemann_middle`` and ``gausslegendre``.
        objective: What of the output changes along the path: ``gradient_magnitude`` (edges and texture), ``sum``,
            ``mean``, ``norm``, ``class`` (score of the label or of the class that wins), ``similarity`` (to the output
            of the whole input), ``loss``, or ``masked_loss`` (on what is hidden at the start). None: the gradient
            magnitude of images, or the model's own loss with ``output="loss"``. In Python also a function (B, ...) to
            (B,).
        preset: Bundle of defaults, such as :data:`macattr.paths.presets.OFFICIAL`, or its name; None:
            :data:`macattr.paths.presets.RANKING`.
        baselines: Reference input, a number for all its values. None: the model's ``reference_input`` if it has one,
            else 0. In Python also a tensor, a function of the image or, at a layer of a text model,
            :class:`macattr.paths.tokens.Token`.
        path: Path that replaces the method's own: ``mask``, ``line`` from the reference input, ``tail`` (its last
            share r), ``blur``, ``restore`` (degraded to clean) or ``tokens`` (hidden patches or words appear).
            In Python also a :class:`macattr.paths.tokens.TokenMaskPath`, or a function from an image (1, C, H, W) to a
            path, which may return several inputs.
        orders: Number of random pixel orders for every image. In Python also the orders themselves (orders, H*W), or a
            function from an image to one order, e.g. by a saliency map with
            :func:`macattr.paths.inputs.order_by_score`.
        patch_size: Side in pixels of the blocks that are revealed together.
        seed: Seed of everything random (default 0); order j of image i depends on it, i and j alone.
        reduction: How the neurons of a layer become its score: ``mean_abs``, ``sum_abs``, ``abs_sum``, ``sum``,
            ``rms``, ``norm``, or ``per_parameter``, ``per_unit`` or ``per_activation``, which correct for the layer's
            size.
        loss: Loss that parameter-based methods differentiate: a function of (output), or of (output, target) as torch's
            losses are. None: the mean absolute error to a target of numbers, the cross-entropy to labels, or the
            model's own loss where there is no target.
        start_weights: Parameters by name from which the path in weight space (``faig``) comes to the model's own.
        additional_forward_args: Further positional arguments of the model.
        internal_batch_size: Nodes of the path in one forward pass. None: as many as the memory holds.
        memory_budget: Bytes for activations and sums. If they need more, blocks of the network run again in the
            backward pass; where that is impossible, layers are split over several sweeps, with a warning.
        flush_denormals: Take denormal weights and results for 0; a warning says where that makes a run faster.
        until: Stop adding images when the top layers are stable; images should come in random order.
        tolerance: Choose ``n_steps`` on the first image so that the relative step error of 95 % of the layers stays
            below it; excludes ``n_steps``.
        step_error: Estimate every layer's error by the finite number of steps, from fewer nodes of the same sweep and
            the order at which their sums converge (``step_order`` in the result). Where the steps of a group are not a
            multiple of 4, 6, 10 or 14, no order is known, and the error is a lower bound.
        with_input_residual: Whether gradients are followed down to the input, which shows how far the sums are from
            complete. If not, they end at the layers: with ``layers`` close to the output most of the backward pass is
            saved, and ``input_residual`` is NaN.
        parts: Folder that keeps every finished image and order at once; a run that was stopped continues from it.
        show_progress: Show a progress bar over all evaluations.
        output: Which tensor of the model's output is read: a key, an attribute or an index; ``loss`` is the model's
            own. None: the output itself if it is a tensor, else its only tensor, ``logits``, ``reconstruction``,
            ``sample`` or the last of several refinements; the result says which. In Python also a function of the
            output.
        at: Layer at which paths run: its output changes from the reference (0 by default) to its value, while the
            inputs stay as they are. None: the input if it is a floating-point tensor, else the embeddings of tokens
            where Hugging Face's networks name them.
        calls: What counts of a layer that runs several times in a forward pass: ``sum`` over its calls, ``each`` call
            with neurons of its own, or the ``last`` call. Outputs are never added up: methods that read them have
            neurons of every call.
        prefix: Beginning of all names that a wrapper of your own adds, such as ``net``; the results go without it.

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
    options = Options(
        r=r,
        n_steps=n_steps,
        gate=gate,
        delta=delta,
        groups=groups,
        include_end=include_end,
        tag=tag,
        objective=objective,
        preset=preset,
        baselines=baselines,
        path=path,
        orders=orders,
        patch_size=patch_size,
        seed=seed,
        reduction=reduction,
        loss=loss,
        start_weights=start_weights,
        additional_forward_args=additional_forward_args,
        internal_batch_size=internal_batch_size,
        memory_budget=memory_budget,
        flush_denormals=flush_denormals,
        until=until,
        tolerance=tolerance,
        step_error=step_error,
        with_input_residual=with_input_residual,
        parts=parts,
        show_progress=show_progress,
        output=output,
        at=at,
        calls=calls,
        prefix=prefix,
    )
    return rank_with(model, inputs, [method], layers, options)[method]


def rank_methods(
    model: nn.Module,
    inputs: Inputs | Files | None,
    methods: Sequence[str],
    layers: LayerLike | Iterable[LayerLike] | None = None,
    **options: object,
) -> dict[str, LayerImportance]:
    """Rankings by several methods, by name; those that walk the same path share its passes.

    Args:
        model: As in :func:`rank_layers`, like ``inputs``, ``layers`` and all options.
        inputs: Images.
        methods: Names; ``["all"]`` for every method but those that need other weights (``faig``), equal shapes
            (``cosine``) or several images (``cka``).
        layers: Which layers.
        **options: Of :func:`rank_layers`; each must have an effect on one of the methods at least. ``until`` looks at
            the first method.

    Raises:
        RankingInterrupted: As there.
        ValueError: As there.
    """
    names = [field.name for field in fields(Options)]
    for name in options:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise ValueError(f"no option {name!r}; {f'did you mean {near[0]!r}?' if near else 'see rank_layers.'}")
    return rank_with(model, inputs, methods, layers, Options(**options))  # type: ignore[arg-type]


def rank_with(
    model: nn.Module,
    inputs: Inputs | Files | None,
    methods: Sequence[str],
    layers: LayerLike | Iterable[LayerLike] | None = None,
    options: Options = DEFAULTS,
) -> dict[str, LayerImportance]:
    """Rankings by several methods, by name, with all options in one object; see :func:`rank_methods`.

    Raises:
        RankingInterrupted: As there.
        ValueError: As there.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"`model` must be a torch.nn.Module, got {type(model).__name__}.")
    chosen = find_methods(methods)
    world = World.around(model)
    refuse_hidden(dict(model.named_modules()))
    owners = [module for module in model.modules() if own_parameters(module)]
    if owners and all(map(missing_values, owners)):
        raise ValueError(
            f"the weights of {type(model).__name__} are on the meta device, without values: load them first."
        )
    if inputs is None:
        refuse_missing_images(chosen, "`inputs` is None: pass images, a folder of image files, or a list of them")
    else:
        inputs = open_inputs(inputs)
    task = task_of(model, layers, options)
    refuse_idle(chosen, task)
    if options.tolerance is not None and inputs is not None:
        task = _with_enough_steps(task, chosen, inputs, options.tolerance)
    total = 0 if inputs is None else count_samples(inputs)
    evaluations = total and estimate_evaluations(chosen, task, total)[0] // world.size
    is_shown = options.show_progress and world.is_first and inputs is not None
    bar = tqdm(total=evaluations, unit="pass", desc=", ".join(methods)) if is_shown else None
    try:
        with nullcontext() if bar is None else bar, keep_freed_memory(options.memory_budget is None):
            result = run(
                task,
                chosen,
                inputs,
                world=world,
                advance=None if bar is None else bar.update,
                announce=None if bar is None else bar.set_postfix_str,
            )
    except RunStopped as stopped:
        raise RankingInterrupted(str(stopped), assemble(stopped.result)) from stopped.__cause__
    finally:
        world.close()
    return assemble(result)


def task_of(model: nn.Module, layers: LayerLike | Iterable[LayerLike] | None, options: Options) -> Task:
    """The task of a ranking, which knows what layers may be left out because no entry of ``layers`` names them.

    Args:
        model: Network.
        layers: Layers, as :func:`rank_layers` takes them.
        options: How they are ranked.

    Raises:
        ValueError: As :func:`macattr.layers.resolve.resolve_layers`.
    """
    entries = None if layers is None else entries_of(layers)
    found = resolve_layers(model, entries, options.prefix)
    if entries is None:
        _warn_of_left_out(model)
    droppable = frozenset(found) if entries is None else matched_by_globs(model, entries, options.prefix)
    return Task(model, found, options, droppable=droppable)


def _warn_of_left_out(model: nn.Module) -> None:
    """Say which layers are not ranked because they are frozen, if they hold much."""
    names, parameters = left_out(model)
    total = sum(map(number_of_values, model.parameters()))
    if parameters < LEFT_OUT * total or not names:
        return
    listed = ", ".join(map(repr, names[:LISTED]))
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    warn_user(
        f"left out {len(names)} layers with {parameters / total:.0%} of the parameters, which require no gradient: "
        f"{listed}{more}. To rank them too, call `model.requires_grad_()` first, or name them in `layers`."
    )


def refuse_idle(methods: Sequence[Method], task: Task) -> None:
    """Raise ValueError for an option that was given and that none of the methods reads."""
    effective = effective_options(methods, task)
    for name, value in task.options.given().items():
        if name not in effective:
            names = ", ".join(repr(method.name) for method in methods)
            words = str(value) if isinstance(value, str | int | float) else type(value).__name__
            raise ValueError(f"`{name}` = {words[:40]} has no effect on the ranking by {names}: leave it out.")


def effective_options(methods: Sequence[Method], task: Task) -> set[str]:
    """Names of the options that at least one of the methods reads.

    Args:
        methods: Which.
        task: Network, layers and options.
    """
    effective = ALWAYS_READ.union(*(method.arguments(task) for method in methods))
    return effective | {"tolerance", "step_error"} if any(map(_has_step_error, methods)) else effective


def _has_step_error(method: Method) -> bool:
    """Whether a method's sums over nodes can be compared with those over fewer."""
    return isinstance(method, PathMethod) and method.reads == "path"


def _with_enough_steps(task: Task, methods: Sequence[Method], inputs: Inputs, tolerance: float) -> Task:
    """The same task with as many steps as the first image needs."""
    refuse_iterator(inputs, "`tolerance` looks at the first image twice")
    sample = next(iterate_samples(inputs, task.model))
    measured = replace(task, options=replace(task.options, step_error=True))
    along = [method for method in methods if isinstance(method, PathMethod) and _has_step_error(method)]
    with explained(task, [sample]):
        readings = measure(Trial(measured, sample, seed=task.seed), along)
    errors = [
        error / abs(score)
        for reading in readings.values()
        for error, score in zip(reading.step_error, reading.score, strict=True)
        if score and np.isfinite(error)
    ]
    preset = task.preset
    orders = [
        reading.step_order if np.isfinite(reading.step_order) else preset.order_of_convergence
        for reading in readings.values()
    ]
    steps = steps_for_tolerance(
        np.array(errors),
        preset.n_steps,
        tolerance,
        order=min(max(order, LEAST_ORDER) for order in orders),
        share=SHARE_WITHIN,
        multiple=10,
    )
    if steps > MOST_STEPS:
        raise ValueError(
            f"`tolerance` = {tolerance:g} would take {steps:,} steps an image, more than {MOST_STEPS:,}: raise it, or "
            "give `n_steps`."
        )
    return task.with_steps(steps)
