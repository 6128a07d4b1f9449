"""Attribution classes in the style of Captum: the contribution of every neuron of one layer or of many."""

__all__ = [
    "InternalInfluence",
    "LayerConductance",
    "LayerGradientXActivation",
    "LayerIntegratedGradients",
    "MaskAttributeConductance",
]

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from captum.attr import GradientAttribution, LayerAttribution
from captum.log import log_usage
from jaxtyping import Int
from torch import Tensor, nn
from tqdm.auto import tqdm

from macattr.arguments import as_tuple, checked_seed, positive_number, whole_number
from macattr.layers import LayerLike, entries_of, matched_by_globs, own_attribute, resolve_layers
from macattr.paths.inputs import Gate, LinearPath, Path, Reference, random_order, resolve_reference
from macattr.paths.objectives import PLAIN_OBJECTIVES, Objective, PlainObjectiveName, Target, TargetType
from macattr.paths.partitions import CaptumMethod, Partition, Tag, captum_nodes, tagged_partition
from macattr.paths.presets import DEFAULT, MacTag, Preset, as_preset
from macattr.paths.sums import ActivationGradientSum, GradientSum, LayerSum, StieltjesSum
from macattr.paths.tokens import Token, TokenMaskPath
from macattr.sweep.activations import sweep_activations
from macattr.sweep.calls import CallsName, check_calls, counted, join_calls
from macattr.sweep.entry import walked_keyword
from macattr.sweep.nodes import objective_at
from macattr.sweep.outputs import OutputChoice
from macattr.sweep.places import Place, find_place, refuse_nowhere, token_path, token_value
from macattr.sweep.probes import Site
from macattr.sweep.survey import other_layouts, survey
from macattr.sweep.trace import Trace, trace

TAGS: Mapping[CaptumMethod | MacTag, MacTag] = {
    "left": "left",
    "right": "right",
    "trapezoid": "trapezoid",
    "riemann_left": "left",
    "riemann_right": "right",
    "riemann_trapezoid": "trapezoid",
    "riemann_middle": "riemann_middle",
    "gausslegendre": "gausslegendre",
}
"""Where the gradient is taken, by our name or the one that Captum gives the sum."""

Tensors = Tensor | tuple[Tensor, ...]
Attributions = Tensors | list[Tensors]
Inputs = Tensors | Mapping[str, Any]
_Found = Mapping[str, Mapping[Site, Tensor]]
"""Attributions by layer, at every call and tensor."""

Baselines = Reference | Token | tuple[Reference, ...] | None


@dataclass(frozen=True)
class _Call:
    """Arguments of one call, read from one of Captum's signatures.

    Args:
        place: What the path walks, and the network as a function of it.
        path: Path through the inputs.
        partition: Nodes on it.
        objective: Scalar function of the output whose change is attributed.
        internal_batch_size: Rows (nodes x samples) of one forward pass; None chooses by memory.
        at_input: Whether to attribute to the input of the layers.
        grad_kwargs: Passed to :func:`torch.autograd.grad`.
        show_progress: Whether to show a progress bar.
        calls: What counts of a layer that runs several times in a forward pass.
        with_input: Whether gradients are followed down to the inputs.
    """

    place: Place
    path: Path
    partition: Partition
    objective: Objective
    internal_batch_size: int | None = None
    at_input: bool = False
    grad_kwargs: Mapping[str, Any] | None = None
    show_progress: bool = False
    calls: CallsName = "sum"
    with_input: bool = True

    def __post_init__(self) -> None:
        check_calls(self.calls)


class _LayerMethod(LayerAttribution, GradientAttribution):  # type: ignore[misc]
    """Layers by name, and the formats of results."""

    input_residual: Tensor | None = None
    """After a path method: relative error of completeness at the input, (B,); 0 is exact. See Trace.input_residual.

    NaN with ``with_input_residual=False``."""

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        layer: LayerLike | Iterable[LayerLike],
        device_ids: list[int] | None = None,
        *,
        prefix: str = "",
    ) -> None:
        """Layers of a network.

        Args:
            forward_func: Network, or a function that calls it.
            layer: A module, its name, or a list of either (then a list comes back). Names need a network.
            device_ids: As in Captum, for data-parallel networks; only None is supported.
            prefix: Beginning of all names that a wrapper of your own adds, such as ``net``; names go without it.

        Raises:
            ValueError: If a layer is not in the network or ``device_ids`` is given.
        """
        if device_ids is not None:
            raise ValueError("`device_ids` is not supported: pass the network inside DataParallel (`model.module`).")
        entries = entries_of(layer)
        self._several = not isinstance(layer, nn.Module | str | type)
        self._prefix = prefix
        if prefix and not isinstance(forward_func, nn.Module):
            raise ValueError(f"`prefix` = {prefix!r} has no effect with a function: pass the network.")
        self._droppable: frozenset[str] = frozenset()
        if isinstance(forward_func, nn.Module):
            self._layers = resolve_layers(forward_func, entries, prefix)
            if len(self._layers) < len(entries):
                raise ValueError(f"`layer` names a layer twice: {len(entries)} entries for {list(self._layers)}.")
            self._several = self._several or len(self._layers) > 1
            self._droppable = matched_by_globs(forward_func, entries, prefix)
        else:
            if not all(isinstance(module, nn.Module) for module in entries):
                raise ValueError(f"layer names need a network, got {layer!r} with a function: pass the modules.")
            self._layers = {f"layer {number}": m for number, m in enumerate(entries) if isinstance(m, nn.Module)}
        resolved = list(self._layers.values())
        LayerAttribution.__init__(self, forward_func, resolved if self._several else resolved[0])
        GradientAttribution.__init__(self, forward_func)

    def _format(self, call: _Call, found: _Found) -> Attributions:
        """A tensor for a layer, a tuple if it returns several, a list of these for a list of layers."""
        parts = [join_calls(values, call.calls) for values in found.values()]
        each: list[Tensors] = [values if len(values) > 1 else values[0] for values in parts]
        return each if self._several else each[0]

    def _totals(self, call: _Call, found: _Found, change: Tensor) -> list[Tensor]:
        """Sum of every layer's attributions for each sample, like the ``change`` of the objective, (B,).

        Raises:
            ValueError: If a layer does not keep the batch first, so that its values are those of no one sample.
        """
        network, arguments = self._network(call.place), call.place.arguments
        others: frozenset[str] = frozenset()
        if len(change) > 1:
            others = other_layouts(
                network, self._layers, call.path, call.partition, forward_args=arguments, at_input=call.at_input
            )
        totals = []
        for name, values in found.items():
            counts = [value for value in counted(values, call.calls).values() if bool(value.any())]
            if counts and name in others:
                raise ValueError(
                    f"layer {name!r} does not keep the batch first, so that its attributions cannot be told apart by "
                    "sample: ask for the convergence delta of one sample at a time."
                )
            totals.append(sum((value.reshape(len(change), -1).sum(1) for value in counts), torch.zeros_like(change)))
        return totals

    def _trace(self, call: _Call, layer_sum: LayerSum) -> tuple[Trace, _Found]:
        """One sweep with one sum for all layers."""
        layers = self._running(call)
        with _progress(call, self.get_name()) as advance:
            result = trace(
                self._network(call.place),
                layers,
                call.path,
                call.partition,
                call.objective,
                [layer_sum],
                forward_args=call.place.arguments,
                internal_batch_size=call.internal_batch_size,
                at_input=call.at_input,
                grad_kwargs=call.grad_kwargs,
                advance=advance,
                with_input=call.with_input,
            )
        return result, {name: result.by_site(layer_sum, name) for name in layers}

    def _running(self, call: _Call) -> dict[str, nn.Module]:
        """The layers without those that a glob matched and that do not run."""
        if not self._droppable:
            return self._layers
        look = survey(
            self._network(call.place), self._layers, call.path, call.partition, forward_args=call.place.arguments
        )
        return {
            name: layer for name, layer in self._layers.items() if name in look.sites or name not in self._droppable
        }

    def _place(
        self, inputs: Inputs, arguments: Any, output: OutputChoice, at: LayerLike | None, path: object = None
    ) -> tuple[Place, dict[str, Any]]:
        """What a path walks, and the keyword arguments of the model."""
        model, rest = self.forward_func, as_tuple(arguments)
        keywords = {str(name): value for name, value in inputs.items()} if isinstance(inputs, Mapping) else {}
        first: tuple[Any, ...] = () if isinstance(inputs, Mapping) else _inputs(inputs)
        if "image" in keywords:
            first = (keywords.pop("image"),)
        key = "" if first else walked_keyword(model, keywords) or ""
        found = find_place(
            model,
            first[0] if first else keywords.get(key),
            (*first[1:], *rest),
            {name: value for name, value in keywords.items() if name != key},
            key=key,
            layer=None if at is None else self._layer_of_path(at),
            tokens=isinstance(path, TokenMaskPath),
            prefix=self._prefix,
        )
        if found.tensor is None:
            raise refuse_nowhere("the inputs", model)
        return found.reading(output), keywords

    def _network(self, place: Place) -> Callable[..., Any]:
        """The network as a function of what the path walks; a user's function that is called as it is, itself."""
        entry = place.entry
        is_plain = not entry.keys and not entry.keywords and entry.at is None and entry.output is None
        return self.forward_func if is_plain and not isinstance(self.forward_func, nn.Module) else entry

    def _layer_of_path(self, at: LayerLike) -> tuple[str, nn.Module]:
        """The layer at which a path runs, by name."""
        if isinstance(self.forward_func, nn.Module):
            return next(iter(resolve_layers(self.forward_func, at, self._prefix).items()))
        if not isinstance(at, nn.Module):
            raise ValueError(f"`at` = {at!r} needs a network, got a function: pass the module.")
        return type(at).__name__, at

    def _change(self, call: _Call) -> Tensor:
        """Change of the objective between the ends of the path, (B,)."""
        start, end = (
            objective_at(self._network(call.place), call.path, alpha, call.objective, call.place.arguments)
            for alpha in call.path.interval
        )
        return end - start


class _ConductanceMethod(_LayerMethod):
    """Layer methods that sum gradient times change of output: complete at cuts, so that they have a delta."""

    @property
    def multiplies_by_inputs(self) -> bool:
        """Conductance holds the change of the layer's output."""
        return True

    def has_convergence_delta(self) -> bool:
        """The sum of the attributions is to be the objective's change."""
        return True

    def _conductance(
        self, call: _Call, return_convergence_delta: bool
    ) -> Attributions | tuple[Attributions, Tensor | list[Tensor]]:
        """Stieltjes sums of the layers along a path, with the deltas if asked for."""
        result, found = self._trace(call, StieltjesSum(call.partition.tag))
        self.input_residual = result.input_residual
        if not return_convergence_delta:
            return self._format(call, found)
        change = self._change(call)
        deltas = [total - change for total in self._totals(call, found, change)]
        return self._format(call, found), deltas if self._several else deltas[0]


class MaskAttributeConductance(_ConductanceMethod):
    r"""Mask attribute conductance (MAC): how much a layer carries the change from a masked to a whole image.

    .. math:: \mathrm{MAC}_l = \sum_j g_l(\tau_j) \odot (y_l(\alpha_{j+1}) - y_l(\alpha_j))

    along the mask attribute path, with :math:`y_l` the layer's output and :math:`g_l` the objective's gradient there.

    Source:
        Qin et al. 2024 (RAM), Sec. 3.3, Eq. 8 and 9 (as corrected in the theory pages).

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 1, 3, padding=1))
        >>> MaskAttributeConductance(net, net[0]).attribute(torch.rand(1, 1, 8, 8), r=0.5, n_steps=20).shape
        torch.Size([1, 2, 8, 8])
    """

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Tensor | Mapping[str, Any],
        baselines: Reference | None = None,
        target: TargetType = None,
        additional_forward_args: Any = None,
        n_steps: int | None = None,
        method: CaptumMethod | MacTag | None = None,
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
        attribute_to_layer_input: bool = False,
        grad_kwargs: Mapping[str, Any] | None = None,
        *,
        r: float | None = None,
        order: Int[Tensor, "..."] | np.ndarray | Sequence[int] | None = None,
        gate: Gate | None = None,
        delta: float | None = None,
        objective: Objective | PlainObjectiveName | None = None,
        preset: Preset | Literal["default", "ranking", "paper", "official"] | None = None,
        seed: int | None = None,
        show_progress: bool = False,
        groups: int | None = None,
        include_end: bool | None = None,
        patch_size: int = 1,
        output: OutputChoice = None,
        at: LayerLike | None = None,
        calls: CallsName = "sum",
        with_input_residual: bool = True,
    ) -> Attributions | tuple[Attributions, Tensor | list[Tensor]]:
        """MAC of every neuron.

        Arguments that are None take their value from ``preset``.

        Args:
            inputs: Whole images (B, C, H, W), or a mapping of keyword arguments that holds them.
            baselines: Values of hidden pixels: number, tensor or function of the inputs. None: the model's own
                ``reference_input`` if it has one, else 0.
            target: As in Captum, for models that do not return images; excludes ``objective``.
            additional_forward_args: Further positional arguments of the model.
            n_steps: Increments of alpha (default 200; rankings need fewer).
            method: Where on an increment the gradient is taken: ``left``, ``right`` or ``trapezoid`` (default) on
                n_steps + 1 nodes, both ends of the path among them. ``riemann_left`` and so on mean the same here; in
                :class:`LayerConductance` they are Captum's nodes. ``riemann_middle`` and ``gausslegendre`` are Captum's
                n_steps + 1 nodes, which miss the ends, with the gradient at the left one.
            internal_batch_size: Rows (nodes x images) of one forward pass; None chooses by memory.
            return_convergence_delta: Also return the sum of the attributions minus the objective's change, (B,) for
                each layer: 0 only where the layer is a cut of the network.
            attribute_to_layer_input: Attribute to the layer's input.
            grad_kwargs: Passed to :func:`torch.autograd.grad`.
            r: Masked fraction at the start of the path, in (0, 1] (default 0.5).
            order: (H*W,) or (B, H*W) integers: ``order[k]`` is the flat index of the k-th pixel revealed. None: random.
            gate: ``fade``, ``sigmoid`` or ``one_sided`` (default ``fade``).
            delta: Sharpness of the last two (default 1e4).
            objective: Scalar function of the output whose change is attributed, (B, ...) to (B,), or a name of
                :data:`macattr.paths.objectives.PLAIN_OBJECTIVES` (default: gradient magnitude).
            preset: Bundle of defaults: :data:`macattr.paths.presets.DEFAULT`, ``PAPER``, ``OFFICIAL`` or ``RANKING``,
                or its name.
            seed: Seed of the random order (default 0); excludes ``order``.
            show_progress: Show a progress bar.
            groups: Groups of pixels of the ``fade`` gate (default 5; no more than steps).
            include_end: Whether the whole image is the last node (default True).
            patch_size: Side in pixels of the blocks that are revealed together.
            output: Which tensor of the model's output is read, as in :func:`macattr.rank_layers`.
            at: Layer at which the path runs instead of at the input; its output walks from the reference to its value.
            calls: What counts of a layer that runs several times: ``sum``, ``each`` (calls first) or ``last``.
            with_input_residual: False follows gradients no further down than the layers: nearly free of the backward
                pass where they lie close to the output. ``input_residual`` is NaN then.

        Returns:
            Attributions in the shape of the layer's output; a tuple if it returns several tensors; a list of these
            for a list of layers. With ``return_convergence_delta`` a pair of this and the delta.

        Raises:
            ValueError: If an argument is out of range or would have no effect, the objective does not fit the output,
                or a value is not finite.
        """
        if seed is not None and order is not None:
            raise ValueError(f"`seed` = {seed} has no effect when `order` is given.")
        if not isinstance(inputs, Tensor | Mapping):
            raise ValueError(f"a mask path needs one tensor of images (B, C, H, W), got {type(inputs).__name__}.")
        place, _ = self._place(inputs, additional_forward_args, output, at)
        (images,) = _ends(place, inputs)
        options = (as_preset(preset) or DEFAULT).override(
            r=None if r is None else _masked_fraction(r),
            n_steps=None if n_steps is None else whole_number("n_steps", n_steps),
            gate=gate,
            delta=None if delta is None else positive_number("delta", delta),
            groups=None if groups is None else whole_number("groups", groups, least=0),
            tag=_tag(method),
            include_end=include_end,
            objective=None if target is None and objective is None else _objective(target, objective),
        )
        if baselines is None:
            baselines = 0.0 if place.words else own_attribute(self.forward_func, "reference_input", 0.0)
        path = options.path(
            images,
            resolve_reference(baselines, images),
            None if order is None else _order(order),
            0 if seed is None else checked_seed(seed),
            whole_number("patch_size", patch_size, least=0),
        )
        call = _Call(
            place=place,
            path=path,
            partition=options.partition(path),
            objective=options.objective,
            internal_batch_size=internal_batch_size,
            at_input=attribute_to_layer_input,
            grad_kwargs=grad_kwargs,
            show_progress=show_progress,
            calls=calls,
            with_input=with_input_residual,
        )
        return self._conductance(call, return_convergence_delta)


class LayerConductance(_ConductanceMethod):
    r"""Conductance :math:`\sum_j g_l(\tau_j) \odot (y_l(\alpha_{j+1}) - y_l(\alpha_j))` along a line or any path.

    Equal to Captum's where that works; also for layers whose outputs do not keep the batch first (attention windows),
    that are called several times, and for many layers in one sweep.

    Source:
        Dhamdhere et al. 2018.
    """

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Inputs,
        baselines: Baselines = None,
        target: TargetType = None,
        additional_forward_args: Any = None,
        n_steps: int = 50,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
        attribute_to_layer_input: bool = False,
        grad_kwargs: Mapping[str, Any] | None = None,
        *,
        path: Path | TokenMaskPath | None = None,
        objective: Objective | PlainObjectiveName | None = None,
        show_progress: bool = False,
        output: OutputChoice = None,
        at: LayerLike | None = None,
        calls: CallsName = "sum",
        with_input_residual: bool = True,
    ) -> Attributions | tuple[Attributions, Tensor | list[Tensor]]:
        """Conductance of every neuron.

        Args:
            inputs: Model inputs, (B, ...) each; or a mapping of keyword arguments, one of which the path walks.
            baselines: Start of the line: number, tensor or function of the input, one for each input; None for 0.
            target: As in Captum; excludes ``objective``.
            additional_forward_args: Further positional arguments of the model.
            n_steps: Increments.
            method: ``left``, ``right`` or ``trapezoid``: equal increments with both ends of the path, the gradient
                taken there. Or Captum's names (``gausslegendre``, ``riemann_*``): Captum's nodes, which mostly miss
                the ends, left-tagged.
            internal_batch_size: Rows (nodes x samples) of one forward pass; None chooses by memory.
            return_convergence_delta: Also return the sum of the attributions minus the objective's change.
            attribute_to_layer_input: Attribute to the layer's input.
            grad_kwargs: Passed to :func:`torch.autograd.grad`.
            path: Path to walk instead of the line; must end at ``inputs``; excludes ``baselines``. A
                :class:`macattr.paths.tokens.TokenMaskPath` hides tokens in random order.
            objective: Scalar function of the output whose change is attributed, (B, ...) to (B,), or a name of
                :data:`macattr.paths.objectives.PLAIN_OBJECTIVES`.
            show_progress: Show a progress bar.
            output: Which tensor of the model's output is read, as in :func:`macattr.rank_layers`.
            at: Layer at which the path runs instead of at the input; its output walks from the reference to its value.
            calls: What counts of a layer that runs several times: ``sum``, ``each`` (calls first) or ``last``.
            with_input_residual: False follows gradients no further down than the layers: nearly free of the backward
                pass where they lie close to the output. ``input_residual`` is NaN then.

        Returns:
            As :meth:`MaskAttributeConductance.attribute`.

        Raises:
            ValueError: As there.
        """
        place, keywords = self._place(inputs, additional_forward_args, output, at, path)
        walked = _path(place, keywords, inputs, baselines, path)
        call = _Call(
            place=_after(place, inputs),
            path=walked,
            partition=_partition(walked, n_steps, method, extra=1),
            objective=_objective(target, objective),
            internal_batch_size=internal_batch_size,
            at_input=attribute_to_layer_input,
            grad_kwargs=grad_kwargs,
            show_progress=show_progress,
            calls=calls,
            with_input=with_input_residual,
        )
        return self._conductance(call, return_convergence_delta)


class InternalInfluence(_LayerMethod):
    r"""Mean gradient :math:`\sum_j w_j\,g_l(\alpha_j)` of the objective at a layer along a path.

    Along the line over [1 - r, 1], times the number of nodes, this is what the paper's Table 5 calls IG.

    Source:
        Leino et al. 2018.
    """

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Inputs,
        baselines: Baselines = None,
        target: TargetType = None,
        additional_forward_args: Any = None,
        n_steps: int = 50,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        attribute_to_layer_input: bool = False,
        grad_kwargs: Mapping[str, Any] | None = None,
        *,
        path: Path | TokenMaskPath | None = None,
        objective: Objective | PlainObjectiveName | None = None,
        show_progress: bool = False,
        output: OutputChoice = None,
        at: LayerLike | None = None,
        calls: CallsName = "sum",
        with_input_residual: bool = True,
    ) -> Attributions:
        """Mean gradient at every neuron; arguments as in :meth:`LayerConductance.attribute`.

        Captum's methods put ``n_steps`` nodes on the path, ``left``, ``right`` and ``trapezoid`` one more.

        Returns:
            The mean over the path, in the shape of the layer's output; a tuple or a list as there.

        Raises:
            ValueError: As there.
        """
        place, keywords = self._place(inputs, additional_forward_args, output, at, path)
        walked = _path(place, keywords, inputs, baselines, path)
        call = _Call(
            place=_after(place, inputs),
            path=walked,
            partition=_partition(walked, n_steps, method, extra=0),
            objective=_objective(target, objective),
            internal_batch_size=internal_batch_size,
            at_input=attribute_to_layer_input,
            grad_kwargs=grad_kwargs,
            show_progress=show_progress,
            calls=calls,
            with_input=with_input_residual,
        )
        result, found = self._trace(call, GradientSum(call.partition.weights))
        self.input_residual = result.input_residual
        return self._format(call, found)


class LayerIntegratedGradients(_LayerMethod):
    r"""Integrated gradients in a layer's own space: a straight line between its values at both ends.

    A list of layers is moved together, as in Captum. Along another ``path``, the line joins the layer's values at the
    path's two ends.

    Source:
        Sundararajan et al. 2017, applied to a layer as in Captum.
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        layer: LayerLike | Iterable[LayerLike],
        device_ids: list[int] | None = None,
        multiply_by_inputs: bool = True,
        *,
        prefix: str = "",
    ) -> None:
        """As the other classes; without ``multiply_by_inputs`` the mean gradient alone is returned."""
        super().__init__(forward_func, layer, device_ids, prefix=prefix)
        self._multiply_by_inputs = multiply_by_inputs

    def has_convergence_delta(self) -> bool:
        """The sum of the attributions of all layers is to be the objective's change."""
        return True

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether the mean gradient is multiplied by the layer's change."""
        return self._multiply_by_inputs

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Inputs,
        baselines: Baselines = None,
        target: TargetType = None,
        additional_forward_args: Any = None,
        n_steps: int = 50,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
        attribute_to_layer_input: bool = False,
        grad_kwargs: Mapping[str, Any] | None = None,
        *,
        path: Path | TokenMaskPath | None = None,
        objective: Objective | PlainObjectiveName | None = None,
        show_progress: bool = False,
        output: OutputChoice = None,
        at: LayerLike | None = None,
        calls: CallsName = "sum",
    ) -> Attributions | tuple[Attributions, Tensor]:
        """Integrated gradients of every neuron; arguments as in :meth:`LayerConductance.attribute`.

        Captum's methods put ``n_steps`` nodes on the line, ``left``, ``right`` and ``trapezoid`` one more.

        Returns:
            As there, but the delta is that of all layers together, (B,).

        Raises:
            ValueError: As there.
        """
        place, keywords = self._place(inputs, additional_forward_args, output, at, path)
        walked = _path(place, keywords, inputs, baselines, path)
        call = _Call(
            place=_after(place, inputs),
            path=walked,
            partition=_partition(walked, n_steps, method, extra=0),
            objective=_objective(target, objective),
            internal_batch_size=internal_batch_size,
            at_input=attribute_to_layer_input,
            grad_kwargs=grad_kwargs,
            show_progress=show_progress,
            calls=calls,
        )
        found = self._integrate(call)
        if not return_convergence_delta:
            return self._format(call, found)
        change = self._change(call)
        return self._format(call, found), torch.stack(self._totals(call, found, change)).sum(0) - change

    def _integrate(self, call: _Call) -> _Found:
        """Integrated gradients of all layers, by name."""
        layers = self._running(call)
        with _progress(call, self.get_name()) as advance:
            sums = sweep_activations(
                self._network(call.place),
                layers,
                call.path,
                call.partition,
                call.objective,
                forward_args=call.place.arguments,
                internal_batch_size=call.internal_batch_size,
                at_input=call.at_input,
                grad_kwargs=call.grad_kwargs,
                advance=advance,
            )
        each = {
            site: gradient * change if self.multiplies_by_inputs else gradient
            for site, (gradient, change) in sums.items()
        }
        return {name: {site: value for site, value in each.items() if site.layer == name} for name in layers}


class LayerGradientXActivation(_LayerMethod):
    """Gradient x activation of a layer at the input itself.

    Source:
        Shrikumar et al. 2016, applied to a layer as in Captum.
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        layer: LayerLike | Iterable[LayerLike],
        device_ids: list[int] | None = None,
        multiply_by_inputs: bool = True,
        *,
        prefix: str = "",
    ) -> None:
        """As the other classes; without ``multiply_by_inputs`` the gradient alone is returned."""
        super().__init__(forward_func, layer, device_ids, prefix=prefix)
        self._multiply_by_inputs = multiply_by_inputs

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether the gradient is multiplied by the activation."""
        return self._multiply_by_inputs

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Inputs,
        target: TargetType = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        grad_kwargs: Mapping[str, Any] | None = None,
        *,
        objective: Objective | PlainObjectiveName | None = None,
        output: OutputChoice = None,
        at: LayerLike | None = None,
        calls: CallsName = "sum",
    ) -> Attributions:
        """Gradient x activation of every neuron; arguments as in :meth:`LayerConductance.attribute`."""
        place, _ = self._place(inputs, additional_forward_args, output, at)
        ends = _ends(place, inputs)
        weight = torch.ones(1, dtype=torch.float64, device="cpu")
        call = _Call(
            place=_after(place, inputs),
            path=LinearPath(ends, ends),
            partition=Partition(weight, "left", weight),
            objective=_objective(target, objective),
            at_input=attribute_to_layer_input,
            grad_kwargs=grad_kwargs,
            calls=calls,
        )
        layer_sum = (ActivationGradientSum if self.multiplies_by_inputs else GradientSum)(weight)
        return self._format(call, self._trace(call, layer_sum)[1])


def _inputs(inputs: Tensors) -> tuple[Tensor, ...]:
    """Model inputs as a tuple."""
    ends = as_tuple(inputs)
    if not ends or not all(isinstance(end, Tensor) for end in ends):
        kinds = ", ".join(type(end).__name__ for end in ends) or "none"
        raise ValueError(f"`inputs` must be a tensor (B, ...), or a tuple of tensors, got {kinds}.")
    return ends


def _masked_fraction(r: object) -> float:
    """The masked fraction as a number; its range is checked with the other options."""
    if isinstance(r, bool | np.bool_) or not isinstance(r, int | float | np.number):
        raise ValueError(f"`r` must lie in (0, 1], got {r!r}: it is the masked fraction at the start of the path.")
    return float(r)


def _order(order: object) -> Tensor:
    """A reveal order as a tensor; lists and arrays are meant as such."""
    if not isinstance(order, Tensor | np.ndarray | Sequence) or isinstance(order, str):
        raise ValueError(f"`order` must be a tensor of pixel indices, (H*W,) or (B, H*W), got {type(order).__name__}.")
    try:
        tensor = order if isinstance(order, Tensor) else torch.as_tensor(order, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"`order` must hold pixel indices, (H*W,) or (B, H*W): {error}.") from None
    if tensor.dim() not in (1, 2) or not tensor.numel() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise ValueError(
            f"`order` must hold pixel indices, (H*W,) or (B, H*W), got shape {tuple(tensor.shape)} of {tensor.dtype}."
        )
    return tensor


OF_SAMPLES: Mapping[str, str] = {
    "class": "give the number of the class as `target`",
    "similarity": "give `macattr.paths.objectives.Similarity(reference)`, with the output for the whole input",
    "loss": (
        'with `output="loss"` give "sum" for the loss that the network computes itself, else a function of the output '
        "to one loss a sample, such as `lambda out: torch.nn.functional.cross_entropy(out, labels, reduction='none')`"
    ),
    "masked_loss": "give `macattr.paths.objectives.HiddenDistance(clean, hidden)` or `CrossEntropy(labels)`",
}
"""What to give here in place of the objectives that :func:`macattr.ranking.rank.rank_layers` makes of a sample."""


def _objective(target: TargetType, objective: Objective | PlainObjectiveName | None) -> Objective:
    """The objective, also by its name, or the output selected by a target."""
    if target is not None and objective is not None:
        raise ValueError("`target` and `objective` exclude each other: a target is an objective.")
    if isinstance(objective, str):
        if objective not in PLAIN_OBJECTIVES:
            remedy = OF_SAMPLES.get(objective, "for others give a function of the output")
            raise ValueError(f"no objective {objective!r}: the names here are {', '.join(PLAIN_OBJECTIVES)}; {remedy}.")
        return PLAIN_OBJECTIVES[objective]()
    if objective is not None and not callable(objective):
        raise ValueError(f"`objective` must be a function from (B, ...) to (B,), got {type(objective).__name__}.")
    return Target(target) if objective is None else objective


def _ends(place: Place, inputs: Inputs) -> tuple[Tensor, ...]:
    """What a path ends at: all tensors that are given by position, or the one of the place."""
    if place.words or isinstance(inputs, Mapping):
        return (place.tensor,) if place.tensor is not None else ()
    return _inputs(inputs)


def _after(place: Place, inputs: Inputs) -> Place:
    """The place with the arguments that come after what a path walks: all that end at the inputs walk all of them."""
    return replace(place, arguments=place.arguments[len(_ends(place, inputs)) - 1 :])


def _path(
    place: Place, keywords: Mapping[str, Any], inputs: Inputs, baselines: Baselines, path: Path | TokenMaskPath | None
) -> Path:
    """The straight line from the baselines, or the given path if it ends at the inputs."""
    ends = _ends(place, inputs)
    if isinstance(baselines, Token):
        baselines = token_value(place, baselines, place.arguments, keywords)
    if isinstance(path, TokenMaskPath):
        if path.token is not None:
            if baselines is not None:
                raise ValueError("`baselines` has no effect when `path` names a token: leave one of them out.")
            baselines = token_value(place, Token(path.token), place.arguments, keywords)
        reference = resolve_reference(baselines, ends[0])  # type: ignore[arg-type]
        return token_path(place, path, random_order(ends[0].shape[1], 0), reference, keywords, DEFAULT.n_groups)
    if path is None:
        starts = as_tuple(baselines) if isinstance(baselines, tuple) else (baselines,) * len(ends)
        if len(starts) != len(ends):
            raise ValueError(f"{len(ends)} inputs need as many baselines, got {len(starts)}.")
        return LinearPath(ends, tuple(resolve_reference(s, e) for s, e in zip(starts, ends, strict=True)))
    if baselines is not None:
        raise ValueError("`baselines` has no effect when `path` is given: the path has its own start.")
    if not isinstance(path, Path):
        raise ValueError(f"`path` must have an interval, groups and a method `at`, got {type(path).__name__}.")
    own = getattr(path, "inputs", None)
    last = path.at(torch.tensor(path.interval[1:], dtype=torch.float64, device="cpu")) if own is None else as_tuple(own)
    if len(last) != len(ends) or not all(
        a.shape == b.shape and torch.allclose(a, b.to(a)) for a, b in zip(last, ends, strict=True)
    ):
        raise ValueError("`path` does not end at `inputs`: build it from the same tensors.")
    return path


def _tag(method: CaptumMethod | MacTag | None) -> MacTag | None:
    """Where the gradient is taken, by our name or the one that Captum gives the sum; None stays None."""
    if method is None:
        return None
    if method not in TAGS:
        raise ValueError(f"`method` must be one of {', '.join(TAGS)}, got {method!r}.")
    return TAGS[method]


def _partition(path: Path, n_steps: object, method: str, extra: int) -> Partition:
    """Nodes by our tags, or by Captum's names: ``n_steps`` nodes and some more."""
    steps = whole_number("n_steps", n_steps)
    if method in get_args(Tag):
        return tagged_partition(path.interval, steps, method, path.groups)  # type: ignore[arg-type]
    return captum_nodes(path.interval, steps + extra, method)  # type: ignore[arg-type]


@contextmanager
def _progress(call: _Call, name: str) -> Iterator[Callable[[float], object] | None]:
    """A progress bar over the nodes of a call, or nothing."""
    if not call.show_progress:
        yield None
        return
    with tqdm(total=len(call.partition.nodes), unit="node", desc=name) as bar:
        yield bar.update
