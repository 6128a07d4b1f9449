"""The experiment on groups of layers, from end to end on a few small pictures."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torch import nn

from macattr.ranking.rank import rank_layers
from ram_models import ram_swinir_tiny
from ram_models.cli import main
from ram_models.experiments.groups.contrasts import Contrasts
from ram_models.experiments.groups.partition import groups_of
from ram_models.experiments.groups.probes import gains
from ram_models.experiments.groups.scores import METHODS
from ram_models.experiments.study import networks
from ram_models.networks import checkpoints
from ram_models.networks.rgb import RGBSwinIR

SMALL = """
seeds: [0]
finetune_seeds: [10]
bundled: false
crops: {crop: 16, tasks: [lowlight, noise], held_out: 1}
pretrain: {steps: 2, batch_size: 2, warmup: 0}
finetune: {steps: 2, batch_size: 2, warmup: 0}
ranked: {crops: 2, size: 16, official_crops: 2}
probed: {steps: 2, rates: [1.0e-3, 1.0e-2], budgets: [0.2, 0.5]}
"""


def test_every_layer_is_in_one_group():
    network = ram_swinir_tiny()
    groups = groups_of(network)
    names = [name for group in groups for name in group.layers]
    assert len(groups) == 17
    assert len(names) == len(set(names)) == 92
    parameters = (
        sum(parameter.numel() for parameter in network.parameters()) - network.get_parameter("mask_token").numel()
    )
    assert sum(group.parameters for group in groups) == parameters  # the mask token is never trained
    assert {group.name: group.parameters for group in groups}["thin ends"] == 1683


def test_other_networks_have_no_groups():
    with pytest.raises(ValueError, match="'0' has no group: the groups are those of a RAM-SwinIR"):
        groups_of(nn.Sequential(nn.Linear(2, 2)))


def test_gains_are_of_the_better_rate_and_of_rates_that_all_groups_have():
    rows = [("nothing", 0.0, 0.5, 10.0), ("a", 1e-3, 0.4, 11.0), ("b", 1e-3, 0.45, 10.5)]
    rows += [("a", 1e-2, 0.3, 12.0), ("b", 1e-2, 0.6, 9.0), ("a", 1.0, 0.0, 99.0)]
    table = pd.DataFrame(rows, columns=["group", "lr", "loss", "psnr_db"]).assign(parameters=1)
    found = gains(table)
    assert found["lr"].to_dict() == {"a": 1e-2, "b": 1e-3}
    assert found["loss_gain"].to_dict() == pytest.approx({"a": 0.2, "b": 0.05})
    assert found["psnr_gain_db"].to_dict() == pytest.approx({"a": 2.0, "b": 0.5})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:of the 2 held-out crops, these equal the clean ones")
def test_a_study_is_measured_once_and_written_down(tmp_path, monkeypatch, capsys):
    arguments = {"img_size": 16, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2]}
    monkeypatch.setattr(checkpoints, "NETWORKS", {"ram-swinir-tiny": (RGBSwinIR, arguments)})
    monkeypatch.setattr(networks, "rank_layers", partial(rank_layers, n_steps=4))
    for side, factor in (("high", 1.0), ("low", 0.5)):
        folder = tmp_path / "data" / "train" / "LOL" / "our485" / side
        folder.mkdir(parents=True)
        for number in range(4):
            pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3)) * factor
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    (tmp_path / "small.yaml").write_text(SMALL)
    places = [f"--{name}={tmp_path / name}" for name in ("data", "out", "results", "docs")]
    for _ in range(2):
        assert main(["reproduce", "groups", "--config", str(tmp_path / "small.yaml"), *places]) in (None, 0)
    assert "groups: 0 of 25 probes to go" in capsys.readouterr().out  # nothing, and 12 groups at two rates
    probes = pd.read_csv(tmp_path / "results" / "groups" / "probes.csv")
    assert len(probes) == 25
    assert not probes.duplicated(["group", "lr"]).any()
    assert set(pd.read_csv(tmp_path / "results" / "groups" / "scores.csv")["method"]) == set(METHODS)
    assert "## What was claimed" in (tmp_path / "docs" / "groups.md").read_text()


def test_what_was_claimed_names_methods_that_are_asked():
    claimed = Contrasts.read()
    named = {claim[side] for claim in claimed.claims for side in "ab"} | set(claimed.fillers) | set(claimed.additive)
    assert named <= {*METHODS, "parameters"}
