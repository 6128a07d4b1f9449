"""Where a path runs: over an input, over a layer's output, or over a model's own mask."""

__all__ = [
    "MASK",
    "Place",
    "at_input",
    "at_layer",
    "at_mask",
    "embedding_of",
    "find_place",
    "nowhere",
    "refuse_nowhere",
    "takes_mask",
    "token_path",
    "token_value",
]

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from macattr.layers.resolve import resolve_layers
from macattr.layers.wrappers import inner_network
from macattr.paths.inputs import visible_count
from macattr.paths.tokens import Token, TokenMaskPath, TokenPath, token_groups
from macattr.sweep.entry import Entry, forward_parameters, output_at
from macattr.sweep.outputs import OutputChoice

MASK = "bool_masked_pos"
"""The argument of masked-image models that says which patches are hidden."""


@dataclass(frozen=True)
class Place:
    """What a path walks, and the network as a function of it.

    Args:
        tensor: Its value at the end of the path, (B, ...); None where there is nothing to walk.
        entry: The network from there on.
        arguments: Further positional arguments of ``entry``.
        words: Where it is, for readers; '' for the model's own input.
        hidden_value: Value of a hidden token, if the place itself decides it.
        patch: Side in pixels of the patch that a token stands for; None where tokens are no patches.
    """

    tensor: Tensor | None
    entry: Entry
    arguments: tuple[Any, ...] = ()
    words: str = ""
    hidden_value: float | None = None
    patch: tuple[int, int] | None = None

    def reading(self, output: OutputChoice) -> "Place":
        """The same place with another output.

        Args:
            output: Which tensor of the output is read.
        """
        return replace(self, entry=replace(self.entry, output=output, taken=""))


def at_input(
    model: Callable[..., Any], tensor: Tensor, arguments: tuple[Any, ...], keywords: Mapping[str, Any], key: str = ""
) -> Place:
    """The path walks an input.

    Args:
        model: Network, or a function that calls it.
        tensor: The input, (B, ...).
        arguments: Positional arguments after it.
        keywords: Keyword arguments besides it.
        key: Its keyword; '' where it is the first positional argument.
    """
    keys = (key,) if key else ()
    return Place(tensor, Entry(model, keys, keywords, batch=tensor.shape[0]), arguments)


def at_layer(
    model: Callable[..., Any], name: str, module: nn.Module, arguments: tuple[Any, ...], keywords: Mapping[str, Any]
) -> Place:
    """The path walks a layer's output; the inputs of the model stay as they are.

    Args:
        model: Network, or a function that calls it.
        name: Name of the layer, for readers.
        module: The layer.
        arguments: All positional arguments of the model.
        keywords: All keyword arguments of the model.

    Raises:
        ValueError: If the layer does not run exactly once, or returns no floating-point tensor.
    """
    tensor = output_at(model, module, *arguments, **keywords)
    entry = Entry(model, keywords=keywords, at=module, batch=tensor.shape[0])
    return Place(tensor, entry, arguments, f"the output of {name!r}")


def at_mask(model: nn.Module, picture: Tensor, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Place:
    """The path walks the model's own mask: 1 where a patch is hidden, 0 where it is seen.

    Args:
        model: Network with an argument ``bool_masked_pos`` and ``config.patch_size``.
        picture: Its images (B, C, H, W).
        arguments: All positional arguments of the model.
        keywords: All keyword arguments but the mask.

    Raises:
        ValueError: If the size of the patches is not known.
    """
    size = getattr(getattr(inner_network(model)[0], "config", None), "patch_size", None)
    patch = (size, size) if isinstance(size, int) else size
    if picture.dim() != 4 or patch is None:
        raise ValueError(
            f"a path over {MASK!r} needs images (B, C, H, W) and `config.patch_size` of the model, got a shape "
            f"{tuple(picture.shape)} and {size}: walk another path, or name a layer with `at`."
        )
    count = -(-picture.shape[-2] // patch[0]) * -(-picture.shape[-1] // patch[1])
    seen = picture.new_zeros(picture.shape[0], count)
    entry = Entry(model, (MASK,), keywords, batch=picture.shape[0])
    return Place(seen, entry, arguments, f"the model's own mask {MASK!r}", 1.0, (int(patch[0]), int(patch[1])))


def nowhere(model: Callable[..., Any], arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Place:
    """No path: the network with all its inputs as they are.

    Args:
        model: Network, or a function that calls it.
        arguments: All positional arguments of the model.
        keywords: All keyword arguments of the model.
    """
    return Place(None, Entry(model, keywords=keywords, walks=False), arguments)


def find_place(
    model: Callable[..., Any],
    walkable: Tensor | None,
    arguments: tuple[Any, ...],
    keywords: Mapping[str, Any],
    *,
    key: str = "",
    layer: tuple[str, nn.Module] | None = None,
    tokens: bool = False,
    prefix: str = "",
) -> Place:
    """What a path walks: a layer's output if one is named, an input if a path can walk it, else the embeddings.

    Args:
        model: Network, or a function that calls it.
        walkable: The input that a path can walk, (B, ...); None if there is none.
        arguments: Positional arguments of the model after it.
        keywords: Keyword arguments of the model besides it.
        key: Its keyword; '' where it is the first positional argument.
        layer: Name and module of the layer at which the path is to run.
        tokens: Whether the path hides tokens: then it walks the model's own mask, if the model has one.
        prefix: Beginning of the names of layers that a wrapper adds.

    Raises:
        ValueError: As :func:`at_layer` and :func:`at_mask`.
    """
    by_position, named = arguments, dict(keywords)
    if walkable is not None:
        by_position = arguments if key else (walkable, *arguments)
        named = {key: walkable, **named} if key else named
    if layer is None and walkable is not None:
        if tokens and isinstance(model, nn.Module) and takes_mask(model):
            named.pop(MASK, None)
            return at_mask(model, walkable, by_position, named)
        return at_input(model, walkable, arguments, keywords, key)
    if layer is None and isinstance(model, nn.Module) and (embedding := embedding_of(model)) is not None:
        layer = next(iter(resolve_layers(model, embedding, prefix).items()))
    return nowhere(model, by_position, named) if layer is None else at_layer(model, *layer, by_position, named)


def takes_mask(model: Callable[..., Any]) -> bool:
    """Whether a network has a mask of its own that a path can walk.

    Args:
        model: Network, or a function that calls it.
    """
    return MASK in forward_parameters(model)[0]


def embedding_of(model: nn.Module) -> nn.Module | None:
    """The layer that turns tokens into vectors, as networks of Hugging Face name it; None if that is not known.

    Where an encoder has one, it is that: the network's own may be a name for shared weights that never runs.

    Args:
        model: Network.
    """
    network = inner_network(model)[0]
    own, encoder = _returned(network, "get_input_embeddings"), _returned(network, "get_encoder")
    inside = _returned(encoder, "get_input_embeddings")
    has_decoder = getattr(getattr(network, "config", None), "is_encoder_decoder", False)
    module = inside if has_decoder or isinstance(inside, nn.Embedding) else own
    return module if isinstance(module, nn.Embedding) else None


def _returned(network: object, method: str) -> object:
    """What a method without arguments returns; None if there is none, or none for this network."""
    try:
        return getattr(network, method)()
    except (NotImplementedError, AttributeError, TypeError):
        return None


def refuse_nowhere(name: str, model: Callable[..., Any]) -> ValueError:
    """Error for a sample without anything that a path can walk.

    Args:
        name: Name of the sample.
        model: Network, whose embeddings are the remedy.
    """
    embeddings = []
    if isinstance(model, nn.Module):
        embeddings = [layer for layer, module in model.named_modules() if isinstance(module, nn.Embedding)]
    example = f"at={embeddings[0]!r}" if embeddings else "at= the name of a layer"
    return ValueError(
        f"{name!r} has no floating-point tensor that a path could walk: let it run at a layer's output, {example}."
    )


TOKEN_POWER = 4.0
"""Power with which tokens fade in: from a reference of 0 the first percent of a linear fade passes a layer norm."""


def token_path(
    place: Place, path: TokenMaskPath, order: Tensor, reference: Tensor | None, keywords: Mapping[str, Any], groups: int
) -> TokenPath:
    """The mask path over the tokens of a place.

    Args:
        place: What it walks: tokens (B, n, D), or a model's own mask (B, n).
        path: Share that is hidden, and the groups if it says how many.
        order: Reveal order of the tokens, (n,) or (B, n).
        reference: Values of hidden tokens; None where the place itself decides them.
        keywords: Keyword arguments of the model. Padding by ``attention_mask`` is never hidden; a given
            ``bool_masked_pos`` says which patches are.
        groups: Groups if the path does not say how many; there are no more than hidden tokens.

    Raises:
        ValueError: If there are no tokens, or none is hidden.
    """
    whole = place.tensor
    if whole is None or (place.patch is None and whole.dim() < 3):
        found = "nothing" if whole is None else tuple(whole.shape)
        raise ValueError(f"a path over tokens needs tokens (B, n, D) or a model with {MASK!r}, got {found}.")
    may_hide, r = torch.ones(whole.shape[:2], dtype=torch.bool, device=whole.device), path.r
    given = keywords.get(MASK if place.patch is not None else "attention_mask")
    if isinstance(given, Tensor) and given.numel() == may_hide.numel():
        may_hide = given.reshape(may_hide.shape) > 0
        r = 1.0 if place.patch is not None else r
    fewest = min(tokens - visible_count(tokens, r) for tokens in may_hide.sum(1).tolist())
    count = min(groups if path.groups is None else path.groups, max(1, fewest))
    hidden = torch.full_like(whole, place.hidden_value) if place.hidden_value is not None else reference
    if hidden is None:
        raise ValueError("a path over tokens needs a reference: the values of hidden tokens.")
    return TokenPath(whole, hidden, token_groups(may_hide, order, r, count), path.r, count, TOKEN_POWER)


def token_value(place: Place, token: Token, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Tensor:
    """What the layer of a path returns where every token of the text is one and the same.

    Args:
        place: Where the path runs.
        token: The token.
        arguments: All positional arguments of the model.
        keywords: All keyword arguments of the model.

    Raises:
        ValueError: If the path runs at no layer, or the arguments hold no tokens.
    """
    replaced = dict(keywords)
    name = "input_ids" if "input_ids" in keywords else next((k for k, v in keywords.items() if _is_text(v)), None)
    number = next((n for n, value in enumerate(arguments) if _is_text(value)), None)
    if place.entry.at is None or (name is None and number is None):
        raise ValueError(f"{token!r} needs a text and a path at a layer: name that layer with `at`.")
    if name is not None:
        replaced[name] = torch.full_like(keywords[name], token.number)
    elif number is not None:
        same = torch.full_like(arguments[number], token.number)
        arguments = (*arguments[:number], same, *arguments[number + 1 :])
    return output_at(place.entry.model, place.entry.at, *arguments, **replaced)


def _is_text(value: object) -> bool:
    """Whether a value is a tensor of tokens (B, L)."""
    return isinstance(value, Tensor) and not value.is_floating_point() and value.dim() == 2
