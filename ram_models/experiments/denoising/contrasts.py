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
        claims: What is claimed of the arms; p-values are corrected for their number.
        baseline: What is claimed of arms and of the networks that were trained without masks; likewise.
    """

    margin: float
    noises: Mapping[str, Sequence[str]]
    claims: tuple[Claim, ...]
    baseline: tuple[Claim, ...]

    @classmethod
    def read(cls) -> "Contrasts":
        """From the file."""
        fields = yaml.safe_load((Path(__file__).parent / "contrasts.yaml").read_text())
        claims, baseline = (tuple(Claim(**claim) for claim in fields[name]) for name in ("claims", "baseline"))
        return cls(fields["margin"], fields["noises"], claims, baseline)
