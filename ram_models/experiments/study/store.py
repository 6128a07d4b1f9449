"""Finished runs of the fine-tuning experiments, in tables that are only ever added to."""

__all__ = ["KEY", "RUN_COLUMNS", "UNTUNED", "Store", "keyed"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

KEY = ("pretrained", "seed", "arm", "progress")
"""What tells one scored network from another: pre-training, seed of the fine-tuning, arm, and the share of the
fine-tuning's steps that it has behind it."""

UNTUNED = -1
"""Seed of networks that were not fine-tuned."""

RUN_COLUMNS = (
    *KEY[:3], "parameters", "share", "lr", "steps", "seconds", "device", "weights_sha256", "layers"
)  # fmt: skip
"""How a run of fine-tuning was made; ``device`` is "cpu" or "cuda", ``weights_sha256`` is that of the pre-trained
network, ``layers`` are names with blanks between. Arms of a block that train the same parameters share one run, which
has a row for each of them."""


@dataclass(frozen=True)
class Store:
    """Finished runs: what stands here is never measured again.

    Args:
        folder: Where scores.csv (one row an image of every scored network) and runs.csv (one row a run) are.
    """

    folder: Path

    def scores(self) -> pd.DataFrame:
        """Columns :data:`KEY`, those of :data:`ram_models.experiments.study.judge.SCORES`, and ``made_with``."""
        return self._read("scores.csv", (*KEY, "made_with"))

    def runs(self) -> pd.DataFrame:
        """Columns :data:`RUN_COLUMNS`."""
        return self._read("runs.csv", RUN_COLUMNS)

    def finished(self) -> dict[tuple[str, int, str], str]:
        """By pre-training, seed and arm of everything scored, the hash of what it was made with."""
        rows = self.scores()[[*KEY[:3], "made_with"]].drop_duplicates()
        return {(row.pretrained, row.seed, row.arm): row.made_with for row in rows.itertuples()}

    def refuse_others(self, made_with: Mapping[tuple[str, int, str], str]) -> None:
        """Raise if something that is wanted stands here, but made otherwise.

        Args:
            made_with: By pre-training, seed and arm, the hash of what it would be made with now.

        Raises:
            ValueError: If a hash differs.
        """
        finished = self.finished()
        if others := [key for key, wanted in made_with.items() if finished.get(key, wanted) != wanted]:
            raise ValueError(
                f"{str(self.folder)!r} holds {len(others)} runs that were made with other settings, weights, tests or "
                f"layers than now, e.g. {' / '.join(map(str, others[0]))}: choose another `results`, or delete their "
                "rows from scores.csv and runs.csv."
            )

    def add(self, scores: pd.DataFrame, run: pd.DataFrame | None = None) -> None:
        """Add a finished run; its scores go last, because they say that it is finished."""
        if run is not None:
            self._append("runs.csv", run)
        self._append("scores.csv", scores)

    def repeat(self, key: tuple[str, int, str], arm: str) -> None:
        """Add a finished run once more, as that of another arm which trains the same parameters.

        Args:
            key: Pre-training, seed and arm of the run.
            arm: Name of the other arm.
        """
        index = list(KEY[:3])
        scores, runs = (table[table[index].apply(tuple, axis=1) == key] for table in (self.scores(), self.runs()))
        self.add(scores.assign(arm=arm), runs.assign(arm=arm))

    def _read(self, name: str, columns: Sequence[str]) -> pd.DataFrame:
        """A table, empty if nothing was added yet."""
        file = self.folder / name
        return pd.read_csv(file) if file.exists() else pd.DataFrame(columns=list(columns))

    def _append(self, name: str, rows: pd.DataFrame) -> None:
        """Add rows in one write."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists() and list(known := pd.read_csv(file, nrows=0).columns) != list(rows.columns):
            raise ValueError(f"{str(file)!r} has the columns {', '.join(known)}: choose another `results`.")
        text = rows.to_csv(index=False, header=not file.exists(), float_format="%.6g", lineterminator="\n")
        with file.open("a") as opened:
            opened.write(text)


def keyed(scores: pd.DataFrame, pretrained: str, seed: int, arm: str, progress: float) -> pd.DataFrame:
    """Scores with what they are of in front.

    Args:
        scores: One row an image.
        pretrained: Name of the pre-trained network.
        seed: Of the fine-tuning, or :data:`UNTUNED`.
        arm: What was trained, or how the network was asked.
        progress: Share of the fine-tuning's steps.
    """
    key = pd.DataFrame({"pretrained": pretrained, "seed": seed, "arm": arm, "progress": progress}, scores.index)
    return pd.concat([key, scores], axis=1)
