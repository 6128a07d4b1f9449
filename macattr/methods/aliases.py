"""Names that people type for methods of the field: what there is in their place, or why there is nothing."""

__all__ = ["ALIASES", "explain_alias"]

import re
from collections.abc import Mapping

RANKS = "it chooses ranks or first values of adapters, not layers: pass scores to `lora_config` (taylor, kappa)."
LOOP = "it changes the trained layers while training, so there is no score beforehand; fisher and taylor rank once."
PIXELS = "it explains pixels or classes of an image, not layers;"

ALIASES: Mapping[tuple[str, ...], str] = {
    ("ig", "integratedgradients"): "two methods have that name: internal_influence (the 'IG' of RAM's Table 5: mean "
    "gradient, without the change of the output) and layer_ig (integrated gradients in each layer's own space).",
    ("lig", "layerig", "layerintegratedgradients"): "write layer_ig: integrated gradients in each layer's own space.",
    ("ii", "influence"): "write internal_influence: the mean gradient along the line from the reference input.",
    ("lc", "layerconductance", "neuronconductance"): "write conductance: the line from the reference input; mac is the "
    "same along the mask path.",
    ("maskattributeconductance",): "write mac.",
    ("gradcam", "cam", "gradcamplusplus", "layergradcam", "guidedgradcam", "scorecam", "eigencam"): f"{PIXELS} the "
    "nearest score of a layer is grad_x_activation.",
    ("saliency", "smoothgrad", "deconvolution", "guidedbackprop", "lrp", "occlusion", "lime", "rise"): f"{PIXELS} "
    "conductance and grad_x_activation attribute to layers.",
    ("deeplift", "layerdeeplift", "shap", "gradientshap", "deepliftshap", "layergradientshap"): "not here: conductance "
    "attributes the same change of the output by integration; Captum has DeepLift and SHAP.",
    ("inputxgradient", "gradxinput", "gradientxactivation", "layergradientxactivation"): "write grad_x_activation.",
    ("atp", "attributionpatching", "activationpatching", "patching", "eap", "causaltracing"): "write "
    "attribution_patching: the first-order effect of putting the masked run's output in place.",
    ("snip", "synflow", "grasp"): "it scores single weights for pruning before training; taylor is the same product "
    "|weight x gradient|, as a mean over a layer and over the images.",
    ("sensitivity", "firstordertaylor", "gora", "importance"): "write taylor: mean |weight x mean gradient|.",
    ("wanda", "sparsegpt", "gptq", "awq", "obs", "obd"): "it decides weights within one layer (pruning, quantisation) "
    "and does not compare layers; taylor and fisher do.",
    ("ewc", "empiricalfisher", "fim", "fisherinformation", "fish", "fishmask"): "write fisher: the diagonal of the "
    "empirical Fisher information, summed over a layer.",
    ("hessian", "hawq", "hessiantrace", "curvature"): "no second derivatives here: fisher is the usual stand-in, and "
    "equals the expected Hessian where the loss is a log-likelihood at its optimum.",
    ("gradnorm", "gradientnorm", "autorgn", "surgical", "surgicalfinetuning"): "write rgn (norm of the gradient over "
    "norm of the weights) or snr: both are those of surgical fine-tuning.",
    ("autosnr", "signaltonoise"): "write snr (gradients over images), or spectrum (singular values of the weights).",
    ("kappatune", "conditionnumber", "cond", "svd"): "write kappa: 1 / condition number of the weights, no images.",
    ("spectrumsnr", "marchenkopastur", "weightwatcher", "alpha"): "write spectrum: signal-to-noise ratio of the "
    "singular values, a top share of every type.",
    ("blockinfluence", "bi", "shortgpt", "lim", "cosinesimilarity"): "write cosine: 1 - cosine of a block's input and "
    "output.",
    ("centeredkernelalignment", "centredkernelalignment", "representationsimilarity", "hsic"): "write cka.",
    ("igulora", "igu", "parameterig", "weightig"): "write faig, with weights of 0 as `start_weights`: integrated "
    "gradients of the parameters along a joint path.",
    ("l1", "l2", "weightnorm", "norm", "weight"): "write magnitude: mean |weight|.",
    ("last", "lastlayers", "firstlayers", "lpft"): "write depth, which ranks the first layers first; for the last ones "
    "name them in the selection (`include`).",
    ("loraga", "lora", "eva", "corda", "pissa", "olora", "loftq", "milora"): RANKS,
    ("adalora", "lisa", "ows", "badam", "galore", "autofreeze"): LOOP,
}
"""Hints by all spellings of a name, in small letters without anything else."""


def explain_alias(name: str) -> str:
    """What there is in place of a method of the field; '' for a name that is not known.

    Args:
        name: Name in any spelling.

    Example:
        >>> explain_alias("Grad-CAM")
        'it explains pixels or classes of an image, not layers; the nearest score of a layer is grad_x_activation.'
    """
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return next((hint for spellings, hint in ALIASES.items() if plain in spellings), "")
