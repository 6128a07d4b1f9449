"""Fine-tuning: exactly the selected layers change, and the result loads by name."""

import csv
import os
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from torch import nn

from macattr.ranking.importance import LayerImportance
from macattr.ranking.rank import rank_layers
from macattr.selection.trainable import TrainableMask
from ram_models import build
from ram_models.recipes import finetune
from ram_models.recipes.finetune import Config, LayerChoice, Start, main, select
from ram_models.training.config import Data, Log, Optim

NETWORK = "ram-swinir-tiny"
CROPS = torch.utils.data.TensorDataset(*torch.rand(2, 2, 3, 16, 16))


@pytest.fixture(scope="module")
def ranking(tmp_path_factory):
    """File of a coarse ranking of the bundled network on one small image."""
    file = tmp_path_factory.mktemp("ranking") / "importance.nc"
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    rank_layers(build(NETWORK), [image], n_steps=2).save(file)
    return file


@pytest.fixture
def config(pictures, tmp_path, ranking):
    """Three steps with the top tenth of the layers."""
    return Config(
        Data(clean=pictures, crop=16),
        tmp_path / "run",
        selection=LayerChoice(str(ranking)),
        optim=Optim(steps=3, batch_size=2, lr=1e-3, warmup=0, ema=0.5),
        log=Log(every=1, validate_every=3, save_every=1, tensorboard=False),
    )


def top(ranking, count):
    return tuple(LayerImportance.load(ranking).ranking()["layer"][:count])


def write_official(folder, names):
    folder.mkdir()
    (folder / "filter_name.txt").write_text("\n".join(names))
    (folder / "filter_cond.txt").write_text("\n".join(str(len(names) - i) for i in range(len(names))))
    (folder / "filter_index.txt").write_text("\n".join(map(str, range(len(names)))))


def test_exactly_the_selected_layers_change(config, ranking, capsys):
    main(config)
    before, after = build(NETWORK), build(NETWORK, config.out / "weights.safetensors")
    changed = {name for name, value in after.named_parameters() if not torch.equal(value, before.get_parameter(name))}
    layers = top(ranking, 9)  # 92 layers
    owned = {name for name, _ in before.named_parameters() if name.rpartition(".")[0] in layers}
    assert changed == owned
    assert (config.out / "layers.txt").read_text().split() == list(layers)
    trained = sum(before.get_parameter(name).numel() for name in owned)
    assert f"training 9 layers: {trained:,} of 335,427 parameters" in capsys.readouterr().out


def test_frozen_norms_keep_their_statistics_while_the_rest_trains(config, monkeypatch):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3, padding=1))
    monkeypatch.setattr(finetune, "pretrained", lambda start: network)
    images, last = torch.rand(1, 3, 16, 16), network[2].weight.detach().clone()
    before = network.eval()[:2](images).detach()
    with pytest.warns(UserWarning, match="1 frozen layers keep statistics"):
        finetune.tune(replace(config, log=Log(1, 1, 1, tensorboard=False)), TrainableMask(("2",)))  # three validations
    torch.testing.assert_close(network.eval()[:2](images), before, rtol=0, atol=0)
    assert not torch.equal(network[2].weight, last)


def test_fine_tuning_improves_the_whole_input(config):
    run = replace(config, optim=Optim(steps=12, batch_size=2, lr=2e-3, warmup=0), log=Log(1, 1, 12, tensorboard=False))
    main(run)
    with (run.out / "metrics.csv").open() as file:
        psnr = [float(row["psnr_whole"]) for row in csv.DictReader(file) if row["psnr_whole"]]
    assert psnr[-1] > psnr[0] + 0.5


def test_a_stopped_run_goes_on_to_the_same_end(config, tmp_path, monkeypatch):
    def stopping(network, batch):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(network, batch)

    original, signalled = finetune.whole_l1, []
    whole, halved = replace(config, out=tmp_path / "whole"), replace(config, out=tmp_path / "halved")
    main(whole)
    with monkeypatch.context() as patched:
        patched.setattr(finetune, "whole_l1", stopping)
        patched.setattr(signal, "raise_signal", lambda number: signalled.append(number))
        main(halved)
    assert signalled == [signal.SIGTERM]
    assert not (halved.out / "weights.safetensors").exists()
    main(halved)
    for name in ("weights.safetensors", "metrics.csv"):
        assert (halved.out / name).read_bytes() == (whole.out / name).read_bytes()


def test_a_method_ranks_the_layers_first_and_keeps_the_ranking(tmp_path, monkeypatch):
    network = build(NETWORK)
    mask = select(network, LayerChoice("internal_influence", 0.1, crops=1), CROPS, tmp_path)
    assert mask.layers == top(tmp_path / "importance.nc", 9)
    assert select(network, LayerChoice(str(tmp_path), 0.1), CROPS, tmp_path) == mask
    assert LayerImportance.load(tmp_path).dataset.attrs["method"] == "internal_influence"
    monkeypatch.setattr(finetune, "rank_layers", None)
    assert select(network, LayerChoice("internal_influence", 0.1, crops=1), CROPS, tmp_path) == mask


def test_an_official_list_selects_its_first_layers(tmp_path):
    network = build(NETWORK)
    names = [name for name, module in network.named_modules() if isinstance(module, torch.nn.LayerNorm)]
    write_official(tmp_path / "official", names)
    mask = select(network, LayerChoice(str(tmp_path / "official"), 4.5 / len(names)), CROPS, tmp_path)
    assert mask.layers == tuple(names[:4])


def test_layers_of_another_network_are_refused_with_near_matches(config, tmp_path):
    write_official(tmp_path / "official", ["module.conv_first", "conv_last"])
    with pytest.raises(ValueError, match=r"no layer 'module\.conv_first'; did you mean"):
        main(replace(config, selection=LayerChoice(str(tmp_path / "official"), 1.0)))
    assert not (config.out / "weights.safetensors").exists()


@pytest.mark.parametrize("fraction", [0.0, 1.02, -1.0])
def test_a_fraction_that_selects_nothing_or_more_than_all_is_refused(ranking, tmp_path, fraction):
    message = rf"fraction` must lie in \(0, 1\], got {fraction}"
    with pytest.raises(ValueError, match=message):
        select(build(NETWORK), LayerChoice(str(ranking), fraction), CROPS, tmp_path)


@pytest.mark.parametrize(("steps", "batch_size", "crops"), [(3, 2, 7), (1, 1, 2), (5, 4, 24)])
def test_more_crops_to_rank_on_than_the_run_has_are_refused(config, steps, batch_size, crops):
    message = rf"`selection\.crops` {crops} is more than the {steps * batch_size} training crops of the run"
    with pytest.raises(ValueError, match=message):
        main(
            replace(config, selection=LayerChoice("mac", crops=crops), optim=Optim(steps=steps, batch_size=batch_size))
        )


def test_an_unknown_ranking_names_the_methods(tmp_path):
    with pytest.raises(ValueError, match="there is no ranking 'magic': name a file, a folder or one of mac, mac_loss"):
        select(build(NETWORK), LayerChoice("magic"), CROPS, tmp_path)


def test_a_file_that_is_no_ranking_is_refused(tmp_path):
    (tmp_path / "a.nc").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"a\.nc' cannot be read as a ranking"):
        select(build(NETWORK), LayerChoice(str(tmp_path / "a.nc")), CROPS, tmp_path)


def test_a_run_does_not_continue_with_other_layers(config):
    main(config)
    with pytest.raises(ValueError, match=r"layers\.txt' lists other layers than are selected now"):
        main(replace(config, selection=replace(config.selection, fraction=0.2)))


def test_a_network_without_weights_is_not_fine_tuned(config):
    with pytest.raises(ValueError, match=r"`network\.weights` must name .* none are bundled for 'ram-swinir'"):
        main(replace(config, network=Start("ram-swinir")))


def test_weights_that_do_not_fit_are_refused(config, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"a\.safetensors"):
        main(replace(config, network=Start(weights=str(tmp_path / "a.safetensors"))))


def test_a_kept_ranking_serves_the_same_weights_and_crops_alone(tmp_path):
    network, choice = build(NETWORK), LayerChoice("activation", 0.1, 2)
    select(network, choice, CROPS, tmp_path)
    kept = tmp_path / "importance.nc"
    written = kept.stat().st_mtime_ns
    select(network, choice, CROPS, tmp_path)
    assert kept.stat().st_mtime_ns == written
    select(network, choice, torch.utils.data.TensorDataset(*torch.rand(2, 2, 3, 16, 16)), tmp_path)
    assert kept.stat().st_mtime_ns > written
    written = kept.stat().st_mtime_ns
    with torch.no_grad():
        network.conv_first.weight.mul_(2)
    select(network, choice, torch.utils.data.TensorDataset(*CROPS.tensors), tmp_path)
    assert kept.stat().st_mtime_ns > written


def test_a_method_is_a_method_even_where_a_folder_has_its_name(tmp_path, monkeypatch, ranking):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ranking, tmp_path / "activation")
    by_method = select(build(NETWORK), LayerChoice("activation", 0.1, 2), CROPS, tmp_path)
    by_file = select(build(NETWORK), LayerChoice("./activation", 0.1, 2), CROPS, tmp_path)
    assert by_file == TrainableMask(tuple(LayerImportance.load(ranking).ranking()["layer"][: len(by_file.layers)]))
    assert by_method != by_file


def test_a_ranking_of_other_weights_is_said(tmp_path, ranking):
    network = build(NETWORK)
    with torch.no_grad():
        network.conv_first.weight.mul_(2)
    with pytest.warns(UserWarning, match="was made for other weights"):
        select(network, LayerChoice(str(ranking)), CROPS, tmp_path)
