"""What is trained: a set of parameters of a network, or low-rank adapters."""

__all__ = ["Choice", "fill", "of_layers"]

import hashlib
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from macattr.layers.table import LayerTable
from macattr.selection.lora import lora_config
from macattr.selection.rules import SelectionRule, select
from macattr.selection.trainable import TrainableMask, train_only


@dataclass(frozen=True)
class Choice:
    """What of a network is trained.

    Args:
        parameters: Names of its parameters; with adapters, none.
        adapted: Layers that get adapters.
        budget: Number of parameters of all adapters; 0 without any.
        kind: Of the learning rate: ``layers`` share one by the number of parameters, ``affine`` (vectors alone) and
            ``adapters`` have others.
    """

    parameters: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()
    budget: int = 0
    kind: str = field(default="layers", compare=False)

    @property
    def key(self) -> str:
        """What tells it from other choices: 12 hexadecimal digits of the set, whatever the order."""
        text = f"{sorted(self.parameters)} {sorted(self.adapted)} {self.budget}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def words(self) -> str:
        """Names of what is trained, with blanks between."""
        return " ".join(self.parameters or self.adapted)

    def apply(self, network: nn.Module) -> int:
        """Make this trainable and nothing else.

        Args:
            network: Changed in place; adapters are put into it.

        Returns:
            Number of parameters that are trained.
        """
        if not self.adapted:
            return train_only(network, list(self.parameters), len(self.parameters)).trained
        from peft import inject_adapter_in_model

        config = lora_config(TrainableMask(self.adapted), network, parameters=self.budget, scores=_alike(self.adapted))
        inject_adapter_in_model(config, network)
        return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def _alike(layers: Collection[str]) -> dict[str, float]:
    """The same score for all, so that ranks share the budget."""
    return dict.fromkeys(layers, 1.0)


def of_layers(network: nn.Module, layers: Sequence[str]) -> Choice:
    """The parameters that a mask trains for these layers.

    Args:
        network: Which.
        layers: Names of layers.
    """
    return Choice(tuple(TrainableMask(tuple(layers)).parameter_names(network)))


def fill(
    scores: Mapping[str, float] | Sequence[str], network: nn.Module, table: LayerTable, budget: float
) -> Choice | None:
    """The layers that fill a budget in the order of a ranking, as the library's rule by parameters takes them.

    Args:
        scores: Score of every layer, or their names, best first.
        network: Which.
        table: Its layers.
        budget: Largest share of the network's parameters, in (0, 1].

    Returns:
        Never more than the budget; None if no layer fits into it.
    """
    rule = SelectionRule(budget, by="parameters", over=0.0)
    with warnings.catch_warnings(
        action="ignore"
    ):  # small networks rarely fill a budget: the table shows what is trained
        layers = select(scores, table, rule).layers
    return of_layers(network, layers) if table.count(layers) <= budget * table.total else None
