"""What was claimed before the networks were trained: ``contrasts.yaml``, beside this module."""

__all__ = ["Contrasts"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from ram_models.experiments.verdicts.claims import Claim


@dataclass(frozen=True)
class Contrasts:
    """The fields of ``contrasts.yaml``.

    Args:
        margin: Largest difference in dB that would not matter.
        noises: Unseen noises that are held against trained noise: means of these, by name.
        claims: What is claimed; p-values are corrected for their number.
    """

    margin: float
    noises: Mapping[str, Sequence[str]]
    claims: tuple[Claim, ...]

    @classmethod
    def read(cls) -> "Contrasts":
        """From the file."""
        fields = yaml.safe_load((Path(__file__).parent / "contrasts.yaml").read_text())
        return cls(fields["margin"], fields["noises"], tuple(Claim(**claim) for claim in fields["claims"]))
