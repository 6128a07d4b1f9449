"""Parameters of a layer: which it owns, their values, and which of them no training moves."""

__all__ = [
    "constants",
    "copy_network",
    "forget_frozen",
    "layer_of",
    "mark_frozen",
    "own_parameters",
    "own_values",
    "parametrisations",
    "plain_tensors",
    "trainable_parameters",
]

import copy
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.utils.weak import WeakIdKeyDictionary

from macattr.weights.values import present, values_of

_FROZEN = WeakIdKeyDictionary()
"""Parameters that a mask has frozen. They are no constants, although they need no gradient."""


def plain_tensors(module: nn.Module) -> list[Tensor]:
    """Tensors with a history that are neither parameters nor buffers, which Python cannot copy.

    Old weight norms and pruning (:mod:`torch.nn.utils`) keep a weight so, and compute it anew in every forward pass.

    Args:
        module: The layer.
    """
    return [value for value in vars(module).values() if isinstance(value, Tensor) and not value.is_leaf]


def copy_network(model: nn.Module) -> nn.Module:
    """A copy of a network, with its :func:`plain_tensors` as values without a history.

    Args:
        model: Network.
    """
    tensors = [tensor for module in model.modules() for tensor in plain_tensors(module)]
    return copy.deepcopy(model, {id(tensor): tensor.detach().clone() for tensor in tensors})


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters of a layer by their names inside it: those that it owns directly, and those of its parametrisations.

    Args:
        module: The layer. Modules of :mod:`torch.nn.utils.parametrizations` keep its weight under ``parametrizations``.

    Example:
        >>> layer = nn.utils.parametrizations.weight_norm(nn.Linear(2, 3))
        >>> list(own_parameters(layer))
        ['bias', 'parametrizations.weight.original0', 'parametrizations.weight.original1']
    """
    own = dict(module.named_parameters(recurse=False))
    if is_parametrized(module):
        inside = module.get_submodule("parametrizations").named_parameters()
        own |= {f"parametrizations.{name}": parameter for name, parameter in inside}
    return own


@contextmanager
def own_values(module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Values of the parameters that :func:`own_parameters` names, while the context lasts.

    Args:
        module: The layer. Its weights may be sharded over processes, offloaded by accelerate or packed into 4 bits.
    """
    with present(module):
        yield {name: values_of(parameter) for name, parameter in own_parameters(module).items()}


def layer_of(parameter: str) -> str:
    """Name of the layer that a parameter belongs to.

    Args:
        parameter: Name as in ``model.named_parameters()``.

    Example:
        >>> layer_of("body.0.weight"), layer_of("body.0.parametrizations.weight.original0")
        ('body.0', 'body.0')
    """
    parametrised = re.match(r"(?:(?P<layer>.*?)\.)?parametrizations\.[^.]+\.(?:original\d*$|\d+\.)", parameter)
    return (parametrised["layer"] or "") if parametrised else parameter.rpartition(".")[0]


def constants(model: nn.Module) -> set[int]:
    """Identities of the parameters that stay as they are in every training: no mask trains them unless asked to.

    They are parameters without a gradient in a network that has others: the shift of a mean-shift layer, a buffer that
    is kept as a parameter. In a network that is frozen as a whole, only parameters of integers are constants. Quantised
    weights and the parameters that :func:`macattr.selection.trainable.train_only` froze do not count as constants.

    Args:
        model: Network.
    """
    parameters = list(model.parameters())
    is_trained = any(parameter.requires_grad or parameter in _FROZEN for parameter in parameters)
    return {
        id(parameter)
        for parameter in parameters
        if type(parameter) is nn.Parameter
        and not parameter.requires_grad
        and parameter not in _FROZEN
        and (is_trained or not parameter.is_floating_point())
    }


def mark_frozen(parameters: Iterable[nn.Parameter]) -> None:
    """Remember that a mask is about to freeze these parameters, so that they are not taken for constants later.

    Args:
        parameters: Those that require a gradient; the others are constants, or were frozen before.
    """
    for parameter in parameters:
        if parameter.requires_grad:
            _FROZEN[parameter] = True


def forget_frozen(parameters: Iterable[nn.Parameter]) -> None:
    """Forget that a mask has frozen these parameters, whose flags are back: who freezes them now may mean constants.

    Args:
        parameters: Any; others are passed over.
    """
    for parameter in parameters:
        _FROZEN.pop(parameter, None)


def trainable_parameters(
    module: nn.Module, fixed: Collection[int], *, whole_modules: bool = False
) -> dict[str, nn.Parameter]:
    """The parameters that a layer stands for when it is selected, by their names inside it.

    Args:
        module: The layer.
        fixed: Identities of the network's :func:`constants`, which are left out. A layer that holds nothing else is
            meant when it is named, and stands for them.
        whole_modules: Whether the parameters of the modules inside it belong to it.
    """
    every = dict(module.named_parameters()) if whole_modules else own_parameters(module)
    free = {name: parameter for name, parameter in every.items() if id(parameter) not in fixed}
    return free or {name: parameter for name, parameter in every.items() if parameter.is_floating_point()}


def parametrisations(model: nn.Module) -> set[int]:
    """Identities of all modules that belong to the weight of a layer.

    Args:
        model: Network.
    """
    return {
        id(part)
        for module in model.modules()
        if is_parametrized(module)
        for part in module.get_submodule("parametrizations").modules()
    }
