"""Problems with texts: docstrings that a language model sorts into classes, its new last layer fitted beforehand."""

__all__ = [
    "JUDGED",
    "TASKS",
    "Certainty",
    "Task",
    "Texts",
]

import copy
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from macattr.methods.task import Options
from macattr.paths.tokens import TokenMaskPath
from ram_models.experiments.layerbench import training
from ram_models.experiments.layerbench.docstrings import CLASSES, PACKAGES, Example, by_package, by_section
from ram_models.experiments.layerbench.networks import Pretrained
from ram_models.experiments.layerbench.problems import Problem, Sample
from ram_models.experiments.layerbench.training import Batch, Training
from ram_models.networks.minilm import TextClassifier, tokenize
from ram_models.seeds import seeded

RANKED = 8
"""Texts that layers are ranked on."""

JUDGED, HELD_OUT, PROBED = 320, 160, 1000
"""Texts that networks are judged by, that rates are compared on, and that the last layer is fitted to."""

DECAY = 1e-3
"""Weight decay of that fit."""

PARTS = MappingProxyType({"test": range(20), "validation": range(20, 30), "train": range(30, 100)})
"""Hundredths of the functions and classes that a split speaks of."""

LONGEST = 24
"""Tokens of a text; longer ones are cut."""

MASK, EMBEDDING = 103, "encoder.embeddings.word_embeddings"
"""Number of the token that stands for a hidden one, and the layer at whose output paths run."""


@dataclass(frozen=True)
class Task:
    """Classes of texts that a network was not made for.

    Args:
        name: In results.
        words: On the page.
        examples: All texts.
    """

    name: str
    words: str
    examples: Callable[[], tuple[Example, ...]]


TASKS: Mapping[str, Task] = MappingProxyType(
    {
        task.name: task
        for task in (
            Task(
                "package",
                f"first sentences of docstrings: from {', '.join(PACKAGES[:-1])} or {PACKAGES[-1]}",
                by_package,
            ),
            Task(
                "section",
                "sentences of docstrings: from the summary, the parameters, the results or the notes",
                by_section,
            ),
        )
    }
)
"""Every task by its name."""


@dataclass(frozen=True)
class Certainty:
    """Judges classifiers by fixed texts.

    Args:
        tokens: Numbers of the tokens (b, n).
        labels: Classes (b,).
    """

    tokens: Tensor
    labels: Tensor

    @torch.no_grad()
    def __call__(self, network: nn.Module) -> float:
        """-10 log10 of the mean cross-entropy, in dB.

        Args:
            network: In eval mode; runs in float32.
        """
        network.eval()
        logits = torch.cat([network(part) for part in self.tokens.split(50)])
        return float(-10 * F.cross_entropy(logits.float(), self.labels).log10())


class Texts:
    """The texts of the bench: all of one function or class are in one split."""

    def settings(self) -> tuple[object, ...]:
        """What all numbers depend on beside networks and shifts; the texts change with the versions of packages."""
        texts = [example.text for task in TASKS.values() for example in task.examples()]
        return RANKED, JUDGED, HELD_OUT, PROBED, DECAY, LONGEST, hashlib.sha256("\n".join(texts).encode()).hexdigest()

    def words(self, shift: str) -> str:
        """A task as the page describes it.

        Args:
            shift: Its name in :data:`TASKS`.
        """
        return TASKS[shift].words

    def test(self, shift: str) -> Certainty:
        """Judge by the test split.

        Args:
            shift: Name of the task.
        """
        return Certainty(*_fixed(shift, "test", JUDGED))

    def validation(self, shift: str) -> Certainty:
        """Judge by texts that are never trained on.

        Args:
            shift: Name of the task.
        """
        return Certainty(*_fixed(shift, "validation", HELD_OUT))

    def problem(self, network: Pretrained, shift: str, seed: int) -> Problem:
        """A network before a task.

        Args:
            network: Which.
            shift: Name of the task.
            seed: Of the texts.
        """
        tokens, labels = _drawn(shift, "ranked", seed, RANKED)
        samples: list[Sample] = [
            {"input_ids": tokens[[index]], "target": labels[[index]], "name": f"text {index}"}
            for index in range(RANKED)
        ]
        how = Training(training.LENGTH, precision=network.precision, channels_last=False, loss=F.cross_entropy)
        return Problem(
            network.name,
            shift,
            seed,
            build=partial(_fitted, network, shift),
            samples=samples,
            batch=cache(lambda step: _drawn(shift, f"{step}", seed, network.batch)),
            training=how,
            restores=False,
            options=Options(loss=F.cross_entropy, objective="loss", path=TokenMaskPath(token=MASK), at=EMBEDDING),
        )


@cache
def _split(shift: str, name: str) -> tuple[tuple[Example, ...], ...]:
    """The texts of a split by class."""
    texts = [example for example in TASKS[shift].examples() if _number(example.owner) % 100 in PARTS[name]]
    return tuple(tuple(example for example in texts if example.label == label) for label in range(CLASSES))


def _number(text: str) -> int:
    """A large number that depends on a text alone."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)


def _fixed(shift: str, split: str, count: int) -> Batch:
    """So many texts of a split, as many of each class."""
    shuffled = [sorted(texts, key=lambda example: _number(example.text)) for texts in _split(shift, split)]
    return _as_batch([example for texts in shuffled for example in texts[: count // CLASSES]])


def _drawn(shift: str, name: str, seed: int, count: int) -> Batch:
    """So many random texts of the training split, as many of each class."""
    source = seeded(f"{shift} {name}", seed)
    classes = _split(shift, "train")
    chosen = [classes[index % CLASSES] for index in range(count)]
    return _as_batch([texts[int(torch.randint(len(texts), (), generator=source))] for texts in chosen])


def _as_batch(examples: list[Example]) -> Batch:
    """Tokens and classes."""
    return tokenize([example.text for example in examples], LONGEST), torch.tensor(
        [example.label for example in examples]
    )


def _fitted(network: Pretrained, shift: str) -> nn.Module:
    """The network with a last layer for the task."""
    return copy.deepcopy(_classifier(network, shift))


@cache
def _classifier(network: Pretrained, shift: str) -> nn.Module:
    """The same, made once: the last layer is a logistic regression on what the network gives as it comes."""
    classifier = TextClassifier(network.build(), CLASSES).eval()
    tokens, labels = _fixed(shift, "train", PROBED)
    with torch.no_grad():
        features = torch.cat([classifier.embed(part) for part in tokens.split(50)])
        for parameter in classifier.head.parameters():
            parameter.zero_()
    optimiser = torch.optim.LBFGS(classifier.head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(classifier.head(features), labels) + DECAY * classifier.head.weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    classifier.zero_grad()
    return classifier
