"""Conductance of the neurons of one layer or of many, along a mask path (MAC), a line or any path."""

__all__ = ["LayerConductance", "MaskAttributeConductance"]

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from captum.log import log_usage
from jaxtyping import Int
from torch import Tensor

from macattr.arguments import checked_seed, positive_number, whole_number
from macattr.attribution.arguments import (
    Baselines,
    Inputs,
    as_masked_fraction,
    as_objective,
    as_order,
    as_partition,
    as_path,
    as_tag,
    ends_of,
    with_later_arguments,
)
from macattr.attribution.method import Attributions, Call, LayerMethod
from macattr.layers.resolve import LayerLike
from macattr.layers.wrappers import own_attribute
from macattr.paths.inputs import Gate, Path, Reference, resolve_reference
from macattr.paths.objectives import Objective, PlainObjectiveName, TargetType
from macattr.paths.partitions import CaptumMethod
from macattr.paths.presets import DEFAULT, MacTag, Preset, as_preset
from macattr.paths.sums import StieltjesSum
from macattr.paths.tokens import TokenMaskPath
from macattr.sweep.calls import CallsName
from macattr.sweep.outputs import OutputChoice


class _ConductanceMethod(LayerMethod):
    """Layer methods that sum gradient times change of output: complete at cuts, so that they have a delta."""

    @property
    def multiplies_by_inputs(self) -> bool:
        """Conductance holds the change of the layer's output."""
        return True

    def has_convergence_delta(self) -> bool:
        """The sum of the attributions is to be the objective's change."""
        return True

    def _conductance(
        self, call: Call, return_convergence_delta: bool
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
        >>> import torch
        >>> from torch import nn
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
        (images,) = ends_of(place, inputs)
        options = (as_preset(preset) or DEFAULT).override(
            r=None if r is None else as_masked_fraction(r),
            n_steps=None if n_steps is None else whole_number("n_steps", n_steps),
            gate=gate,
            delta=None if delta is None else positive_number("delta", delta),
            groups=None if groups is None else whole_number("groups", groups, least=0),
            tag=as_tag(method),
            include_end=include_end,
            objective=None if target is None and objective is None else as_objective(target, objective),
        )
        if baselines is None:
            baselines = 0.0 if place.words else own_attribute(self.forward_func, "reference_input", 0.0)
        path = options.path(
            images,
            resolve_reference(baselines, images),
            None if order is None else as_order(order),
            0 if seed is None else checked_seed(seed),
            whole_number("patch_size", patch_size, least=0),
        )
        call = Call(
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
        walked = as_path(place, keywords, inputs, baselines, path)
        call = Call(
            place=with_later_arguments(place, inputs),
            path=walked,
            partition=as_partition(walked, n_steps, method, extra=1),
            objective=as_objective(target, objective),
            internal_batch_size=internal_batch_size,
            at_input=attribute_to_layer_input,
            grad_kwargs=grad_kwargs,
            show_progress=show_progress,
            calls=calls,
            with_input=with_input_residual,
        )
        return self._conductance(call, return_convergence_delta)
