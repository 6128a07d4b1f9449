"""``macattr check``: whether a ranking depends on the learned parameters, or on architecture, size and chance alone."""

__all__ = ["check"]

import json
import math
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np

from macattr.arguments import whole_number
from macattr.atomic_files import write_text
from macattr.cli.loading import load_images, load_network
from macattr.cli.options import QUESTION, PresetName, with_options
from macattr.cli.sources import explain_network
from macattr.methods.provenance import describe
from macattr.plots import plot_randomisation
from macattr.ranking.importance import LayerImportance
from macattr.ranking.rank import rank_methods
from macattr.ranking.sanity import SUSPECT, randomisation_test
from macattr.statistics.agreement import overlap_at, size_dependence, spearman
from macattr.statistics.ranks import top_count

SETTINGS = "check.json"
"""File of the settings of a check, beside its results."""

FEWEST_LAYERS = 5
"""Number of layers below which a high correlation is too likely by chance (1 in 24 for four layers in equal order)."""


@explain_network
@with_options(**QUESTION)
def check(
    model: str,
    images: str,
    method: str = "mac",
    out: Path = Path("check"),
    steps: int = 4,
    fraction: float = 0.1,
    crop: int | None = None,
    multiple: int | None = None,
    grey: bool = False,
    limit: int | None = None,
    clean: str | None = None,
    weights: Path | None = None,
    preset: PresetName = "ranking",
    seed: int = 0,
    device: str = "cpu",
    overwrite: bool = False,
    **options: object,
) -> None:
    """Test whether a ranking depends on what the network has learned, or on its architecture alone.

    The network's parameters are made random, group by group from the output to the input, and the layers are ranked
    again. The ranking is also compared with those of other pixel orders, of other images and of chance, and scores with
    the size of layers. Writes cascading.csv, independent.csv, randomisation.png, and the
    settings as check.json.

    Args:
        model: The network: {forms}.
        images: Folder or image file; or a function that returns images.
        method: Name of the method; "macattr methods" lists all.
        out: Folder for the results.
        steps: Number of groups of layers, by depth.
        fraction: Top share of the layers that is compared, in (0, 1]; at least one layer.
        crop: Use the middle of every file only, at most this many pixels a side.
        multiple: Cut the sides of every file to multiples of this number; a shorter side is reflected.
        grey: Read files as grey, for networks of one channel.
        limit: Use the first images only.
        clean: Folder with the clean image of every image, under the same name; for methods that need a loss.
        weights: File of weights that replace those that the network comes with.
        preset: Set of defaults for the options of the path and the objective.
        seed: Seed of everything random.
        device: Device to compute on, such as cpu or cuda.
        overwrite: Replace the results of another check in the folder.
        **options: Of :class:`macattr.methods.task.Options`; the decorator puts their explanations here.
    """
    mpl.use("Agg")
    if not 0 < fraction <= 1:
        raise ValueError(f"`fraction` must lie in (0, 1], got {fraction}.")
    whole_number("steps", steps)
    if out.exists() and not out.is_dir():
        raise ValueError(f"`--out` {str(out)!r} is a file: name a folder.")
    asked = {"model": model, "images": images, "method": method, "steps": steps, "fraction": fraction, "crop": crop}
    asked |= {"multiple": multiple, "grey": grey, "limit": limit, "clean": clean, "weights": weights, "preset": preset}
    settings = {name: describe(value) for name, value in (asked | {"seed": seed, **options}).items()}
    if not overwrite:
        _refuse_another(out / SETTINGS, settings)
    network = load_network(model, device, weights)
    inputs = load_images(images, model, crop, limit, clean, multiple=multiple, grey=grey, out=out)
    options |= {"preset": preset, "seed": seed or None, "show_progress": True}
    rankings = rank_methods(network, inputs, list(dict.fromkeys([method, "activation"])), None, **options)
    importance = rankings[method]
    tables = {
        name: randomisation_test(
            network, inputs, method, cascading=name == "cascading", steps=steps, fraction=fraction, **options
        )
        for name in ("cascading", "independent")
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(out / f"{name}.csv", index=False)
        print(f"\n{name} randomisation of parameters")
        print(table.round(3).to_string(index=False))
    figure = plot_randomisation(tables, f"{model}: {method} after randomising parameters")
    figure.savefig(out / "randomisation.png", dpi=150)
    write_text(out / SETTINGS, json.dumps(settings, indent=1))
    layers = importance.dataset.sizes["layer"]
    k = top_count(fraction, layers)
    print(f"\n{_verdict(float(tables['cascading']['spearman'].iloc[-1]), layers)}")
    if "gate" in importance.dataset.attrs:  # its path reveals pixels in a random order
        other = {**options, "seed": seed + 1}
        again = rank_methods(network, inputs, [method], None, **other)[method]
        print(_agreement("other pixel orders", importance, again, k))
    _print_controls(importance, rankings["activation"], k, seed)
    print(f"\nwritten: {', '.join(str(out / f) for f in ('cascading.csv', 'independent.csv', 'randomisation.png'))}")


def _refuse_another(file: Path, settings: Mapping[str, str]) -> None:
    """Raise if a folder holds the results of a check with other settings."""
    stored = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else settings
    if other := [name for name, value in settings.items() if stored.get(name) != value]:
        name = other[0]
        raise ValueError(
            f"`--out` {str(file.parent)!r} holds a check with {name} = {stored.get(name)}, now {settings[name]}: "
            "choose another folder, or add --overwrite."
        )


def _verdict(correlation: float, layers: int) -> str:
    """Answer of the test in which all parameters are random."""
    measured = f"all parameters random: Spearman {correlation:.3f} with the trained network's ranking"
    if math.isnan(correlation):
        return f"{measured}. UNDECIDED: all scores of a ranking are equal."
    if layers < FEWEST_LAYERS:
        return f"{measured}. UNDECIDED: {layers} layers are too few, chance alone gives high correlations."
    if correlation > SUSPECT:
        return f"{measured}. SUSPECT: above {SUSPECT}, architecture and size alone give nearly this ranking."
    return f"{measured}. PASSED: it is not above {SUSPECT}, so the ranking depends on the learned parameters."


def _agreement(title: str, first: LayerImportance, second: LayerImportance, k: int) -> str:
    """Agreement of two rankings in a line."""
    a, b = first.scores().values, second.scores().values
    return f"{title}: Spearman {spearman(a, b):.3f}, overlap of the top {k} {overlap_at(a, b, k):.0%}"


def _print_controls(importance: LayerImportance, activation: LayerImportance, k: int, seed: int) -> None:
    """Print the agreement between images and with chance, and the dependence on size."""
    scores, values = importance.scores().values, importance.values
    random = np.random.default_rng(seed).random(len(scores))
    if len(values) > 1:
        odd, even = (LayerImportance(importance.dataset.isel(sample=slice(start, None, 2))) for start in (0, 1))
        print(_agreement("odd against even images", odd, even, k))
    print(f"a random ranking: Spearman {spearman(scores, random):.3f}, overlap {overlap_at(scores, random, k):.0%}")
    sizes = {
        "parameters": importance.dataset["parameters"].values.astype(float),
        "activation scale": activation.scores().values,
    }
    print("\ndependence on size (slope of log score by log size: 1 = in proportion, 0 = none)")
    print(size_dependence(scores, sizes).round(3).to_string(index=False))
