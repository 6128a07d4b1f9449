"""How a ranking was measured: the attributes of its file and the settings of its run."""

__all__ = ["describe_mask", "describe_run", "describe_task"]

import importlib.metadata
import platform
from collections.abc import Sequence

import torch

from macattr.layers.wrappers import inner_network
from macattr.methods.kinds import Method
from macattr.methods.provenance import describe, hash_network, hash_parameters, hash_tensors
from macattr.methods.task import Task
from macattr.paths.objectives import PLAIN_OBJECTIVES
from macattr.weights.processes import own_class
from macattr.weights.values import device_of

Attributes = dict[str, str | int | float]


def describe_task(task: Task) -> Attributes:
    """Network, nodes, objective, device and versions as plain attributes."""
    options = task.options
    parameter, network = next(task.model.parameters(), torch.empty(0)), inner_network(task.model)[0]
    device = device_of(network).type
    low = torch.is_autocast_enabled(device)
    return {
        "preset": task.preset.name,
        "n_steps": task.preset.n_steps,
        "tag": task.preset.tag,
        "include_end": int(task.preset.include_end),
        "objective": _describe_objective(task),
        "loss": "mean absolute error to the clean image" if options.loss is None else describe(options.loss),
        "start_weights": hash_tensors(*(options.start_weights or {}).values()),
        "across_images": task.preset.across_images,
        "baselines": describe(task.reference),
        "model": own_class(network).__name__,
        "model_sha256": hash_parameters(network),
        "network_sha256": hash_network(network),
        "dtype": str(torch.get_autocast_dtype(device) if low else parameter.dtype),
        "device": device,
        "macattr": importlib.metadata.version("macattr"),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def _describe_objective(task: Task) -> str:
    """The objective; a plain one is the same by its name as by itself."""
    chosen = task.options.objective
    if not isinstance(chosen, str):
        return describe(task.preset.objective)
    return next((describe(make()) for name, make in PLAIN_OBJECTIVES.items() if name == chosen), chosen)


def describe_mask(task: Task) -> Attributes:
    """The options of the mask path as plain attributes."""
    preset = task.preset
    return {
        "r": preset.r,
        "gate": preset.gate,
        "delta": preset.delta if preset.gate != "fade" else "",
        "groups": preset.n_groups if preset.gate == "fade" else "",
        "patch_size": task.options.patch_size,
        "seed": task.seed if isinstance(task.options.orders, int) else "orders were given",
    }


def describe_run(task: Task, methods: Sequence[Method]) -> dict[str, object]:
    """Everything that decides the readings of a run; parts of another run are refused by it."""
    options = task.options
    return {
        **describe_task(task),
        **describe_mask(task),
        "methods": [f"{method.name}: {describe(method)}" for method in methods],
        "layers": list(task.layers),
        "reduction": options.reduction,
        "path": describe(options.path),
        "orders": task.order_count,
        "step_error": options.step_error,
        "forward_args": hash_tensors(*options.additional_forward_args),
        **_describe_door(task),
    }


def _describe_door(task: Task) -> Attributes:
    """How the network is entered and read, where the options say so."""
    layer = task.layer_of_path
    given = {
        "output": "" if task.options.output is None else describe(task.options.output),
        "at": "" if layer is None else layer[0],
        "calls": "" if task.options.calls == "sum" else task.options.calls,
        "prefix": task.options.prefix,
        "with_input_residual": "" if task.options.with_input_residual else "no",
        "flush_denormals": "yes" if task.options.flush_denormals else "",
    }
    return {name: value for name, value in given.items() if value}
