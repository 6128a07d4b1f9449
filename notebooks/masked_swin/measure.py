"""Measure rankings of the small masked Swin on photographs that it was not trained on: completeness and certainty.

    python notebooks/masked_swin/measure.py PHOTOGRAPHS

prints the tables of README.md: how much of the objective's change the sums miss, by groups and steps of the path, and
how far rankings agree over images and with those of the same network with random weights. PHOTOGRAPHS is the folder
that the network was trained on; the ones that were held out are used.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from train import CONFIG, HELD_OUT, Crops, read_photographs
from transformers import SwinConfig, SwinForMaskedImageModeling

import macattr
from macattr.statistics.agreement import spearman
from macattr.statistics.ranks import top_count

OBJECTIVES = ("masked_loss", "norm")


def residuals(network: nn.Module, samples: list[dict[str, torch.Tensor]], objective: str) -> pd.DataFrame:
    """What the sums over the mask miss, in the median over images (largest), by groups and steps.

    Relative to the net change of the objective, and to all its ups and downs along the path.
    """
    rows = []
    for groups in (1, 3, 5):
        for steps in (30, 60, 120, 240):
            path = macattr.TokenMaskPath(groups=groups)
            found = macattr.rank_layers(
                network, samples, layers="decoder.0", path=path, objective=objective, n_steps=steps
            ).dataset
            change = np.abs(found["objective_end"] - found["objective_start"])
            missed = np.abs(found["input_residual"])
            shares = {"of the change": missed, "of ups and downs": missed * change / found["objective_variation"]}
            words = {name: f"{float(np.median(s)):.2%} ({float(s.max()):.2%})" for name, s in shares.items()}
            rows.append({"groups": groups, "steps": steps} | words)
    return pd.DataFrame(rows)


def rank(network: nn.Module, samples: list[dict[str, torch.Tensor]], objective: str) -> macattr.LayerImportance:
    """Ranking along 60 steps in one group, without position biases, which never change."""
    layers = [
        name
        for name, module in network.named_modules()
        if "relative_position" not in name and any(True for _ in module.parameters(recurse=False))
    ]
    path = macattr.TokenMaskPath(groups=1)
    return macattr.rank_layers(network, samples, layers=layers, path=path, objective=objective, n_steps=60)


def certainty(importance: macattr.LayerImportance) -> dict[str, float]:
    """Agreement of random halves of the images, and layers that are in the top tenth with a probability above 95 %."""
    random, scores = np.random.default_rng(0), importance.values.mean(1)
    k = top_count(0.1, scores.shape[1])
    halves = []
    for _ in range(200):
        order = random.permutation(len(scores))
        first, second = (scores[part].mean(0) for part in np.array_split(order, 2))
        halves.append(spearman(first, second))
    sure = importance.probability_in_top(0.1)
    return {
        "Spearman of halves (5 % below)": f"{np.median(halves):.3f} ({np.quantile(halves, 0.05):.3f})",
        f"sure of the top {k}": int((sure > 0.95).sum()),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--weights", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    torch.set_num_threads(1)
    photographs = read_photographs(options.photographs)[-HELD_OUT:]
    images = [Crops([photograph], 1).batch(0, 1)[0] for photograph in photographs]
    samples = [{"pixel_values": image} for image in images]
    trained = SwinForMaskedImageModeling.from_pretrained(options.weights).eval()
    torch.manual_seed(0)
    random = SwinForMaskedImageModeling(SwinConfig(**CONFIG)).eval()
    for objective in OBJECTIVES:
        print(f"\n{objective}\n\n{residuals(trained, samples[:6], objective).to_string(index=False)}", flush=True)
    rows = []
    for objective in OBJECTIVES:
        first, second = rank(trained, samples, objective), rank(random, samples, objective)
        agreement = spearman(first.scores().to_numpy(), second.scores().to_numpy())
        for name, importance in (("trained", first), ("random weights", second)):
            row = {"objective": objective, "network": name} | certainty(importance)
            rows.append(row | {"Spearman of both networks": round(agreement, 2)})
    print(f"\n{pd.DataFrame(rows).to_string(index=False)}")


if __name__ == "__main__":
    main()
