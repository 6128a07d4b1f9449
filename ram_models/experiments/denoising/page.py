"""The page ``docs/denoising.md`` and its figure, from the tables in results/denoising."""

__all__ = ["draw", "write_page"]

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from macattr.atomic_files import write_text
from ram_models.evaluation.tables import between, grid
from ram_models.experiments.denoising.arms import DENOISING
from ram_models.experiments.denoising.contrasts import Contrasts
from ram_models.experiments.paper_arms import ALL, label_of
from ram_models.experiments.study.store import UNTUNED_SEED
from ram_models.experiments.templates import render
from ram_models.experiments.verdicts.claims import SAME
from ram_models.experiments.verdicts.means import BASELINE, TRAINED_NOISE, above_trained
from ram_models.experiments.verdicts.statistics import DECIDED, DECISIVE


def write_page(folder: Path, docs: Path) -> list[Path]:
    """Write the page and its figure.

    Args:
        folder: Of the tables.
        docs: Folder of the page and, in images/, of its figure.

    Returns:
        Files that were written.
    """
    page, image = docs / "denoising.md", docs / "images" / "denoising.png"
    image.parent.mkdir(parents=True, exist_ok=True)
    tables = Page(folder)
    draw(tables.ends, list(tables.contrasts.noises)).savefig(image, dpi=110)
    text = render(Path(__file__).with_name("denoising.md.j2"), tables)
    write_text(page, text)
    return [page, image]


def draw(ends: pd.DataFrame, noises: list[str]) -> Figure:
    """Every arm on trained noise, and beyond it on unseen noise, block by block.

    Args:
        ends: Of :attr:`Page.ends`.
        noises: Names of the means over unseen noises.
    """
    columns = {TRAINED_NOISE: "trained noise"} | {above_trained(noise): f"noise {noise}, beyond it" for noise in noises}
    means = ends.groupby("arm")[TRAINED_NOISE].mean()
    order = [arm.name for arm in sorted(DENOISING.arms, key=lambda arm: means.get(arm.name, -np.inf))]
    order = [name for name in order if name in means]
    figure = Figure(figsize=(13, 0.8 + 0.33 * len(order)), layout="constrained")
    for axes, (column, title) in zip(figure.subplots(1, len(columns), sharey=True), columns.items(), strict=True):
        wide = ends.pivot(index="block", columns="arm", values=column)
        over_all = wide[order].sub(wide[ALL.name], axis=0)
        for place, name in enumerate(order):
            values = over_all[name].dropna()
            axes.plot(values, np.full(len(values), place), "o", color=sns.color_palette("colorblind")[0], alpha=0.5)
            axes.plot([values.mean()], [place], "|", color="black", markersize=16, markeredgewidth=2)
        axes.axvline(0, color="grey", linewidth=0.8)
        axes.set(title=title, xlabel="dB above all layers")
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_yticks(range(len(order)), [label_of(name) for name in order])
        sns.despine(ax=axes)
    return figure


@dataclass(frozen=True)
class Page:
    """What the template asks for.

    Args:
        folder: Of the tables.
    """

    folder: Path

    @cached_property
    def contrasts(self) -> Contrasts:
        """What was claimed."""
        return Contrasts.read()

    @cached_property
    def ends(self) -> pd.DataFrame:
        """Every fine-tuned network at its end, with the name of its ``block``."""
        blocks = self._read("blocks")
        ends = blocks[(blocks["progress"] == 1.0) & (blocks["seed"] != UNTUNED_SEED)]
        return ends.assign(block=ends["pretrained"] + "/" + ends["seed"].astype(str))

    @property
    def steps(self) -> int:
        """Optimiser steps of every fine-tuning."""
        return int(self._read("arms")["steps"].max())

    def unfinished(self) -> str:
        """What is missing; empty if nothing is."""
        blocks = self._read("arms").set_index("arm")["blocks"].reindex(list(DENOISING.by_name))
        missing = [label_of(name) for name, count in blocks.items() if not count > 0]
        said = [] if blocks.max() >= DECISIVE else [f"{blocks.max():.0f} of {DECISIVE} blocks are finished"]
        return "; ".join([*said, *(["never run: " + ", ".join(missing)] if missing else [])])

    def decided(self, name: str = "claims") -> str:
        """The claims that are decided, with their differences, and how many are not.

        Args:
            name: Of their table.
        """
        lines, table = [], self._read(name)
        for verdict in DECIDED:
            for _, row in table[table["verdict"] == verdict].iterrows():
                interval = between(row["low_db"], row["high_db"], "+.2f")
                lines.append(f"- **{verdict.capitalize()}.** {row['claim']}: {row['mean_db']:+.2f} dB ({interval}).")
        rest = len(table) - len(lines)
        if same := table[table["verdict"] == SAME]["claim"].tolist():
            lines.append(f"- **Nothing to compare,** because both arms train the same layers: {'; '.join(same)}.")
            rest -= len(same)
        lines += [f"- **Undecided:** {rest} of {len(table)} claims, in the table below."] if rest else []
        return "\n".join(lines) + "\n"

    def claims(self, name: str = "claims") -> str:
        """Every claim with its verdict.

        Args:
            name: Of their table.
        """
        rows = []
        for _, row in self._read(name).iterrows():
            measured = pd.notna(row["mean_db"])
            cells = ["-", "-", "-"]
            if measured:
                interval = between(row["low_db"], row["high_db"], "+.2f")
                cells = [f"{row['mean_db']:+.2f}", interval, f"{row['blocks']:.0f}"]
            p_value = f"{row['p_holm']:.3f}" if pd.notna(row["p_holm"]) else "-"
            rows.append((row["claim"], [*cells, p_value, f"**{row['verdict']}**"]))
        return grid(["claim", "difference, dB", "95 % over blocks", "blocks", "p, Holm", "verdict"], rows)

    def arms(self) -> str:
        """The means of all arms."""
        noises = list(self.contrasts.noises)
        columns = [TRAINED_NOISE, *noises, *map(above_trained, noises)]
        rows = []
        for _, row in self._read("arms").iterrows():
            trained = pd.notna(row["parameters"])
            sizes = [f"{row['parameters']:,.0f}", f"{row['lr']:.2g}"] if trained else ["-", "-"]
            rows.append((label_of(row["arm"]), [*sizes, *(_decibels(row[column]) for column in columns)]))
        return grid(["trained", "parameters", "learning rate", *columns], rows)

    def baselines(self) -> int:
        """Number of networks that were trained without masks."""
        return int((self._read("blocks")["arm"] == BASELINE).sum())

    def gain(self, arm: str, over: str) -> str:
        """Difference in dB between the means of two arms on trained noise.

        Args:
            arm: Name of one arm.
            over: Name of the one that is subtracted.
        """
        means = self._read("arms").set_index("arm")[TRAINED_NOISE]
        return f"{means[arm] - means[over]:+.1f}"

    def _read(self, name: str) -> pd.DataFrame:
        """A table."""
        return pd.read_csv(self.folder / f"{name}.csv")


def _decibels(value: float) -> str:
    """A mean; a dash if there is none."""
    return f"{value:.2f}" if pd.notna(value) else "-"
