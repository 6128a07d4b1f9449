"""What one forward pass shows of the probed layers: their tensors, which are the same, and their memory."""

__all__ = ["Seen", "Survey", "fingerprint_of", "survey"]

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge, saved_tensors_hooks

from macattr.paths.inputs import Path
from macattr.paths.partitions import Partition
from macattr.sweep.guard import cuda_devices, random_state, undisturbed
from macattr.sweep.nodes import leaves_at, repeat_argument
from macattr.sweep.probes import Site, probing


@dataclass(frozen=True)
class Seen:
    """What one forward pass shows of a probed tensor.

    Args:
        site: Layer, call and tensor.
        shape: Its shape at one node.
        nbytes: Its memory at one node.
        alias_of: The first site that is the very same tensor, or the site itself.
        overwritten: Whether a later in-place operation destroys its values.
        fingerprint: Some of its values.
        low_precision: Whether it has fewer than 32 bits.
    """

    site: Site
    shape: tuple[int, ...]
    nbytes: int
    alias_of: Site
    overwritten: bool
    fingerprint: tuple[float, ...]
    low_precision: bool


@dataclass(frozen=True)
class Survey:
    """What one forward pass at the start of the path tells about cost and layers.

    Args:
        seen: Every probed tensor in the order of execution.
        saved_bytes: Memory that autograd keeps for the backward pass of one node.
        batch: Samples at one node.
    """

    seen: tuple[Seen, ...]
    saved_bytes: int
    batch: int

    @property
    def aliases(self) -> dict[Site, Site]:
        """Every site with the first site that is the same tensor."""
        return {seen.site: seen.alias_of for seen in self.seen}

    @property
    def distinct(self) -> list[Seen]:
        """Probed tensors without repetitions."""
        return [seen for seen in self.seen if seen.alias_of == seen.site]

    @property
    def sites(self) -> dict[str, list[Site]]:
        """For every layer, the distinct sites that it returns, one for each call and tensor."""
        found: dict[str, list[Site]] = {}
        for site, alias in self.aliases.items():
            found.setdefault(site.layer, []).append(alias)
        return found

    def alias_groups(self) -> dict[str, str]:
        """For every layer, the first layer to return the same tensors."""
        canonical: dict[tuple[Site, ...], str] = {}
        return {name: canonical.setdefault(tuple(found), name) for name, found in self.sites.items()}

    @property
    def working_bytes(self) -> int:
        """Memory of one node's passes with no layer kept: what autograd saves, and as much for temporaries."""
        return 2 * self.saved_bytes

    @property
    def output_bytes(self) -> int:
        """Memory of all distinct layer outputs at one node."""
        return sum(seen.nbytes for seen in self.distinct)


def survey(
    model: Callable[..., Any],
    layers: Mapping[str, nn.Module],
    path: Path,
    partition: Partition,
    *,
    forward_args: tuple[Any, ...] = (),
    at_input: bool = False,
) -> Survey:
    """Sites, aliases and memory, from one forward pass at the first node.

    Args:
        model: Network or function.
        layers: Modules to probe, by name.
        path: Where the inputs come from.
        partition: Its first node is looked at.
        forward_args: Further positional arguments of the model.
        at_input: Probe what goes into the layers instead of what comes out.

    Raises:
        ValueError: If a layer returns no floating-point tensor.
    """
    tensors: dict[Site, tuple[Tensor, int, Hashable, tuple[float, ...]]] = {}
    saved: dict[int, int] = {}

    def visit(site: Site, tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            if tensor.dim() == 0:
                raise ValueError(f"layer {site} returns a single number, without neurons: leave it out of `layers`.")
            edge = get_gradient_edge(tensor) if tensor.requires_grad else None
            same = (tensor.data_ptr(), tensor._version, tensor.shape, tensor.stride()) if edge is None else edge[:2]
            tensors[site] = (tensor.detach(), tensor._version, same, fingerprint_of(tensor))
        return tensor

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself would keep the graph, which keeps the tensor

    with undisturbed(model):
        inputs = leaves_at(path, partition.nodes[:1])
        for parameter in model.parameters() if isinstance(model, nn.Module) else []:
            saved[parameter.untyped_storage().data_ptr()] = 0
        weights = set(saved)
        with saved_tensors_hooks(pack, lambda tensor: tensor), probing(layers, visit, at_input):
            arguments = [repeat_argument(argument, inputs[0].shape[0], 1) for argument in forward_args]
            devices = cuda_devices(model)
            before = random_state(devices)
            model(*(leaf.clone() for leaf in inputs), *arguments)
        if not all(map(torch.equal, before, random_state(devices))):
            raise ValueError(
                "the model draws random numbers: call `model.eval()`, and switch off what still is random."
            )
        first: dict[Hashable, Site] = {}
        seen = []
        for site, (tensor, version, same, fingerprint) in tensors.items():
            seen.append(
                Seen(
                    site,
                    tuple(tensor.shape),
                    tensor.nbytes,
                    first.setdefault(same, site),
                    tensor._version != version,
                    fingerprint,
                    tensor.element_size() < 4,
                )
            )
    saved_bytes = sum(nbytes for pointer, nbytes in saved.items() if pointer not in weights)
    return Survey(tuple(seen), saved_bytes, inputs[0].shape[0])


def fingerprint_of(tensor: Tensor) -> tuple[float, ...]:
    """Up to 64 values, evenly spread over the tensor."""
    count = min(64, tensor.numel())
    places = torch.linspace(0, tensor.numel() - 1, count, dtype=torch.float64).round().long().to(tensor.device)
    return tuple(tensor.detach()[torch.unravel_index(places, tensor.shape)].double().tolist()) if count else ()
