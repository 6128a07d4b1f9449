"""Which layers of a network to fine-tune, how sure that is, and what it gains."""

from macattr.attribution import (
    InternalInfluence,
    LayerConductance,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    MaskAttributeConductance,
)
