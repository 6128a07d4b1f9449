"""Images that a network refuses: which one, its size, and what the network would take."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from macattr.cli import main
from macattr.image_files import ImageFolder
from macattr.methods.readings import measure
from macattr.ranking.rank import RankingInterrupted, rank_layers


class Blocks(nn.Module):
    """A network that takes blocks of pixels apart, so that they must fit."""

    def __init__(self, side, channels=3):
        super().__init__()
        torch.manual_seed(0)
        self.side = side
        self.inner = nn.Conv2d(channels * side**2, channels * side**2, 1)

    def forward(self, image):
        blocks = nn.functional.pixel_unshuffle(image, self.side)
        return nn.functional.pixel_shuffle(torch.tanh(self.inner(blocks)), self.side)


class OneSize(nn.Module):
    """A network of one size, as one with learned positions."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)
        self.positions = nn.Parameter(torch.zeros(1, 3, 32, 32))

    def forward(self, image):
        return self.layer(image) + self.positions


@pytest.mark.parametrize(
    ("network", "shape", "message"),
    [
        (Blocks(4), (3, 17, 20), r"of 3x17x20 .*divisible.* multiples of 4: .*`macattr rank --multiple 4`"),
        (Blocks(14), (3, 20, 28), r"of 3x20x28 .* multiples of 14: .*`ImageFolder\(\.\.\., multiple=14\)`"),
        (Blocks(2, channels=1), (3, 8, 8), r"of 3x8x8 .* takes one channel: .*`macattr rank --grey`"),
        (Blocks(4, channels=1), (3, 9, 8), r"of 3x9x8 .* one channel and .* of 4: .*`macattr rank --grey --multiple"),
        (OneSize(), (3, 40, 36), r"of 3x40x36 .* takes 32x32 pixels: .*`macattr rank --crop 32`"),
        (Blocks(4), (3, 1101, 8), r"of 3x1101x8 .* multiples of 4: "),
    ],
    ids=["multiple", "patches_of_14", "grey", "grey_and_multiple", "one_size", "large"],
)  # fmt: skip
def test_a_refused_image_is_named_with_its_size_and_the_remedy(network, shape, message):
    image = {"image": torch.rand(shape, generator=torch.Generator().manual_seed(1)), "name": "photo"}
    with pytest.raises(ValueError, match=f"the network refuses 'photo' {message}"):
        rank_layers(network.eval(), [image], n_steps=2)


@pytest.mark.parametrize(
    ("network", "inputs", "message"),
    [
        (nn.Conv1d(2, 2, 3), torch.rand(1, 2, 9), r"three dimensions are read as one image.*`\{'input': tensor\}`"),
        (nn.Conv2d(3, 3, 1), torch.rand(2, 5, 6, 3), r"channels come last.*`tensor\.movedim\(-1, -3\)`"),
        (nn.Conv2d(1, 2, 3), torch.rand(7, 8), r"two dimensions are read as a vector in each row.*\(1, H, W\)"),
        (nn.Conv3d(3, 3, 1), [torch.rand(3, 4, 5, 5)], r"four dimensions are read as images.*\(1, C, T, H, W\)"),
    ],
    ids=["sequence", "channels_last", "grey", "video"],
)
def test_other_ranks_that_pass_for_images_are_explained(network, inputs, message):
    with pytest.raises(ValueError, match=f"the network does not run on '(image|sample) 0' .*{message}"):
        rank_layers(nn.Sequential(network).eval(), inputs, "conductance", objective="norm", n_steps=2)


class OneSequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv1d(2, 2, 3)

    def forward(self, x):
        return self.layer(x)


class Graph(OneSequence):
    def forward(self, x, edge_index):
        return x.index_add(0, edge_index[1], x[edge_index[0]])


def test_the_remedy_for_sequences_works():
    found = rank_layers(OneSequence().eval(), {"x": torch.rand(1, 2, 9)}, "conductance", objective="norm", n_steps=2)
    assert found.dataset["layer"].to_numpy().tolist() == ["layer"]


class Points(nn.Module):
    """A network of points (B, n, 3), which takes any number of dimensions before the last."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, cloud):
        return self.head(self.layer(cloud).relu().amax(-2))


def test_a_batch_that_passes_for_an_image_is_said():
    clouds = torch.rand(2, 5, 3, generator=torch.Generator().manual_seed(1))
    network, options = Points().eval(), {"method": "conductance", "objective": "norm", "n_steps": 2}
    with pytest.warns(
        UserWarning, match=r"'image 0' \(2, 5, 3\) is read as one image.*a batch of 2.*`\{'cloud': tensor\}`"
    ):
        as_image = rank_layers(network, clouds, **options)
    assert as_image.dataset.sizes["sample"] == 1
    assert rank_layers(network, {"cloud": clouds}, **options).dataset.sizes["sample"] == 2
    whole = rank_layers(network, clouds[None], **options)  # without a warning
    assert whole.dataset["score"].equals(as_image.dataset["score"])
    rank_layers(network, clouds, "magnitude")


def test_points_without_a_batch_are_no_rows():
    with pytest.raises(
        ValueError, match=r"mixes the batch.*all rows are one sequence or set of points, pass \(1, n, D\)"
    ):
        rank_layers(Points().eval(), torch.rand(5, 3), "conductance", objective="norm", n_steps=2)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((8, 9, 3), np.uint8), r"channels first \(`\.movedim\(-1, -3\)`\) and values in \[0, 1\]"),
        (torch.zeros(3, 8, 9).to_sparse(), "got a sparse, nested or meta tensor"),
        (torch.zeros(3, 8, 9, device="meta"), "got a sparse, nested or meta tensor"),
        ([torch.zeros(3, 8, 9, dtype=torch.uint8)], r"in bytes, give values in \[0, 1\] \(`\.float\(\) / 255`\)"),
    ],
    ids=["array", "sparse", "meta", "tensor"],
)
def test_what_is_no_picture_of_floats_is_refused_with_the_remedy(picture, message):
    with pytest.raises(ValueError, match=message):
        rank_layers(nn.Sequential(nn.Conv2d(3, 3, 1)).eval(), picture, n_steps=2)


def test_inputs_that_require_a_gradient_are_read_without_it():
    network, images = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Tanh()).eval(), torch.rand(1, 3, 6, 8)
    want = rank_layers(network, images, n_steps=2)
    assert (
        rank_layers(network, images.clone().requires_grad_(), n_steps=2).dataset["score"].equals(want.dataset["score"])
    )


@pytest.mark.parametrize("shape", [(3, 6, 8), (2, 3, 6, 8)], ids=["one", "batch"])
def test_arrays_are_read_as_tensors_are(shape):
    images, network = torch.rand(shape), nn.Sequential(nn.Conv2d(3, 3, 1), nn.Tanh()).eval()
    want = rank_layers(network, images, n_steps=2)
    assert rank_layers(network, images.numpy(), n_steps=2).dataset["score"].equals(want.dataset["score"])
    assert rank_layers(network, [images.numpy()], n_steps=2).dataset["score"].equals(want.dataset["score"])


def test_graphs_are_refused_before_their_nodes_are_taken_for_samples():
    graph = {"x": torch.rand(6, 4), "edge_index": torch.zeros(2, 5, dtype=torch.long)}
    with pytest.raises(ValueError, match=r"sample 0: a graph has no batch.*forward_args"):
        rank_layers(Graph().eval(), graph, "conductance", objective="norm")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_networks_that_torch_jit_has_compiled_are_refused():
    with pytest.raises(ValueError, match=r"'the network' is compiled by torch\.jit.*as it was before"):
        rank_layers(torch.jit.trace(OneSize().eval(), torch.rand(1, 3, 32, 32)), torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize("method", ["mac", "fisher", "snr"])
def test_a_refusal_of_a_later_image_is_no_interruption(method, tmp_path):
    generator = torch.Generator().manual_seed(1)
    pairs = [
        (torch.rand(3, side, 8, generator=generator), torch.rand(3, side, 8, generator=generator)) for side in (8, 9)
    ]
    options = {} if method in ("fisher", "snr") else {"n_steps": 2}
    with pytest.raises((ValueError, RankingInterrupted), match=r"refuses 'image 1' of 3x9x8 .* --multiple 4") as met:
        rank_layers(Blocks(4).eval(), pairs, method, **options, parts=tmp_path)
    if method == "mac":
        assert "interrupt" not in str(met.value)
        assert "It happened after 1 finished image." in str(met.value)
        assert len(met.value.finished.values) == 1


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("out of luck"), AssertionError()], ids=str)
def test_an_error_that_is_not_about_the_image_stays_as_it_is(error):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 1)

        def forward(self, image):
            raise error

    with pytest.raises(type(error)) as met:
        rank_layers(Broken().eval(), torch.rand(1, 3, 8, 8))
    assert met.value is error


def test_the_remedies_of_the_message_work(tmp_path):
    Image.new("RGB", (19, 17), (10, 200, 30)).save(tmp_path / "a.png")
    for network, options in ((Blocks(4), {"multiple": 4}), (Blocks(4, channels=1), {"multiple": 4, "grey": True})):
        importance = rank_layers(network.eval(), ImageFolder(tmp_path, **options), n_steps=2)
        assert importance.dataset.attrs["method"] == "mac"


NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(48, 48, 1)

    def forward(self, image):
        return nn.functional.pixel_shuffle(torch.tanh(self.layer(nn.functional.pixel_unshuffle(image, 4))), 4)
"""


@pytest.fixture
def command(tmp_path, monkeypatch):
    """A ranking on two files, the second of which does not fit the network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, side in (("a", 8), ("b", 9)):
        Image.effect_noise((side, 8), 100).convert("RGB").save(f"{name}.png")
    file = Path(f"refusing_{tmp_path.name}.py")
    file.write_text(NETWORK)
    return ["rank", "--model", f"{file}:Net", "--images", ".", "--n-steps", "2", "--out", "o"]


def test_the_command_continues_with_the_remedy_where_that_leaves_the_finished_images(command, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(command)
    said = capsys.readouterr().err.splitlines()[-1]
    assert "refuses 'b.png' of 3x8x9" in said
    assert said.endswith("It happened after 1 finished image. What is finished is kept in o and not measured again.")
    main([*command, "--multiple", "4"])
    assert "sides as multiples of 4: 1 of 2 images are cut, 0 reflected" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(command)
    assert "holds a finished run with other settings (multiple = 4, now None)" in capsys.readouterr().err


def test_ctrl_c_after_the_first_image_ends_with_130_and_keeps_it(command, capsys, monkeypatch):
    calls = []

    def measure_once(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr("macattr.ranking.run.measure", measure_once)
    with pytest.raises(SystemExit, match="130"):
        main([*command, "--multiple", "4"])
    assert "interrupted; what was written before is kept" in capsys.readouterr().err
    assert Path("o", "importance.nc").is_file()
