"""Masked pre-training of a RAM network: hide half of the pixels of degraded images, predict the clean ones there.

Run it with ``python -m ram_models.recipes.pretrain --config ram_models/configs/tiny-swinir.yaml --data IMAGES
--out RUN``; every field of :class:`Config` is also an option. A run continues from the last checkpoint of its folder.
"""

__all__ = ["Config", "main", "masked_l1"]

import csv
import math
import os
import signal
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torchmetrics.functional.image import peak_signal_noise_ratio
from tqdm.auto import tqdm

from macattr.images import find_images
from ram_models.archs.rgb import RGBSwinIR
from ram_models.datasets import LOW_COST, SyntheticCrops
from ram_models.masking import random_mask, restore_with_twins


@dataclass(frozen=True)
class Config:
    """One pre-training run of a RAM-SwinIR.

    Args:
        data: Folder of clean training images, searched recursively.
        out: Folder of the run: checkpoint, weights, metrics.csv.
        network: Constructor arguments of :class:`ram_models.archs.swinir.SwinIR`.
        steps: Optimiser steps.
        batch_size: Crops in a step.
        crop: Side of the crops in pixels.
        tasks: Degradations, drawn uniformly.
        mask_ratio: Share of hidden pixels, in (0, 1).
        mask_patch_size: Side of the hidden blocks in pixels.
        lr: Peak learning rate of Adam, reached after ``warmup`` steps, then cosine down to ``lr_final``.
        lr_final: Learning rate at the last step.
        warmup: Steps of linear warm-up.
        clip: Largest norm of the gradient.
        bf16: Compute in bfloat16 (autocast); weights stay float32.
        held_out: Images at the end of the sorted list that are never trained on but validated with.
        validate_every: Steps between validations and checkpoints.
        seed: Seed of initialisation, data and masks.
    """

    data: Path
    out: Path
    network: dict[str, int | float | list[int]] = field(default_factory=dict)
    steps: int = 4000
    batch_size: int = 4
    crop: int = 64
    tasks: list[str] = field(default_factory=lambda: list(LOW_COST))
    mask_ratio: float = 0.5
    mask_patch_size: int = 1
    lr: float = 1e-3
    lr_final: float = 1e-5
    warmup: int = 100
    clip: float = 1.0
    bf16: bool = True
    held_out: int = 24
    validate_every: int = 500
    seed: int = 0


def masked_l1(
    restored: Float[Tensor, "b c h w"], clean: Float[Tensor, "b c h w"], mask: Float[Tensor, "b h w"]
) -> Float[Tensor, ""]:
    """Mean absolute error over the hidden pixels alone (Qin et al. 2024, Eq. 1)."""
    return ((restored - clean).abs().mean(1) * mask).sum() / mask.sum()


def learning_rate(step: int, config: Config) -> float:
    """Learning rate of optimiser step ``step`` (from 0): linear warm-up, then cosine."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr_final + (config.lr - config.lr_final) * 0.5 * (1 + math.cos(math.pi * progress))


@torch.no_grad()
def validate(network: nn.Module, crops: SyntheticCrops, config: Config) -> dict[str, float]:
    """Mean PSNR in dB over held-out crops: the degraded input, restored whole, restored with twin masks."""
    generator = torch.Generator().manual_seed(config.seed)
    psnr: dict[str, list[Tensor]] = {"psnr_input": [], "psnr_whole": [], "psnr_twins": []}
    for degraded, clean in DataLoader(crops, config.batch_size):
        mask = random_mask(len(clean), config.crop, config.crop, generator, config.mask_ratio, config.mask_patch_size)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):
            outputs = (degraded, network(degraded), restore_with_twins(network, degraded, mask))
        for values, output in zip(psnr.values(), outputs, strict=True):
            clipped = output.float().clamp(0, 1)
            values.append(peak_signal_noise_ratio(clipped, clean, 1.0, dim=(1, 2, 3), reduction="none"))
    return {name: round(float(torch.cat(values).mean()), 3) for name, values in psnr.items()}


def settings(config: Config) -> dict[str, str]:
    """The configuration as plain text."""
    return {name: str(value) for name, value in asdict(config).items()}


def refuse_other_settings(stored: dict[str, str], config: Config) -> None:
    """Raise if a checkpoint comes from settings that would change what the continued run means."""
    free = ("data", "out", "validate_every")
    changed = [name for name, value in settings(config).items() if name not in free and stored.get(name) != value]
    if changed:
        name = changed[0]
        raise ValueError(
            f"the checkpoint in {config.out} was made with {name} = {stored.get(name)}, got {settings(config)[name]}: "
            "continue with the same settings or choose another `out`."
        )


def save_atomically(state: dict[str, object], path: Path) -> None:
    """Write a checkpoint so that a crash leaves either the old or the new one."""
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def main(config: Config) -> None:
    """Train, or continue: weights.safetensors, checkpoint.pt and metrics.csv appear in ``config.out``."""
    config.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    network = RGBSwinIR(**config.network)
    optimiser = torch.optim.Adam(network.parameters(), lr=config.lr)
    step, seconds = 0, 0.0
    checkpoint = config.out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        refuse_other_settings(state["config"], config)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        step, seconds = state["step"], state["seconds"]

    files = find_images(config.data)
    if not 0 < config.held_out < len(files):
        raise ValueError(
            f"`held_out` must leave images for training and for validation of the {len(files)} images, got "
            f"{config.held_out}."
        )
    train, held_out = files[: -config.held_out], files[-config.held_out :]
    crops = SyntheticCrops(train, config.steps * config.batch_size, config.crop, config.tasks, config.seed)
    validation = SyntheticCrops(held_out, 2 * config.held_out, config.crop, config.tasks, config.seed + 1)
    remaining = Subset(crops, range(step * config.batch_size, len(crops)))

    stopping: list[int] = []
    handler = signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    losses: list[float] = []
    started = time.monotonic()
    progress = tqdm(DataLoader(remaining, config.batch_size), initial=step, total=config.steps, unit="step")
    for degraded, clean in progress:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, config)
        generator = torch.Generator().manual_seed(config.seed + 1_000_003 * (step + 1))
        mask = random_mask(len(clean), config.crop, config.crop, generator, config.mask_ratio, config.mask_patch_size)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):
            restored = network(degraded, mask)
        loss = masked_l1(restored.float(), clean, mask)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
        optimiser.step()
        step += 1
        losses.append(loss.item())
        progress.set_postfix(loss=f"{losses[-1]:.4f}")

        if step % config.validate_every == 0 or step == config.steps or stopping:
            seconds += time.monotonic() - started
            row = {"step": step, "seconds": round(seconds), "loss": round(sum(losses) / len(losses), 5)}
            row |= validate(network, validation, config)
            with (config.out / "metrics.csv").open("a", newline="") as file:
                writer = csv.DictWriter(file, row.keys())
                if file.tell() == 0:
                    writer.writeheader()
                writer.writerow(row)
            state = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
            save_atomically(state | {"seconds": seconds, "config": settings(config)}, checkpoint)
            losses.clear()
            started = time.monotonic()
        if stopping:
            break
    signal.signal(signal.SIGTERM, handler)
    if step < config.steps:
        return
    save_file(dict(network.named_parameters()), config.out / "weights.safetensors")


if __name__ == "__main__":
    from jsonargparse import auto_cli

    torch.multiprocessing.set_sharing_strategy("file_system")
    main(auto_cli(Config, as_positional=False))
