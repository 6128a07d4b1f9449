"""Table 4: is it better to pre-train on pairs, or on clean images alone?"""

__all__ = ["CLAIMS", "VARIANTS", "main"]

from ram_models.experiments.study.config import Pretraining, Study
from ram_models.experiments.variants import compare
from ram_models.experiments.verdicts.claims import Claim
from ram_models.experiments.verdicts.means import ID

VARIANTS = {
    "paired": Pretraining(0, short=True),
    "ground truth only": Pretraining(0, target="ground_truth", short=True),
}
"""Pre-trainings by their label in the table."""


CLAIMS = (Claim("pairs are better than clean images alone", "paired", "ground truth only", ID, 0.66),)
"""Claims of the table."""


def main(study: Study) -> None:
    """Write table4.csv, table4-claims.csv and table4-pretrainings.csv."""
    compare(study, VARIANTS, CLAIMS)
