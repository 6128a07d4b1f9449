"""Cost of all layers in one sweep, against a plain forward + backward pass and against Captum, in one run.

The network is RAM-SwinIR at the paper's size (11.5 M parameters, 263 layers) on one 64x64 image. Times alternate
between the plain pass and the sweep inside one process; every peak of memory is that of a process of its own. The
plain pass is one forward pass, the objective and its gradient with respect to the input. A sweep's time for a node is
the slope between a short and a long sweep. No variable of the environment is set; freed memory stays in the process
while times are taken, for the plain pass as well, as the library has it during a sweep.

Run it with nothing else on the machine: ``python benchmarks/one_pass.py``; it writes benchmarks/results/one_pass.md.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median

import torch
from captum.attr import LayerConductance
from scipy.stats import spearmanr
from torch import Tensor, nn

from macattr.layers.resolve import resolve_layers
from macattr.paths.inputs import MaskAttributePath, random_order
from macattr.paths.objectives import GradientMagnitude
from macattr.paths.partitions import tagged_partition
from macattr.paths.sums import StieltjesSum
from macattr.sweep.allocator import keep_freed_memory
from macattr.sweep.survey import Surveys
from macattr.sweep.trace import trace
from ram_models.networks.swinir import SwinIR

RESULTS = Path(__file__).parent / "results" / "one_pass.md"


class Subject:
    """The network, its image, and the two computations that are compared."""

    def __init__(self, dtype: str, device: str, make: Callable[[], nn.Module] = SwinIR, side: int = 64) -> None:
        torch.manual_seed(0)
        self.network = make().eval().to(device)
        self.image = torch.rand(1, 3, side, side, device=device)
        self.layers = resolve_layers(self.network)
        self.objective = GradientMagnitude()
        self.dtype, self.device = dtype, device
        order = random_order(side * side, seed=0).to(device)
        self.path = MaskAttributePath(self.image, order, torch.zeros_like(self.image), groups=25)

    def precision(self) -> AbstractContextManager[object]:
        """Autocast for the bf16 rows."""
        return torch.autocast(self.device, torch.bfloat16) if self.dtype == "bf16" else nullcontext()

    def plain(self, count: int, frozen: bool = False) -> Tensor:
        """Forward and backward to ``count`` inputs at once, with the weights as they come or frozen."""
        self.network.requires_grad_(not frozen)
        images = self.image.repeat(count, 1, 1, 1).requires_grad_()
        with self.precision():
            value = self.objective(self.network(images).float()).sum()
        return torch.autograd.grad(value, images)[0]

    def sweep(
        self, nodes: int, count: int | None, budget: float | None = None, surveys: Surveys | None = None
    ) -> list[float]:
        """All layers at ``nodes`` nodes, ``count`` of them together (None: as the budget allows); their scores."""
        total = StieltjesSum("trapezoid")
        partition = tagged_partition(self.path.interval, nodes - 1, "trapezoid")
        with self.precision():
            result = trace(
                self.network,
                self.layers,
                self.path,
                partition,
                self.objective,
                [total],
                internal_batch_size=count,
                memory_budget=budget,
                surveys=surveys,
            )
        return [float(result.values(total, name)[0].abs().mean()) for name in self.layers]

    def seconds(self, function: Callable[[], object]) -> float:
        """Wall-clock time, with the accelerator's queue empty before and after."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        function()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def peak_bytes(self, function: Callable[[], object]) -> int:
        """Growth of the peak of memory during the call."""
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            function()
            return torch.cuda.max_memory_allocated() - before
        before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        function()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def measure_time(subject: Subject, count: int, repeats: int) -> dict[str, float]:
    """Seconds for a node, plain and swept, alternating; and the sweep's slope at two lengths."""
    short, middle, long = (count * chunks for chunks in (2, 4, 6))
    rows = []
    with keep_freed_memory():
        subject.plain(count)
        subject.sweep(short, count)
        for _ in range(repeats):
            before = subject.seconds(lambda: subject.plain(count)) / count
            frozen = subject.seconds(lambda: subject.plain(count, frozen=True)) / count
            subject.network.requires_grad_(True)
            times = [subject.seconds(lambda n=n: subject.sweep(n, count)) for n in (short, middle, long)]
            after = subject.seconds(lambda: subject.plain(count)) / count
            first, second = (times[1] - times[0]) / (middle - short), (times[2] - times[1]) / (long - middle)
            row = {"plain": (before + after) / 2, "frozen": frozen, "first": first, "second": second}
            rows.append(row | {"sweep": (times[2] - times[0]) / (long - short)})
    return {name: median(row[name] for row in rows) for name in rows[0]} | {
        "ratio": median(row["sweep"] / row["plain"] for row in rows),
        "flat": median(row["second"] / row["first"] for row in rows),
    }


def measure_budget(subject: Subject, budget: float) -> dict[str, float]:
    """Peak and cost of sweeps within a budget: the first with all that it finds out, and one that knows it already.

    On a CPU the cost is processor time, in which other programs of the machine do not count; the plain pass, with
    weights frozen, is measured before and after.
    """
    clock = time.process_time if subject.device == "cpu" else time.perf_counter

    def cost(function: Callable[[], object]) -> float:
        start = clock()
        subject.seconds(function)
        return clock() - start

    known, nodes, costs = Surveys(), 9, []
    peak = subject.peak_bytes(lambda: costs.append(cost(lambda: subject.sweep(nodes, None, budget, known)) / nodes))
    plain = [cost(lambda: subject.plain(1, frozen=True)) for _ in range(3)][1:]
    costs.append(cost(lambda: subject.sweep(nodes, None, budget, known)) / nodes)
    plain += [cost(lambda: subject.plain(1, frozen=True)) for _ in range(2)]
    return {"bytes": peak, "plain": median(plain), "first": costs[0] / median(plain), "later": costs[1] / median(plain)}


def measure_captum(subject: Subject, names: list[str]) -> dict[str, float]:
    """Seconds of Captum's LayerConductance for a node and layer, mean over some layers."""
    evaluated = 0

    def forward(images: Tensor) -> Tensor:
        nonlocal evaluated
        evaluated += len(images)
        return subject.objective(subject.network(images))

    def loop() -> None:
        for name in names:
            LayerConductance(forward, subject.layers[name]).attribute(subject.image, n_steps=3, internal_batch_size=2)

    subject.plain(1)
    return {"seconds": subject.seconds(loop) / evaluated}


def child(arguments: list[str], threads: int) -> dict[str, float]:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, *arguments, "--threads", str(threads)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    result: dict[str, float] = json.loads(finished.stdout.splitlines()[-1])
    print(" ".join(arguments), {name: round(value, 3) for name, value in result.items()}, flush=True)
    return result


def run_child(options: argparse.Namespace) -> dict[str, float]:
    """Measurement that a child process was started for."""
    subject = Subject(options.dtype, options.device)
    if options.task == "time":
        return measure_time(subject, options.count, options.repeats)
    if options.task in ("plain", "frozen"):
        frozen = options.task == "frozen"
        return {"bytes": subject.peak_bytes(lambda: [subject.plain(options.count, frozen) for _ in range(2)])}
    if options.task == "sweep":
        return {"bytes": subject.peak_bytes(lambda: subject.sweep(2 * options.count, options.count))}
    if options.task == "budget":
        return measure_budget(subject, options.budget)
    if options.task == "agreement":
        wide = subject.sweep(21, 1)
        subject.dtype = "bf16"
        return {"spearman": float(spearmanr(wide, subject.sweep(21, 1)).statistic)}
    works = ["conv_first", "layers.2.residual_group.blocks.3.norm1", "layers.5.conv", "conv_last"]
    return measure_captum(subject, works)


BUDGET_HEAD = (
    "## Memory budgets",
    "",
    "With a memory budget (fp32): memory over that of the plain pass with frozen weights, and the "
    "cost of a node in such passes, over 9 nodes. The first sweep of a network also looks for blocks that can run "
    "again; one of a further image does not. On a CPU, cost is processor time.",
    "",
    "| budget | budget, GiB | peak, GiB | peak / plain | first sweep / plain | further sweep / plain |",
    "|---|---|---|---|---|---|",
)


def budget_row(share: float, frozen_bytes: float, device: list[str], threads: int) -> str:
    """The row of one budget."""
    budget = share * frozen_bytes
    found = child(["--task", "budget", "--budget", str(budget), *device], threads)
    peak = found["bytes"]
    return (
        f"| {share:.1f} | {budget / 2**30:.2f} | {peak / 2**30:.2f} | **{peak / frozen_bytes:.2f}** | "
        f"{found['first']:.2f} | **{found['later']:.2f}** |"
    )


def report(options: argparse.Namespace) -> str:
    """All measurements as a page."""
    device = ["--device", options.device]
    counts = [1, 2] if options.device == "cpu" else [1, 8, 32]  # four nodes at once take more than 16 GB
    time_rows, memory_rows, best = [], [], {}
    for dtype in ("fp32", "bf16"):
        for count in counts:
            common = ["--dtype", dtype, "--count", str(count), "--repeats", str(options.repeats), *device]
            timed = child(["--task", "time", *common], options.threads)
            tasks = ("plain", "frozen", "sweep")
            plain, frozen, sweep = (child(["--task", task, *common], options.threads)["bytes"] for task in tasks)
            best.setdefault(dtype, []).append((timed["ratio"], timed, plain, count))
            time_rows.append(
                f"| {dtype} | {count} | {timed['plain']:.3f} | {timed['frozen']:.3f} | {timed['sweep']:.3f} | "
                f"**{timed['ratio']:.2f}** | {timed['sweep'] / timed['frozen']:.2f} | {timed['flat']:.2f} |"
            )
            memory_rows.append(
                f"| {dtype} | {count} | {plain / 2**30:.2f} | {frozen / 2**30:.2f} | {sweep / 2**30:.2f} | "
                f"**{sweep / plain:.2f}** | {sweep / frozen:.2f} |"
            )
    frozen_bytes = child(["--task", "frozen", *device], options.threads)["bytes"]
    budget_rows = [budget_row(share, frozen_bytes, device, options.threads) for share in options.shares]
    agreement = child(["--task", "agreement", *device], options.threads)["spearman"]
    captum = child(["--task", "captum", *device], options.threads)["seconds"]
    fastest = min(row[1]["sweep"] for row in best["fp32"])
    name = torch.cuda.get_device_name() if options.device == "cuda" else f"{platform.machine()} CPU"
    return "\n".join(
        [
            "# All layers in one sweep",
            "",
            f"RAM-SwinIR, 11.5 M parameters, 263 layers, one 64x64 image; {name}, {options.threads} threads, torch "
            f"{torch.__version__}; made by `benchmarks/one_pass.py`.",
            "",
            "Seconds for a node. The plain pass: forward, objective, gradient of the input; as the network comes, and "
            "with weights that require no gradient, as the sweep has them. The last column compares a sweep's later "
            "nodes with its earlier ones.",
            "",
            "| precision | nodes in a batch | plain | plain, frozen weights | sweep | sweep / plain | sweep / frozen | "
            "later / earlier |",
            "|---|---|---|---|---|---|---|---|",
            *time_rows,
            "",
            "Peak memory in GiB, weights and libraries not counted.",
            "",
            "| precision | nodes in a batch | plain | plain, frozen weights | sweep | sweep / plain | sweep / frozen |",
            "|---|---|---|---|---|---|---|",
            *memory_rows,
            "",
            *BUDGET_HEAD,
            *budget_rows,
            "",
            "## Captum and bfloat16",
            "",
            f"Captum's LayerConductance takes {captum:.2f} s for a node and layer (mean of 4 layers on which it "
            f"works), so {263 * captum:.0f} s for a node and 263 layers one after another: "
            f"**{263 * captum / fastest:.0f} times** the best fp32 sweep. On the 108 "
            "window-attention layers it raises.",
            "",
            f"Spearman correlation of the bf16 with the fp32 ranking over 263 layers (21 nodes): **{agreement:.4f}**.",
            "",
        ]
    )


def main() -> None:
    """Measure everything, or the part that ``--task`` names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--task", choices=["time", "plain", "frozen", "sweep", "budget", "agreement", "captum"], help="one part"
    )
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--count", type=int, default=1, help="nodes in a batch")
    parser.add_argument("--repeats", type=int, default=3, help="repetitions of every timing")
    parser.add_argument("--budget", type=float, default=None, help="bytes")
    parser.add_argument(
        "--shares", type=float, nargs="+", default=[1.3, 1.5, 2.2], help="memory budgets over the frozen pass's peak"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.task:
        print(json.dumps(run_child(options)))
        return
    page = report(options)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
