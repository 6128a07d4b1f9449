"""The page ``docs/groups.md`` and its figure, from the tables in results/groups."""

__all__ = ["draw", "write_page"]

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from macattr.atomic_files import write_text
from ram_models.evaluation.tables import between, grid
from ram_models.experiments.groups.contrasts import Contrasts
from ram_models.experiments.groups.scores import METHODS
from ram_models.experiments.templates import render


def write_page(folder: Path, docs: Path) -> list[Path]:
    """Write the page and its figure.

    Args:
        folder: Of the tables.
        docs: Folder of the page and, in images/, of its figure.

    Returns:
        Files that were written.
    """
    page, image = docs / "groups.md", docs / "images" / "groups.png"
    image.parent.mkdir(parents=True, exist_ok=True)
    draw(folder).savefig(image, dpi=110)
    text = render(Path(__file__).with_name("groups.md.j2"), Page(folder))
    write_text(page, text)
    return [page, image]


def draw(folder: Path) -> Figure:
    """What every group gained, and how well each method predicts it.

    Args:
        folder: Of the tables.
    """
    gains, foresight = pd.read_csv(folder / "gains.csv"), pd.read_csv(folder / "foresight.csv")
    figure = Figure(figsize=(11, 5.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    trained = gains.dropna(subset="loss_gain")
    left.barh(trained["group"], 1000 * trained["loss_gain"], color=sns.color_palette("colorblind")[0])
    left.invert_yaxis()
    left.set(xlabel="decrease of the mean absolute error, thousandths", title="each group trained alone")
    ordered = foresight.sort_values("value")
    places = np.arange(len(ordered))
    right.errorbar(
        ordered["value"],
        places,
        xerr=[ordered["value"] - ordered["low"], ordered["high"] - ordered["value"]],
        fmt="o",
        color=sns.color_palette("colorblind")[1],
    )
    right.axvline(0, color="grey", linewidth=0.8)
    right.set_yticks(places, ordered["method"])
    right.set(
        xlabel="Spearman's correlation with the gains, 95 %", title="which score predicts the gains", xlim=(-1, 1)
    )
    for axes in (left, right):
        sns.despine(ax=axes)
    return figure


@dataclass(frozen=True)
class Page:
    """What the template asks for.

    Args:
        folder: Of the tables.
    """

    folder: Path

    @property
    def probes(self) -> pd.DataFrame:
        """All finished probes."""
        return self._read("probes")

    @property
    def rates(self) -> list[str]:
        """Rates that every group was trained at."""
        counts = self.probes[self.probes["lr"] > 0].groupby("lr")["group"].nunique()
        return [f"{lr:g}" for lr in counts.index[counts == self.count]]

    @property
    def count(self) -> int:
        """Number of groups that were trained."""
        return int(self._read("gains")["loss_gain"].count())

    @property
    def groups(self) -> int:
        """Number of all groups."""
        return len(self._read("gains"))

    @property
    def budgets(self) -> list[float]:
        """Shares of the parameters that were filled with groups."""
        return sorted(self._read("captured")["budget"].unique())

    def unfinished(self) -> str:
        """What is missing; empty if nothing is."""
        scored = len(self._read("foresight")) - 1  # one is the size of the group
        if self.count == self.groups and scored == len(METHODS):
            return ""
        trained = f"{self.count} of {self.groups} groups were trained"
        return f"{trained}, and {scored} of {len(METHODS)} methods have scores so far"

    def gains(self) -> str:
        """Every group with what it gained."""
        rows = [
            (
                row["group"],
                [
                    f"{row['parameters']:,}",
                    f"{row['lr']:g}",
                    f"{1000 * row['loss_gain']:+.2f}",
                    f"{row['psnr_gain_db']:+.2f}",
                ],
            )
            for _, row in self._read("gains").dropna(subset="loss_gain").iterrows()
        ]
        return grid(
            ["group", "parameters", "better rate", "decrease of the error, thousandths", "increase of PSNR, dB"], rows
        )

    def claims(self) -> str:
        """Every claim with its verdict."""
        rows = [
            (f"{row['a']} predicts better than {row['b']}", [*_numbers(row), f"**{row['verdict']}**"])
            for _, row in self._read("claims").iterrows()
        ]
        return grid(["claim", "difference", "95 % over groups", "p, Holm", "verdict"], rows)

    def foresight(self) -> str:
        """Every method with its correlation, and the gain that its groups capture."""
        captured = self._read("captured")
        wide = captured.pivot(index="method", columns=["budget", "small_first"], values="captured")
        order = self._read("foresight").sort_values("value", ascending=False)
        columns = [(budget, first) for budget in self.budgets for first in (False, True)]
        rows = [
            (
                row["method"],
                [
                    f"{row['value']:+.2f}",
                    between(row["low"], row["high"], "+.2f"),
                    *(f"{wide.loc[row['method'], column]:.0%}" for column in columns),
                ],
            )
            for _, row in order.iterrows()
        ]
        heads = [f"{budget:.0%} of the parameters{', small first' if first else ''}" for budget, first in columns]
        return grid(["method", "Spearman", "95 % over groups", *heads], rows)

    def fillers(self) -> list[str]:
        """Of the fillers that were named before, those whose sets behind the small groups capture most."""
        captured = self._read("captured")
        named = Contrasts.read().fillers
        means = captured[captured["small_first"]].groupby("method")["captured"].mean().reindex(named)
        return [name for name in named if np.isclose(means[name], means.max())]

    def ahead(self, filler: str) -> int:
        """Number of budgets at which the composite with this filler captures more than MAC."""
        captured = self._read("captured")
        composite = captured[(captured["method"] == filler) & captured["small_first"]]
        mac = captured[(captured["method"] == "mac") & ~captured["small_first"]]
        return int((composite.set_index("budget")["captured"] > mac.set_index("budget")["captured"]).sum())

    def _read(self, name: str) -> pd.DataFrame:
        """A table."""
        return pd.read_csv(self.folder / f"{name}.csv")


def _numbers(claim: pd.Series) -> list[str]:
    """Difference, interval and p-value of a claim; dashes if it was not tested."""
    if pd.isna(claim["value"]):
        return ["-", "-", "-"]
    return [f"{claim['value']:+.2f}", between(claim["low"], claim["high"], "+.2f"), f"{claim['p_holm']:.3f}"]
