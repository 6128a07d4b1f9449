"""Rankings from the arguments of a command line."""

__all__ = ["load_ranking", "ranking_file", "ranking_files", "refuse_other_kind", "short_names"]

import sys
from collections.abc import Sequence
from pathlib import Path

from macattr.cli.results import EACH, RUN
from macattr.ranking.files import FILE
from macattr.ranking.importance import LayerImportance
from macattr.ranking.journal import SETTINGS
from macattr.selection.official import read_official_ranking
from macattr.selection.score_files import SUFFIXES, read_scores

OTHER_KINDS = (".nc", ".py", ".ipynb", ".pt", ".pth", ".ckpt", ".safetensors", ".png", ".jpg", ".jpeg", ".tif")
"""Ends of the names of rankings, code, weights and pictures."""


def ranking_files(sources: Sequence[str]) -> list[str]:
    """The sources, each folder that ``macattr rank`` wrote replaced by the rankings in it.

    Args:
        sources: Files or folders.

    Raises:
        ValueError: If a folder holds neither rankings nor the authors' lists.
    """
    files = [file for source in sources for file in _rankings_in(Path(source)) or [source]]
    for file in map(Path, files):
        if file.name == FILE and any((place / "parts" / SETTINGS).is_file() for place in file.parents[:2]):
            print(
                f"{str(file)!r} is of a run that is not finished: it holds the images that were measured so far",
                file=sys.stderr,
            )
    return files


def ranking_file(source: str) -> Path:
    """The ranking in a folder that ``macattr rank`` wrote; anything else is left as it is.

    Args:
        source: File or folder.

    Raises:
        ValueError: If the folder holds several, or neither any nor the authors' lists.
    """
    found = ranking_files([source])
    if len(found) > 1:
        raise ValueError(f"{source!r} holds {len(found)} rankings: give one of {', '.join(found)}.")
    return Path(found[0])


def refuse_other_kind(out: Path, *sources: Path | str | None) -> None:
    """Raise if a file that is read, or one of another kind, would be replaced.

    Args:
        out: Where a selection or page is to go.
        *sources: What the command reads.

    Raises:
        ValueError: If it is one of the sources or of the files of a run, or holds a ranking, code, weights or a
            picture, by its name.
    """
    if any(source is not None and out.resolve() == Path(source).resolve() for source in sources):
        raise ValueError(f"`--out` {str(out)!r} is what the command reads: name another.")
    is_of_run = out.name in (RUN, *EACH) and (out.parent / FILE).is_file()
    if out.is_file() and (out.suffix.lower() in OTHER_KINDS or is_of_run):
        raise ValueError(f"`--out` {str(out)!r} is there already and of another kind: name a new file.")


def load_ranking(source: str) -> LayerImportance | dict[str, float]:
    """A saved ranking, or the scores in the authors' lists or in another tool's file.

    Args:
        source: File, or folder of lists.

    Raises:
        ValueError: If it is none of these.
    """
    if Path(source).suffix.lower() in SUFFIXES:
        return read_scores(source)
    return read_official_ranking(source) if Path(source).is_dir() else LayerImportance.load(source)


def short_names(sources: Sequence[str]) -> list[str]:
    """Short names that distinguish files of rankings: the last parts of their paths that differ.

    Raises:
        ValueError: If one is given twice.
    """
    paths = [Path(source).with_suffix("") for source in sources]
    parts = [path.parent.parts if path.name == "importance" and path.parent.name else path.parts for path in paths]
    whole = [Path(source).parts for source in sources]  # with the ends of the names, where these alone differ
    for some in (parts, whole):
        for depth in range(1, max(map(len, some)) + 1):
            names = ["/".join(part[-depth:]) for part in some]
            if len(set(names)) == len(names):
                return names
    raise ValueError(f"a ranking is given twice: {', '.join(sources)}.")


def _rankings_in(folder: Path) -> list[str]:
    """The ranking in a folder, or those of several methods one below; none for a file, and for the authors' lists.

    Raises:
        ValueError: If a folder holds none of these.
    """
    if not folder.is_dir() or any(folder.glob("filter_*.txt")):
        return []
    found = [folder / FILE] if (folder / FILE).is_file() else sorted(folder.glob(f"*/{FILE}"))
    if not found:
        raise ValueError(f"{str(folder)!r} holds no ranking: neither {FILE} nor the authors' lists filter_*.txt.")
    return list(map(str, found))
