"""Which layers of a network to fine-tune, how sure that is, and what it gains."""

__all__ = [
    "DEFAULT",
    "OFFICIAL",
    "PAPER",
    "RANKING",
    "BlurPath",
    "Distance",
    "GradientMagnitude",
    "InternalInfluence",
    "LayerConductance",
    "LayerGradientXActivation",
    "LayerImportance",
    "LayerIntegratedGradients",
    "LayerTable",
    "LinearPath",
    "MaskAttributeConductance",
    "MaskAttributePath",
    "Options",
    "OutputMean",
    "OutputSum",
    "Preset",
    "RankingInterrupted",
    "Selection",
    "SelectionRule",
    "Target",
    "Token",
    "TokenMaskPath",
    "TrainableMask",
    "Window",
    "order_by_score",
    "rank_layers",
    "rank_methods",
    "read_official_ranking",
    "select",
    "write_report",
]

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from macattr.attribution.conductance import LayerConductance, MaskAttributeConductance
    from macattr.attribution.gradients import InternalInfluence, LayerGradientXActivation, LayerIntegratedGradients
    from macattr.layers.table import LayerTable
    from macattr.methods.task import Options
    from macattr.paths.inputs import BlurPath, LinearPath, MaskAttributePath, order_by_score
    from macattr.paths.objectives import Distance, GradientMagnitude, OutputMean, OutputSum, Target, Window
    from macattr.paths.presets import DEFAULT, OFFICIAL, PAPER, RANKING, Preset
    from macattr.paths.tokens import Token, TokenMaskPath
    from macattr.ranking.importance import LayerImportance
    from macattr.ranking.rank import RankingInterrupted, rank_layers, rank_methods
    from macattr.report.page import write_report
    from macattr.selection.official import read_official_ranking
    from macattr.selection.rules import Selection, SelectionRule, select
    from macattr.selection.trainable import TrainableMask

MODULES = MappingProxyType(
    {
        "macattr.attribution.conductance": ("LayerConductance", "MaskAttributeConductance"),
        "macattr.attribution.gradients": (
            "InternalInfluence",
            "LayerGradientXActivation",
            "LayerIntegratedGradients",
        ),
        "macattr.layers.table": ("LayerTable",),
        "macattr.methods.task": ("Options",),
        "macattr.paths.inputs": ("BlurPath", "LinearPath", "MaskAttributePath", "order_by_score"),
        "macattr.paths.objectives": ("Distance", "GradientMagnitude", "OutputMean", "OutputSum", "Target", "Window"),
        "macattr.paths.presets": ("DEFAULT", "OFFICIAL", "PAPER", "RANKING", "Preset"),
        "macattr.paths.tokens": ("Token", "TokenMaskPath"),
        "macattr.ranking.importance": ("LayerImportance",),
        "macattr.ranking.rank": ("RankingInterrupted", "rank_layers", "rank_methods"),
        "macattr.report.page": ("write_report",),
        "macattr.selection.official": ("read_official_ranking",),
        "macattr.selection.rules": ("Selection", "SelectionRule", "select"),
        "macattr.selection.trainable": ("TrainableMask",),
    }
)
"""Public names by the module that defines them."""


def __getattr__(name: str) -> object:
    """A public name, imported when it is first used, so that ``macattr --help`` does not wait for torch."""
    for module, names in MODULES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
