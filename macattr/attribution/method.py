"""What all attribution classes share: layers by name, one sweep for all of them, and the formats of results."""

__all__ = ["Attributions", "Call", "Found", "LayerMethod", "progress"]

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from captum.attr import GradientAttribution, LayerAttribution
from torch import Tensor, nn
from tqdm.auto import tqdm

from macattr.arguments import as_tuple
from macattr.attribution.arguments import Inputs, Tensors, as_inputs
from macattr.layers.resolve import LayerLike, entries_of, matched_by_globs, resolve_layers
from macattr.paths.inputs import Path
from macattr.paths.objectives import Objective
from macattr.paths.partitions import Partition
from macattr.paths.sums import LayerSum
from macattr.paths.tokens import TokenMaskPath
from macattr.sweep.calls import CallsName, check_calls, counted, join_calls
from macattr.sweep.entry import walked_keyword
from macattr.sweep.nodes import objective_at
from macattr.sweep.outputs import OutputChoice
from macattr.sweep.places import Place, find_place, refuse_nowhere
from macattr.sweep.probes import Site
from macattr.sweep.survey import other_layouts, survey
from macattr.sweep.trace import Trace, trace

Attributions = Tensors | list[Tensors]
"""Values of the neurons of a layer, or of each of several layers."""

Found = Mapping[str, Mapping[Site, Tensor]]
"""Attributions by layer, at every call and tensor."""


@dataclass(frozen=True)
class Call:
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


class LayerMethod(LayerAttribution, GradientAttribution):  # type: ignore[misc]
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

    def _format(self, call: Call, found: Found) -> Attributions:
        """A tensor for a layer, a tuple if it returns several, a list of these for a list of layers."""
        parts = [join_calls(values, call.calls) for values in found.values()]
        each: list[Tensors] = [values if len(values) > 1 else values[0] for values in parts]
        return each if self._several else each[0]

    def _totals(self, call: Call, found: Found, change: Tensor) -> list[Tensor]:
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

    def _trace(self, call: Call, layer_sum: LayerSum) -> tuple[Trace, Found]:
        """One sweep with one sum for all layers."""
        layers = self._running(call)
        with progress(call, self.get_name()) as advance:
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

    def _running(self, call: Call) -> dict[str, nn.Module]:
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
        first: tuple[Any, ...] = () if isinstance(inputs, Mapping) else as_inputs(inputs)
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

    def _change(self, call: Call) -> Tensor:
        """Change of the objective between the ends of the path, (B,)."""
        start, end = (
            objective_at(self._network(call.place), call.path, alpha, call.objective, call.place.arguments)
            for alpha in call.path.interval
        )
        return end - start


@contextmanager
def progress(call: Call, name: str) -> Iterator[Callable[[float], object] | None]:
    """A progress bar over the nodes of a call, or nothing.

    Args:
        call: Its nodes, and whether to show them.
        name: Name of the method, beside the bar.
    """
    if not call.show_progress:
        yield None
        return
    with tqdm(total=len(call.partition.nodes), unit="node", desc=name) as bar:
        yield bar.update
