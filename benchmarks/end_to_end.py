"""What a user pays: whole calls of rank_layers and of ``macattr rank``, against as many plain passes, in one run.

A plain pass is one forward pass, the objective and its gradient with respect to the input, with frozen weights, at the
number of images in a batch that is fastest. The comparison with a loop is one in plain PyTorch: one node at a time, a
copy of every layer's output and gradient, the sums afterwards. Captum's is its LayerConductance, layer by layer, from
some layers. Everything counts: the first look at the network, its checks, the sums; the last column the imports too.

``--cases full32,12,31`` adds twelve images on the full network, ``--attribution full,1,201`` what the attribution class
costs. No variable of the environment is set. Run it with nothing else on the machine:
``python benchmarks/end_to_end.py``; it writes benchmarks/results/end_to_end.md.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import numpy as np
import torch
from captum.attr import LayerConductance
from PIL import Image
from torch import Tensor, nn

import ram_models
from macattr import GradientMagnitude, MaskAttributeConductance, rank_layers
from macattr.layers.resolve import resolve_layers

RESULTS = Path(__file__).parent / "results" / "end_to_end.md"

CASES = ("small,1,9", "small,1,31", "small,12,31", "full,1,9", "full,1,31")
"""Network, images and nodes of the calls that are measured unless others are given."""

NETWORKS: Mapping[str, tuple[Callable[[], nn.Module], int, str]] = {
    "small": (ram_models.ram_swinir_tiny, 48, "ram_models:ram_swinir_tiny"),
    "full": (ram_models.ram_swinir, 64, "ram_models:ram_swinir"),
    "full32": (ram_models.ram_swinir, 32, "ram_models:ram_swinir"),
}
"""Networks by name, the side of their images, and how the command line names them."""

BATCHES = (1, 2, 4)


class Subject:
    """A network, its images, and the computations that are compared."""

    def __init__(self, name: str, images: int, nodes: int) -> None:
        torch.manual_seed(0)
        make, self.side, self.command = NETWORKS[name]
        self.network = make().eval().requires_grad_(False)
        self.images = [torch.rand(3, self.side, self.side) for _ in range(images)]
        self.nodes, self.objective = nodes, GradientMagnitude()

    def plain(self, batch: int) -> Tensor:
        """Gradients of the objective for a batch of images."""
        inputs = torch.rand(batch, 3, self.side, self.side).requires_grad_()
        return torch.autograd.grad(self.objective(self.network(inputs)).sum(), inputs)[0]

    def rank(self) -> object:
        """The call of a user."""
        return rank_layers(self.network, self.images, n_steps=self.nodes - 1)

    def loop(self) -> dict[str, Tensor]:
        """Conductance of all layers on a straight line: one node at a time, everything copied and kept for a step."""
        layers, sums, before = resolve_layers(self.network), {}, {}
        for image in self.images:
            before.clear()
            for node in range(self.nodes):
                inputs = (image[None] * node / (self.nodes - 1)).requires_grad_()
                value, outputs = self._outputs(inputs, layers)
                gradients = torch.autograd.grad(value, list(outputs.values()), allow_unused=True)
                for (name, output), gradient in zip(outputs.items(), gradients, strict=True):
                    now = output.detach().clone(), (torch.zeros_like(output) if gradient is None else gradient.clone())
                    if name in before:
                        old = before[name]
                        part = (now[0] - old[0]) * (now[1] + old[1]) / 2
                        sums[name] = sums[name] + part if name in sums else part
                    before[name] = now
        return sums

    def _outputs(self, inputs: Tensor, layers: Mapping[str, nn.Module]) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective and the outputs of all layers."""
        outputs: dict[str, Tensor] = {}
        handles = [
            layer.register_forward_hook(lambda _, __, output, name=name: outputs.__setitem__(name, output))
            for name, layer in layers.items()
        ]
        value = self.objective(self.network(inputs)).sum()
        for handle in handles:
            handle.remove()
        return value, outputs

    def attribute(self, layers: list[str], with_input_residual: bool = True) -> object:
        """MAC of every neuron of some layers on the first image, as many nodes."""
        method = MaskAttributeConductance(self.network, layers)
        image = self.images[0][None]
        return method.attribute(image, r=0.5, n_steps=self.nodes - 1, with_input_residual=with_input_residual)

    def captum(self, names: list[str]) -> float:
        """Seconds of Captum for a layer and node."""
        inputs = self.images[0][None]
        start = time.perf_counter()
        for name in names:
            conductance = LayerConductance(
                lambda images: self.objective(self.network(images)), self.network.get_submodule(name)
            )
            conductance.attribute(inputs, n_steps=3, internal_batch_size=2)
        return (time.perf_counter() - start) / len(names) / 4  # Captum adds a node to its steps


def usage() -> tuple[float, float]:
    """Processor time of this process: in all, and in the kernel."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, used.ru_stime


def timed(function: Callable[[], object]) -> dict[str, float]:
    """Wall-clock seconds of a call, and the kernel's share of its processor time."""
    start, before = time.perf_counter(), usage()
    function()
    seconds, after = time.perf_counter() - start, usage()
    return {"seconds": seconds, "kernel": (after[1] - before[1]) / max(after[0] - before[0], 1e-9)}


def measure_times(subject: Subject, with_others: bool) -> dict[str, float]:
    """Seconds of the call and of a plain pass, alternating; of the loop and Captum if wanted."""
    subject.plain(1)
    passes: dict[int, list[float]] = {batch: [] for batch in BATCHES}

    def look() -> None:
        for batch in BATCHES:
            passes[batch] += [timed(lambda batch=batch: subject.plain(batch))["seconds"] / batch for _ in range(3)]

    look()
    ranked = timed(subject.rank)
    look()
    looped = timed(subject.loop)["seconds"] if with_others else float("nan")
    captum = float("nan")
    if with_others:
        look()
        captum = subject.captum(["conv_first", "layers.0.residual_group.blocks.1.norm1", "conv_last"])
    plain = min(median(seconds) for seconds in passes.values())
    return {"plain": plain, "rank": ranked["seconds"], "kernel": ranked["kernel"], "loop": looped, "captum": captum}


def measure_attribution(subject: Subject) -> dict[str, float]:
    """Seconds of a plain pass, and of MAC for all layers and for the last one, to the input and to the layer alone."""
    subject.plain(1)
    names = list(resolve_layers(subject.network))
    plain = min(timed(lambda batch=batch: subject.plain(batch))["seconds"] / batch for batch in BATCHES * 3)
    whole = timed(lambda: subject.attribute(names))["seconds"]
    last = timed(lambda: subject.attribute(names[-1:]))["seconds"]
    ended = timed(lambda: subject.attribute(names[-1:], with_input_residual=False))["seconds"]
    return {"plain": plain, "all": whole, "last": last, "ended": ended}


def measure_memory(subject: Subject, work: str) -> dict[str, float]:
    """Growth of the peak of memory by a plain pass of one image, or by the call at one node a pass, in bytes."""
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    if work == "plain":
        for _ in range(2):
            subject.plain(1)
    else:
        rank_layers(subject.network, subject.images[:1], n_steps=4, internal_batch_size=1)
    return {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before}


def child(*arguments: str) -> dict[str, float]:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    finished = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    result: dict[str, float] = json.loads(finished.stdout.splitlines()[-1])
    print(" ".join(arguments), {name: round(value, 3) for name, value in result.items()}, flush=True)
    return result


def command_seconds(name: str, images: int, nodes: int) -> float:
    """Seconds of ``macattr rank`` on files of that size, imports and report included."""
    _, side, model = NETWORKS[name]
    with tempfile.TemporaryDirectory() as folder:
        generator = np.random.default_rng(0)
        for number in range(images):
            pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path(folder) / f"{number}.png")
        files = [str(Path(folder) / f"{number}.png") for number in range(images)]
        command = [
            sys.executable,
            "-m",
            "macattr",
            "rank",
            "--model",
            model,
            "--images",
            files[0] if images == 1 else folder,
        ]
        command += ["--n-steps", str(nodes - 1), "--out", str(Path(folder) / "ranking")]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.perf_counter() - start


def attribution_table(cases: list[str]) -> list[str]:
    """What ``MaskAttributeConductance.attribute`` costs as a multiple of the plain passes; nothing without cases."""
    rows = []
    for case in cases:
        name, _, nodes = case.split(",")
        seconds = child("--task", "attribution", "--case", case)
        ratios = (seconds[part] / (seconds["plain"] * int(nodes)) for part in ("all", "last", "ended"))
        rows.append(f"| {name} | {nodes} | {' | '.join(f'**{ratio:.2f}**' for ratio in ratios)} |")
    head = [
        "`MaskAttributeConductance.attribute` on one image, as multiples of the plain passes; the last column with "
        "`with_input_residual=False`.",
        "",
        "| network | nodes | all layers | last layer | last layer, to the layer alone |",
        "|---|---|---|---|---|",
    ]
    return [*head, *rows, ""] if rows else []


def report(cases: list[str], captum: bool, attributed: list[str]) -> str:
    """All measurements as a page."""
    rows, memory = [], []
    for case in cases:
        name, images, nodes = case.split(",")
        count = int(images) * int(nodes)
        seconds = child("--task", "time", "--case", case, *([] if captum else ["--without-others"]))
        process = command_seconds(name, int(images), int(nodes))
        plain = seconds["plain"] * count
        layers = len(resolve_layers(NETWORKS[name][0]()))
        rows.append(
            f"| {name} | {images} | {nodes} | {plain:.1f} | {seconds['rank']:.1f} | "
            f"**{seconds['rank'] / plain:.2f}** | "
            f"{seconds['kernel']:.1%} | {seconds['loop'] / plain:.2f} | "
            f"{seconds['captum'] * layers * count / plain:.0f} | {process:.1f} |"
        )
    for name in dict.fromkeys(case.split(",")[0] for case in cases):
        peaks = {work: child("--task", work, "--case", f"{name},1,5")["bytes"] for work in ("plain", "memory")}
        memory.append(
            f"| {name} | {peaks['plain'] / 2**30:.2f} | {peaks['memory'] / 2**30:.2f} | "
            f"**{peaks['memory'] / peaks['plain']:.2f}** |"
        )
    return "\n".join(
        [
            "# Whole calls",
            "",
            f"{platform.machine()} CPU, {torch.get_num_threads()} threads, torch {torch.__version__}, fp32, no "
            "variables of the environment; made by `benchmarks/end_to_end.py`. Small: the bundled network, 48x48. "
            "Full: RAM-SwinIR, 11.5 M parameters, 263 layers, 64x64; full32: the same at 32x32.",
            "",
            "Seconds. Plain: as many plain passes as images x nodes, with frozen weights, at the fastest number in a "
            "batch. The loop and Captum as multiples of the plain passes; Captum for all layers, from three of them. "
            "Command: `macattr rank` from its start to its end, with imports, pictures and report.",
            "",
            "| network | images | nodes | plain | rank_layers | ratio | kernel | loop | Captum | command |",
            "|---|---|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            *attribution_table(attributed),
            "Growth of the peak of memory in GiB, one node in a pass.",
            "",
            "| network | plain | rank_layers | ratio |",
            "|---|---|---|---|",
            *memory,
            "",
        ]
    )


def main() -> None:
    """Measure everything, or the part that ``--task`` names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=["time", "attribution", "plain", "memory"], help="one part")
    parser.add_argument("--case", help="network,images,nodes of the part")
    parser.add_argument("--cases", nargs="+", default=list(CASES), help="network,images,nodes of every row")
    parser.add_argument("--attribution", nargs="+", default=[], help="network,1,nodes, such as full,1,201")
    parser.add_argument("--without-others", action="store_true", help="leave out the loop and Captum")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.task:
        name, images, nodes = options.case.split(",")
        subject = Subject(name, int(images), int(nodes))
        if options.task == "time":
            print(json.dumps(measure_times(subject, not options.without_others)))
        elif options.task == "attribution":
            print(json.dumps(measure_attribution(subject)))
        else:
            print(json.dumps(measure_memory(subject, options.task)))
        return
    page = report(options.cases, not options.without_others, options.attribution)
    RESULTS.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
