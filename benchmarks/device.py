"""What an accelerator does in a few minutes: tests marked ``cuda``, ratios, whole protocols, the training loop.

Rows stand in the order of what is worth knowing first. Each is measured in a process of its own and written to the page
as it comes; a row that the page holds already is kept, so that a run that was stopped goes on. No row begins after
``--minutes``, and one that runs longer is stopped. A row without a measurement is empty. The ratios divide a node of a
sweep by a plain pass (forward, objective, gradient of the input) with as many images in a batch, weights frozen.

Run it on the machine with the accelerator: ``python benchmarks/device.py``. ``--device cpu --quick`` tries the script
out on small sizes and writes to ``--results``, which it then requires.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import torch

import ram_models
from macattr import rank_layers

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "device.md"

PRECISIONS = ("fp32", "tf32", "bf16")
COUNTS = (1, 4, 16, 64)
PROTOCOLS: Mapping[str, tuple[int, int, str]] = {
    "ours": (70, 30, "70 images x 30 nodes, all 263 layers; aim 10 s"),
    "paper": (70, 200, "70 images x 200 nodes, all 263 layers; aim 60 s"),
}
"""Images, nodes and words of the whole calls."""

QUICK = (ram_models.ram_swinir_tiny, 16)
"""Network and side of the images that try the script out."""

HEAD = ("row", "what", "result", "device")


def rows() -> dict[str, str]:
    """Every row of the page with its words, the most telling first."""
    ratios = {
        f"ratio {precision} {count}": f"{precision}, {count} nodes in a batch: sweep / plain, seconds of each"
        for precision in PRECISIONS
        for count in COUNTS
    }
    protocols = {f"protocol {name}": words for name, (_, _, words) in PROTOCOLS.items()}
    return {"tests": "tests marked `cuda`"} | protocols | ratios | {"training": "full loop / bare steps, bf16"}


def timed(function: Callable[[], object], device: str) -> float:
    """Wall-clock seconds, with the queue of the device empty before and after."""
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    wait()
    start = time.perf_counter()
    function()
    wait()
    return time.perf_counter() - start


def measure_ratio(precision: str, count: int, device: str, quick: bool) -> str:
    """A node of a sweep over a plain pass, alternating."""
    from one_pass import Subject  # a script beside this one, found when this one runs as a script

    count = min(count, 2) if quick else count
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    subject = Subject("bf16" if precision == "bf16" else "fp32", device, *(QUICK if quick else ()))
    subject.plain(count, frozen=True)
    subject.sweep(2 * count, count)
    ratios, plains, sweeps = [], [], []
    for _ in range(1 if quick else 3):
        plain = timed(lambda: subject.plain(count, frozen=True), device) / count
        short, long = (timed(lambda chunks=chunks: subject.sweep(chunks * count, count), device) for chunks in (2, 6))
        plains.append(plain)
        sweeps.append((long - short) / (4 * count))
        ratios.append(sweeps[-1] / plain)
    return f"**{median(ratios):.2f}**, {median(sweeps):.4f} / {median(plains):.4f}"


def measure_protocol(name: str, device: str, quick: bool) -> str:
    """Seconds of a whole call, as it comes."""
    images, nodes, _ = PROTOCOLS[name]
    make, side = QUICK if quick else (ram_models.ram_swinir, 64)
    if quick:
        images, nodes = 2, 4
    torch.manual_seed(0)
    network = make().eval().to(device)
    samples = [torch.rand(3, side, side) for _ in range(images)]
    rank_layers(network, samples[:1], n_steps=2)
    return f"**{timed(lambda: rank_layers(network, samples, n_steps=nodes - 1), device):.1f} s**"


def measure_training(device: str, quick: bool) -> str:
    """Images a second of the full training loop over those of bare steps, from the training benchmark."""
    options = ["--steps", "20", "--crop", "16"] if quick else ["--precision", "bf16" if device == "cuda" else "fp32"]
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.md"
        command = [sys.executable, str(ROOT / "benchmarks" / "training.py"), "--results", str(page), *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        line = next(line for line in page.read_text().splitlines() if "full / bare" in line)
    return line.split("|")[2].strip()


def run_tests() -> str:
    """What pytest says of the tests that need a GPU."""
    files = sorted(str(file) for file in (ROOT / "tests").rglob("test_*.py") if "mark.cuda" in file.read_text())
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", *files]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if finished.returncode not in (0, 1):  # passed, or some failed: all else is no result
        raise RuntimeError(f"pytest ended with {finished.returncode}: {finished.stderr[-500:]}")
    return [line for line in finished.stdout.splitlines() if line.strip()][-1].strip("= ")


def measure(row: str, device: str, quick: bool) -> str:
    """The result of one row."""
    kind, *rest = row.split()
    if kind == "tests":
        return run_tests()
    if kind == "protocol":
        return measure_protocol(rest[0], device, quick)
    if kind == "training":
        return measure_training(device, quick)
    return measure_ratio(rest[0], int(rest[1]), device, quick)


def name_of(device: str) -> str:
    """The device in words."""
    return torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU"


def known(page: Path) -> dict[str, tuple[str, str]]:
    """Result and device of the rows that a page holds."""
    found = {}
    for line in page.read_text().splitlines() if page.exists() else []:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == len(HEAD) and cells[0] in rows() and cells[2]:
            found[cells[0]] = cells[2], cells[3]
    return found


def write(page: Path, done: Mapping[str, tuple[str, str]], note: str) -> None:
    """The page with what is known so far; a row without a device stays empty."""
    table = [f"| {row} | {words} | {' | '.join(done.get(row, ('', '')))} |" for row, words in rows().items()]
    missing = len(rows()) - len(done)
    said = f"{missing} of {len(rows())} rows are empty: no device has measured them yet." if missing else ""
    page.write_text(
        "\n".join(
            [
                "# On an accelerator",
                "",
                "RAM-SwinIR, 11.5 M parameters, 263 layers, 64x64, weights frozen in the plain pass; made by "
                f"`benchmarks/device.py`, which keeps the rows that are there. {note}".strip(),
                "",
                *([said, ""] if said else []),
                f"| {' | '.join(HEAD)} |",
                f"|{'---|' * len(HEAD)}",
                *table,
                "",
            ]
        )
    )


def fill(page: Path, device: str, quick: bool, minutes: float) -> None:
    """Measure the rows that are missing, each in a process of its own, while there is time."""
    done, end = known(page), time.monotonic() + 60 * minutes
    note = "Tried out with `--quick` on a small network: no results." if quick else ""
    write(page, done, note)
    for row in rows():
        left = end - time.monotonic()
        if row in done or left <= 0:
            continue
        command = [sys.executable, __file__, "--row", row, "--device", device, *(["--quick"] if quick else [])]
        try:
            finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=left, check=False)
        except subprocess.TimeoutExpired:
            print(f"{row}: no time left", flush=True)
            break
        if finished.returncode:
            print(f"{row}: failed", flush=True)
            continue
        done[row] = json.loads(finished.stdout.splitlines()[-1]), name_of(device)
        print(f"{row}: {done[row][0]}", flush=True)
        write(page, done, note)


def main() -> None:
    """Measure what is missing, or the row that ``--row`` names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--quick", action="store_true", help="a small network, few nodes: to try the script out")
    parser.add_argument("--minutes", type=float, default=6.0, help="of the device")
    parser.add_argument("--results", type=Path, help=f"page; {RESULTS.name} beside the others unless given")
    parser.add_argument("--row", help="measure this row alone and print it")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        write(RESULTS if options.results is None else options.results, known(options.results or RESULTS), "")
        parser.error("torch finds no cuda device here: its rows stay empty.")
    if options.row is not None:
        print(json.dumps(measure(options.row, options.device, options.quick)))
        return
    if options.device == "cpu" and options.results is None:
        parser.error("`--device cpu` needs `--results`, so that no CPU stands among the results of accelerators.")
    fill(options.results or RESULTS, options.device, options.quick, options.minutes)


if __name__ == "__main__":
    main()
