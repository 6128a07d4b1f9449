"""What a forward pass of a network without values would keep, by shapes on the meta device."""

__all__ = ["Outline", "has_no_values", "outline"]

from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils import _pytree as pytree

from macattr.methods.samples import Sample
from macattr.methods.task import Task
from macattr.sweep.guard import modules_of, without_gradients
from macattr.sweep.places import embedding_of
from macattr.sweep.probes import Site, probing
from macattr.weights.values import storages_of


@dataclass
class Outline:
    """Sizes of one node's pass.

    Args:
        outputs: Distinct tensors that layers return, without values.
        saved: Bytes of every storage that autograd keeps, by its identity; weights excepted.
    """

    outputs: dict[tuple[int, torch.Size], Tensor] = field(default_factory=dict)
    saved: dict[int, int] = field(default_factory=dict)

    def visit(self, site: Site, tensor: Tensor) -> Tensor:
        """Note a layer's output and hand it on."""
        if tensor.is_floating_point():
            self.outputs[tensor.untyped_storage()._cdata, tensor.shape] = tensor.detach()
        return tensor

    def pack(self, tensor: Tensor) -> Tensor:
        """Note a tensor that autograd keeps."""
        self.saved |= {storage._cdata: storage.nbytes() for storage in storages_of(tensor)}
        return tensor.detach()


def has_no_values(model: nn.Module) -> bool:
    """Whether all parameters of a network are on the meta device.

    Args:
        model: Network.
    """
    parameters = list(model.parameters())
    return bool(parameters) and all(parameter.is_meta for parameter in parameters)


def outline(task: Task, sample: Sample) -> Outline:
    """Sizes of a forward pass on a sample, from which gradients lead to what a path walks.

    Kernels of the meta device are torch's plain ones: attention keeps its whole matrix, which fused kernels do not.

    Args:
        task: Network without values, layers and options.
        sample: A sample, of which the shapes count.
    """
    found = Outline()
    arguments, keywords = pytree.tree_map_only(Tensor, _without_values, task.call_arguments(sample))
    walked = task.layer_of_path[1] if task.layer_of_path else embedding_of(task.model) if sample.image is None else None
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        stack.enter_context(without_gradients(modules_of(task.model)))
        if walked is not None:
            stack.callback(walked.register_forward_hook(lambda *call: _walked(call[-1])).remove)
        stack.enter_context(probing(task.layers, found.visit))
        stack.enter_context(saved_tensors_hooks(found.pack, lambda tensor: tensor))
        output = task.model(*arguments, **keywords)
    for parameter in task.model.parameters():
        for storage in storages_of(parameter):
            found.saved.pop(storage._cdata, None)
    del output  # until here it keeps the storages, and with them their identities
    return found


def _without_values(tensor: Tensor) -> Tensor:
    """The tensor's shape and type on the meta device; with a gradient if it can have one."""
    return tensor.detach().to("meta").requires_grad_(tensor.is_floating_point())


def _walked(output: object) -> object:
    """A layer's output from which gradients start."""
    return pytree.tree_map_only(Tensor, _without_values, output)
