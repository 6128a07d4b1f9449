"""Measure a table or figure of the paper again: ``ram reproduce table5 --config tiny --data FOLDER``.

``tiny`` is the size of a laptop, ``paper`` that of the paper; docs/reproduction.md shows what came out. Every finished
run is written to ``results`` at once, so a stopped study continues where it was.
"""

__all__ = ["Config", "main"]

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ram_models.experiments import card, fig4, fig14, page, pretrainings, rates, table5, table6
from ram_models.experiments.study import Study as Config

EXPERIMENTS: Mapping[str, Callable[[Config], None]] = MappingProxyType(
    {
        "card": card.main,
        "fig3": pretrainings.fig3,
        "fig4": fig4.main,
        "fig14": fig14.main,
        "page": page.main,
        "rates": rates.main,
        "table3": pretrainings.table3,
        "table4": pretrainings.table4,
        "table5": table5.main,
        "table6": table6.main,
    }
)
"""Everything that can be measured again, by name."""


def main(config: Config) -> None:
    """Run what is missing and write the tables."""
    EXPERIMENTS[config.what](config)
