"""Speed of the training loop against bare forward + backward + step, and the growth of its memory.

The full loop of masked pre-training (decoding, cropping, degrading, masking, clipping, averaging, metrics, TensorBoard)
and bare steps on batches made beforehand alternate in one process, ten steps each, so that both meet the same machine.
Validation and checkpoints are left out. Writes benchmarks/results/training.md.
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import torch
from PIL import Image
from skimage import data as photographs
from torch import Tensor, nn

from ram_models.networks.checkpoints import create
from ram_models.recipes.pretrain import Config, Network, masked_loss, masked_views
from ram_models.training.batches import Batch
from ram_models.training.config import Compute, Data, Log, Optim
from ram_models.training.crops import MaskedCrops, fingerprint, training_crops
from ram_models.training.loop import fit, start
from ram_models.training.validation import Validation

RESULTS = Path(__file__).parent / "results" / "training.md"
BLOCK = 10
WARM = 2 * BLOCK


@dataclass
class Stopwatch:
    """Loss that times the steps of the full loop, runs bare steps between them, and reads the memory in use.

    Args:
        bare: Does one bare step.
        wait: Waits for the device.
    """

    bare: Callable[[], None]
    wait: Callable[[], None]
    full_seconds: list[float] = field(default_factory=list)
    bare_seconds: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    began: float | None = None

    def __call__(self, network: nn.Module, batch: Batch) -> Tensor:
        """Masked loss of the full loop's next step."""
        self.wait()
        now = time.perf_counter()
        if self.began is not None:
            self.full_seconds.append(now - self.began)
            self.memory.append(psutil.Process().memory_info().rss)
            if len(self.full_seconds) % BLOCK == 0:
                self.bare_seconds += [self.seconds() for _ in range(BLOCK)]
        self.began = time.perf_counter()
        return masked_loss(network, batch)

    def seconds(self) -> float:
        """Time of one bare step."""
        begin = time.perf_counter()
        self.bare()
        self.wait()
        return time.perf_counter() - begin


def write_photographs(folder: Path) -> None:
    """The colour photographs of scikit-image at full size, as JPEG files."""
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        Image.fromarray(np.asarray(getattr(photographs, name)())).save(folder / f"{name}.jpg", quality=95)


def measure(config: Config) -> Stopwatch:
    """Train, with bare steps in between."""
    accelerator = start(config.compute, config.seed)
    crops, held_out = training_crops(config.data, config.optim, config.compute, config.seed)
    masked, masked_held_out = MaskedCrops(crops, config.seed), MaskedCrops(held_out, config.seed)
    size = config.optim.batch_size
    device = accelerator.device
    batches = [
        [torch.stack(part).to(device) for part in zip(*(masked[size * k + i] for i in range(size)), strict=True)]
        for k in range(4)
    ]
    network = create(config.network.name).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=config.optim.lr)
    state = {"step": 0}

    def bare() -> None:
        state["step"] += 1
        with accelerator.autocast():
            loss = masked_loss(network, batches[state["step"] % 4])
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    stopwatch = Stopwatch(bare, torch.cuda.synchronize if device.type == "cuda" else lambda: None)
    validation = Validation(masked_held_out, ("input", "whole", "twins"), masked_views)
    fit(create(config.network.name), masked, stopwatch, validation, config, accelerator, fingerprint(crops))
    return stopwatch


def report(config: Config, stopwatch: Stopwatch, images: str) -> str:
    """The page."""
    full, bare = (torch.tensor(s[WARM:]) for s in (stopwatch.full_seconds, stopwatch.bare_seconds))
    blocks = [float(b.sum() / f.sum()) for f, b in zip(full.split(BLOCK), bare.split(BLOCK), strict=False)]
    memory = torch.tensor(stopwatch.memory[WARM:], dtype=torch.float64) / 2**20
    half = len(memory) // 2
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    speed = [config.optim.batch_size * len(s) / float(s.sum()) for s in (full, bare)]
    early, late = float(memory[:half].max()), float(memory[half:].max())
    return "\n".join(
        [
            "# The training loop",
            "",
            f"Masked pre-training of `{config.network.name}`, {config.optim.batch_size} crops of {config.data.crop}x"
            f"{config.data.crop} pixels a step, {config.compute.precision}, {config.compute.workers} loading "
            f"processes, {images}, {config.compute.cache_megabytes:.0f} MB for decoded ones; {device}, "
            f"{torch.get_num_threads()} threads, torch {torch.__version__}. "
            f"{len(full)} steps of the full loop (decoding, cropping, degrading, masking, clipping, averaging, a row "
            f"of metrics.csv and TensorBoard every {config.log.every} steps) and as many bare ones (forward, backward "
            f"and Adam on batches made beforehand) alternate by {BLOCK} in one process, after {WARM} to warm up. Made "
            "by `benchmarks/training.py`.",
            "",
            "| | images/s | median step, s |",
            "|---|---|---|",
            f"| bare forward + backward + step | {speed[1]:.2f} | {float(bare.median()):.4f} |",
            f"| full loop | {speed[0]:.2f} | {float(full.median()):.4f} |",
            f"| **full / bare** | **{speed[0] / speed[1]:.3f}** | {float(bare.median() / full.median()):.3f} |",
            "",
            f"Ratio by {BLOCK} steps: median {median(blocks):.3f}, from {min(blocks):.3f} to {max(blocks):.3f}.",
            "",
            f"Resident memory after the warm-up, largest: {early:.0f} MiB in the first {half} steps, {late:.0f} MiB in "
            f"the other {len(memory) - half} ({(late / early - 1) * 100:+.2f} %).",
            "",
        ]
    )


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clean", type=Path, help="folder of photographs; scikit-image's unless given")
    parser.add_argument("--network", default="ram-swinir-tiny")
    parser.add_argument("--steps", type=int, default=200, help="steps of the full loop that are measured")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--workers", type=int, default=0, help="loading processes")
    parser.add_argument("--cache-megabytes", type=float, default=Compute().cache_megabytes, help="0: decode every time")
    parser.add_argument("--results", type=Path, default=RESULTS, help="page to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.clean or Path(temporary) / "photographs"
        if options.clean is None:
            folder.mkdir()
            write_photographs(folder)
        images = "scikit-image's photographs as JPEG" if options.clean is None else f"photographs of {folder.name}"
        steps = options.steps + WARM + 1
        config = Config(
            Data(clean=folder, crop=options.crop),
            Path(temporary) / "run",
            Network(options.network),
            optim=Optim(steps, options.batch_size, ema=0.995),
            compute=Compute(options.precision, workers=options.workers, cache_megabytes=options.cache_megabytes),
            log=Log(BLOCK, steps, steps),
        )
        page = report(config, measure(config), images)
    options.results.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
