"""``macattr rank``: rankings of a network's layers, on disk and in words."""

__all__ = ["rank"]

import hashlib
import inspect
import os
import shlex
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import matplotlib as mpl
import torch
import torch.distributed as dist

from macattr.atomic_files import sole_writer
from macattr.cli.check import check
from macattr.cli.compare import write_comparison
from macattr.cli.loading import load_images, load_network, load_weights, shuffled
from macattr.cli.options import QUESTION, PresetName, with_options
from macattr.cli.results import Results
from macattr.cli.sources import explain_network
from macattr.cli.summary import print_summary
from macattr.image_files import ImageFolder, display_name, read_size
from macattr.methods.catalogue import find_methods, refuse_missing_images
from macattr.methods.kinds import Method, PathMethod, needs_loss
from macattr.methods.provenance import hash_tensors
from macattr.methods.readings import estimate_evaluations
from macattr.methods.samples import Item
from macattr.methods.task import Options, Task
from macattr.paths.presets import Preset
from macattr.ranking.cost import estimate_cost
from macattr.ranking.importance import LayerImportance
from macattr.ranking.rank import RankingInterrupted, effective_options, rank_with, task_of
from macattr.ranking.settings import describe_run
from macattr.ranking.untrained import UNTRAINED, looks_untrained
from macattr.report.page import write_report
from macattr.statistics.stopping import StableTop
from macattr.weights.values import number_of_values


@explain_network
@with_options(
    **QUESTION,
    tolerance=None,
    step_error=None,
    flush_denormals=None,
    internal_batch_size=None,
    with_input_residual=None,
)
def rank(
    model: str,
    images: str | None = None,
    method: str = "mac",
    out: Path = Path("ranking"),
    clean: str | None = None,
    weights: Path | None = None,
    layers: list[str] | str | None = None,
    preset: PresetName = "ranking",
    seed: int = 0,
    start_weights: Path | None = None,
    crop: int | None = None,
    multiple: int | None = None,
    grey: bool = False,
    limit: int | None = None,
    until_stable: bool = False,
    confidence: float | None = None,
    fraction: float = 0.1,
    device: str = "cpu",
    bf16: bool = False,
    memory_budget_gib: float | None = None,
    dry_run: bool = False,
    overwrite: bool = False,
    **options: object,
) -> None:
    """Rank every layer of a network on images; write importance.nc, ranking.csv, heatmap.png and report.html.

    With several methods there is a folder for each, one report, and a table and figures of how they agree. If a run is
    stopped, the same command continues it. Under torchrun, processes share the images and orders:
    torchrun --nproc-per-node 2 -m macattr rank ...

    Args:
        model: The network: {forms}.
        images: Folder or image file; or a function that returns images: MODULE:NAME, or NAME in the model's module.
            Methods that use the weights alone (kappa, spectrum, magnitude) need none.
        method: Name of a method, several with commas between, or all: every method but faig, cka and cosine; some of
            them need --clean. "macattr methods" explains them.
        out: Folder for the results.
        clean: Folder with the clean image of every image, under the same name; for methods that need a loss.
        weights: File of weights that replace those that the network comes with.
        layers: Names or globs of layers, with commas between; default every module that owns a parameter.
        preset: Set of defaults for the options of the path and the objective.
        seed: Seed of everything random.
        start_weights: Checkpoint where FAIG's path through weight space starts.
        crop: Use the middle of every file only, at most this many pixels a side.
        multiple: Cut the sides of every file to multiples of this number; a shorter side is reflected.
        grey: Read files as grey, for networks of one channel.
        limit: Use the first images only.
        until_stable: Stop adding images when the top fraction (of the first method) is stable; they are shuffled.
        confidence: Confidence level for --until-stable, in (0, 1); default 0.95.
        fraction: Share of the layers that is selected, in (0, 1]; at least one layer.
        device: Device to compute on, such as cpu or cuda.
        bf16: Compute in bfloat16 (autocast); sums stay float32.
        memory_budget_gib: Memory for activations and sums, in GiB; if they need more, blocks of the network run again.
        dry_run: Only estimate time and memory, from a short run on the first image.
        overwrite: Replace the results of another run in the folder.
        **options: Of :class:`macattr.methods.task.Options`; the decorator puts their explanations here.
    """
    mpl.use("Agg")
    if not 0 < fraction <= 1:
        raise ValueError(f"`fraction` must lie in (0, 1], got {fraction}.")
    if confidence is not None and not until_stable:
        raise ValueError(f"`confidence` = {confidence} has no effect without --until-stable.")
    is_first, device = _join(device)
    chosen = Options(
        preset=preset,
        seed=seed or None,
        start_weights=None if start_weights is None else load_weights(start_weights),
        memory_budget=None if memory_budget_gib is None else memory_budget_gib * 2**30,
        until=StableTop(fraction, 0.95 if confidence is None else confidence) if until_stable else None,
        **options,  # type: ignore[arg-type]
    )
    methods = find_methods([name.strip() for name in method.split(",")])
    network = load_network(model, device, weights)
    inputs = _load_images(
        images, model, methods, crop=crop, limit=limit, clean=clean, multiple=multiple, grey=grey, out=out
    )
    if until_stable and inputs:
        inputs = shuffled(inputs, seed)
    wanted = [name.strip() for name in layers.split(",")] if isinstance(layers, str) else layers
    task = task_of(network, wanted, chosen)
    evaluations, saved = estimate_evaluations(methods, task, len(inputs or ()))
    if is_first:
        _announce(model, task, len(inputs or ()), methods=methods, evaluations=evaluations, saved=saved)
        if cuts := _describe_cuts(inputs):
            print(cuts)
    with torch.autocast(torch.device(device).type, torch.bfloat16) if bf16 else nullcontext():
        if dry_run:
            if inputs:
                _estimate(task, inputs, methods, evaluations)
            return
        settings = describe_run(task, methods) | _describe_inputs(inputs, clean)
        results = Results(out, [m.name for m in methods], settings)
        with sole_writer(out) if is_first else nullcontext():
            _rank(results, task, inputs, wanted, fraction=fraction, overwrite=overwrite, is_first=is_first)
        if is_first:
            shown = {"--weights": weights, "--crop": crop, "--multiple": multiple, "--limit": limit, "--clean": clean}
            checked = _given_for_check(chosen, options, fraction, device, effective_options(methods[:1], task))
            given = shown | {"--grey": "true" if grey else None} | checked
            is_checked = layers is None and start_weights is None
            print(f"\nnext:\n{_suggest(results, model, images if is_checked else None, fraction, given)}")


def _rank(
    results: Results,
    task: Task,
    inputs: ImageFolder | list[Item] | None,
    layers: Sequence[str] | None,
    *,
    fraction: float,
    overwrite: bool,
    is_first: bool,
) -> None:
    """Measure and write, unless the folder holds this very run already; the answer is printed first."""
    if results.is_complete(overwrite):
        print(f"{results.folder} already holds this ranking, complete; --overwrite measures it again")
        print_summary(results.load(), task.model, fraction, results.folder / "agreement.csv")
        return
    started = time.perf_counter()
    rankings = _measure(results, task, inputs, layers, fraction)
    if is_first:
        _write(results, rankings, task, fraction)
        print(f"\ncost: {time.perf_counter() - started:.0f} s")
        print(f"written: {results.describe_files()}")


def _given_for_check(
    chosen: Options, names: Iterable[str], fraction: float, device: str, effective: Collection[str]
) -> dict[str, object | None]:
    """Options of this run that ``macattr check`` takes too, as they are typed, where they are not the default.

    The check is of one method: ``effective`` are the options that it reads.
    """
    known = inspect.signature(check).parameters
    preset = chosen.preset.name if isinstance(chosen.preset, Preset) else chosen.preset
    given = {name: value for name, value in chosen.given().items() if name in effective}
    given |= {"preset": preset, "fraction": fraction, "device": device}
    shared = [name for name in ("preset", "seed", *names, "fraction", "device") if name in known and name in given]
    return {f"--{name.replace('_', '-')}": given[name] for name in shared if given[name] != known[name].default}


def _suggest(
    results: Results, model: str, images: str | None, fraction: float, given: Mapping[str, object | None]
) -> str:
    """What is not done yet, as commands with the options of this run; none of them replaces a file.

    The check ranks all layers on images: without ``images`` it is not suggested. ``given`` holds options as they are
    typed, and their values; None where one was not given.
    """
    first, file = next(iter(results.files().items()))
    page, weights = results.folder / "report.html", given["--weights"]
    of_network = ["--model", model, *([] if weights is None else ["--weights", str(weights)])]
    select = ["select", str(file), *of_network, "--fraction", f"{fraction:g}", "--export", "json", "--out"]
    lines = [shlex.join(["open", str(page)])] if page.is_file() else []
    lines.append(_command(*select, str(_unused(results.folder / "layers.json"))))
    if images is not None:
        options = [word for name, value in given.items() if value is not None for word in (name, str(value))]
        test = ["check", "--model", model, "--images", images, "--method", first, *options]
        lines.append(_command(*test, "--out", str(_unused(results.folder / "check"))))
    return "\n".join(f"  {line}" for line in lines)


def _command(*words: str) -> str:
    """A command of ours as it is pasted; a value that begins with a dash is joined to its option."""
    joined: list[str] = []
    for word in words:
        if word.startswith("-") and not word.startswith("--") and joined and joined[-1].startswith("--"):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return shlex.join(["macattr", *joined])


def _unused(path: Path) -> Path:
    """The path, with a number if something is there already."""
    return next(
        other
        for number in count(1)
        if not (other := path if number == 1 else path.with_stem(f"{path.stem}-{number}")).exists()
    )


def _load_images(
    images: str | None,
    model: str,
    methods: Sequence[Method],
    *,
    crop: int | None,
    limit: int | None,
    clean: str | None,
    multiple: int | None,
    grey: bool,
    out: Path,
) -> ImageFolder | list[Item] | None:
    """The images, or None where no method needs any and none are given."""
    if images is not None:
        inputs = load_images(images, model, crop, limit, clean, multiple=multiple, grey=grey, out=out)
        needing = [method.name for method in methods if needs_loss(method)]
        if needing and isinstance(inputs, ImageFolder) and inputs.clean is None:
            raise ValueError(
                f"{', '.join(needing)} of `method` {'needs' if len(needing) == 1 else 'need'} the clean images: give "
                "--clean FOLDER, where each has the name of its image, or leave out what needs them."
            )
        return inputs
    refuse_missing_images(methods, "`images` is missing: give --images FOLDER")
    given = {"crop": crop, "limit": limit, "clean": clean, "multiple": multiple, "grey": grey or None}
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"`{name}` = {value} has no effect without --images.")
    return None


def _measure(
    results: Results,
    task: Task,
    inputs: ImageFolder | list[Item] | None,
    layers: Sequence[str] | None,
    fraction: float,
) -> dict[str, LayerImportance]:
    """The rankings; what is finished is written if the run stops early."""
    options = replace(task.options, parts=results.folder / "parts", show_progress=True)
    try:
        return rank_with(task.model, inputs, results.methods, layers, options)
    except RankingInterrupted as stopped:
        results.write(stopped.rankings, fraction)
        if isinstance(stopped.__cause__, KeyboardInterrupt):
            raise KeyboardInterrupt from stopped
        raise ValueError(f"{stopped} What is finished is kept in {results.folder} and not measured again.") from stopped


def _write(results: Results, rankings: Mapping[str, LayerImportance], task: Task, fraction: float) -> None:
    """Write rankings, agreement and report, and print the answer first."""
    results.write(rankings, fraction)
    if len(rankings) > 1:
        write_comparison(rankings, results.folder, fraction=fraction, seed=task.seed)
    if any(int(importance.dataset["parameters"].sum()) for importance in rankings.values()):
        write_report(
            rankings,
            results.folder / "report.html",
            fraction=fraction,
            model=task.model,
            files=results.files(),
            seed=task.seed,
        )
    results.finish()
    print_summary(rankings, task.model, fraction, results.folder / "agreement.csv")


def _join(device: str) -> tuple[bool, str]:
    """Join the processes that torchrun started, if it did: whether this is the first, and its device."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if not dist.is_initialized():
            dist.init_process_group("gloo")  # only results are exchanged, as objects
        if device == "cuda":
            device = f"cuda:{os.environ['LOCAL_RANK']}"
        return dist.get_rank() == 0, device
    return True, device


def _describe_inputs(inputs: ImageFolder | list[Item] | None, clean: str | None) -> dict[str, object]:
    """The images of a run, for the settings of its results."""
    if not isinstance(inputs, ImageFolder):
        return {"images": len(inputs or ()), "content": hash_tensors(*(inputs or ()))}
    names = [display_name(file) for file in inputs.files]
    multiple, grey = inputs.multiple, inputs.grey or None
    content = _hash_files([*inputs.files, *(inputs.clean or ())])
    return {
        "images": names,
        "content": content,
        "clean": clean,
        "crop": inputs.crop,
        "multiple": multiple,
        "grey": grey,
    }


def _hash_files(files: Iterable[Path]) -> str:
    """SHA-256 of the bytes of some files, first 16 digits."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _describe_cuts(inputs: ImageFolder | list[Item] | None) -> str:
    """How many images do not have sides of the multiple that is asked for; '' if all do, or none is."""
    if not isinstance(inputs, ImageFolder) or inputs.multiple is None:
        return ""
    cap = inputs.crop or sys.maxsize
    sizes = [[min(side, cap) for side in read_size(file)] for file in inputs.files]
    reflected = sum(min(size) < inputs.multiple for size in sizes)
    cut = sum(any(side > inputs.multiple and side % inputs.multiple for side in size) for size in sizes)
    return f"sides as multiples of {inputs.multiple}: {cut} of {len(sizes)} images are cut, {reflected} reflected"


def _announce(model: str, task: Task, images: int, methods: Sequence[Method], evaluations: int, saved: int) -> None:
    """Print the network, the images and the cost before the run begins."""
    parameters = sum(map(number_of_values, task.model.parameters()))
    print(f"{model}: {len(task.layers)} layers, {parameters:,} parameters")
    if looks_untrained(task.model):
        print(UNTRAINED)
    if not images:
        print("no image: the methods look at the weights alone")
        return
    noun, passes = "image" if images == 1 else "images", f"{evaluations} forward and backward passes"
    (method, *others) = methods
    if others:
        print(f"{len(methods)} methods on {images} {noun}: {passes}")
        if saved:
            print(f"sharing passes saves {saved} of them ({saved / (evaluations + saved):.0%})")
    elif isinstance(method, PathMethod) and method.reads == "path":
        repeats = task.order_count
        orders = f" x {repeats} pixel orders" if repeats > 1 else ""
        nodes = evaluations // (images * repeats)
        print(f"{images} {noun}{orders} x {nodes} points along the path = {passes}")
    else:
        print(f"{method.name} on {images} {noun}: {passes}")


def _estimate(task: Task, inputs: ImageFolder | list[Item], methods: Sequence[Method], evaluations: int) -> None:
    """Time and memory, from a short run on the first image."""
    short = replace(task.options, orders=1, until=None, tolerance=None)
    has_steps = any("n_steps" in method.arguments(task) for method in methods)
    for steps in (2, 8):  # the first run warms up
        short = replace(short, n_steps=steps) if has_steps else short
        started = time.perf_counter()
        rankings = rank_with(task.model, islice(inputs, 1), [m.name for m in methods], list(task.layers), short)
        seconds = time.perf_counter() - started
    each = seconds / max(1, estimate_evaluations(methods, replace(task, options=short), 1)[0])
    memory = max(int(importance.dataset.attrs["estimated_bytes"]) for importance in rankings.values()) / 2**30
    print(estimate_cost(task, list(islice(inputs, 1)), [m.name for m in methods]).memory)
    print(f"about {each * evaluations:.0f} s ({each:.2f} s for a pass) and {memory:.1f} GiB for activations")
    print("measured on a short run over the first image; other sizes cost in proportion to their pixels")
