"""Images come one by one from anything that holds some."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from macattr.methods.samples import iterate_samples, open_inputs


class Endless(Dataset):
    """A map-style data set of two images that answers every index."""

    def __init__(self, item):
        self.item = item

    def __len__(self):
        return 2

    def __getitem__(self, index):
        if index >= 5:
            pytest.fail(f"asked for item {index} of 2")
        return self.item(index)


class Unbounded(Dataset):
    def __getitem__(self, index):
        return image(index)


class Stream(IterableDataset):
    def __len__(self):
        return 1  # a lie that iteration decides

    def __iter__(self):
        return iter([torch.zeros(3, 4, 4)] * 4)


def image(index):
    return torch.full((3, 4, 4), float(index))


ENDLESS = {
    "tensors": Endless(image),
    "pairs": Endless(lambda index: (image(index), image(index))),
    "mappings": Endless(lambda index: {"image": image(index), "name": str(index)}),
    "a loader": DataLoader(Endless(image), batch_size=2),
}


@pytest.mark.parametrize("inputs", ENDLESS.values(), ids=ENDLESS)
def test_a_data_set_ends_at_its_length(inputs):
    samples = list(iterate_samples(inputs, nn.Identity()))
    assert [float(sample.image.mean()) for sample in samples] == [0, 1]


def test_a_data_set_without_a_length_is_refused():
    with pytest.raises(ValueError, match="`inputs` Unbounded has neither a length nor an iterator: pass a list"):
        list(iterate_samples(Unbounded(), nn.Identity()))


def test_an_iterable_decides_itself_where_it_ends():
    assert len(list(iterate_samples(Stream(), nn.Identity()))) == 4


@pytest.mark.parametrize("kind", ["folder", "text", "file", "list"])
def test_folders_and_files_are_read(tmp_path, kind):
    for number in range(2):
        Image.new("RGB", (8, 8), (100 * number,) * 3).save(tmp_path / f"{number}.png")
    files = sorted(tmp_path.iterdir())
    inputs = {"folder": tmp_path, "text": str(tmp_path), "file": files[0], "list": [str(file) for file in files]}[kind]
    names = [Path(sample.name).name for sample in iterate_samples(open_inputs(inputs), nn.Identity())]
    assert names == ["0.png"] if kind == "file" else names == ["0.png", "1.png"]


@pytest.mark.usefixtures("as_users_run_it")
def test_no_inputs_are_refused():
    with pytest.raises(ValueError, match="`inputs` is None: pass images, a folder of image files"):
        open_inputs(None)
