"""``macattr check``: does a ranking depend on what was learned, or on architecture, size and chance alone?"""

__all__ = ["check"]

from pathlib import Path

import matplotlib as mpl
import numpy as np

from macattr.cli.loading import load_images, load_network
from macattr.plots import plot_randomisation
from macattr.ranking.importance import LayerImportance
from macattr.ranking.rank import rank_methods
from macattr.ranking.sanity import SUSPECT, randomisation_test
from macattr.statistics.agreement import overlap_at, size_dependence, spearman
from macattr.statistics.certainty import top_count


def check(
    model: str,
    images: str,
    method: str = "mac",
    out: Path = Path("check"),
    n_steps: int | None = None,
    steps: int = 4,
    fraction: float = 0.1,
    crop: int | None = None,
    limit: int | None = None,
    clean: str | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> None:
    """Check a ranking; for example macattr check --model ram_models:ram_swinir_tiny --images sample --limit 4.

    Randomises the network's parameters step by step, from the output to the input and group by group, and ranks again;
    compares with other pixel orders, between images and with chance; and tells how far scores follow the size of
    layers. Writes cascading.csv, independent.csv and randomisation.png.

    Args:
        model: Where the network comes from: MODULE:NAME or FILE.py:NAME.
        images: Folder or image file; or a function that returns images.
        method: What is measured; "macattr methods" lists the names.
        out: Folder for the results.
        n_steps: Steps along the path.
        steps: Groups of layers, by depth.
        fraction: Top share of the layers that is compared.
        crop: Use the middle of every file only, at most this many pixels a side.
        limit: Use the first images only.
        clean: Folder with the clean image of every image, under the same name; for methods that need a loss.
        seed: Seed of everything random.
        device: Where to compute, e.g. cpu or cuda.
    """
    mpl.use("Agg")
    network = load_network(model, device)
    inputs = load_images(images, model, crop, limit, clean)
    options: dict[str, object] = {"n_steps": n_steps, "seed": seed or None, "show_progress": True}
    found = rank_methods(network, inputs, list(dict.fromkeys([method, "activation"])), None, **options)
    importance = found[method]
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
    k = top_count(fraction, importance.dataset.sizes["layer"])
    last = float(tables["cascading"]["spearman"].iloc[-1])
    suspect = "SUSPECT: architecture and size alone give nearly this ranking"
    verdict = suspect if last > SUSPECT else f"up to {SUSPECT} it is not architecture and size alone"
    print(f"\nall parameters random: Spearman {last:.3f} with the trained network's ranking; {verdict}")
    if "gate" in importance.dataset.attrs:  # it walks a mask path
        other = {**options, "seed": seed + 1}
        _print_agreement(
            "other pixel orders", importance, rank_methods(network, inputs, [method], None, **other)[method], k
        )
    _print_controls(importance, found["activation"], k, seed)
    print(f"\nwritten: {', '.join(str(out / f) for f in ('cascading.csv', 'independent.csv', 'randomisation.png'))}")


def _print_agreement(what: str, first: LayerImportance, second: LayerImportance, k: int) -> None:
    """How far two rankings agree."""
    a, b = first.scores().values, second.scores().values
    print(f"{what}: Spearman {spearman(a, b):.3f}, overlap of the top {k} {overlap_at(a, b, k):.0%}")


def _print_controls(importance: LayerImportance, activation: LayerImportance, k: int, seed: int) -> None:
    """Agreement between images, with chance, and dependence on size."""
    scores, values = importance.scores().values, importance.values
    random = np.random.default_rng(seed).random(len(scores))
    if len(values) > 1:
        halves = [LayerImportance(importance.dataset.isel(sample=slice(start, None, 2))) for start in (0, 1)]
        _print_agreement("odd against even images", halves[0], halves[1], k)
    print(f"a random ranking: Spearman {spearman(scores, random):.3f}, overlap {overlap_at(scores, random, k):.0%}")
    sizes = {
        "parameters": importance.dataset["parameters"].values.astype(float),
        "activation scale": activation.scores().values,
    }
    print("\ndependence on size (log-log slope: 1 = in proportion, 0 = none)")
    print(size_dependence(scores, sizes).round(3).to_string(index=False))
