"""Inputs that a network refuses, or may read in two ways: which one, and what it would take."""

__all__ = ["explained", "warn_of_readings"]

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from macattr.image_files import center_crop, fit_to_multiple, luminance
from macattr.layers.wrappers import inner_network
from macattr.methods.samples import Sample
from macattr.methods.task import Task
from macattr.sweep.entry import forward_parameters
from macattr.sweep.guard import undisturbed
from macattr.user_warnings import warn_user
from macattr.weights.values import is_offloaded, is_packed, is_sharded

MULTIPLES = (2, 4, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 48, 64, 128)
"""Numbers that sides may have to be multiples of: products of strides, and sides of patches and windows."""

CROPS = (32, 64, 128, 224, 256, 384, 448, 512)
"""Sides of the images that networks of a fixed size take."""

DECODER_INPUTS = {"decoder_input_ids", "decoder_inputs_embeds", "labels"}
"""What the decoder of a network of Hugging Face reads."""

LARGEST = 1024
"""Sides in pixels above which a part of the image is tried instead, whose sides leave the same rest by 128."""


@dataclass(frozen=True)
class _Form:
    """An image in another form: what that is, and how such images are read.

    Args:
        words: What a network takes that takes this form.
        flag: Option of the command line.
        keyword: Argument in Python.
        images: Examples (1, C, H, W), all of which the network must take.
    """

    words: str
    flag: str
    keyword: str
    images: tuple[Tensor, ...]


@contextmanager
def explained(task: Task, samples: Sequence[Sample]) -> Iterator[None]:
    """An error is one about an image's size or channels, if the network runs on that image in another form.

    Others stay as they are, with a note that names the image.

    Args:
        task: With the network.
        samples: Images that are measured inside.

    Raises:
        ValueError: Instead of the network's own error, with the name of the image, its size and a remedy.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        for sample in samples:
            image = sample.image
            if image is not None and image.dim() == 4 and (remedy := _remedy(task, sample, image)):
                size = "x".join(map(str, image.shape[1:]))
                raise ValueError(
                    f"the network refuses {sample.name!r} of {size} (channels x rows x columns): {_in_a_line(error)}. "
                    f"{remedy}"
                ) from error
            if remedy := _other_input(task, sample):
                raise ValueError(
                    f"the network does not run on {sample.name!r} ({_in_a_line(error)}): {remedy}"
                ) from error
        if len(samples) == 1 and repr(samples[0].name) not in str(error):
            error.add_note(f"The sample is {samples[0].name!r}.")
        raise


def _in_a_line(error: Exception) -> str:
    """An error without its type, in one line."""
    return " ".join((str(error) or type(error).__name__).split()).rstrip(".")


def _other_input(task: Task, sample: Sample) -> str:
    """What a network needs that has a decoder, or takes sequences or videos; '' for others."""
    network = inner_network(task.model)[0]
    has_decoder = getattr(getattr(network, "config", None), "is_encoder_decoder", False)
    if has_decoder and not sample.keywords.keys() & DECODER_INPUTS:
        return "its decoder has no input. Add `decoder_input_ids`, or `labels` from which it makes them."
    image = sample.image
    if sample.key or image is None or _runs(task, sample, image):
        return ""
    if image.dim() == 4:
        if _runs(task, sample, image.movedim(-1, -3)):
            return "its channels come last. Pass images (C, H, W), as `tensor.movedim(-1, -3)`."
        if sample.is_lone and _runs(task, sample, image[0]):
            return f"three dimensions are read as one image (C, H, W). {_by_name(task, 'a batch (B, ..., ...)')}"
        if any(isinstance(module, nn.Conv3d) for module in network.modules()):
            return "four dimensions are read as images (B, C, H, W). Pass a video as (1, C, T, H, W)."
    if image.dim() == 2:
        return (
            "two dimensions are read as a vector in each row. Pass a grey image as (1, H, W). "
            f"{_by_name(task, 'a sequence or a set of points (1, n, D)')}"
        )
    return ""


def warn_of_readings(task: Task, sample: Sample) -> None:
    """Say that three dimensions are read as one image, where the network takes them as a batch too.

    What convolves in two dimensions takes images. Networks whose weights are sharded, offloaded or packed are not
    asked: a pass that fails, or has no gradients, leaves these otherwise.

    Args:
        task: With the network.
        sample: The first sample.

    Warns:
        UserWarning: If the network takes both.
    """
    image = sample.image
    if not sample.is_lone or image is None:
        return
    if any(isinstance(module, nn.Conv2d | nn.ConvTranspose2d) for module in task.model.modules()):
        return
    weights = [is_sharded(weight) or is_packed(weight) for weight in task.model.parameters()]
    if any(weights) or any(map(is_offloaded, task.model.modules())):
        return
    if _runs(task, sample, image[0]) and _runs(task, sample, image):
        shape = tuple(image.shape[1:])
        warn_user(
            f"{sample.name!r} {shape} is read as one image (C, H, W), but the network takes a batch of {shape[0]} too. "
            f"{_by_name(task, 'a batch')} Pass one image as (1, C, H, W), without this warning."
        )


def _by_name(task: Task, words: str) -> str:
    """How something is passed that is not read by its number of dimensions."""
    name = next(iter(forward_parameters(task.model)[0]), "x")
    return f"Pass {words} by name, as `{{{name!r}: tensor}}`."


def _remedy(task: Task, sample: Sample, image: Tensor) -> str:
    """What makes the network take an image; '' if it takes it as it is, or not in any form that is tried."""
    image = _part(image)
    if _runs(task, sample, image):
        return ""
    if colours := _three_channels(task, sample, image):
        return colours
    grey = _Form("one channel", "--grey", "grey=True", (luminance(image[0])[None],)) if image.shape[1] == 3 else None
    for channels in (None, grey) if grey else (None,):
        for size in (None, *_sizes(channels.images[0] if channels else image)):
            wanted = [form for form in (channels, size) if form]
            if wanted and all(_runs(task, sample, image) for image in wanted[-1].images):
                return (
                    f"It takes {' and '.join(form.words for form in wanted)}: give other images, or read these with "
                    f"`macattr rank {' '.join(form.flag for form in wanted)}`, in Python "
                    f"`ImageFolder(..., {', '.join(form.keyword for form in wanted)})`."
                )
    return ""


def _three_channels(task: Task, sample: Sample, image: Tensor) -> str:
    """How a picture that is grey, or has an alpha channel, becomes one in colours, if the network takes that."""
    channels = image.shape[1]
    if channels not in (1, 4) or not _runs(task, sample, image[:, [0, 0, 0] if channels == 1 else [0, 1, 2]]):
        return ""
    return f"It takes three channels: pass `{'image.expand(3, -1, -1)' if channels == 1 else 'image[:3]'}`."


def _sizes(image: Tensor) -> Iterator[_Form]:
    """An image in other sizes."""
    for number in MULTIPLES:
        side = number * (11 if number <= 16 else 3)  # which is a multiple of no larger one in the list
        places = torch.arange(side, device=image.device)
        other = image[:, :, places % image.shape[2]][..., places % image.shape[3]]
        examples = (fit_to_multiple(image[0], number)[None], other)
        yield _Form(f"sides that are multiples of {number}", f"--multiple {number}", f"multiple={number}", examples)
    for side in CROPS:
        if side <= min(image.shape[2:]):
            cropped = center_crop(image[0], side)[None]
            yield _Form(f"{side}x{side} pixels", f"--crop {side}", f"crop={side}", (cropped,))


def _part(image: Tensor) -> Tensor:
    """The image, or of a very large one a part that leaves the same rest when it is divided."""
    rows, columns = (side if side <= LARGEST else 2 * MULTIPLES[-1] + side % MULTIPLES[-1] for side in image.shape[2:])
    return image[:, :, :rows, :columns]


def _runs(task: Task, sample: Sample, image: Tensor) -> bool:
    """Whether the network takes an image."""
    try:
        with undisturbed(task.model), torch.no_grad():
            arguments, keywords = task.call_arguments(replace(sample, image=image))
            task.model(*arguments, **keywords)
    except Exception:
        return False
    return True
