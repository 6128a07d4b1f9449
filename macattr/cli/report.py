"""``macattr report``: rankings as one HTML page."""

__all__ = ["report"]

from pathlib import Path

from macattr.cli.loading import load_optional_network
from macattr.cli.rankings import ranking_files, refuse_other_kind, short_names
from macattr.cli.sources import explain_network
from macattr.ranking.importance import LayerImportance
from macattr.report.page import write_report


@explain_network
def report(
    rankings: list[str],
    out: Path = Path("report.html"),
    fraction: float = 0.1,
    model: str | None = None,
    weights: Path | None = None,
    seed: int = 0,
) -> None:
    """Write rankings as one HTML page.

    The page shows which layers to train, with intervals and probabilities, and holds the selection of any number of
    layers as text for other tools. It is one file without references to others: open it, mail it, print it. With
    several rankings of the same layers, it also shows what changes from one to the other: macattr report before after.

    Args:
        rankings: Files or folders that "macattr rank" wrote, of the same layers; the page opens with the first.
        out: The page's file.
        fraction: Share of the layers that is chosen when the page opens, in (0, 1].
        model: The network. With it, shares are of all its parameters; without it, of those of the ranked layers. It is
            {forms}.
        weights: File of weights that replace those that the network comes with.
        seed: Seed of the resamples behind intervals and probabilities.
    """
    if not rankings:
        raise ValueError("`rankings` is empty: give the importance.nc of macattr rank.")
    refuse_other_kind(out)
    sources = ranking_files(rankings)
    loaded = [LayerImportance.load(file) for file in sources]
    methods = [str(importance.dataset.attrs["method"]) for importance in loaded]
    names = methods if len(set(methods)) == len(methods) else short_names(sources)
    network = load_optional_network(model, weights)
    files = dict(zip(names, sources, strict=True))
    write_report(dict(zip(names, loaded, strict=True)), out, fraction=fraction, model=network, files=files, seed=seed)
    print(f"written: {out}")
