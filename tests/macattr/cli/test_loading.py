"""Files are loaded as files, errors in them name file and line, and images meet their clean partners."""

import re
import sys

import pytest
import torch
from PIL import Image
from torch import nn

from macattr.cli.blame import users_error
from macattr.cli.loading import load_images, load_network, load_object, load_weights, shuffled


@pytest.fixture(autouse=True)
def _restore_modules():
    path, modules = list(sys.path), dict(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]


def write(folder, name, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


# ---- FILE.py:NAME


@pytest.mark.parametrize("name", ["random.py", "statistics.py", "my-model.v2.py", "2nd net.py", "torch.py", "class.py"])
def test_a_file_is_loaded_whatever_its_name(tmp_path, name):
    file = write(tmp_path, name, "value = 'mine'")
    assert load_object(f"{file}:value") == "mine"


@pytest.mark.parametrize("name", ["random", "statistics", "colorsys"])
def test_modules_of_python_stay_what_they_are(tmp_path, name):
    file = write(tmp_path, f"{name}.py", "value = 'mine'")
    load_object(f"{file}:value")
    assert "value" not in vars(__import__(name))


def test_two_files_of_one_name_are_two_modules(tmp_path):
    files = [write(tmp_path / folder, "net.py", f"value = {folder!r}") for folder in "abc"]
    assert [load_object(f"{file}:value") for file in files] == ["a", "b", "c"]


def test_a_file_is_executed_once(tmp_path):
    file = write(tmp_path, "net.py", "value = object()")
    assert load_object(f"{file}:value") is load_object(f"{file}:value")


def test_neighbours_of_a_file_can_be_imported_at_once_and_later(tmp_path):
    write(tmp_path, "neighbour_now.py", "value = 1")
    write(tmp_path, "neighbour_later.py", "value = 2")
    text = (
        "from neighbour_now import value\ndef later():\n    import neighbour_later\n    return neighbour_later.value\n"
    )
    file = write(tmp_path, "net.py", text)
    assert (load_object(f"{file}:value"), load_object(f"{file}:later")()) == (1, 2)


def test_a_dataclass_of_a_file_knows_its_module(tmp_path):
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass Value:\n    x: int\n"
    )
    assert load_object(f"{write(tmp_path, 'my-net.py', text)}:Value")(3).x == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import torch\nx = = 1\n", r"SyntaxError: invalid syntax \(.*net\.py, line 2"),
        ("x = 1\n\nraise KeyError('gone')\n", r"KeyError: 'gone' \(.*net\.py, line 3"),
        ("def f():\n    assert False, 'never'\nf()\n", r"AssertionError: never \(.*net\.py, line 2"),
        ("import sys\nsys.exit(3)\n", r"ended the program with exit code 3 \(.*net\.py, line 2"),
        ("import not_installed_at_all\n", r"ModuleNotFoundError: No module named 'not_installed.*net\.py, line 1"),
        ("import json\njson.loads('{')\n", r"JSONDecodeError: .*net\.py, line 2"),
    ],
    ids=["syntax", "key", "assertion", "exit", "import", "inside a library"],
)
def test_errors_while_a_file_is_executed_name_file_and_line(tmp_path, text, message):
    file = write(tmp_path, "net.py", text)
    for _ in range(2):  # not half a module the second time
        with pytest.raises(BaseException, match=r".") as raised:
            load_object(f"{file}:net")
        assert re.search(message, users_error(raised.value) or "")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("net", "'net' is not an import string: write MODULE:NAME"),
        ("net.py:", "'net.py:' is not an import string"),
        ("net.py", "write net.py:NAME, with the name of the network in it"),
        ("net.pth", "write spandrel:net.pth where spandrel knows the network, else FILE.py:NAME and --weights net.pth"),
        (":net", "':net' is not an import string"),
        ("nowhere.py:net", "there is no file 'nowhere.py'"),
        ("no_such_module:net", "there is no module 'no_such_module' in the current folder or the environment"),
        ("torch.no_such:net", "there is no module 'torch.no_such'"),
        ("macattr.layers.resolve:resolve_layer", "has no 'resolve_layer'; did you mean 'resolve_layers'"),
    ],
)
def test_names_that_lead_nowhere_are_refused_with_a_remedy(source, message):
    with pytest.raises(ValueError, match=message):
        load_object(source)


# ---- networks


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def net(w):\n    return w\n", r"called without arguments, but needs w: give defaults"),
        ("def net(w, *, b):\n    return w\n", r"but needs w, b"),
        ("net = 3\n", r"gives a int: it must be a torch\.nn\.Module"),
    ],
    ids=["argument", "two arguments", "number"],
)
def test_a_network_that_cannot_be_built_is_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as raised:
        load_network(f"{write(tmp_path, 'net.py', text)}:net")
    assert "\n" not in str(raised.value)


def test_a_class_with_defaults_is_a_network(tmp_path):
    text = "from torch import nn\nclass Net(nn.Linear):\n    def __init__(self, n=4):\n        super().__init__(3, n)\n"
    assert isinstance(load_network(f"{write(tmp_path, 'net.py', text)}:Net"), nn.Linear)


def test_an_unknown_device_is_refused_before_anything_is_loaded():
    with pytest.raises(ValueError, match="`device` 'foo' is not a device: write cpu, cuda or cuda:0"):
        load_network("nowhere.py:net", "foo")


# ---- images


@pytest.fixture
def pairs(tmp_path):
    for place, shift in (("in", 0), ("gt", 1)):
        for number, name in enumerate(("x/1.png", "y/1.png", "y/2.png")):
            file = tmp_path / place / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (16, 16), 10 * number + shift).save(file)
    return tmp_path


def test_clean_images_are_those_of_the_same_relative_path(pairs):
    images = load_images(str(pairs / "in"), "", None, None, str(pairs / "gt"))
    levels = [[round(float(item[side].mean()) * 255) for side in ("image", "clean")] for item in images]
    assert levels == [[0, 1], [10, 11], [20, 21]]


def test_limit_and_shuffling_keep_clean_images_with_their_own(pairs):
    images = shuffled(load_images(str(pairs / "in"), "", 8, 2, str(pairs / "gt")), seed=3)
    levels = [[round(float(item[side].mean()) * 255) for side in ("image", "clean")] for item in images]
    assert sorted(levels) == [[0, 1], [10, 11]]
    assert images[0]["image"].shape == (3, 8, 8)


def test_pictures_of_an_earlier_run_inside_the_folder_are_no_images(pairs):
    (pairs / "in" / "ranking" / "mac").mkdir(parents=True)
    Image.new("L", (16, 16)).save(pairs / "in" / "ranking" / "mac" / "heatmap.png")
    assert len(load_images(str(pairs / "in"), "", None, None, out=pairs / "in" / "ranking")) == 3
    assert len(load_images(str(pairs / "in"), "", None, None, out=pairs / "elsewhere")) == 4
    assert len(load_images(str(pairs / "in" / "ranking"), "", None, None, out=pairs / "in")) == 1
    with pytest.raises(ValueError, match=r"`out` '.*in' is the folder of the images: name another, such as"):
        load_images(str(pairs / "in"), "", None, None, out=pairs / "in")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", "", None, None), "`images` is empty: name a folder or file"),
        ((".", "", None, None, ""), "`clean` is empty: name a folder or file"),
        ((".", "", 0, None), "`crop` must be at least 1, got 0"),
        ((".", "", None, -1), "`limit` must be at least 1, got -1"),
        (("./nowhere", "", None, None), "there is no file or folder './nowhere'"),
    ],
    ids=["images", "clean", "crop", "limit", "missing"],
)
def test_images_that_cannot_be_meant_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_images(*arguments)


# ---- weights


class Bomb:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize("content", ["bomb", "text", "module", "list", "truncated"])
def test_files_that_are_not_weights_are_refused_without_running_them(tmp_path, content, capsys):
    file = tmp_path / "w.pth"
    if content == "text":
        file.write_text("epoch 1\nloss 2\n")
    elif content == "truncated":
        torch.save({"a": torch.zeros(1000)}, file)
        file.write_bytes(file.read_bytes()[:700])
    else:
        torch.save({"bomb": Bomb(), "module": nn.Linear(1, 1), "list": [torch.zeros(1)]}[content], file)
    with pytest.raises(
        ValueError, match=r"w\.pth' (cannot be read as|holds more than tensors|does not hold|holds)"
    ) as raised:
        load_weights(file)
    assert "weights_only" not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert capsys.readouterr().out == ""
