"""Finished runs of the fine-tuning experiments, in tables that are only ever added to."""

__all__ = ["KEY", "RUN_COLUMNS", "UNTUNED_SEED", "BlockKey", "RunKey", "Store", "append_rows", "keyed"]

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

UNTUNED_SEED = -1
"""Seed of networks that were not fine-tuned; their learning rate is 0."""


class BlockKey(NamedTuple):
    """What tells one block from another.

    Args:
        pretrained: Name of the pre-trained network.
        seed: Of the fine-tuning.
    """

    pretrained: str
    seed: int


class RunKey(NamedTuple):
    """What tells one run of fine-tuning from another; a network that was not fine-tuned has one too.

    Args:
        pretrained: Name of the pre-trained network.
        seed: Of the fine-tuning, or :data:`UNTUNED_SEED`.
        arm: What was trained, or how the network was asked.
        lr: Peak learning rate; 0 without fine-tuning.
    """

    pretrained: str
    seed: int
    arm: str
    lr: float = 0.0


KEY = (*RunKey._fields, "progress")
"""What tells one scored network from another: its run, and the share of the run's steps that it has behind it."""

RUN_COLUMNS = (*RunKey._fields, "parameters", "share", "steps", "seconds", "device", "weights_sha256", "layers")
"""How a run of fine-tuning was made; ``device`` is "cpu" or "cuda", ``weights_sha256`` is that of the pre-trained
network, ``layers`` are names with blanks between. Arms of a block that train the same parameters at the same rate share
one run, which has a row for each of them."""


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
        """Columns :data:`RUN_COLUMNS`, one row a run: the last one, if a stop between both tables made it run again."""
        return self._read("runs.csv", RUN_COLUMNS).drop_duplicates(list(RunKey._fields), keep="last")

    def finished(self) -> dict[RunKey, str]:
        """Of everything scored, the hash of what it was made with."""
        rows = self.scores()[[*RunKey._fields, "made_with"]].drop_duplicates()
        return {RunKey(*values): made_with for *values, made_with in rows.itertuples(index=False)}

    def scores_of(self, runs: Collection[RunKey]) -> pd.DataFrame:
        """Scores of these runs, on their way and on the straight line too, and of all networks before fine-tuning.

        Every arm must have one learning rate in a block, which is then no longer needed to tell runs apart.

        Args:
            runs: Which.

        Returns:
            The columns of :meth:`scores` but ``lr``.
        """
        scores = self.scores()
        arm = scores["arm"].str.removesuffix(", interpolated")
        keys = pd.MultiIndex.from_frame(scores[list(RunKey._fields)].assign(arm=arm))
        return scores[keys.isin(list(runs)) | (scores["seed"] == UNTUNED_SEED)].drop(columns="lr")

    def runs_of(self, runs: Collection[RunKey]) -> pd.DataFrame:
        """How these runs were made.

        Args:
            runs: Which.
        """
        made = self.runs()
        return made[pd.MultiIndex.from_frame(made[list(RunKey._fields)]).isin(list(runs))]

    def refuse_others(self, made_with: Mapping[RunKey, str]) -> None:
        """Raise if something that is wanted stands here, but made otherwise.

        Args:
            made_with: By run, the hash of what it would be made with now.

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

    def repeat(self, key: RunKey, arm: str, made_with: str) -> None:
        """Add a finished run once more, as that of another arm which trains the same parameters.

        Args:
            key: Of the run.
            arm: Name of the other arm.
            made_with: Hash of what that arm is made with, whose layers have another order.
        """
        index = list(RunKey._fields)
        scores, runs = (table[table[index].apply(tuple, axis=1) == key] for table in (self.scores(), self.runs()))
        self.add(scores.assign(arm=arm, made_with=made_with), runs.assign(arm=arm))

    def _read(self, name: str, columns: Sequence[str]) -> pd.DataFrame:
        """A table, empty if nothing was added yet."""
        file = self.folder / name
        return pd.read_csv(file) if file.exists() else pd.DataFrame(columns=list(columns))

    def _append(self, name: str, rows: pd.DataFrame) -> None:
        """Add rows in one write."""
        append_rows(self.folder / name, rows)


def append_rows(file: Path, rows: pd.DataFrame) -> None:
    """Add rows to a table in one write, numbers with six digits.

    Args:
        file: CSV file, made with its folder if it is not there.
        rows: With the columns that the file has.

    Raises:
        ValueError: If it has other columns.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists() and list(columns_there := pd.read_csv(file, nrows=0).columns) != list(rows.columns):
        raise ValueError(f"{str(file)!r} has the columns {', '.join(columns_there)}: choose another `results`.")
    text = rows.to_csv(index=False, header=not file.exists(), float_format="%.6g", lineterminator="\n")
    with file.open("a") as opened:
        opened.write(text)


def keyed(scores: pd.DataFrame, run: RunKey, progress: float) -> pd.DataFrame:
    """Scores with what they are of in front.

    Args:
        scores: One row an image.
        run: Which.
        progress: Share of the run's steps.
    """
    key = pd.DataFrame(run._asdict() | {"progress": progress}, scores.index)
    return pd.concat([key, scores], axis=1)
