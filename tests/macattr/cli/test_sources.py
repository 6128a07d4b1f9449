"""Networks of libraries by a scheme: what is missing, wrong or random is said in one line."""

import importlib
import importlib.metadata
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from macattr.cli import main
from macattr.cli.loading import load_images, load_network
from macattr.cli.sources import SOURCES, open_network

LAYERS = {"vocab_size": 40, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """The folder of a small masked language model."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("models") / "bert"
    transformers.BertForMaskedLM(transformers.BertConfig(**LAYERS, max_position_embeddings=16)).save_pretrained(folder)
    return folder


@pytest.fixture
def no_library(monkeypatch):
    """Nothing of the libraries can be imported."""
    for name in ("transformers", "diffusers", "timm", "spandrel", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def install(monkeypatch):
    """A stand-in for a library, with the attributes that matter."""

    def put(name, **attributes):
        library = ModuleType(name)
        vars(library).update(attributes)
        monkeypatch.setitem(sys.modules, name, library)

    return put


# ---- hf


def test_a_folder_gives_the_class_of_its_configuration_with_its_weights(bert):
    from transformers import BertForMaskedLM

    loaded, expected = load_network(f"hf:{bert}"), BertForMaskedLM.from_pretrained(bert)
    assert type(loaded) is BertForMaskedLM
    assert not loaded.training
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), expected.parameters(), strict=True))


@pytest.mark.filterwarnings("ignore:.*has no weights for 2 parameters of BertModel .pooler:UserWarning")
def test_another_class_can_be_named(bert):
    assert type(load_network(f"hf:{bert}:AutoModel")).__name__ == "BertModel"


def test_weights_that_a_folder_lacks_are_said_to_be_random(bert):
    with pytest.warns(UserWarning, match=r"no weights for 4 parameters of BertForSequenceCl.*, classifier.bias"):
        load_network(f"hf:{bert}:BertForSequenceClassification")


def test_half_precision_weights_are_loaded_in_single_precision(bert, tmp_path):
    from transformers import BertForMaskedLM

    BertForMaskedLM.from_pretrained(bert).half().save_pretrained(tmp_path / "half")
    assert next(load_network(f"hf:{tmp_path / 'half'}").parameters()).dtype == torch.float32


def test_a_configuration_takes_weights_of_ones_own(bert, tmp_path):
    (tmp_path / "config.json").write_text((bert / "config.json").read_text())
    loaded = load_network(f"hf:{tmp_path}", weights=bert / "model.safetensors")
    expected = load_network(f"hf:{bert}").state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())


def test_a_folder_of_diffusers_gives_its_class(tmp_path):
    pytest.importorskip("diffusers")
    from diffusers import UNet2DModel

    network = UNet2DModel(
        8, 3, 3, block_out_channels=(8,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
        layers_per_block=1, norm_num_groups=4,
    )  # fmt: skip
    network.save_pretrained(tmp_path / "unet")
    assert type(load_network(f"hf:{tmp_path / 'unet'}")) is UNet2DModel
    with pytest.raises(ValueError, match=r"has no config\.json: give one of its parts, such as hf:.*/unet"):
        load_network(f"hf:{tmp_path}")


@pytest.mark.parametrize(
    ("config", "name", "message"),
    [
        ("{}", "", "config.json of .* names no class: write hf:.*:CLASS, such as hf:.*:AutoModel"),
        ("{}", ":BertForMaskedML", "transformers has no model 'BertForMaskedML'; did you mean 'BertForMaskedLM'"),
        ('{"model_type": "bert"}', ":BertModel", "cannot be loaded: .*no file named model.safetensors"),
    ],
    ids=["no class", "unknown class", "no weights"],
)
def test_a_folder_that_gives_no_network_is_refused(tmp_path, config, name, message):
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match=message):
        load_network(f"hf:{tmp_path}{name}")


@pytest.mark.parametrize("place", ["./nowhere", "/no/such/folder", "a/b/c"])
def test_a_folder_that_is_not_there_is_not_looked_for_elsewhere(place, no_library):
    with pytest.raises(ValueError, match=f"there is no folder '{place}'"):
        load_network(f"hf:{place}")


def test_a_repository_without_a_connection_is_refused_in_one_line(monkeypatch, capsys):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SystemExit, match="2"):
        main(["rank", "--model", "hf:somebody/something-not-cached", "--images", "sample"])
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert "huggingface.co cannot be reached" in error[0]
    assert "hf download somebody/something-not-cached --local-dir FOLDER" in error[0]


# ---- libraries that are missing, or refuse


@pytest.mark.parametrize("scheme", SOURCES)
def test_a_missing_library_is_said_with_the_install_line(scheme, no_library, tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "net.pth")
    address = tmp_path / "net.pth" if scheme == "spandrel" else tmp_path
    with pytest.raises(SystemExit, match="2"):
        main(["rank", "--model", f"{scheme}:{address}", "--images", "ram_models:sample"])
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert error[0].endswith(f"which is not installed: pip install 'macattr[{SOURCES[scheme].extra}]'.")


def test_a_torchvision_of_another_build_is_said_with_the_right_one(monkeypatch):
    def fail(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.28.0")
    monkeypatch.setattr(importlib, "import_module", fail)
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
    remedy = r"--no-deps torchvision==0\.28\.0 --index-url https://download\.pytorch\.org/whl/cpu"
    with pytest.raises(ValueError, match=remedy):
        load_network("timm:resnet18")


class Unsupported(Exception):
    """As spandrel raises it."""


def test_a_checkpoint_that_spandrel_does_not_know_is_refused_with_a_remedy(install, tmp_path):
    def loader(device):
        return SimpleNamespace(load_from_state_dict=refuse)

    def refuse(state):
        raise Unsupported

    install("spandrel", ModelLoader=loader, UnsupportedModelError=Unsupported)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "net.pth")
    with pytest.raises(ValueError, match=r"no architecture that '.*net\.pth' fits: name the network as FILE\.py:NAME"):
        load_network(f"spandrel:{tmp_path / 'net.pth'}")
    with pytest.raises(ValueError, match=r"there is no file 'nowhere\.pth'"):
        load_network("spandrel:nowhere.pth")


def test_a_name_that_timm_does_not_know_is_refused_with_a_near_one(install):
    install("timm", is_model=lambda name: False, list_models=lambda: ["resnet18", "vit_tiny_patch16_224"])
    with pytest.raises(ValueError, match="timm has no model 'resnet81'; did you mean 'resnet18'"):
        load_network("timm:resnet81")


# ---- all of them


@pytest.mark.parametrize("scheme", SOURCES)
def test_a_scheme_alone_is_refused_with_its_form(scheme):
    with pytest.raises(ValueError, match=f"names no network: write {scheme}:"):
        open_network(f"{scheme}:")


def test_other_names_are_left_to_python():
    assert open_network("ram_models:ram_swinir_tiny") is None


@pytest.mark.parametrize("command", ["rank", "check", "select", "report"])
def test_help_teaches_every_form_with_an_example(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    text = "".join(capsys.readouterr().out.split())
    for words in ("FILE.py:NAME", "mynet.py:build", *[w for s in SOURCES.values() for w in (s.form, s.example)]):
        assert words in text


def test_images_by_a_bare_name_need_a_module(bert):
    with pytest.raises(ValueError, match=r"no file or folder 'sample'; a function .* is FILE\.py:NAME"):
        load_images("sample", f"hf:{bert}", None, None)


# ---- weights


@pytest.fixture
def network(tmp_path):
    (tmp_path / "weighted_network.py").write_text("from torch import nn\ndef net():\n    return nn.Linear(2, 3)\n")
    return f"{tmp_path / 'weighted_network.py'}:net"


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module."])
def test_weights_replace_those_of_a_network(network, tmp_path, prefix):
    wanted = nn.Linear(2, 3)
    torch.save({"params_ema": {prefix + k: v for k, v in wanted.state_dict().items()}}, tmp_path / "w.pth")
    loaded = load_network(network, weights=tmp_path / "w.pth")
    assert torch.equal(loaded.weight, wanted.weight)
    assert torch.equal(loaded.bias, wanted.bias)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (nn.Linear(2, 4), r"does not fit Linear and was not loaded \(of another shape: 2 entries \(weight, bias\)\)"),
        (nn.Linear(2, 3, bias=False), r"missing: 1 entries \(bias\)"),
        (
            nn.Sequential(nn.Linear(2, 3), nn.Linear(2, 3)),
            r"2 entries \(weight, bias\), unknown: 4 entries \(0\.weight",
        ),
        (nn.Sequential(nn.Sequential(nn.Linear(2, 3))), r"unknown: 2 entries \(0\.0\.weight, 0\.0\.bias\)"),
    ],
    ids=["shape", "missing", "two", "deep"],
)
def test_weights_of_another_network_are_refused(network, tmp_path, other, message):
    torch.save(other.state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=message):
        load_network(network, weights=tmp_path / "w.pth")


def test_weights_without_a_network_are_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["select", "importance.nc", "--count", "1", "--weights", "w.pth"])
    assert "`weights` = w.pth has no effect without --model" in capsys.readouterr().err
