"""RAM-PromptIR: a U-shaped channel-attention transformer with learned prompts whose input pixels can be hidden."""

__all__ = ["PromptIR"]

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ram_models.networks.maskable import Maskable


class ChannelNorm(nn.Module):
    """Layer norm over the channels of every pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.LayerNorm(channels)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalised features, same shape."""
        out: Tensor = self.body(features.flatten(2).transpose(1, 2)).transpose(1, 2)
        return out.reshape(features.shape)


class ChannelAttention(nn.Module):
    """Multi-head self-attention between channels, whose similarity is the cosine over all pixels (MDTA of Restormer).

    Args:
        channels: Width, a multiple of ``num_heads``.
        num_heads: Groups of channels that attend among themselves.
    """

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.qkv_dwconv = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=False)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Attended features, same shape."""
        rows: Tensor = self.qkv_dwconv(self.qkv(features)).flatten(2)
        q, k, v = rows.unflatten(1, (3, self.num_heads, -1)).unbind(1)
        logits = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        attended = (logits.softmax(-1) @ v).flatten(1, 2)
        out: Tensor = self.project_out(attended.unflatten(2, features.shape[-2:]))
        return out


class GatedFeedForward(nn.Module):
    """Two branches of 1x1 and depthwise 3x3 convolutions, one of which gates the other (GDFN of Restormer)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=False)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Transformed features, same shape."""
        gate, value = self.dwconv(self.project_in(features)).chunk(2, dim=1)
        out: Tensor = self.project_out(F.gelu(gate) * value)
        return out


class TransformerBlock(nn.Module):
    """Pre-norm channel attention and gated feed-forward, each with a skip.

    Args:
        channels: Width, a multiple of ``num_heads``.
        num_heads: Heads of the attention.
        expansion: Hidden width of the feed-forward over ``channels``; rounded down.
    """

    def __init__(self, channels: int, num_heads: int, expansion: float) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.attn = ChannelAttention(channels, num_heads)
        self.norm2 = ChannelNorm(channels)
        self.ffn = GatedFeedForward(channels, int(channels * expansion))

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Transformed features, same shape."""
        features = features + self.attn(self.norm1(features))
        out: Tensor = features + self.ffn(self.norm2(features))
        return out


class PromptBlock(nn.Module):
    """A mixture of learned feature maps, weighted by what the features look like on average.

    Args:
        features: Channels of the features that choose.
        channels: Channels of the prompts.
        size: Side of the prompts in pixels; they are resized to the features.
        count: Number of prompts.
    """

    def __init__(self, features: int, channels: int, size: int, count: int = 5) -> None:
        super().__init__()
        self.prompt_param = nn.Parameter(torch.rand(1, count, channels, size, size))
        self.linear_layer = nn.Linear(features, count)
        self.conv3x3 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b p h w"]:
        """Prompt for every image, with the height and width of the features."""
        weights = self.linear_layer(features.mean((-2, -1))).softmax(-1)
        mixture = torch.einsum("bn,nphw->bphw", weights, self.prompt_param[0])
        resized = F.interpolate(mixture, features.shape[-2:], mode="bilinear", align_corners=False)
        out: Tensor = self.conv3x3(resized)
        return out


class PromptIR(Maskable):
    r"""RAM-PromptIR, the U-shaped restoration transformer of RAM that can be told which pixels are hidden.

    Four levels of channel-attention blocks, each at half the size and twice the width of the one before. On the way
    back up a prompt is attached to the features of the three lower levels, and mixed in by one more block. The masked
    input is added to the output. Parameter names and shapes are those of the released checkpoints. Height and width
    are free: the input is reflect-padded at the bottom and right to a multiple of 16 and the output cropped back.

    Two things work here that do not in the authors' code, and change nothing where theirs works: ``dim`` scales the
    widths that are constants there (so only 48 runs), and hidden pixels show 0 at any size without explicit tokens
    (theirs is a tensor of the training size).

    Args:
        dim: Width of the first level. A multiple of 6.
        num_blocks: Blocks of the four levels; the upper three have as many on the way down as on the way up.
        num_refinement_blocks: Blocks before the output.
        heads: Attention heads of the four levels; the blocks that mix the prompts in have those of the third.
        ffn_expansion_factor: Hidden width of the feed-forwards over that of their block.
        decoder: Whether there are prompts; only True, as the published network cannot run without.

    Raises:
        ValueError: If the arguments contradict each other.

    Source:
        Potlapalli et al. 2023 (PromptIR, arXiv 2306.13090), with the blocks of Zamir et al. 2022 (Restormer, arXiv
        2111.09881) and the masks of Qin et al. 2024 (RAM, Sec. 3.2).
    """

    PROMPT_WIDTHS = (64, 128, 320)
    """Channels of the three prompts at ``dim`` 48, to which other widths are in proportion."""
    PROMPT_SIZES = (64, 32, 16)
    """Sides of the three prompts in pixels: those of the features they are attached to, for crops of 128 pixels."""

    size_multiple = 16
    mask_token = 0.0

    def __init__(
        self,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        decoder: Literal[True] = True,
    ) -> None:
        super().__init__()
        if dim < 6 or dim % 6:
            raise ValueError(f"`dim` must be a multiple of 6, as the widths of the prompts are 4/3 of it, got {dim}.")
        levels = [dim * 2**level for level in range(4)]
        prompts = [dim * width // 48 for width in self.PROMPT_WIDTHS]
        mixed = [features + prompt for features, prompt in zip(levels[1:], prompts, strict=True)]
        last = 2 * dim  # the top level keeps the width of its two concatenated inputs
        _check(num_blocks, heads, [*levels, last], mixed, ffn_expansion_factor, decoder)

        def block(width: int, count: int) -> TransformerBlock:
            return TransformerBlock(width, count, ffn_expansion_factor)

        def level(index: int, width: int) -> nn.Sequential:
            return nn.Sequential(*(block(width, heads[index]) for _ in range(num_blocks[index])))

        self.patch_embed = nn.Sequential(OrderedDict(proj=convolution(3, dim, 3)))
        self.prompt1 = PromptBlock(levels[1], prompts[0], self.PROMPT_SIZES[0])
        self.prompt2 = PromptBlock(levels[2], prompts[1], self.PROMPT_SIZES[1])
        self.prompt3 = PromptBlock(levels[3], prompts[2], self.PROMPT_SIZES[2])
        self.encoder_level1 = level(0, levels[0])
        self.down1_2 = halve(levels[0])
        self.encoder_level2 = level(1, levels[1])
        self.down2_3 = halve(levels[1])
        self.encoder_level3 = level(2, levels[2])
        self.down3_4 = halve(levels[2])
        self.latent = level(3, levels[3])
        self.up4_3 = double(levels[2])
        self.reduce_chan_level3 = convolution(levels[1] + levels[2], levels[2])
        self.noise_level3 = block(mixed[2], heads[2])
        self.reduce_noise_level3 = convolution(mixed[2], levels[2])
        self.decoder_level3 = level(2, levels[2])
        self.up3_2 = double(levels[2])
        self.reduce_chan_level2 = convolution(levels[1] + levels[1], levels[1])
        self.noise_level2 = block(mixed[1], heads[2])
        self.reduce_noise_level2 = convolution(mixed[1], levels[2])
        self.decoder_level2 = level(1, levels[1])
        self.up2_1 = double(levels[1])
        self.noise_level1 = block(mixed[0], heads[2])
        self.reduce_noise_level1 = convolution(mixed[0], levels[1])
        self.decoder_level1 = level(0, last)
        self.refinement = nn.Sequential(*(block(last, heads[0]) for _ in range(num_refinement_blocks)))
        self.output = convolution(last, 3, 3)

    def restore(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Restored image of the same shape; both sides are multiples of 16."""
        level1 = self.encoder_level1(self.patch_embed(image))
        level2 = self.encoder_level2(self.down1_2(level1))
        level3 = self.encoder_level3(self.down2_3(level2))
        features = self.latent(self.down3_4(level3))
        features = self.reduce_noise_level3(self.noise_level3(attach(features, self.prompt3(features))))
        features = self.decoder_level3(self.reduce_chan_level3(attach(self.up4_3(features), level3)))
        features = self.reduce_noise_level2(self.noise_level2(attach(features, self.prompt2(features))))
        features = self.decoder_level2(self.reduce_chan_level2(attach(self.up3_2(features), level2)))
        features = self.reduce_noise_level1(self.noise_level1(attach(features, self.prompt1(features))))
        features = self.decoder_level1(attach(self.up2_1(features), level1))
        out: Tensor = self.output(self.refinement(features)) + image
        return out


def convolution(channels: int, out_channels: int, size: int = 1) -> nn.Conv2d:
    """Convolution that keeps the image size, without a bias."""
    return nn.Conv2d(channels, out_channels, size, padding=size // 2, bias=False)


def halve(channels: int) -> nn.Sequential:
    """Half the image size, twice the channels, which hold the pixels of every 2x2 square."""
    return nn.Sequential(OrderedDict(body=nn.Sequential(convolution(channels, channels // 2, 3), nn.PixelUnshuffle(2))))


def double(channels: int) -> nn.Sequential:
    """Twice the image size, half the channels: the inverse arrangement of :func:`halve`."""
    return nn.Sequential(OrderedDict(body=nn.Sequential(convolution(channels, 2 * channels, 3), nn.PixelShuffle(2))))


def attach(features: Float[Tensor, "b c h w"], others: Float[Tensor, "b p h w"]) -> Float[Tensor, "b cp h w"]:
    """Channels of both."""
    return torch.cat([features, others], dim=1)


def _check(
    num_blocks: Sequence[int],
    heads: Sequence[int],
    widths: Sequence[int],
    mixed: Sequence[int],
    expansion: float,
    decoder: bool,
) -> None:
    """Refuse arguments that do not make a network; widths of the four levels and of the top one on the way up."""
    if decoder is not True:
        raise ValueError(f"`decoder` must be True, got {decoder}: the published network cannot run without prompts.")
    if len(num_blocks) != 4 or len(heads) != 4:
        raise ValueError(
            f"`num_blocks` and `heads` need an entry for each of 4 levels, got {list(num_blocks)} and {list(heads)}."
        )
    if int(widths[0] * expansion) < 1:
        raise ValueError(f"`ffn_expansion_factor` leaves no channels of {widths[0]}, got {expansion}.")
    pairs = [*zip(widths, [*heads, heads[0]], strict=True), *((width, heads[2]) for width in mixed)]
    for width, count in pairs:
        if width % count:
            raise ValueError(f"`heads` must divide the widths of their blocks, got {count} for {width} channels.")
