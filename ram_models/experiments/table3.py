"""Table 3: which share of the pixels is hidden in pre-training?"""

__all__ = ["CLAIMS", "VARIANTS", "main"]

from ram_models.experiments.study.config import Pretraining, Study
from ram_models.experiments.variants import compare
from ram_models.experiments.verdicts.claims import Claim
from ram_models.experiments.verdicts.means import ID

VARIANTS = {f"{ratio:.0%} hidden": Pretraining(0, ratio, short=True) for ratio in (0.2, 0.4, 0.5, 0.6, 0.8)}
"""Pre-trainings by their label in the table."""


CLAIMS = (
    Claim("50 % hidden is better than 80 %", "50% hidden", "80% hidden", ID, 0.20),
    Claim("50 % hidden is better than 20 %", "50% hidden", "20% hidden", ID, 0.0),
    Claim("50 % hidden is better than 40 %", "50% hidden", "40% hidden", ID, 0.07),
    Claim("50 % hidden is better than 60 %", "50% hidden", "60% hidden", ID, 0.02),
)
"""Claims of the table."""


def main(study: Study) -> None:
    """Write table3.csv, table3-claims.csv and table3-pretrainings.csv."""
    compare(study, VARIANTS, CLAIMS)
