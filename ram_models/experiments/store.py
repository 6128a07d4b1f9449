"""Finished runs of the fine-tuning experiments, in tables that are only ever added to."""

__all__ = ["KEY", "RUN_COLUMNS", "UNTUNED", "Store", "keyed"]

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

KEY = ("pretrained", "seed", "arm", "progress")
"""What tells one scored network from another: pre-training, seed of the fine-tuning, arm, and the share of the
fine-tuning's steps that it has behind it."""

UNTUNED = -1
"""Seed of networks that were not fine-tuned."""

RUN_COLUMNS = ("pretrained", "seed", "arm", "parameters", "share", "lr", "steps", "seconds", "weights_sha256", "layers")
"""How a run of fine-tuning was made; ``weights_sha256`` is that of the pre-trained network, ``layers`` are names with
blanks between."""


@dataclass(frozen=True)
class Store:
    """Finished runs: what stands here is never measured again.

    Args:
        folder: Where scores.csv (one row an image of every scored network) and runs.csv (one row a run) are.
    """

    folder: Path

    def scores(self) -> pd.DataFrame:
        """Columns :data:`KEY`, then those of :data:`ram_models.experiments.judge.SCORES`."""
        return self._read("scores.csv", KEY)

    def runs(self) -> pd.DataFrame:
        """Columns :data:`RUN_COLUMNS`."""
        return self._read("runs.csv", RUN_COLUMNS)

    def finished(self) -> set[tuple[str, int, str]]:
        """Pre-training, seed and arm of everything scored."""
        return set(self.scores()[list(KEY[:3])].drop_duplicates().itertuples(index=False, name=None))

    def add(self, scores: pd.DataFrame, run: pd.DataFrame | None = None) -> None:
        """Add a finished run; its scores go last, because they say that it is finished."""
        if run is not None:
            self._append("runs.csv", run)
        self._append("scores.csv", scores)

    def _read(self, name: str, columns: Sequence[str]) -> pd.DataFrame:
        """A table, empty if nothing was added yet."""
        file = self.folder / name
        return pd.read_csv(file) if file.exists() else pd.DataFrame(columns=list(columns))

    def _append(self, name: str, rows: pd.DataFrame) -> None:
        """Add rows in one write."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
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
