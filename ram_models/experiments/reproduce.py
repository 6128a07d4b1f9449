"""Measure a table or figure of the paper again: ``ram reproduce table5 --config tiny --data FOLDER``.

``tiny`` is the size of a laptop, ``paper`` that of the paper; docs/reproduction.md shows what came out. Every finished
run is written to ``results`` at once, so a stopped study continues where it was.
"""

__all__ = ["Config", "main"]

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ram_models.experiments import card, fig3, fig4, fig14, rates, table3, table4, table5, table6
from ram_models.experiments.denoising import denoising
from ram_models.experiments.groups import groups
from ram_models.experiments.page import page
from ram_models.experiments.study.config import Study as Config

EXPERIMENTS: Mapping[str, Callable[[Config], None]] = MappingProxyType(
    {
        "card": card.main,
        "denoising": denoising.main,
        "fig3": fig3.main,
        "fig4": fig4.main,
        "fig14": fig14.main,
        "groups": groups.main,
        "page": page.main,
        "rates": rates.main,
        "table3": table3.main,
        "table4": table4.main,
        "table5": table5.main,
        "table6": table6.main,
    }
)
"""Everything that can be measured again, by name."""


def main(config: Config) -> None:
    """Run what is missing and write the tables."""
    EXPERIMENTS[config.what](config)
