"""Which layers of a network to fine-tune, how sure that is, and what it gains."""

__all__ = [
    "DEFAULT",
    "OFFICIAL",
    "PAPER",
    "RANKING",
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
    "OutputMean",
    "OutputSum",
    "Preset",
    "RankingInterrupted",
    "Selection",
    "SelectionRule",
    "Target",
    "TrainableMask",
    "Window",
    "rank_layers",
    "read_official_ranking",
    "select",
]

from macattr.attribution import (
    InternalInfluence,
    LayerConductance,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    MaskAttributeConductance,
)
from macattr.importance import LayerImportance, RankingInterrupted, rank_layers
from macattr.layers import LayerTable
from macattr.objectives import Distance, GradientMagnitude, OutputMean, OutputSum, Target, Window
from macattr.paths import LinearPath, MaskAttributePath
from macattr.presets import DEFAULT, OFFICIAL, PAPER, RANKING, Preset, read_official_ranking
from macattr.selection import Selection, SelectionRule, select
from macattr.trainable import TrainableMask
