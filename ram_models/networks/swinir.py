"""RAM-SwinIR: a Swin transformer for restoration whose input pixels can be hidden by a mask."""

__all__ = ["SwinIR"]

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ram_models.networks.maskable import Maskable


def partition_windows(tokens: Float[Tensor, "b h w c"], size: int) -> Float[Tensor, "windows tokens c"]:
    """Non-overlapping ``size`` x ``size`` windows of a token grid, row by row, each flattened to its tokens."""
    b, h, w, c = tokens.shape
    grid = tokens.reshape(b, h // size, size, w // size, size, c)
    return grid.transpose(2, 3).reshape(-1, size * size, c)


def merge_windows(windows: Float[Tensor, "windows tokens c"], height: int, width: int) -> Float[Tensor, "b h w c"]:
    """Inverse of :func:`partition_windows` for a grid of ``height`` x ``width`` tokens."""
    size = round(windows.shape[1] ** 0.5)
    grid = windows.reshape(-1, height // size, width // size, size, size, windows.shape[-1])
    return grid.transpose(2, 3).reshape(-1, height, width, windows.shape[-1])


def relative_positions(size: int) -> Int[Tensor, "tokens tokens"]:
    """For every pair of tokens in a window, the row of the bias table that holds their offset."""
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    position = torch.stack([row.flatten(), column.flatten()])
    offset = position[:, :, None] - position[:, None, :] + size - 1
    return offset[0] * (2 * size - 1) + offset[1]


def shifted_window_mask(height: int, width: int, size: int, shift: int) -> Float[Tensor, "windows tokens tokens"]:
    """Additive attention mask of a cyclically shifted grid: -100 between tokens that were not neighbours before."""

    def region(length: int) -> Tensor:
        index = torch.arange(length)
        return (index >= length - size).long() + (index >= length - shift).long()

    regions = region(height)[:, None] * 3 + region(width)[None, :]
    windows = partition_windows(regions[None, :, :, None].float(), size).squeeze(-1)
    return torch.where(windows[:, :, None] == windows[:, None, :], 0.0, -100.0)


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows, with a learned bias for every relative position."""

    relative_position_index: Tensor

    def __init__(self, dim: int, window_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window_size - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_positions(window_size))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Float[Tensor, "windows n c"], mask: Tensor | None) -> Float[Tensor, "windows n c"]:
        """Attended tokens; ``mask`` (windows per image, n, n) is added to the logits."""
        windows, n, c = tokens.shape
        q, k, v = self.qkv(tokens).reshape(windows, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1).to(q.dtype)
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias
        if mask is not None:
            per_image = logits.reshape(-1, mask.shape[0], self.num_heads, n, n)
            logits = (per_image + mask[None, :, None].to(logits.dtype)).reshape(windows, self.num_heads, n, n)
        attended = logits.softmax(-1).to(v.dtype) @ v
        out: Tensor = self.proj(attended.transpose(1, 2).reshape(windows, n, c))
        return out


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, tokens: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        """Transformed tokens, same shape."""
        out: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return out


class SwinBlock(nn.Module):
    """Pre-norm window attention and MLP, each with a skip; odd blocks see windows shifted by half their size."""

    attn_mask: Tensor | None

    def __init__(self, dim: int, img_size: int, num_heads: int, window_size: int, shift: int, mlp_ratio: float) -> None:
        super().__init__()
        self.img_size, self.window_size, self.shift = img_size, window_size, shift
        mask = shifted_window_mask(img_size, img_size, window_size, shift) if shift else None
        self.register_buffer("attn_mask", mask)
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window_size, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def _mask(self, height: int, width: int, like: Tensor) -> Tensor | None:
        """The stored mask at the training size, a fresh one at any other."""
        if not self.shift:
            return None
        if self.attn_mask is not None and (height, width) == (self.img_size, self.img_size):
            return self.attn_mask
        return shifted_window_mask(height, width, self.window_size, self.shift).to(like)

    def forward(self, tokens: Float[Tensor, "b hw c"], height: int, width: int) -> Float[Tensor, "b hw c"]:
        """Transformed tokens of a ``height`` x ``width`` grid, same shape."""
        grid = self.norm1(tokens).unflatten(1, (height, width))
        if self.shift:
            grid = grid.roll((-self.shift, -self.shift), (1, 2))
        windows = self.attn(partition_windows(grid, self.window_size), self._mask(height, width, tokens))
        grid = merge_windows(windows, height, width)
        if self.shift:
            grid = grid.roll((self.shift, self.shift), (1, 2))
        tokens = tokens + grid.flatten(1, 2)
        out: Tensor = tokens + self.mlp(self.norm2(tokens))
        return out


class BlockSequence(nn.Module):
    """The Swin blocks of one residual group, alternately straight and shifted."""

    def __init__(self, dim: int, img_size: int, depth: int, num_heads: int, window_size: int, mlp_ratio: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(dim, img_size, num_heads, window_size, (window_size // 2) * (index % 2), mlp_ratio)
            for index in range(depth)
        )

    def forward(self, tokens: Float[Tensor, "b hw c"], height: int, width: int) -> Float[Tensor, "b hw c"]:
        """Tokens after all blocks, same shape."""
        for block in self.blocks:
            tokens = block(tokens, height, width)
        return tokens


class ResidualSwinGroup(nn.Module):
    """Swin blocks, a 3x3 convolution and a skip around both (RSTB)."""

    def __init__(self, dim: int, img_size: int, depth: int, num_heads: int, window_size: int, mlp_ratio: float) -> None:
        super().__init__()
        self.residual_group = BlockSequence(dim, img_size, depth, num_heads, window_size, mlp_ratio)
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, tokens: Float[Tensor, "b hw c"], height: int, width: int) -> Float[Tensor, "b hw c"]:
        """Tokens after the group, same shape."""
        features = self.residual_group(tokens, height, width).transpose(1, 2).unflatten(2, (height, width))
        out: Tensor = tokens + self.conv(features).flatten(2).transpose(1, 2)
        return out


class PixelEmbedding(nn.Module):
    """Every pixel becomes a token: (B, C, H, W) to normalised (B, H*W, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b hw c"]:
        """Normalised tokens, row by row."""
        tokens: Tensor = self.norm(features.flatten(2).transpose(1, 2))
        return tokens


class SwinIR(Maskable):
    r"""RAM-SwinIR, the restoration transformer of RAM that can be told which pixels are hidden.

    1x1 convolution, residual groups of Swin blocks, 3x3 convolution; the long skip starts after the pixel
    embedding's norm, and the input is *not* added to the output. Parameter names and shapes are those of the
    released checkpoints. Height and width are free: the input is reflect-padded at the bottom and right to a multiple
    of ``window_size`` and the output cropped back. Without explicit tokens hidden pixels show the learned
    ``mask_token``, which exists at ``img_size`` only.

    Args:
        img_size: Side in pixels for which attention masks and ``mask_token`` are stored. A multiple of the window.
        in_chans: Channels of input and output.
        embed_dim: Width of the tokens. A multiple of every entry of ``num_heads``.
        depths: Swin blocks in each residual group.
        num_heads: Attention heads in each residual group; as long as ``depths``.
        window_size: Side of the attention windows in pixels.
        mlp_ratio: Hidden width of the MLPs over ``embed_dim``.
        patch_size: Side of a token in pixels; only 1, as in all published configurations.
        upscale: Size of the output over that of the input; only 1.
        finetune_type: Present in published configurations without effect; only None.

    Raises:
        ValueError: If the arguments contradict each other.

    Source:
        Liang et al. 2021 (SwinIR, arXiv 2108.10257) with the changes of Qin et al. 2024 (RAM, Sec. 3.2).
    """

    def __init__(
        self,
        img_size: int = 64,
        in_chans: int = 3,
        embed_dim: int = 180,
        depths: Sequence[int] = (6, 6, 6, 6, 6, 6),
        num_heads: Sequence[int] = (6, 6, 6, 6, 6, 6),
        window_size: int = 8,
        mlp_ratio: float = 2.0,
        patch_size: int = 1,
        upscale: int = 1,
        finetune_type: None = None,
    ) -> None:
        super().__init__()
        if (patch_size, upscale, finetune_type) != (1, 1, None):
            raise ValueError(
                "RAM-SwinIR has one token for every pixel and keeps the size of its input: `patch_size` and `upscale` "
                f"must be 1 and `finetune_type` None, got {patch_size}, {upscale} and {finetune_type!r}."
            )
        if min(embed_dim, window_size, *depths, *num_heads) < 1:
            raise ValueError(
                f"`embed_dim`, `depths`, `num_heads` and `window_size` must be at least 1, got {embed_dim}, "
                f"{list(depths)}, {list(num_heads)} and {window_size}."
            )
        if len(depths) != len(num_heads):
            raise ValueError(f"`num_heads` needs one entry per group, got {list(num_heads)} for depths {list(depths)}.")
        if any(embed_dim % heads for heads in num_heads):
            raise ValueError(
                f"`embed_dim` must be a multiple of every head count, got {embed_dim} for {list(num_heads)}."
            )
        if img_size % window_size:
            raise ValueError(f"`img_size` must be a multiple of `window_size` {window_size}, got {img_size}.")
        self.size_multiple = window_size
        self.mask_token = nn.Parameter(torch.empty(1, in_chans, img_size, img_size))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.conv_first = nn.Conv2d(in_chans, embed_dim, 1)
        self.patch_embed = PixelEmbedding(embed_dim)
        self.layers = nn.ModuleList(
            ResidualSwinGroup(embed_dim, img_size, depth, heads, window_size, mlp_ratio)
            for depth, heads in zip(depths, num_heads, strict=True)
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = nn.Conv2d(embed_dim, embed_dim, 3, padding=1)
        self.conv_last = nn.Conv2d(embed_dim, in_chans, 3, padding=1)
        self.apply(_initialise_linear)

    def restore(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Restored image of the same shape; both sides are multiples of the window."""
        size = image.shape[-2:]
        embedded = self.patch_embed(self.conv_first(image))
        tokens = embedded
        for group in self.layers:
            tokens = group(tokens, *size)
        body = self.conv_after_body(self.norm(tokens).transpose(1, 2).unflatten(2, size))
        out: Tensor = self.conv_last(body + embedded.transpose(1, 2).unflatten(2, size))
        return out


def _initialise_linear(module: nn.Module) -> None:
    """Truncated-normal weights and zero biases of linear layers, as in Swin."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
