"""Gradients at the neurons of one layer or of many: their mean along a path, or in a layer's own space."""

__all__ = ["InternalInfluence", "LayerGradientXActivation", "LayerIntegratedGradients"]

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from captum.log import log_usage
from torch import Tensor

from macattr.attribution.arguments import (
    Baselines,
    Inputs,
    as_objective,
    as_partition,
    as_path,
    ends_of,
    with_later_arguments,
)
from macattr.attribution.method import Attributions, Call, Found, LayerMethod, progress
from macattr.layers.resolve import LayerLike
from macattr.paths.inputs import LinearPath, Path
from macattr.paths.objectives import Objective, PlainObjectiveName, TargetType
from macattr.paths.partitions import Partition
from macattr.paths.sums import ActivationGradientSum, GradientSum
from macattr.paths.tokens import TokenMaskPath
from macattr.sweep.activations import sweep_activations
from macattr.sweep.calls import CallsName
from macattr.sweep.outputs import OutputChoice


class InternalInfluence(LayerMethod):
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
        walked = as_path(place, keywords, inputs, baselines, path)
        call = Call(
            place=with_later_arguments(place, inputs),
            path=walked,
            partition=as_partition(walked, n_steps, method, extra=0),
            objective=as_objective(target, objective),
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


class LayerIntegratedGradients(LayerMethod):
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
        walked = as_path(place, keywords, inputs, baselines, path)
        call = Call(
            place=with_later_arguments(place, inputs),
            path=walked,
            partition=as_partition(walked, n_steps, method, extra=0),
            objective=as_objective(target, objective),
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

    def _integrate(self, call: Call) -> Found:
        """Integrated gradients of all layers, by name."""
        layers = self._running(call)
        with progress(call, self.get_name()) as advance:
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


class LayerGradientXActivation(LayerMethod):
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
        ends = ends_of(place, inputs)
        weight = torch.ones(1, dtype=torch.float64, device="cpu")
        call = Call(
            place=with_later_arguments(place, inputs),
            path=LinearPath(ends, ends),
            partition=Partition(weight, "left", weight),
            objective=as_objective(target, objective),
            at_input=attribute_to_layer_input,
            grad_kwargs=grad_kwargs,
            calls=calls,
        )
        layer_sum = (ActivationGradientSum if self.multiplies_by_inputs else GradientSum)(weight)
        return self._format(call, self._trace(call, layer_sum)[1])
