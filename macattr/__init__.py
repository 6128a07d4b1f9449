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
    "TrainableMask",
    "Window",
    "order_by_score",
    "rank_layers",
    "rank_methods",
    "read_official_ranking",
    "select",
    "write_report",
]

from macattr.attribution import (
    InternalInfluence,
    LayerConductance,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    MaskAttributeConductance,
)
from macattr.layers import LayerTable
from macattr.methods.task import Options
from macattr.paths.inputs import BlurPath, LinearPath, MaskAttributePath, order_by_score
from macattr.paths.objectives import Distance, GradientMagnitude, OutputMean, OutputSum, Target, Window
from macattr.paths.presets import DEFAULT, OFFICIAL, PAPER, RANKING, Preset
from macattr.ranking.importance import LayerImportance
from macattr.ranking.rank import RankingInterrupted, rank_layers, rank_methods
from macattr.report.page import write_report
from macattr.selection.official import read_official_ranking
from macattr.selection.rules import Selection, SelectionRule, select
from macattr.selection.trainable import TrainableMask
