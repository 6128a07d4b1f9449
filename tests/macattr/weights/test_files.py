"""Weights files of every kind: tensors by name, or one line that does not advise to run the code in a file."""

import pickle
import re

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from macattr.weights.files import read_weights

STATE = {"a.weight": torch.arange(3.0), "a.bias": torch.zeros(1)}


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (print, ("boom",))


@pytest.mark.parametrize(
    ("content", "entries"),
    [
        (STATE, ()),
        ({"model_state_dict": STATE, "epoch": 3}, ("model_state_dict",)),
        ({"netG": STATE, "netD": {"x": torch.ones(1)}}, ("netG",)),
        ({"generator": STATE}, ("generator",)),
        ({"params_ema": {}, "params": STATE}, ("params",)),
        ({"params_ema": None, "params": STATE}, ("params",)),
        ({"ema": STATE, "model": {"x": torch.ones(1)}}, ("ema",)),
        ({"model": {"state_dict": STATE}}, ("model", "state_dict")),
    ],
    ids=["bare", "model_state_dict", "netG", "generator", "empty_average", "no_average", "ema", "nested"],
)
def test_weights_are_found_in_every_entry(tmp_path, content, entries):
    torch.save(content, tmp_path / "a.pth")
    state, found_in = read_weights(tmp_path / "a.pth")
    assert found_in == entries
    assert all(torch.equal(state[name], value) for name, value in STATE.items())


def write_module(file):
    torch.save(nn.Linear(2, 2), file)


def write_bomb(file):
    torch.save({"weights": Bomb()}, file)


def write_raw_bomb(file):
    file.write_bytes(pickle.dumps(Bomb()))


def write_script(file):
    torch.jit.script(nn.Linear(2, 2)).save(str(file))


def write_text(file):
    file.write_text("name: weights\n")


def write_page(file):
    file.write_text("<html>404: Not Found</html>")


def write_pickle(file):
    file.write_bytes(pickle.dumps({"a": [1, 2]}, protocol=4))


def write_zeros(file):
    file.write_bytes(bytes(1000))


def write_optimiser(file):
    torch.save({"state": {}, "param_groups": [{"lr": 0.1}]}, file)


OTHERS = [
    write_module,
    write_bomb,
    write_raw_bomb,
    write_script,
    write_text,
    write_page,
    write_pickle,
    write_zeros,
    write_optimiser,
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "write",
    [
        write_module,
        write_bomb,
        write_raw_bomb,
        write_script,
        write_text,
        write_page,
        write_pickle,
        write_zeros,
        write_optimiser,
    ],
)
@pytest.mark.parametrize("name", ["a.pth", "a.bin", "a.ckpt"])
def test_other_files_are_refused_in_one_line_without_advice_to_run_them(tmp_path, capsys, write, name):
    write(tmp_path / name)
    with pytest.raises(ValueError, match=re.escape(name)) as caught:
        read_weights(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert "boom" not in capsys.readouterr().out


@pytest.mark.parametrize("write", [write_text, write_zeros, write_bomb])
def test_other_files_named_safetensors_are_refused_in_one_line(tmp_path, write):
    write(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"a\.safetensors' cannot be read as safetensors") as caught:
        read_weights(tmp_path / "a.safetensors")
    assert "\n" not in str(caught.value)


def test_safetensors_are_read(tmp_path):
    save_file(STATE, tmp_path / "a.safetensors")
    assert read_weights(tmp_path / "a.safetensors")[0].keys() == STATE.keys()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file '.*none\.pth'"):
        read_weights(tmp_path / "none.pth")
