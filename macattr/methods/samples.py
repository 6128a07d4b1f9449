"""Samples to rank on: one at a time, named, on the model's device, from anything that holds some."""

__all__ = [
    "Files",
    "Inputs",
    "Item",
    "Sample",
    "count_samples",
    "iterate_samples",
    "open_inputs",
    "refuse_iterator",
]

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.data import Dataset

from macattr.image_files import ImageFolder
from macattr.sweep.entry import forward_parameters, walked_keyword
from macattr.weights.values import device_of, number_of_values

Item = Tensor | np.ndarray | Sequence[object] | Mapping[str, object]
"""One or several samples; see :func:`iterate_samples`."""

Inputs = Tensor | np.ndarray | Mapping[str, object] | Iterable[Item] | Dataset[Item]
"""Samples to rank on; see :func:`iterate_samples`."""

Files = Path | str | Sequence[Path | str]
"""A folder of image files, an image file, or a list of them."""

OWN_KEYS = ("image", "clean", "target", "name", "degradation", "forward_args")
"""Keys of a mapping that are ours; all others are keyword arguments of the model."""

BYTES = (torch.uint8, torch.int16, torch.int32, torch.int64)
"""Types in which files are read."""

CHANNELS = (1, 3, 4)
"""Numbers of channels of pictures in files."""

UNBATCHED = {"pixel_values": 3, "inputs_embeds": 2}
"""Dimensions that one sample has without a batch, by keyword, as data sets hold it."""

TEXT = ("input_ids", 1)
"""The same for tokens."""


@dataclass(frozen=True)
class Sample:
    """One sample to rank on.

    Args:
        image: What a path walks: a floating-point tensor (1, ...), most often an image (1, C, H, W); None if the model
            takes none.
        name: Name in the results; images and other samples without one are numbered.
        degradation: Name of its degradation, '' if unknown.
        clean: What the model should return: the clean image (1, C, H, W), labels or anything that the loss takes; None
            if unknown.
        forward_args: Further positional arguments of the model for this sample.
        keywords: Its keyword arguments, without the one that a path walks.
        key: Keyword of ``image``; '' passes it as the first positional argument.
        fixed: The first positional argument where no path can walk it, such as tokens.
        is_lone: Whether ``image`` came with three dimensions, which are read as one image (C, H, W).
    """

    image: Tensor | None
    name: str
    degradation: str = ""
    clean: object = None
    forward_args: tuple[object, ...] = field(default=())
    keywords: Mapping[str, object] = field(default_factory=dict)
    key: str = ""
    fixed: tuple[object, ...] = field(default=())
    is_lone: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns in pixels; (0, 0) where there is no image."""
        if self.image is None or self.image.dim() != 4:
            return 0, 0
        return self.image.shape[-2], self.image.shape[-1]

    def require_clean(self, user: str, same_shape: bool = False) -> Tensor:
        """The clean image.

        Args:
            user: Name of what needs it, for the error message.
            same_shape: Whether it must have the shape of the sample, as where a path leads from one to the other.

        Raises:
            ValueError: If there is none, or it has another shape than it must have.
        """
        if self.clean is None:
            raise ValueError(f"{self.name!r} has no clean image, which {user} needs: give a mapping with `clean`.")
        if not isinstance(self.clean, Tensor):
            raise ValueError(
                f"the target of {self.name!r} is no tensor, as {user} needs, but {type(self.clean).__name__}."
            )
        if same_shape and (self.image is None or self.clean.shape != self.image.shape):
            found = "no image" if self.image is None else f"the degraded one {tuple(self.image.shape[1:])}"
            raise ValueError(
                f"the clean image of {self.name!r} has shape {tuple(self.clean.shape[1:])}, {found}: they must be "
                f"equal for {user}."
            )
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
    if isinstance(inputs, np.ndarray) and isinstance(tensor := _as_tensor(inputs), Tensor):
        return tensor
    is_list = isinstance(inputs, list | tuple) and bool(inputs) and all(isinstance(i, str | Path) for i in inputs)
    return ImageFolder(inputs) if isinstance(inputs, str | Path) or is_list else inputs  # type: ignore[arg-type,return-value]


def count_samples(inputs: Inputs) -> int | None:
    """Number of samples if it can be known beforehand; a data loader's data set is taken to hold one sample an item."""
    if isinstance(inputs, Tensor):
        return len(_batch(inputs, "the inputs"))
    if isinstance(inputs, Mapping):
        return None
    dataset = getattr(inputs, "dataset", inputs)
    if isinstance(dataset, list | tuple) and all(isinstance(item, Tensor) for item in dataset):
        return sum(len(_batch(item, f"sample {number}")) for number, item in enumerate(dataset))
    return len(dataset) if isinstance(dataset, Sized) else None


def iterate_samples(inputs: Inputs, model: nn.Module) -> Iterator[Sample]:
    """Single samples on the device and in the dtype of the model.

    Args:
        inputs: A tensor, a mapping, or any iterable (list, DataLoader) or map-style data set of items:

            - A tensor or array: an image (C, H, W) or images (B, C, H, W); a vector (N,); else a batch (B, ...).
              Integers, such as tokens (L,) or (B, L), are passed to the model, but no path walks them.
            - A sequence: such a tensor, and the target, if there is a second entry.
            - A mapping: ``image`` is such a tensor; ``clean`` or ``target``, ``name``, ``degradation`` and
              ``forward_args`` are optional. All other keys (``pixel_values``, ``input_ids``, ``labels``, ...) are
              keyword arguments of the model, with the batch first; integers (L,), pictures (C, H, W) as
              ``pixel_values`` and (L, D) as ``inputs_embeds`` are one sample.

            A target may be a clean image of any size, labels, or anything that the loss takes.
        model: Network that they are for.

    Raises:
        ValueError: If an item holds no sample, a keyword that the model does not take, or fewer targets than samples.
    """
    like = torch.empty(0, dtype=_most_common_dtype(model), device=device_of(model))
    number = 0
    for item in _items(inputs):
        for sample in _samples(item, model, number):
            yield _moved(sample, like)
            number += 1


def _most_common_dtype(model: nn.Module) -> torch.dtype:
    """The dtype of most of a network's parameters; torch's own without any."""
    sizes: Counter[torch.dtype] = Counter()
    for parameter in model.parameters():
        if parameter.is_floating_point():
            sizes[parameter.dtype] += number_of_values(parameter)
    return max(sizes, key=lambda dtype: sizes[dtype], default=torch.get_default_dtype())


def _samples(item: Item, model: nn.Module, number: int) -> Iterator[Sample]:
    """The samples of an item, the first of which has a number."""
    fields = _fields(item)
    keywords = {str(key): _as_tensor(value) for key, value in fields.items() if key not in OWN_KEYS}
    if "clean" in fields and "target" in fields:
        raise ValueError(f"sample {number}: `clean` and `target` are two names of the same thing: give one.")
    arguments = fields.get("forward_args", ())
    if not isinstance(arguments, tuple | list):
        raise ValueError(f"sample {number}: `forward_args` must be a tuple, got {type(arguments).__name__}.")
    _refuse_unknown(keywords, model, number)
    if "edge_index" in keywords:
        raise ValueError(
            f"sample {number}: a graph has no batch, so that its nodes would be taken for samples: give the network a "
            "forward method of nodes (1, n, D) with the edges as `forward_args`, or rank it by a method that needs no "
            "input, such as 'magnitude'."
        )
    image: Tensor | None
    if "image" in fields or not keywords:
        given = _as_tensor(fields.get("image"))
        image, is_single, key = _batch(given, f"sample {number}"), _is_single(given), ""
        count = len(image)
    else:
        keywords, is_single = _batched(keywords)
        key = walked_keyword(model, keywords) or ""
        count = _count(keywords, (key, *forward_parameters(model)[0]))
        walked = keywords.pop(key) if key else None
        image = walked if isinstance(walked, Tensor) else None
        if arguments and key == next(iter(forward_parameters(model)[0]), ""):
            key = ""  # it comes before `forward_args`
    is_picture = not key and image is not None and image.dim() == 4
    target = _target(fields.get("clean", fields.get("target")), count, (is_single, is_picture), number)
    kind = "image" if image is not None and image.dim() == 4 else "sample"
    for row in range(count):
        own = None if image is None else image[row : row + 1]
        is_walked = own is not None and own.is_floating_point()
        yield Sample(
            image=own if is_walked else None,
            name=_text(fields.get("name"), row, f"{kind} {number + row}"),
            degradation=_text(fields.get("degradation"), row, ""),
            clean=_row(target, row, count),
            forward_args=_rows(tuple(arguments), row, count),
            keywords=_rows(keywords, row, count),
            key=key,
            fixed=() if is_walked or own is None else (own,),
            is_lone=is_picture and is_single,
        )


def _moved(sample: Sample, parameter: Tensor) -> Sample:
    """A sample on the device of a parameter, images and targets in its dtype; further arguments keep theirs."""

    def move(value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        return value.to(parameter) if value.is_floating_point() else value.to(parameter.device)

    return replace(
        sample,
        image=None if sample.image is None else sample.image.detach().to(parameter),
        clean=move(sample.clean),
        forward_args=pytree.tree_map_only(Tensor, lambda tensor: tensor.to(parameter.device), sample.forward_args),
        keywords=pytree.tree_map(move, dict(sample.keywords)),
        fixed=tuple(map(move, sample.fixed)),
    )


def _refuse_unknown(keywords: Mapping[str, object], model: nn.Module, number: int) -> None:
    """Raise for a keyword that the model's forward method does not take."""
    known, takes_all = forward_parameters(model)
    unknown = [name for name in keywords if name not in known]
    if unknown and not takes_all:
        raise ValueError(
            f"sample {number}: the model takes no argument {unknown[0]!r}, but {', '.join(known)}: leave it out, or "
            "call it `image`, `clean`, `name`, `degradation` or `forward_args` if it is one of these."
        )


def _count(keywords: Mapping[str, object], names: Sequence[str]) -> int:
    """Samples among keyword arguments: rows of the first of ``names`` that is a tensor; others may belong to all."""
    tensors = (value for name in names if isinstance(value := keywords.get(name), Tensor) and value.dim())
    others = (value for value in keywords.values() if isinstance(value, Tensor) and value.dim())
    first = next(tensors, None)
    return len(first) if first is not None else max(map(len, others), default=1)


def _batched(keywords: dict[str, object]) -> tuple[dict[str, object], bool]:
    """Keyword arguments with the batch first, and whether they were one sample without it."""

    def is_single(name: str, value: object) -> bool:
        if not isinstance(value, Tensor):
            return False
        return value.dim() == UNBATCHED.get(name, 0) if value.is_floating_point() else (name, value.dim()) == TEXT

    if not any(is_single(name, value) for name, value in keywords.items()):
        return keywords, False
    return {name: value[None] if isinstance(value, Tensor) else value for name, value in keywords.items()}, True


def _target(target: object, count: int, kind: tuple[bool, bool], number: int) -> object:
    """A target with the batch first, if it is a tensor or numbers; ``kind``: of one sample, of pictures."""
    is_single, is_picture = kind
    tensor = _as_tensor(target)
    if isinstance(tensor, int | float) and not isinstance(tensor, bool):
        tensor = torch.tensor(tensor, device="cpu")
    if not isinstance(tensor, Tensor):
        return target
    if is_picture and tensor.is_floating_point() and tensor.dim() in (3, 4) and count == 1:
        tensor = tensor if tensor.dim() == 4 and len(tensor) == 1 else tensor[None]
    elif is_single or not tensor.dim():
        tensor = tensor[None]
    if len(tensor) != count:
        raise ValueError(f"sample {number}: {count} samples need as many targets, got {len(tensor)}.")
    return tensor


def _row(value: object, row: int, count: int) -> object:
    """A sample's row of a value that holds one for each; other values belong to all."""
    if isinstance(value, Tensor) and value.dim() and len(value) == count:
        return value[row : row + 1]
    return value


def _rows(values: Any, row: int, count: int) -> Any:
    """The same of every tensor inside of some values."""
    return pytree.tree_map(lambda value: _row(value, row, count), values)


def _as_tensor(value: object) -> object:
    """Lists of numbers and arrays as tensors; everything else as it is."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.as_tensor(value, device="cpu")
    if isinstance(value, list) and value:
        try:
            return torch.as_tensor(value, device="cpu")
        except (TypeError, ValueError, RuntimeError):
            return value
    return value


def _items(inputs: Inputs) -> Iterable[Item]:
    """The items one by one; a map-style data set ends at its length, whatever its ``__getitem__`` answers beyond."""
    if isinstance(inputs, Tensor | Mapping):
        return [inputs]
    if isinstance(inputs, Iterable):
        return inputs
    if not isinstance(inputs, Sized):
        raise ValueError(
            f"`inputs` {type(inputs).__name__} has neither a length nor an iterator: pass a list of images."
            f"{_remedy(inputs)}"
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
    return {"image": item[0] if len(item) else None} | ({"target": item[1]} if len(item) > 1 else {})


def _is_single(image: object) -> bool:
    """Whether a tensor is one sample without a batch: a vector, a text or an image (C, H, W)."""
    return isinstance(image, Tensor) and image.dim() in (1, 3)


def _batch(image: object, name: str) -> Tensor:
    """One or several samples as (B, ...)."""
    found = type(image).__name__
    if isinstance(image, Tensor):
        dense = image.layout is torch.strided and not (image.is_nested or image.is_meta)
        found = f"{image.dtype} {tuple(image.shape)}" if dense else "a sparse, nested or meta tensor"
        usable = dense and image.dim() > 0 and not image.is_complex()
    if not isinstance(image, Tensor) or not usable or (not image.is_floating_point() and image.dim() > 2):
        raise ValueError(
            f"{name} must be a float tensor (C, H, W) or (B, C, H, W), or any batch (B, ...), got {found}."
            f"{_remedy(image)}"
        )
    if not all(image.shape[1:]):
        raise ValueError(f"{name} has a side of length 0, got {tuple(image.shape)}: leave it out.")
    return image[None] if _is_single(image) else image


def _remedy(image: object) -> str:
    """How a picture becomes such a tensor; '' for what is none."""
    if type(image).__module__.partition(".")[0] == "PIL":
        return " A PIL image becomes one by `torch.from_numpy(numpy.array(image)).movedim(-1, 0) / 255`."
    if not isinstance(image, Tensor) or image.dtype not in BYTES or image.dim() not in (3, 4):
        return ""
    is_last = image.shape[-1] in CHANNELS and image.shape[-3] not in CHANNELS
    channels = "the channels first (`.movedim(-1, -3)`) and " if is_last else ""
    return f" If it is a picture in bytes, give {channels}values in [0, 1] (`.float() / 255`)."


def _text(value: object, row: int, default: str) -> str:
    """A text that belongs to all rows of an item or to each; numbers and paths as texts."""
    if isinstance(value, Tensor | np.ndarray):
        value = value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, str):
        return default if value is None else str(value)
    if row >= len(value):
        raise ValueError(f"`name` and `degradation` must hold a text for each of several samples, got {value!r} alone.")
    return str(value[row])
