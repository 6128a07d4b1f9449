"""The folder of a finished ranking: what is written there, and when it may be replaced."""

__all__ = ["EACH", "RUN", "Results"]

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from macattr.atomic_files import write_text
from macattr.ranking.files import FILE
from macattr.ranking.importance import LayerImportance
from macattr.ranking.journal import SETTINGS, read_settings, remove_parts, shorten

EACH = (FILE, "ranking.csv", "heatmap.png")
"""Files of every ranking."""

COMMON = ("report.html", "agreement.csv", "agreement.png", "rank_flow.png", "overlap.png")
"""Files of a run as a whole."""

RUN = "run.json"
"""Name of the file that marks a finished run, with its settings and the files that it wrote."""


class Results:
    """The folder of a ranking; only files that a run recorded as its own are ever removed.

    Args:
        folder: The folder.
        methods: Names of the methods that the run reads.
        settings: How the run measures, and on which images.

    Raises:
        ValueError: If a file has the name of the folder.
    """

    def __init__(self, folder: Path, methods: Sequence[str], settings: Mapping[str, object]) -> None:
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"`--out` {str(folder)!r} is a file: name a folder.")
        self.folder, self.methods = folder, tuple(methods)
        self.settings = json.loads(json.dumps(settings))

    def is_complete(self, overwrite: bool = False) -> bool:
        """Whether the folder holds this very run, finished.

        Args:
            overwrite: Remove the files of a finished run first.

        Raises:
            ValueError: If it holds another finished run, or a ranking of unknown origin, and ``overwrite`` is false.
        """
        mark = self.folder / RUN
        if overwrite:
            self._remove_other_parts()
        if not mark.is_file():
            if not overwrite and not (self.folder / "parts" / SETTINGS).is_file() and (files := self.written()):
                raise ValueError(
                    f"`--out` {str(self.folder)!r} holds files of another origin that would be replaced, such as "
                    f"{files[0].name!r}: choose another folder, or add --overwrite."
                )
            return False
        stored = read_settings(mark)
        if overwrite:
            self._remove(stored)
            return False
        if changed := self._changes(stored.get("settings")):
            raise ValueError(
                f"`--out` {str(self.folder)!r} holds a finished run with other settings ({changed}): choose another "
                "folder, or add --overwrite."
            )
        return all((self.folder / str(name)).is_file() for name in _listed(stored))

    def _changes(self, stored: object) -> str:
        """The first three settings that differ, in words; '' if there are none."""
        before = stored if isinstance(stored, dict) else {}
        changed = [name for name in sorted(before | self.settings) if before.get(name) != self.settings.get(name)]
        words = [(name, shorten(before.get(name)), shorten(self.settings.get(name))) for name in changed[:3]]
        return "; ".join(f"other {name}" if old == new else f"{name} = {old}, now {new}" for name, old, new in words)

    def _remove_other_parts(self) -> None:
        """Remove what an unfinished run with other settings has kept."""
        parts = self.folder / "parts"
        if (parts / SETTINGS).is_file():
            stored = read_settings(parts / SETTINGS)
            if any(stored.get(name) != self.settings.get(name) for name in stored):
                remove_parts(parts)

    def _remove(self, stored: Mapping[str, object]) -> None:
        """Remove the files of a finished run."""
        for name in _listed(stored):
            file = self.folder / name
            if file.resolve().is_relative_to(self.folder.resolve()) and file.is_file():
                file.unlink(missing_ok=True)
        (self.folder / RUN).unlink(missing_ok=True)

    def place(self, name: str) -> Path:
        """Folder of a method's files: the folder itself if there is one method alone."""
        return self.folder if len(self.methods) == 1 else self.folder / name

    def files(self) -> dict[str, Path]:
        """The file of every ranking, by method."""
        return {name: self.place(name) / FILE for name in self.methods}

    def write(self, rankings: Mapping[str, LayerImportance], fraction: float) -> None:
        """Write every ranking: of one method in the folder itself, of several in a folder each.

        Args:
            rankings: The rankings, by method.
            fraction: Share of the layers, in (0, 1], that the pictures mark.
        """
        for name, importance in rankings.items():
            folder = self.place(name)
            folder.mkdir(parents=True, exist_ok=True)
            importance.save(folder / FILE)
            importance.to_csv(folder / "ranking.csv")
            importance.plot_heatmap(folder / "heatmap.png", fraction)

    def written(self) -> list[Path]:
        """The files of a run that are in the folder."""
        folders = [self.folder] if len(self.methods) == 1 else [self.folder / name for name in self.methods]
        files = [folder / name for folder in folders for name in EACH] + [self.folder / name for name in COMMON]
        return [file for file in files if file.is_file()]

    def describe_files(self) -> str:
        """The files of the run in words; those of several methods are named once."""
        common = [str(self.folder / name) for name in COMMON if (self.folder / name).is_file()]
        if len(self.methods) == 1:
            return ", ".join([*(str(self.folder / name) for name in EACH), *common])
        return f"{', '.join(common)}; {', '.join(EACH)} in {self.folder / self.methods[0]} and so on"

    def finish(self) -> None:
        """Mark the run as finished and remove its parts."""
        files = [str(file.relative_to(self.folder)) for file in self.written()]
        text = json.dumps({"settings": self.settings, "files": files}, indent=1)
        write_text(self.folder / RUN, text)
        remove_parts(self.folder / "parts")

    def load(self) -> dict[str, LayerImportance]:
        """The rankings of the finished run, by method."""
        return {name: LayerImportance.load(file) for name, file in self.files().items()}


def _listed(stored: Mapping[str, object]) -> list[str]:
    """The files that a finished run recorded as its own."""
    files = stored.get("files")
    return [str(name) for name in files] if isinstance(files, list) else []
