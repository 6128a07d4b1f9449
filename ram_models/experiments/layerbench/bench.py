"""LayerBench: what do layers that a method chooses gain? ``ram bench --data FOLDER``.

Real pre-trained networks meet photographs or texts that they were not made for. Every method chooses layers within a
budget of parameters, these are fine-tuned for a moment, and the gain in quality is compared with that of all layers.
Everything measured is written to ``results`` at once, so a stopped bench continues where it was; docs/layerbench.md
shows what came out.
"""

__all__ = ["Config", "main"]

import hashlib
import runpy
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tqdm.auto import tqdm

from macattr.methods.provenance import hash_parameters
from ram_models.experiments.layerbench import challengers, controls, rankings
from ram_models.experiments.layerbench.choices import Choice
from ram_models.experiments.layerbench.ledger import ANY_SEED, Ledger
from ram_models.experiments.layerbench.methods import METHODS, Method, Scores, choose
from ram_models.experiments.layerbench.networks import NETWORKS, PROBLEMS
from ram_models.experiments.layerbench.page import write_page
from ram_models.experiments.layerbench.photographs import Photographs
from ram_models.experiments.layerbench.problems import Judge, Problem, Source
from ram_models.experiments.layerbench.rates import CLASSES, rate_class, representative, tune
from ram_models.experiments.layerbench.texts import TASKS, Texts
from ram_models.experiments.layerbench.training import train

BUILT_IN = (rankings.RANKED, controls.ALL, challengers.SMALL_FIRST)
"""What importing these modules registers."""

RANKING_SEED, RATES_SEED = 1000, 97
"""Seeds of the crops that layers are ranked on, and of those that rates are compared with."""


@dataclass(frozen=True)
class Config:
    """Options of the bench.

    Args:
        data: Folder with train/BSDS500 and test/CBSD68 in it; neither texts nor the page alone need it.
        networks: Names of networks; empty for all.
        seeds: Seeds of the crops.
        budgets: Largest shares of the parameters that are trained.
        methods: Python files that register further methods.
        results: Folder of the tables; what stands there is never measured again.
        docs: Folder of the page and, in images/, of its figure; null writes none.
        run: Whether anything is measured; false writes the page from what is there.
    """

    data: Path | None = None
    networks: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [10, 11, 12])
    budgets: list[float] = field(default_factory=lambda: [0.05, 0.1, 0.2])
    methods: list[Path] = field(default_factory=list)
    results: Path = Path("results/layerbench")
    docs: Path | None = Path("docs")
    run: bool = True

    def __post_init__(self) -> None:
        if unknown := [name for name in self.networks if name not in NETWORKS]:
            raise ValueError(f"`networks` has no {unknown[0]!r}: choose from {', '.join(NETWORKS)}.")
        if own := [seed for seed in self.seeds if seed in (RATES_SEED, RANKING_SEED)]:
            raise ValueError(
                f"`seeds` must not hold {own[0]}: rates are compared on the crops of {RATES_SEED}, layers are ranked "
                f"on those of {RANKING_SEED}."
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"`seeds` {self.seeds} holds one twice, which would count as two blocks.")
        if bad := [budget for budget in self.budgets if not 0 < budget < 1]:
            raise ValueError(f"`budgets` must be shares in (0, 1), got {bad[0]}: all layers are trained in any case.")
        if self.run and self.data is None and not all(shift in TASKS for _, shift in self.problems):
            raise ValueError("`data` must be a folder with train/BSDS500 and test/CBSD68 in it, got none.")

    @property
    def problems(self) -> list[tuple[str, str]]:
        """Pairs of a network and a shift that are asked for."""
        return [problem for problem in PROBLEMS if not self.networks or problem[0] in self.networks]


def main(config: Config) -> None:
    """Measure what is missing, block by block, and write the page."""
    for file in config.methods:
        runpy.run_path(str(file))
    ledger = Ledger(config.results)
    if config.run:
        sources: dict[bool, Source] = {True: Texts()}
        if config.data is not None:
            sources[False] = Photographs(config.data)
        for seed in config.seeds:
            for network, shift in config.problems:
                _Block(ledger, sources[shift in TASKS], network=network, shift=shift, seed=seed).run(config.budgets)
    if config.docs is not None:
        for file in write_page(config.results, config.docs):
            print(f"written: {file}")


@dataclass(frozen=True)
class _Block:
    """A network, a shift and a seed."""

    ledger: Ledger
    source: Source
    network: str
    shift: str
    seed: int

    def run(self, budgets: list[float]) -> None:
        """Choose, tune and run what is missing."""
        choices = list(self._choices(budgets))
        done = self.ledger.refuse_others("runs", self.made_with, **self._key(self.seed))
        finished = set(zip(done["trained"], done["lr"], strict=True))
        lrs = {choice.key: self.lr(choice) for choice in choices}
        waiting = [choice for choice in choices if (choice.key, lrs[choice.key]) not in finished]
        for choice in tqdm(waiting, f"{self.network} {self.shift} {self.seed}", unit="run", disable=not waiting):
            self._run(choice, lrs[choice.key])

    def _choices(self, budgets: list[float]) -> Iterator[Choice]:
        """Every set that is trained in this block, once; all layers first."""
        seen: set[str] = set()
        methods = sorted(METHODS.values(), key=lambda method: method.name != controls.ALL)
        for method in methods:
            if not method.applies(self.ranked):
                continue
            for draw in range(method.draws):
                for budget in [1.0] if method.name == controls.ALL else budgets:
                    trained = self._chosen(method, draw, budget)
                    if trained and trained not in seen:
                        seen.add(trained)
                        yield self.ledger.choice(self.network, trained)

    def _chosen(self, method: Method, draw: int, budget: float) -> str:
        """Key of what a method trains within a budget, chosen now if it was not before; empty if nothing fits."""
        seed = self.seed if method.draws > 1 else ANY_SEED
        asked = (self.problem if method.draws > 1 else self.ranked).drawn(draw)
        rows = self.ledger.refuse_others("choices", self.made_with, **self._key(seed), method=method.name, draw=draw)
        if len(rows := rows[rows["budget"] == budget]):
            return str(rows["trained"].iloc[0])
        scores, seconds = self._scores(method, asked)
        began = time.process_time()
        choice = choose(method, asked, budget, scores)
        seconds += 0.0 if scores else time.process_time() - began
        if choice is not None:
            self.ledger.remember(self.network, choice, asked.total, choice.apply(asked.build()))
        row = {
            **self._key(seed),
            "method": method.name,
            "draw": draw,
            "budget": budget,
            "trained": choice.key if choice else "",
            "seconds": seconds,
            "made_with": self.made_with,
        }
        self.ledger.add("choices", [row])
        return choice.key if choice else ""

    def _scores(self, method: Method, asked: Problem) -> tuple[Scores | None, float]:
        """Scores of the layers, with the processor time that they took; those without draws are kept."""
        if method.score is None:
            return None, 0.0
        key = {"network": self.network, "shift": self.shift, "method": method.name}
        kept = self.ledger.refuse_others("scores", self.made_with, **key)
        if len(kept):
            return dict(zip(kept["layer"], kept["score"], strict=True)), float(kept["seconds"].iloc[0])
        began = time.process_time()
        scores = method.score(asked)
        seconds = time.process_time() - began
        if method.draws == 1:
            rows = [
                {**key, "layer": layer, "score": score, "seconds": seconds, "made_with": self.made_with}
                for layer, score in scores.items()
            ]
            self.ledger.add("scores", rows)
        return scores, seconds

    def lr(self, choice: Choice) -> float:
        """Learning rate of a choice: that of its class, tuned now if it was not before."""
        sets = self.ledger.table("sets")
        share = sets[(sets["network"] == self.network) & (sets["trained"] == choice.key)]["share"].iloc[0]
        name = rate_class(choice.kind, float(share))
        problem, standard = self.tuning, representative(self.tuning, name)
        key: dict[str, object] = {"network": self.network, "shift": self.shift, "kind": name}
        known = self.ledger.refuse_others("rates", self.made_with, **key)
        values: dict[float, float] = dict(zip(known["lr"], known["validation_db"], strict=True))

        def measure(lr: float) -> float:
            if lr not in values:
                values[lr] = self._tuned(problem, standard, lr, self.validation)[0]
                row = {**key, "lr": lr, "validation_db": values[lr], "trained": standard.key}
                self.ledger.add("rates", [{**row, "made_with": self.made_with}])
            return values[lr]

        return tune(measure, CLASSES[name])

    def _run(self, choice: Choice, lr: float) -> None:
        """Train a set and write what it gained."""
        after, seconds = self._tuned(self.problem, choice, lr, self.test)
        row = {
            **self._key(self.seed),
            "trained": choice.key,
            "lr": lr,
            "before_db": self.before,
            "after_db": after,
            "steps": self.problem.training.steps,
            "seconds": seconds,
            "precision": self.problem.training.precision,
            "made_with": self.made_with,
        }
        self.ledger.add("runs", [row])

    def _tuned(self, problem: Problem, choice: Choice, lr: float, quality: Judge) -> tuple[float, float]:
        """Quality after a fine-tuning, and its processor time; minus infinity if it diverged."""
        network, began = problem.build(), time.process_time()
        try:
            train(network, choice, problem.batch, problem.training, lr)
        except FloatingPointError:
            return float("-inf"), time.process_time() - began
        return quality(network), time.process_time() - began

    def _key(self, seed: int) -> dict[str, object]:
        """Columns that tell the block."""
        return {"network": self.network, "shift": self.shift, "seed": seed}

    @cached_property
    def problem(self) -> Problem:
        """What is fine-tuned."""
        return self.source.problem(NETWORKS[self.network], self.shift, self.seed)

    @cached_property
    def ranked(self) -> Problem:
        """What methods without draws are asked, the same for every seed."""
        return self.source.problem(NETWORKS[self.network], self.shift, RANKING_SEED)

    @cached_property
    def tuning(self) -> Problem:
        """What rates are compared on, the same for every seed."""
        return self.source.problem(NETWORKS[self.network], self.shift, RATES_SEED)

    @cached_property
    def test(self) -> Judge:
        """Judge of the runs."""
        return self.source.test(self.shift)

    @cached_property
    def validation(self) -> Judge:
        """Judge of the rates."""
        return self.source.validation(self.shift)

    @cached_property
    def before(self) -> float:
        """Quality before fine-tuning."""
        return self.test(self.problem.build())

    @cached_property
    def made_with(self) -> str:
        """Hash of everything that the numbers of this network depend on."""
        network, training = NETWORKS[self.network], self.problem.training
        parts = (
            hash_parameters(network.build()),
            self.source.words(self.shift),
            network.crop,
            network.batch,
            training.steps,
            training.warmup,
            training.precision,
            self.source.settings(),
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
