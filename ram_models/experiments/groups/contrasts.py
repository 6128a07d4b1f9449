"""What was claimed before the groups were trained: ``contrasts.yaml``, beside this module."""

__all__ = ["Contrasts"]

from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Contrasts:
    """The fields of ``contrasts.yaml``.

    Args:
        additive: Methods whose scores are sums over parameters.
        claims: Pairs of methods ``a`` and ``b``: a predicts the gains better than b, and ``why`` that was expected.
        fillers: Methods that may fill a budget behind the small groups.
    """

    additive: list[str]
    claims: list[dict[str, str]]
    fillers: list[str]

    @classmethod
    def read(cls) -> "Contrasts":
        """From the file."""
        return cls(**yaml.safe_load((Path(__file__).parent / "contrasts.yaml").read_text()))
