"""The page ``docs/reproduction.md``: every number of the paper that was measured again, and what came out."""

__all__ = ["SECTIONS", "main", "write_page"]

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd

from macattr.atomic_files import write_atomically
from ram_models.evaluation.tables import grid
from ram_models.experiments.page.figures import draw
from ram_models.experiments.study.config import Study
from ram_models.experiments.study.runs import LONGER
from ram_models.experiments.study.store import UNTUNED, Store
from ram_models.experiments.variants import BEFORE
from ram_models.experiments.verdicts.claims import ID, NOISE, by_network


@dataclass(frozen=True)
class Section:
    """A table or figure on the page.

    Args:
        name: Name in ``ram reproduce``, and of its files.
        title: Heading.
        question: What is asked.
        columns: Columns of its table that are shown, in the order of the page.
        figures: Names of its figures.
        note: What a reader must know.
    """

    name: str
    title: str
    question: str
    columns: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    note: str = ""


SHORT_COLUMNS = ("arm", "blocks", *BEFORE.values(), ID, "sd", "ssim")

SHORT_NOTE = (
    "Tables 3, 4 and Fig. 3 are of short pre-trainings, each followed by the same fine-tuning of the top 10 % of "
    "its own ranking; a block is a seed. A table, and the bars of its figure, are over the seeds that all of its "
    "variants have, a claim over those that both of its variants have. Every variant is asked with half of the "
    "pixels hidden, one by one, in *twin masks*, whatever it was trained with. Networks that are no better than "
    "the degraded input after fine-tuning tell which pre-training learns faster, not which ends higher."
)

SECTIONS = (
    Section(
        "fig4", "Fig. 4: the gap of input integrity",
        "Does the network, pre-trained on masked images, fail on whole ones because they are whole?",
        figures=("fig4",),
    ),
    Section(
        "fig14", "Fig. 14: which layers matter",
        "Does MAC see other layers than the paper's IG, and do pre-trainings agree?",
        figures=("fig14-mac", "fig14-ig"),
        note="Rankings over training crops; every score with its interval is in `results/fig14.csv`.",
    ),
    Section(
        "table5", "Table 5: which layers to fine-tune",
        "Is 10 % of the layers by MAC better than by IG or at random, and is it attribution that makes the difference?",
        ("arm", "parameters", "blocks", ID, "closed", "sd", "ssim"), ("table5",),
        "*Equal parameters* are those of MAC's selection. Where a row names another arm under *run as*, both train "
        "nearly the same parameters in every block, and one run stands for both. The authors' procedure, which takes "
        "seven times the steps, was ranked on fewer crops than MAC and IG. *Gap closed* is the share of the way "
        "from the answer to whole images to that with twin masks, in dB. Were most of it (80 %) closed by the map of "
        "colours or by the ends alone, it would matter little which layers are chosen. The claim about the ends was "
        "added when the results were known; it describes, and is not one of those that are corrected for their number.",
    ),
    Section(
        "table6", "Table 6: how many layers to fine-tune",
        "Do fewer layers generalise better to noise that was never trained with, or do they only move less?",
        ("arm", "blocks", "poisson", "pepper", "speckle", NOISE, ID), ("table6",),
        "Pepper noise destroys isolated pixels, as the masks of the pre-training do; Poisson and speckle noise do "
        "not. The degraded input stands beside, because an arm that does nothing would reach it. The baseline was "
        "trained once, from scratch with as many supervised pixels, which is half of the steps. *Where both are as "
        "good*, 10 % is compared with the best of the grey lines: full fine-tuning, of as many or 4 times the "
        "steps, stopped on its way or drawn back towards its start. What is stopped still has a high learning rate, "
        "so that a line may be too low; blocks in which none of them is as good in distribution are left out, and "
        "*blocks* counts the others. Arms with 4 times the steps keep the learning rates of the others. They were "
        "added when it was known that full fine-tuning stays behind in the short runs, all layers first, then, when "
        "these had passed the 10 %, the 10 % too; their claims describe.",
    ),
    Section(
        "rates", "Learning rates",
        "Which learning rate suits which budget?",
        ("arm", "lr", "psnr_db", "best"),
        note="Of runs of half the steps, with a seed that is not used otherwise, on training images that are held "
        "out. Tables 5 and 6 take the best of every budget; where an edge is best by less than 0.05 dB, the middle.",
    ),
    Section("table4", "Table 4: what is predicted in pre-training", "Are pairs better than clean images alone?",
            SHORT_COLUMNS, ("table4",), SHORT_NOTE),
    Section("table3", "Table 3: the share of hidden pixels", "Is half the best?",
            SHORT_COLUMNS, ("table3",)),
    Section("fig3", "Fig. 3: the size of the hidden blocks", "Are single pixels the best?",
            SHORT_COLUMNS, ("fig3",)),
)  # fmt: skip
"""Everything on the page, in its order."""

HEADINGS = {
    "arm": "trained",
    ID: "PSNR, dB",
    "psnr_db": "PSNR on held-out crops, dB",
    "lr": "learning rate",
    "closed": "gap closed",
    "sd": "sd over blocks",
    "ssim": "SSIM",
    "run_as": "run as",
}

FORMATS = {"parameters": ",.0f", "blocks": ".0f", "ssim": ".4f", "closed": ".0%", "lr": ".2g"}
"""How the numbers of a column are written, if not in dB with two digits."""

NAMES = {
    "input": "(degraded input)",
    "whole": "nothing",
    "colours": "nothing, one map of colours (12 numbers)",
    "twins": "nothing, twin masks",
    "all": "all layers",
    LONGER: "all layers, 4 times the steps",
    "masked, all": "all layers, masked pre-training continued, twin masks",
    "pairwise": "all layers, from scratch without masks (baseline)",
}


def main(study: Study) -> None:
    """Draw the figures and write the page from what is in ``results``."""
    mpl.use("Agg")
    page, images = study.docs / "reproduction.md", study.docs / "images"
    images.mkdir(parents=True, exist_ok=True)
    written = [file.name for file in draw(study.results, images)]
    text = write_page(study.results, written).encode()
    write_atomically(page, lambda file: file.write(text))
    print(f"written: {page}, {', '.join(str(images / name) for name in written)}")


def write_page(results: Path, figures: Sequence[str]) -> str:
    """The page in Markdown.

    Args:
        results: Folder of the tables.
        figures: Files that were drawn.
    """
    parts = [INTRODUCTION]
    for section in SECTIONS:
        parts.append(f"## {section.title}\n\n**{section.question}**\n")
        table, claims = results / f"{section.name}.csv", results / f"{section.name}-claims.csv"
        if not table.exists():
            parts.append(f"Not measured yet: `ram reproduce {section.name} --config tiny --data DATA`.\n")
            continue
        if claims.exists():
            parts.append(_claims(pd.read_csv(claims)))
        if section.name == "fig4":
            parts.append(_gap(results))
        if section.name == "fig14":
            parts.append(_agreement(pd.read_csv(results / "fig14-agreement.csv")))
        for name in section.figures:
            if (file := f"reproduction-{name}.png") in figures:
                parts.append(f"![{section.title}](images/{file})\n")
        if section.columns:
            parts.append(_table(pd.read_csv(table), section.columns))
        if section.note:
            parts.append(f"{section.note}\n")
        if section.name in ("table5", "table6"):
            parts.append(f"Runs of Tables 5 and 6 by device: {_devices(Store(results).runs())}.\n")
        if (made := results / f"{section.name}-pretrainings.csv").exists():
            parts.append(f"{_made_on(pd.read_csv(made))}\n")
    return "\n".join(parts)


def _devices(runs: pd.DataFrame) -> str:
    """On what runs were computed, and how many on each; arms that share a run count each."""
    return ", ".join(f"{count} {name}" for name, count in runs["device"].value_counts().items())


def _made_on(made: pd.DataFrame) -> str:
    """How many pre-trainings of every variant were made on which device."""
    listed = []
    for device, of in made.groupby("device", sort=False):
        counts = of["variant"].value_counts(sort=False)
        listed.append(f"on {device}: " + ", ".join(f"{variant} ({count})" for variant, count in counts.items()))
    caution = f" {BETWEEN_DEVICES}" if len(listed) > 1 else ""
    return f"Pre-trainings {'; '.join(listed)}.{caution}"


def _claims(claims: pd.DataFrame) -> str:
    """Every claim: the paper's difference, ours with its interval, and the verdict."""
    rows = []
    for row in claims.itertuples():
        where = "" if row.column == ID or row.column in row.claim.lower() else f" ({row.column})"
        measured = np.isfinite(row.mean_db)
        interval = f"{row.low_db:+.2f} … {row.high_db:+.2f}" if measured and np.isfinite(row.low_db) else "-"
        small = measured and row.equivalent is True and row.verdict == "holds"
        verdict = "holds, but small" if small else row.verdict
        paper = "-" if pd.isna(getattr(row, "paper_db", np.nan)) else f"{row.paper_db:+.2f}"
        blocks = f"{row.blocks:.0f}" if measured else "-"
        agree = f"{row.positive_pretrainings:.0f} of {row.pretrainings:.0f}" if measured else "-"
        ours = f"{row.mean_db:+.2f}" if measured else "-"
        rows.append((row.claim + where, [paper, ours, interval, blocks, agree, f"**{verdict}**"]))
    return grid(["claim", "paper, dB", "ours, dB", "95 % interval", "blocks", "pre-trainings above 0", "verdict"], rows)


def _table(table: pd.DataFrame, columns: Sequence[str]) -> str:
    """The means of all arms."""
    shown = [*columns, "run_as"] if "run_as" in table and (table["run_as"] != table["arm"]).any() else list(columns)
    rows = []
    for _, row in table.iterrows():
        cells = []
        for name in shown[1:]:
            value = row[name]
            if name == "run_as":
                cells.append("" if value == row["arm"] else str(value))
            elif name == "best":
                cells.append("yes" if value else "")
            elif pd.isna(value):
                cells.append("-")
            else:
                cells.append(format(value, FORMATS.get(name, ".2f")))
        rows.append((NAMES.get(row["arm"], row["arm"]), cells))
    return grid([HEADINGS.get(name, name) for name in shown], rows)


def _gap(results: Path) -> str:
    """PSNR and distance of colours before fine-tuning, by task."""
    table = by_network(Store(results).scores()).xs(UNTUNED, level="seed").groupby("arm").mean()
    distances = pd.read_csv(results / "fig4.csv").groupby(["task", "view"])["distance_255"].mean().unstack()
    tasks = list(pd.read_csv(results / "fig4.csv")["task"].unique())
    views = ("input", "whole", "twins")
    rows = [
        (task, [*(f"{table.loc[view, task]:.2f}" for view in views),
                *(f"{distances.loc[task, view]:.1f}" for view in views)])
        for task in tasks
    ]  # fmt: skip
    rows.append(("mean", [*(f"{table.loc[view, ID]:.2f}" for view in views),
                          *(f"{distances[view].mean():.1f}" for view in views)]))  # fmt: skip
    header = ["task", *(f"{view}, dB" for view in views), *(f"{view}, colours" for view in views)]
    text = (
        "PSNR, and how far the colours are from the clean image's (Wasserstein's distance of the values of a channel, "
        "of 255; mean over pre-trainings and images).\n\n"
    )
    return text + grid(header, rows)


def _agreement(pairs: pd.DataFrame) -> str:
    """Agreement of rankings: between methods on one network, and of each method between networks."""
    same = pairs[pairs["pretrained_a"] == pairs["pretrained_b"]]
    across = pairs[(pairs["pretrained_a"] != pairs["pretrained_b"]) & (pairs["method_a"] == pairs["method_b"])]
    rows = []
    for (a, b), of in same.groupby(["method_a", "method_b"], sort=False):
        rows.append((f"{a} and {b}, same network", _mean_agreement(of)))
    for method, of in across.groupby("method_a", sort=False):
        rows.append((f"{method}, two pre-trainings", _mean_agreement(of)))
    return grid(["rankings", "pairs", "Spearman", "top 10 % in both"], rows)


def _mean_agreement(pairs: pd.DataFrame) -> list[str]:
    """Number of pairs, mean correlation and mean overlap."""
    return [f"{len(pairs)}", f"{pairs['spearman'].mean():.3f}", f"{pairs['overlap'].mean():.0%}"]


BETWEEN_DEVICES = (
    "A seed has the same crops and masks on every device, but its first weights may differ with the version of "
    "PyTorch: a comparison between devices is less well paired."
)
"""What is to be known of such a comparison."""

INTRODUCTION = """# Reproduction

RAM ([Qin et al. 2024](https://arxiv.org/abs/2409.19403)) pre-trains a restoration network on images with half of the
pixels hidden, then fine-tunes on whole images the few layers that MAC ranks highest ([theory](theory.md)). This page
holds what the paper says of that against what was measured here, at a size that two processor cores answer in hours: a
RAM-SwinIR of 92 layers ([its card](../ram_models/weights/README.md)). `ram reproduce page` writes it, with its figures,
from the files in `results/`. `ram reproduce NAME --config tiny --data DATA` measures a part again; `--config paper` is
the same at the paper's size.

- An **arm** is one choice of what is fine-tuned. *Ends* are the layers outside of all blocks: the first and last
  convolutions and the outer norms. *IG* is what the paper's Table 5 calls so, internal influence.
- A **block** is one pre-trained network and one seed of fine-tuning. All arms of a block start from the same weights
  and see the same crops with the same degradations in the same order, so that their difference is theirs. Blocks in
  which both arms train nearly the same parameters (90 % or more) say nothing and are left out.
- **PSNR** is the mean over tasks of the mean over images (RGB, 8 bits), the same crops with the same noise for all.
- **Intervals** are Student's, 95 %, over the blocks' differences: they tell what other pre-trainings and other crops
  would do, not what other test images would. Blocks share pre-trainings, so they are somewhat too narrow.
- A claim **holds** if its interval lies above 0 and the mean of every pre-training agrees. It is **falsified** if the
  interval lies below the difference that would matter, 0.05 dB in distribution and 0.2 dB on unseen noise: a gain of
  0.01 dB falsifies "better". Otherwise it is **undecided**; with one block it always is.
"""
