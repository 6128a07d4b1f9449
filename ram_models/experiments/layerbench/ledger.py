"""What the bench has measured, in five tables that are only ever added to."""

__all__ = ["ANY_SEED", "BLOCK", "RUN", "Ledger"]

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ram_models.experiments.layerbench.choices import Choice
from ram_models.experiments.study.store import append_rows

ANY_SEED = -1
"""Seed of choices that do not depend on it: rankings are made once for a network and a shift."""

BLOCK = ("network", "shift", "seed")
"""Columns that tell one block from another; everything in a block sees the same crops and noise."""

RUN = (*BLOCK, "trained", "lr")
"""Columns that tell one run from another. Methods that choose the same set share its run."""

COLUMNS = {
    "scores": ("network", "shift", "method", "layer", "score", "seconds", "made_with"),
    "choices": (*BLOCK, "method", "draw", "budget", "trained", "seconds", "made_with"),
    "sets": ("network", "trained", "kind", "parameters", "share", "adapters", "names"),
    "rates": ("network", "shift", "kind", "lr", "validation_db", "trained", "made_with"),
    "runs": (*RUN, "before_db", "after_db", "steps", "seconds", "precision", "made_with"),
}
"""Columns of every table. ``trained`` is the key of a set, see :class:`.choices.Choice`, and empty where nothing fits
into the budget; ``seconds`` are processor time; ``made_with`` changes with every setting that a number depends on."""

TEXT = ("network", "shift", "method", "layer", "trained", "kind", "names", "precision", "made_with")


@dataclass(frozen=True)
class Ledger:
    """Tables in a folder: what stands there is never measured again.

    Args:
        folder: Where they are.
    """

    folder: Path

    def table(self, name: str) -> pd.DataFrame:
        """A table, empty if nothing was added yet.

        Args:
            name: One of ``scores``, ``choices``, ``sets``, ``rates`` and ``runs``.
        """
        file, columns = self.folder / f"{name}.csv", list(COLUMNS[name])
        if not file.exists():
            return pd.DataFrame(columns=columns)
        types = {column: str for column in columns if column in TEXT}
        return pd.read_csv(
            file, dtype=types, keep_default_na=False, na_values={c: [""] for c in set(columns) - set(TEXT)}
        )

    def add(self, name: str, rows: list[dict[str, object]]) -> None:
        """Add rows to a table in one write.

        Args:
            name: As in :meth:`table`.
            rows: With all of its columns.
        """
        if rows:
            append_rows(self.folder / f"{name}.csv", pd.DataFrame(rows, columns=list(COLUMNS[name])))

    def refuse_others(self, name: str, made_with: str, **key: object) -> pd.DataFrame:
        """The rows of a table with this key, all of which must have been made as they would be made now.

        Args:
            name: As in :meth:`table`.
            made_with: Hash of what they would be made with.
            **key: Values of columns.

        Raises:
            ValueError: If one was made otherwise.
        """
        rows = self.table(name)
        for column, value in key.items():
            rows = rows[rows[column] == value]
        if len(others := rows[rows["made_with"] != made_with]):
            raise ValueError(
                f"{str(self.folder / name)!r}.csv holds {len(others)} rows of {' '.join(map(str, key.values()))} that "
                "were made with other settings or weights than now: choose another `results`, or delete them."
            )
        return rows

    def remember(self, network: str, choice: Choice, total: int, parameters: int) -> None:
        """Add a set of parameters, unless it stands there.

        Args:
            network: Name of the network.
            choice: The set.
            total: Number of the network's parameters.
            parameters: Number of those that are trained.
        """
        sets = self.table("sets")
        if ((sets["network"] == network) & (sets["trained"] == choice.key)).any():
            return
        row = {
            "network": network,
            "trained": choice.key,
            "kind": choice.kind,
            "parameters": parameters,
            "share": parameters / total,
            "adapters": choice.budget,
            "names": choice.words,
        }
        self.add("sets", [row])

    def choice(self, network: str, trained: str) -> Choice:
        """A set of parameters by its key.

        Args:
            network: Name of the network.
            trained: Key.
        """
        sets = self.table("sets")
        row = sets[(sets["network"] == network) & (sets["trained"] == trained)].iloc[0]
        names = tuple(row["names"].split())
        if row["kind"] == "adapters":
            return Choice(adapted=names, budget=int(row["adapters"]), kind="adapters")
        return Choice(names, kind=row["kind"])
