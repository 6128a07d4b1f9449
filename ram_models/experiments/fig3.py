"""Fig. 3: how large are the blocks that pre-training hides?"""

__all__ = ["CLAIMS", "VARIANTS", "main"]

from ram_models.experiments.study.config import Pretraining, Study
from ram_models.experiments.variants import compare
from ram_models.experiments.verdicts.claims import Claim
from ram_models.experiments.verdicts.means import ID

VARIANTS = {f"{side}x{side}": Pretraining(0, patch_size=side, short=True) for side in (1, 4, 8)}
"""Pre-trainings by their label in the figure."""


CLAIMS = tuple(Claim(f"1x1 is better than {side}", "1x1", side, ID) for side in ("4x4", "8x8"))
"""Claims of the figure."""


def main(study: Study) -> None:
    """Write fig3.csv, fig3-claims.csv and fig3-pretrainings.csv."""
    compare(study, VARIANTS, CLAIMS)
