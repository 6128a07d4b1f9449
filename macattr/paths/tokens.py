"""Paths over whole tokens: patches of an image, or words, that are hidden first and fade in group by group."""

__all__ = ["Token", "TokenMaskPath", "TokenPath", "token_groups"]

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from macattr.paths.inputs import check_masked_fraction, visible_count


@dataclass(frozen=True)
class Token:
    """A reference: what a layer returns where every token of the text is this one.

    Args:
        number: Number of the token in the model's vocabulary, such as ``tokenizer.mask_token_id``.
    """

    number: int


@dataclass(frozen=True)
class TokenMaskPath:
    """The mask path of masked-image and masked-language models, as an option: the model's own mask fades away.

    Networks that blend ``embedding * (1 - mask) + mask_token * mask`` (Swin, ViT, BEiT and their kin in transformers)
    take ``bool_masked_pos`` as a grid of numbers in [0, 1], and this is what the path walks. Elsewhere it walks the
    tokens (B, n, D) at the layer that the option ``at`` names, from the reference to their values.

    Args:
        r: Share of the tokens that is hidden at the start, in (0, 1]. Padding is never hidden.
        token: Number of the token that stands for a hidden one in a text (``tokenizer.mask_token_id``); None takes the
            reference input.
        groups: Groups of tokens, each of which fades in linearly over its share of the path; None takes those of the
            preset.

    Source:
        Qin et al. 2024 (RAM), Eq. 5-8, for tokens in place of pixels.
    """

    r: float = 0.5
    token: int | None = None
    groups: int | None = None

    def __post_init__(self) -> None:
        check_masked_fraction(self.r)
        if self.groups is not None and self.groups < 1:
            raise ValueError(f"`groups` must be at least 1, got {self.groups}.")


@dataclass(frozen=True)
class TokenPath:
    r"""Hidden tokens fade in group by group until all are whole; alpha runs over [1 - r, 1].

    Args:
        inputs: Values of the tokens at the end, (B, n, ...).
        baselines: Values of hidden tokens, same shape.
        group: Number of the group in which a token fades in, (B, n); -1 where it is never hidden.
        r: Length of the interval.
        groups: Number of groups, equal parts of the interval.
        interval: Start and end of alpha, (1 - r, 1).
        power: A token's share of its value rises as this power of the way through its part. The path is the same for
            all; above 1, nodes crowd where a token begins to appear. There a layer norm turns quickly.

    Example:
        >>> path = TokenPath(torch.ones(1, 3, 1), torch.zeros(1, 3, 1), torch.tensor([[-1, 0, 1]]), r=0.5, groups=2)
        >>> path.at(torch.tensor([0.5, 0.75, 0.875]))[0].flatten(1)
        tensor([[1.0000, 0.0000, 0.0000],
                [1.0000, 1.0000, 0.0000],
                [1.0000, 1.0000, 0.5000]])
    """

    inputs: Tensor
    baselines: Tensor
    group: Tensor
    r: float = 0.5
    groups: int = 5
    power: float = 1.0
    interval: tuple[float, float] = field(init=False)

    def __post_init__(self) -> None:
        check_masked_fraction(self.r)
        if self.inputs.dim() < 2 or self.group.shape != self.inputs.shape[:2]:
            raise ValueError(
                f"tokens (B, n, ...) need one group each, got {tuple(self.inputs.shape)} and {tuple(self.group.shape)}."
            )
        object.__setattr__(self, "interval", (1 - self.r, 1.0))

    def at(self, alpha: Float[Tensor, " k"]) -> tuple[Tensor, ...]:
        """Partly hidden tokens at positions ``alpha``: one tensor (k*B, n, ...)."""
        position = alpha.double()[:, None, None].to(self.group.device)
        fade = ((position - self.interval[0]) * self.groups / self.r - self.group).clamp(0, 1)
        fade = fade**self.power
        gate = torch.where((self.group < 0) | (position >= 1), 1.0, fade).to(self.inputs)
        gate = gate.reshape(*gate.shape, *[1] * (self.inputs.dim() - 2))
        return (torch.lerp(self.baselines, self.inputs, gate).flatten(0, 1),)

    def hidden(self) -> Bool[Tensor, "b n"]:
        """True where a token is hidden at the start of the path."""
        return self.group >= 0


def token_groups(may_hide: Bool[Tensor, "b n"], order: Int[Tensor, "..."], r: float, groups: int) -> Int[Tensor, "b n"]:
    """The group in which each token fades in, -1 where it is never hidden; groups are equal but for one token.

    Args:
        may_hide: True where a token may be hidden; of these a share r is.
        order: Reveal order of all tokens, (n,) or (B, n).
        r: Share that is hidden at the start, in (0, 1].
        groups: Number of groups.

    Raises:
        ValueError: If the order is no permutation, or nothing is hidden in a sample.

    Example:
        >>> token_groups(torch.tensor([[True, True, True, True, False]]), torch.arange(5), 0.5, 2)
        tensor([[-1, -1,  0,  1, -1]])
    """
    batch, count = may_hide.shape
    rows = order.reshape(-1, order.shape[-1]).expand(batch, -1)
    expected = torch.arange(count, device=rows.device)
    if rows.shape[-1] != count or not torch.equal(rows.sort(-1).values, expected.expand_as(rows)):
        raise ValueError(f"`orders` must be permutations of the {count} tokens, got shape {tuple(order.shape)}.")
    found = torch.full((batch, count), -1, dtype=torch.int64, device=may_hide.device)
    for sample, row in enumerate(rows.to(may_hide.device)):
        candidates = row[may_hide[sample, row]]
        hidden = candidates[visible_count(len(candidates), r) :]
        if not len(hidden):
            raise ValueError(f"`r` = {r} hides none of the {len(candidates)} tokens that may be hidden: raise it.")
        found[sample, hidden] = torch.arange(len(hidden), device=found.device) * groups // len(hidden)
    return found
