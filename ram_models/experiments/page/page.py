"""The page ``docs/reproduction.md``: every number of the paper that was measured again, and what came out."""

__all__ = ["Page", "main", "page_text"]

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd

from macattr.atomic_files import write_atomically
from ram_models.evaluation.tables import between, grid
from ram_models.experiments.page.figures import draw
from ram_models.experiments.paper_arms import label_of
from ram_models.experiments.study.config import Study
from ram_models.experiments.study.store import UNTUNED_SEED, Store
from ram_models.experiments.templates import render
from ram_models.experiments.variants import BEFORE
from ram_models.experiments.verdicts.claims import SAME
from ram_models.experiments.verdicts.means import ID, UNLIT, by_network
from ram_models.experiments.verdicts.statistics import DECIDED

HEADINGS = {
    "arm": "trained",
    ID: "PSNR, dB",
    UNLIT: "no low light, dB",
    "noise": "trained noise",
    "lr": "learning rate",
    "closed": "gap closed",
    "sd": "sd over blocks",
    "ssim": "SSIM",
    "run_as": "run as",
}
"""Headings of columns, where they are not their names."""

FORMATS = {"parameters": ",.0f", "blocks": ".0f", "ssim": ".4f", "closed": ".0%", "lr": ".2g"}
"""How the numbers of a column are written, if not in dB with two digits."""

ROUNDS = {
    "1-first-networks": "first networks",
    "2-rates-by-budget": "these networks, rates by budget",
    "3-stricter-verdicts": "the same runs, stricter verdicts",
}
"""Folders in results/history with the claims as they stood before, and what differed."""

BETWEEN_DEVICES = (
    "A seed has the same crops and masks on every device, but its first weights may differ with the version of "
    "PyTorch: a comparison between devices is less well paired."
)
"""What is to be known of such a comparison."""


def main(study: Study) -> None:
    """Draw the figures and write the page from what is in ``results``.

    Raises:
        ValueError: If that folder holds no table.
    """
    mpl.use("Agg")
    if not any(study.results.glob("*.csv")):
        raise ValueError(
            f"`results` {str(study.results)!r} holds no table, such as table5.csv: name the folder of them."
        )
    file, images = study.docs / "reproduction.md", study.docs / "images"
    images.mkdir(parents=True, exist_ok=True)
    written = [image.name for image in draw(study.results, images)]
    text = page_text(study.results, written).encode()
    write_atomically(file, lambda opened: opened.write(text))
    print(f"written: {', '.join([str(file), *(str(images / name) for name in written)])}")


def page_text(results: Path, figures: Sequence[str]) -> str:
    """The page in Markdown, from the template beside this module.

    Args:
        results: Folder of the tables.
        figures: Files that were drawn.
    """
    return render(Path(__file__).with_name("reproduction.md.j2"), Page(results, figures))


@dataclass(frozen=True)
class Page:
    """What the template asks for.

    Args:
        results: Folder of the tables.
        figures: Files that were drawn.
    """

    results: Path
    figures: Sequence[str]

    short_columns = ("arm", "blocks", *BEFORE.values(), ID, "sd", "ssim")
    """Columns that are shown of tables of short pre-trainings."""

    def measured(self, name: str) -> bool:
        """Whether there is a table of that name."""
        return (self.results / f"{name}.csv").exists()

    def answer(self, name: str) -> str:
        """How many claims of a part have which verdict; without claims, whether it was measured."""
        if not (self.results / f"{name}-claims.csv").exists():
            return "measured" if self.measured(name) else "not measured"
        counts = self._read(f"{name}-claims")["verdict"].value_counts()
        return ", ".join(f"{verdict}: {count}" for verdict, count in counts.items())

    def decided(self) -> str:
        """All claims with a verdict for or against them; empty if there is none."""
        header = ["claim", "paper, dB", "ours, dB", "95 % over blocks", "verdict"]
        rows = []
        for file in sorted(self.results.glob("*-claims.csv")):
            for _, row in pd.read_csv(file).iterrows():
                if row["verdict"] in DECIDED:
                    paper, ours, blocks, *_, verdict = _claim_cells(row)
                    part = re.sub(r"(\d+)-claims", r" \1", file.stem).capitalize()
                    rows.append((f"{part}: {row['claim']}", [paper, ours, blocks, verdict]))
        return grid(header, rows) if rows else ""

    def figure(self, name: str, title: str) -> str:
        """The figure, if it was drawn."""
        file = f"reproduction-{name}.png"
        return f"![{title}](images/{file})\n" if file in self.figures else ""

    def claims(self, name: str) -> str:
        """Every claim of a table: the paper's difference, ours with its intervals, and the verdict."""
        header = [
            "claim",
            "paper, dB",
            "ours, dB",
            "95 % over blocks",
            "95 % over pre-trainings",
            "no low light, dB",
            "blocks",
            "verdict",
        ]
        rows = [(row["claim"], _claim_cells(row)) for _, row in self._read(f"{name}-claims").iterrows()]
        return grid(header, rows)

    def arms(self, name: str, columns: Sequence[str]) -> str:
        """The means of all arms of a table."""
        table = self._read(name)
        shown = [*columns, "run_as"] if "run_as" in table and (table["run_as"] != table["arm"]).any() else list(columns)
        rows = [(label_of(row["arm"]), [_cell(row, column) for column in shown[1:]]) for _, row in table.iterrows()]
        return grid([HEADINGS.get(column, column) for column in shown], rows)

    def history(self, name: str) -> str:
        """How claims of a table stood in earlier rounds, and how they stand now; empty if there was none."""
        before = {
            title: pd.read_csv(file).set_index("claim")
            for folder, title in ROUNDS.items()
            if (file := self.results / "history" / folder / f"{name}-claims.csv").exists()
        }
        if not before:
            return ""
        now = self._read(f"{name}-claims")
        rows = []
        for key, row in now.set_index("claim").iterrows():
            stood = [_stood(group, row) for group in before.values()]
            if any(stood):
                rows.append((str(key), [*(cell or "-" for cell in stood), _statement(row)]))
        return grid(["claim", *before, "now"], rows)

    def rates(self) -> str:
        """PSNR of every arm at every learning rate, the best in bold."""
        table = self._read("rates")
        table["cell"] = [f"**{row.psnr_db:.2f}**" if row.best else f"{row.psnr_db:.2f}" for row in table.itertuples()]
        wide = table.pivot(index="arm", columns="lr", values="cell").reindex(table["arm"].unique()).fillna("-")
        rows = [(label_of(str(arm)), list(cells)) for arm, cells in wide.iterrows()]
        return grid(["trained", *(f"{lr:.3g}" for lr in wide.columns)], rows)

    def rate_blocks(self) -> list[str]:
        """Blocks in which learning rates were compared."""
        return [column for column in self._read("rates") if "/" in column]

    def untuned(self) -> list[str]:
        """Titles of the arms of Tables 5 and 6 that were not trained at the best rate of the ladder."""
        rates = self._read("rates")
        best = rates[rates["best"]].set_index("arm")["lr"]
        tables = [self._read(name) for name in ("table5", "table6") if self.measured(name)]
        used = pd.concat([table.set_index("arm")["lr"].dropna() for table in tables]) if tables else best[:0]
        names = [arm for arm, lr in used.items() if not np.isclose(lr, best.get(arm, np.nan), rtol=1e-3)]
        return [label_of(str(name)) for name in dict.fromkeys(names)]

    def at_edge(self) -> list[str]:
        """Titles of the arms whose best rate is the first or last that was measured."""
        rates = self._read("rates")
        return [label_of(arm) for arm in rates.loc[rates["best"] & rates["edge"], "arm"]]

    def closed(self, arm: str) -> float | None:
        """Share of the gap that an arm of Table 5 closes; None if it was not measured."""
        share = self._read("table5").set_index("arm")["closed"].get(arm, np.nan)
        return None if pd.isna(share) else float(share)

    def below_input(self, arm: str) -> str:
        """Tasks that an arm of Table 5 leaves worse than the degraded input, with the difference in dB."""
        means = self._read("table5").set_index("arm")
        tasks = list(self._read("fig4")["task"].unique()) if self.measured("fig4") else []
        differences = (means.loc[arm, tasks] - means.loc["input", tasks]).astype(float).sort_values()
        return ", ".join(f"{str(task).replace('_', ' ')} {gain:+.1f}" for task, gain in differences.items() if gain < 0)

    def ahead(self, a: str, b: str, column: str) -> str:
        """Difference in dB between the means of two rows of Table 6.

        Args:
            a: Name of one row.
            b: Name of the row that is subtracted.
            column: Column of the table.
        """
        means = self._read("table6").set_index("arm")[column]
        return f"{means[a] - means[b]:+.2f}"

    def common(self, a: str, b: str) -> str:
        """Range of the share of the parameters that two arms of Table 5 have in common."""
        claims = self._read("table5-claims")
        row = claims[(claims["a"] == a) & (claims["b"] == b)].iloc[0]
        least, most = row["least_overlap"], row["most_overlap"]
        return "-" if pd.isna(least) else f"{least:.0%} to {most:.0%}"

    def devices(self, name: str) -> str:
        """On what the runs of a table were computed, and how many on each."""
        networks = self._read(f"{name}-blocks")
        ends = networks[(networks["progress"] == 1.0) & (networks["seed"] != UNTUNED_SEED)]
        counts = ends["device"].value_counts()
        return ", ".join(f"{count} {device}" for device, count in counts.items())

    def made_on(self, name: str) -> str:
        """How many pre-trainings of every variant were made on which device."""
        made = self._read(f"{name}-pretrainings")
        listed = []
        for device, group in made.groupby("device", sort=False):
            counts = group["variant"].value_counts(sort=False)
            listed.append(f"on {device}: " + ", ".join(f"{variant} ({count})" for variant, count in counts.items()))
        caution = f" {BETWEEN_DEVICES}" if len(listed) > 1 else ""
        return f"Pre-trainings {'; '.join(listed)}.{caution}"

    def gap(self) -> str:
        """PSNR and distance of colours before fine-tuning, by task."""
        scores = Store(self.results).scores()
        table = by_network(scores[scores["seed"] == UNTUNED_SEED]).groupby("arm").mean()
        distances = self._read("fig4").groupby(["task", "view"])["distance_255"].mean().unstack()
        views = ["input", "whole", "twins"]
        rows = [
            (
                task,
                [
                    *(f"{table.loc[view, task]:.2f}" for view in views),
                    *(f"{distances.loc[task, view]:.1f}" for view in views),
                ],
            )
            for task in self._read("fig4")["task"].unique()
        ]
        rows.append(
            (
                "mean",
                [
                    *(f"{table.loc[view, ID]:.2f}" for view in views),
                    *(f"{distances[view].mean():.1f}" for view in views),
                ],
            )
        )
        return grid(["task", *(f"{view}, dB" for view in views), *(f"{view}, colours" for view in views)], rows)

    def agreement(self) -> str:
        """Agreement of rankings: between methods on one network, and of each method between networks."""
        pairs = self._read("fig14-agreement")
        same = pairs[pairs["pretrained_a"] == pairs["pretrained_b"]]
        across = pairs[(pairs["pretrained_a"] != pairs["pretrained_b"]) & (pairs["method_a"] == pairs["method_b"])]
        rows = []
        for (a, b), group in same.groupby(["method_a", "method_b"], sort=False):
            rows.append((f"{a} and {b}, same network", _mean_agreement(group)))
        for method, group in across.groupby("method_a", sort=False):
            rows.append((f"{method}, two pre-trainings", _mean_agreement(group)))
        return grid(["rankings", "pairs", "Spearman", "top 10 % in both"], rows)

    def _read(self, name: str) -> pd.DataFrame:
        """A table of the results."""
        return pd.read_csv(self.results / f"{name}.csv")


def _claim_cells(row: pd.Series) -> list[str]:
    """What stands behind a claim."""
    paper = "-" if pd.isna(row["paper_db"]) else f"{row['paper_db']:+.2f}"
    if pd.isna(row["mean_db"]):
        return [paper, "-", "-", "-", "-", "-", f"**{row['verdict']}**"]
    unlit = "-" if pd.isna(row["unlit_db"]) else f"{row['unlit_db']:+.2f} ({_interval(row, 'unlit_')})"
    return [
        paper,
        f"{row['mean_db']:+.2f}",
        _interval(row, ""),
        _interval(row, "pretrainings_"),
        unlit,
        f"{row['blocks']:.0f}",
        _verdict(row),
    ]


def _verdict(row: pd.Series) -> str:
    """The verdict of a claim, and whether it is provisional."""
    provisional = "" if row["tuned"] or row["verdict"] in ("not tested", SAME) else ", provisional"
    return f"**{row['verdict']}**{provisional}"


def _interval(row: pd.Series, name: str) -> str:
    """An interval of a claim; a dash if it has no ends."""
    return between(row[f"low_{name}db"], row[f"high_{name}db"], "+.2f")


def _stood(before: pd.DataFrame, now: pd.Series) -> str:
    """What an earlier table says of a claim about the same arms and column; empty if it says nothing."""
    matching = before[(before["a"] == now["a"]) & (before["b"] == now["b"]) & (before["column"] == now["column"])]
    if not pd.isna(now["matched"]) or not len(matching) or pd.isna(matching["mean_db"].iloc[0]):
        return ""
    return _statement(matching.iloc[0])


def _statement(row: pd.Series) -> str:
    """Difference and verdict in a cell."""
    return f"{row['mean_db']:+.2f}, {row['verdict']}" if pd.notna(row["mean_db"]) else str(row["verdict"])


def _cell(row: pd.Series, column: str) -> str:
    """A value of an arm as it is shown."""
    value = row.get(column)
    if column == "run_as":
        return "" if value == row["arm"] else label_of(str(value))
    return "-" if value is None or pd.isna(value) else format(value, FORMATS.get(column, ".2f"))


def _mean_agreement(pairs: pd.DataFrame) -> list[str]:
    """Number of pairs, mean correlation and mean overlap."""
    return [f"{len(pairs)}", f"{pairs['spearman'].mean():.3f}", f"{pairs['overlap'].mean():.0%}"]
