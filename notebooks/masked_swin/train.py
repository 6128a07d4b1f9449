"""Train the small masked Swin of notebook 06 on a folder of photographs, on one processor core.

    python notebooks/masked_swin/train.py PHOTOGRAPHS --out NEW_FOLDER

writes config.json, model.safetensors and training.csv into the new folder, as transformers reads them. A run that was
stopped continues when the same command is given again; more --steps lengthen it while its rate is still constant. It
needs transformers: pip install '.[hf]'.
"""

import argparse
import csv
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import SwinConfig, SwinForMaskedImageModeling

from macattr.atomic_files import write_atomically
from macattr.image_files import find_images, read_pixels
from ram_models.training.optimisers import MuonAndAdam

SIZE, PATCH, HIDDEN = 64, 4, 0.5
"""Side of the crops and of the patches in pixels, and the share of the patches that is hidden."""

CONFIG = {
    "image_size": SIZE,
    "patch_size": PATCH,
    "encoder_stride": 2 * PATCH,
    "embed_dim": 64,
    "depths": [2, 4],
    "num_heads": [4, 8],
    "window_size": 4,
    "drop_path_rate": 0.0,
}
"""Two stages, 16x16 tokens of width 64 and 8x8 of width 128; what is hidden are single tokens, as on the path."""

HELD_OUT = 24
"""Photographs that are not trained on: the last ones by name."""

WARM_UP, FALL, REPORT = 200, 0.4, 250
"""Steps in which the rate rises; last share of all steps in which it falls to 0; steps from one report to the next."""


class Crops:
    """Batches of random crops with the patches to hide; a batch depends on the seed and its number alone.

    Args:
        photographs: Images (3, H, W) of bytes, at least 128 pixels a side.
        seed: Seed of crops and masks.
    """

    def __init__(self, photographs: list[Tensor], seed: int) -> None:
        self.photographs, self.seed = photographs, seed

    def batch(self, number: int, size: int) -> tuple[Tensor, Tensor]:
        """Crops (size, 3, 64, 64) in [0, 1] and masks (size, 256), True where a patch is hidden.

        Windows of 64 to 128 pixels are made smaller, and half of them mirrored.
        """
        random = np.random.default_rng([self.seed, number])
        crops = [self._crop(random) for _ in range(size)]
        patches = (SIZE // PATCH) ** 2
        ranks = random.random((size, patches)).argsort(1).argsort(1)
        return torch.stack(crops), torch.from_numpy(ranks < HIDDEN * patches)

    def _crop(self, random: np.random.Generator) -> Tensor:
        """One crop."""
        photograph = self.photographs[random.integers(len(self.photographs))]
        side = int(random.integers(SIZE, 2 * SIZE + 1))
        top, left = (int(random.integers(length - side + 1)) for length in photograph.shape[1:])
        crop = photograph[None, :, top : top + side, left : left + side].float() / 255
        crop = functional.interpolate(crop, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)[0]
        return crop.flip(-1) if random.random() < 0.5 else crop


def hidden_pixels(hidden: Tensor) -> Tensor:
    """Masks of patches (B, 256) as masks of pixels (B, 1, 64, 64), 1 where hidden."""
    side = SIZE // PATCH
    return hidden.reshape(-1, 1, side, side).float().repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)


def simple_guesses(images: Tensor, hidden: Tensor) -> dict[str, Tensor]:
    """What hidden patches could be without a network: the mean of what is visible, everywhere or nearby.

    "Nearby" weighs pixels by a Gaussian with a standard deviation of one patch.

    Args:
        images: Images (B, 3, 64, 64).
        hidden: Masks of patches (B, 256).
    """
    seen = 1 - hidden_pixels(hidden)
    mean = (images * seen).sum((2, 3), keepdim=True) / seen.sum((2, 3), keepdim=True)
    line = torch.exp(-torch.arange(-4.0 * PATCH, 4 * PATCH + 1).square() / 2 / PATCH**2)
    kernel = (line[:, None] * line[None]).expand(4, 1, -1, -1)
    sums = functional.conv2d(torch.cat([images * seen, seen], 1), kernel, padding=4 * PATCH, groups=4)
    return {"mean colour": mean.expand_as(images), "mean colour nearby": sums[:, :3] / sums[:, 3:]}


def hidden_error(guess: Tensor, images: Tensor, hidden: Tensor) -> float:
    """Mean absolute error on the hidden patches: the loss that the network is trained with."""
    return float((guess - images).abs().mean(1, keepdim=True)[hidden_pixels(hidden) > 0].mean())


@dataclass
class Run:
    """A training run, with everything that it needs to continue.

    Args:
        crops: What is trained on.
        held_out: Crops and masks that are not.
        seed: Seed of the first parameters.
        rates: Peak learning rates of Adam and Muon.
        is_mixed: Whether products are taken in bfloat16.
    """

    crops: Crops
    held_out: tuple[Tensor, Tensor]
    seed: int
    rates: tuple[float, float]
    is_mixed: bool
    step: int = 0
    seconds: float = 0.0
    rows: list[tuple[float, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        self.model = SwinForMaskedImageModeling(SwinConfig(**CONFIG))
        self.optimiser = MuonAndAdam(self.model, self.rates[0], (0.9, 0.99), self.rates[1])
        self.peaks = [group["lr"] for group in self.optimiser.param_groups]

    def load(self, file: Path) -> None:
        """Go back to a state that :meth:`save` wrote."""
        state = torch.load(file, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds, self.rows = state["step"], state["seconds"], state["rows"]

    def save(self, file: Path) -> None:
        """Write the state."""
        state = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
        state |= {"step": self.step, "seconds": self.seconds, "rows": self.rows}
        write_atomically(file, lambda opened: torch.save(state, opened))

    def advance(self, steps: int, batch: int) -> float:
        """Make the next step of ``steps`` with ``batch`` crops; returns its loss."""
        rate = min(1.0, (self.step + 1) / WARM_UP, (steps - self.step) / (FALL * steps))
        for group, peak in zip(self.optimiser.param_groups, self.peaks, strict=True):
            group["lr"] = peak * rate
        images, hidden = self.crops.batch(self.step, batch)
        self.model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.is_mixed):
            loss = self.model(pixel_values=images, bool_masked_pos=hidden).loss
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        return loss.item()

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Loss on the crops that are not trained on."""
        images, hidden = self.held_out
        return self.model.eval()(pixel_values=images, bool_masked_pos=hidden).loss.item()

    def go(self, steps: int, batch: int, state: Path) -> None:
        """Train up to ``steps`` and keep the state at every report."""
        losses, start = [], time.process_time() - self.seconds
        while self.step < steps:
            losses.append(self.advance(steps, batch))
            if self.step % REPORT == 0 or self.step == steps:
                self.seconds = time.process_time() - start
                self.rows.append((self.step, round(self.seconds), float(np.mean(losses)), self.held_out_loss()))
                losses = []
                print("step {}: {} s, training loss {:.4f}, held-out {:.4f}".format(*self.rows[-1]), flush=True)
                self.save(state)


def read_photographs(folder: Path) -> list[Tensor]:
    """The photographs below a folder that are large enough, by name.

    Raises:
        ValueError: If none is left to train on.
    """
    photographs = [pixels for file in find_images(folder) if min((pixels := read_pixels(file)).shape[1:]) >= 2 * SIZE]
    if len(photographs) <= HELD_OUT:
        raise ValueError(
            f"{str(folder)!r} has {len(photographs)} images of at least {2 * SIZE} pixels a side: {HELD_OUT} are held "
            "out, so that more are needed."
        )
    return photographs


def main() -> None:
    """Train, and write the network and its losses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, help="folder of images, searched recursively")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--steps", type=int, default=14000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0, help="seed of parameters, crops and masks")
    parser.add_argument("--lr", type=float, default=2e-3, help="peak rate of Adam")
    parser.add_argument("--muon", type=float, default=0.02, help="peak rate of Muon, which trains the linear layers")
    parser.add_argument("--float32", action="store_true", help="no bfloat16, for processors that are slow at it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    photographs = read_photographs(options.photographs)
    run = Run(
        crops=Crops(photographs[:-HELD_OUT], options.seed),
        held_out=Crops(photographs[-HELD_OUT:], options.seed + 1).batch(0, 4 * HELD_OUT),
        seed=options.seed,
        rates=(options.lr, options.muon),
        is_mixed=not options.float32,
    )
    for name, guess in simple_guesses(*run.held_out).items():
        print(f"held-out loss of the {name}: {hidden_error(guess, *run.held_out):.4f}")
    options.out.mkdir(parents=True, exist_ok=True)
    state = options.out / "state.pt"
    if state.exists():
        run.load(state)
    run.go(options.steps, options.batch, state)
    run.model.save_pretrained(options.out)
    with (options.out / "training.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("step", "seconds", "loss", "held_out_loss"), *run.rows])
    state.unlink()


if __name__ == "__main__":
    main()
