"""Images to rank on: one at a time, named, on the model's device, from anything that holds images."""

__all__ = ["Inputs", "Item", "Sample", "count_samples", "iterate_samples", "open_inputs", "refuse_iterator"]

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from macattr.image_files import ImageFolder

Item = Tensor | Sequence[Tensor] | Mapping[str, object]
"""One or several images; see :func:`iterate_samples`."""

Inputs = Tensor | Iterable[Item] | Dataset[Item]
"""Images to rank on; see :func:`iterate_samples`."""

Files = Path | str | Sequence[Path | str]
"""A folder of image files, an image file, or a list of them."""


@dataclass(frozen=True)
class Sample:
    """One image to rank on.

    Args:
        image: (1, C, H, W).
        name: Name in the results.
        degradation: Name of its degradation, '' if unknown.
        clean: The image that the model should return, (1, C, H, W); None if unknown.
        forward_args: Further positional arguments of the model for this image.
    """

    image: Tensor
    name: str
    degradation: str = ""
    clean: Tensor | None = None
    forward_args: tuple[object, ...] = field(default=())

    def require_clean(self, user: str, remedy: str = "give a mapping with `clean`") -> Tensor:
        """The clean image.

        Args:
            user: Name of what needs it, for the error message.
            remedy: Advice at the end of the message.

        Raises:
            ValueError: If there is none, or it has another shape than the degraded one.
        """
        if self.clean is None:
            raise ValueError(f"{self.name!r} has no clean image, which {user} needs: {remedy}.")
        if self.clean.shape != self.image.shape:
            shapes = f"{tuple(self.clean.shape[1:])}, the degraded one {tuple(self.image.shape[1:])}"
            raise ValueError(f"the clean image of {self.name!r} has shape {shapes}: they must be equal.")
        return self.clean


def open_inputs(inputs: Inputs | Files) -> Inputs:
    """The inputs as they are, or the images of a folder, a file or a list of files.

    Args:
        inputs: Images, or where they lie; see :class:`macattr.image_files.folder.ImageFolder`.

    Raises:
        ValueError: If there is no image there.
    """
    if inputs is None:
        raise ValueError("`inputs` is None: pass images, a folder of image files, or a list of them.")
    is_list = isinstance(inputs, list | tuple) and bool(inputs) and all(isinstance(i, str | Path) for i in inputs)
    return ImageFolder(inputs) if isinstance(inputs, str | Path) or is_list else inputs  # type: ignore[arg-type,return-value]


def count_samples(inputs: Inputs) -> int | None:
    """Number of images if it can be known beforehand; a data loader's data set is taken to hold one image an item."""
    if isinstance(inputs, Tensor):
        return 1 if inputs.dim() == 3 else inputs.shape[0]
    dataset = getattr(inputs, "dataset", inputs)
    if isinstance(dataset, list | tuple) and all(isinstance(item, Tensor) for item in dataset):
        return sum(1 if item.dim() == 3 else item.shape[0] for item in dataset)
    return len(dataset) if isinstance(dataset, Sized) else None


def iterate_samples(inputs: Inputs, model: nn.Module) -> Iterator[Sample]:
    """Single images on the device and in the dtype of the model.

    Args:
        inputs: Images: a tensor (C, H, W) or (B, C, H, W); or any iterable (list, DataLoader) or map-style data set of
            such tensors, of sequences whose first element is one (and whose second, if it is one too, is the clean
            image), or of mappings with ``image`` and optionally ``clean``, ``name``, ``degradation`` and
            ``forward_args``.
        model: Network that they are for.

    Raises:
        ValueError: If an item holds no image, or a clean image of another shape.
    """
    parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    number = 0
    for item in _items(inputs):
        fields = _fields(item)
        image = _batch(fields.get("image"), f"image {number}")
        clean = None if fields.get("clean") is None else _batch(fields["clean"], f"the clean image {number}")
        if clean is not None and clean.shape[0] != image.shape[0]:
            raise ValueError(f"image {number}: {image.shape[0]} images need as many clean ones, got {clean.shape[0]}.")
        arguments = fields.get("forward_args", ())
        if not isinstance(arguments, tuple):
            raise ValueError(f"image {number}: `forward_args` must be a tuple, got {type(arguments).__name__}.")
        for row in range(len(image)):
            yield Sample(
                image[row : row + 1].to(parameter),
                _text(fields.get("name"), row, f"image {number}"),
                _text(fields.get("degradation"), row, ""),
                None if clean is None else clean[row : row + 1].to(parameter),
                tuple(a.to(parameter.device) if isinstance(a, Tensor) else a for a in arguments),
            )
            number += 1


def _items(inputs: Inputs) -> Iterable[Item]:
    """The items one by one; a map-style data set ends at its length, whatever its ``__getitem__`` answers beyond."""
    if isinstance(inputs, Tensor):
        return [inputs]
    if isinstance(inputs, Iterable):
        return inputs
    if not isinstance(inputs, Sized):
        raise ValueError(
            f"`inputs` {type(inputs).__name__} has neither a length nor an iterator: pass a list of images."
        )
    return (inputs[number] for number in range(len(inputs)))


def refuse_iterator(inputs: Inputs, why: str) -> None:
    """Raise if the images can be walked over once only."""
    if isinstance(inputs, Iterator):
        raise ValueError(f"{why}: pass a list, a tensor or a data loader instead of an iterator.")


def _fields(item: Item) -> Mapping[str, object]:
    """An item by the names of its parts."""
    if isinstance(item, Mapping):
        return item
    if isinstance(item, Tensor) or not isinstance(item, Sequence):
        return {"image": item}
    pair = len(item) > 1 and isinstance(item[1], Tensor) and item[1].dim() in (3, 4)
    return {"image": item[0] if len(item) else None} | ({"clean": item[1]} if pair else {})


def _batch(image: object, name: str) -> Tensor:
    """One or several images as (B, C, H, W)."""
    if not isinstance(image, Tensor) or image.dim() not in (3, 4) or not image.is_floating_point():
        found = f"{image.dtype} {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(f"{name} must be a float tensor (C, H, W) or (B, C, H, W), got {found}.")
    return image if image.dim() == 4 else image[None]


def _text(value: object, row: int, default: str) -> str:
    """A text that belongs to all rows of an item or to each."""
    if isinstance(value, str):
        return value
    return str(value[row]) if isinstance(value, Sequence) else default
