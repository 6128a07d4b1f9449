"""What layers are ranked by: the network, its layers and every option, the same for all images and methods."""

__all__ = ["PathLike", "Setup"]

import importlib.metadata
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from macattr.methods.provenance import describe, hash_parameters
from macattr.methods.samples import Sample
from macattr.paths.inputs import BlurPath, LinearPath, MaskAttributePath, Path, Reference, resolve_reference
from macattr.paths.objectives import Distance, Objective
from macattr.paths.presets import Preset

WalkName = Literal["mask", "twin", "line", "tail", "blur", "restore"]

PathName = Literal["mask", "line", "tail", "blur", "restore"]

PathLike = PathName | Callable[[Tensor], Path]
"""A path by its name, or a function from an image (1, C, H, W) to one."""

Orders = int | Tensor | Callable[[Tensor], Tensor]

BLUR_SIGMA = 1.2
"""Width in pixels at the start of the blur path: that of LAM (Gu & Dong 2021)."""


@dataclass(frozen=True)
class Setup:
    """Everything that does not depend on the image.

    Args:
        model: Network, in eval mode.
        layers: Modules by name.
        options: Mask path, nodes and objective.
        walk: Path that replaces that of every path method; None leaves each its own.
        orders: Number of random pixel orders, the orders, or a function from an image to its order.
        baselines: Reference input; None: the model's ``reference_input`` if it has one, else 0.
        patch_size: Side in pixels of the blocks that are revealed together.
        seed: Seed of everything random.
        reduction: From neurons to a layer's score, by name.
        loss: What parameter-based methods differentiate; None: mean absolute error to the clean image.
        start_weights: Parameters by name at the other end of a path in weight space.
        forward_args: Further positional arguments of the model, before those of the image.
        internal_batch_size: Nodes in one forward pass; None chooses by memory.
        memory_budget: Bytes for activations and sums.
    """

    model: nn.Module
    layers: Mapping[str, nn.Module]
    options: Preset
    walk: PathLike | None = None
    orders: Orders = 1
    baselines: Reference | None = None
    patch_size: int = 1
    seed: int = 0
    reduction: str = "mean_abs"
    loss: Objective | None = None
    start_weights: Mapping[str, Tensor] | None = None
    forward_args: tuple[object, ...] = ()
    internal_batch_size: int | None = None
    memory_budget: float | None = None

    @property
    def order_count(self) -> int:
        """Pixel orders for every image."""
        if isinstance(self.orders, int):
            return self.orders
        return len(self.orders) if isinstance(self.orders, Tensor) else 1

    def order(self, sample: Sample, index: int) -> Tensor | None:
        """Pixel order number ``index`` of an image; None: a random one."""
        if isinstance(self.orders, int):
            return None
        return self.orders[index] if isinstance(self.orders, Tensor) else self.orders(sample.image)

    def with_steps(self, n_steps: int) -> "Setup":
        """The same with another number of steps."""
        return replace(self, options=replace(self.options, n_steps=n_steps))

    @property
    def reference(self) -> Reference:
        """The reference input: what was given, else the model's own, else 0."""
        own: Reference = getattr(self.model, "reference_input", 0.0)
        return own if self.baselines is None else self.baselines

    def arguments(self, sample: Sample) -> tuple[object, ...]:
        """Further positional arguments of the model for an image."""
        return (*self.forward_args, *sample.forward_args)

    def path(self, walk: WalkName | PathLike, sample: Sample, order: Tensor | None, seed: int) -> Path:
        """The path of that name for an image.

        Args:
            walk: ``mask`` reveals hidden pixels; ``twin`` is the same in reversed order, so that the pixels hidden at
                its start are, at r = 0.5, those that the other shows; ``line`` runs from the reference input; ``tail``
                is the last share r of it; ``blur`` sharpens; ``restore`` is the line from the image to its clean one.
            sample: The image.
            order: Reveal order, or None for a random one from ``seed``.
            seed: Seed of the random order.

        Raises:
            ValueError: If the name is unknown, or the image has no clean one where the path needs it.
        """
        image = sample.image
        if callable(walk):
            return walk(image)
        if walk == "blur":
            return BlurPath(image, BLUR_SIGMA)
        if walk == "restore":
            return LinearPath((self.clean(sample, "the path 'restore'"),), (image,))
        if walk in ("line", "tail"):
            start = 0.0 if walk == "line" else 1 - self.options.r
            return LinearPath((image,), (resolve_reference(self.reference, image),), (start, 1.0))
        if walk not in get_args(WalkName):
            raise ValueError(f"`path` must be one of {', '.join(get_args(PathName))} or a function, got {walk!r}.")
        return self.mask_path(sample, order, seed, twin=walk == "twin")

    def mask_path(self, sample: Sample, order: Tensor | None, seed: int, twin: bool = False) -> MaskAttributePath:
        """The mask path of an image, or its twin.

        Args:
            sample: The image.
            order: Reveal order, or None for a random one from ``seed``.
            seed: Seed of the random order.
            twin: Whether it is walked in reversed order.
        """
        reference = resolve_reference(self.reference, sample.image)
        path = self.options.path(sample.image, reference, order, seed, self.patch_size)
        return path.reversed() if twin else path

    def clean(self, sample: Sample, user: str) -> Tensor:
        """The clean image of a sample.

        Raises:
            ValueError: If it has none.
        """
        if sample.clean is None:
            raise ValueError(f"{sample.name!r} has no clean image, which {user} needs: give a mapping with `clean`.")
        if sample.clean.shape != sample.image.shape:
            shapes = f"{tuple(sample.clean.shape[1:])}, the degraded one {tuple(sample.image.shape[1:])}"
            raise ValueError(f"the clean image of {sample.name!r} has shape {shapes}: they must be equal.")
        return sample.clean

    def sample_loss(self, sample: Sample, user: str) -> Objective:
        """What parameter-based methods differentiate: ``loss``, else the mean absolute error to the clean image.

        Raises:
            ValueError: If the sample has no clean image and there is no ``loss``.
        """
        if self.loss is not None:
            return self.loss
        if sample.clean is None:
            raise ValueError(
                f"{sample.name!r} has no clean image, which {user} needs: give a mapping with `clean`, or a `loss`."
            )
        return Distance(self.clean(sample, user))

    def provenance(self) -> dict[str, str | int | float]:
        """How it was measured, as plain attributes, but for the mask path."""
        parameter = next(self.model.parameters(), torch.empty(0))
        low = torch.is_autocast_enabled(parameter.device.type)
        return {
            "preset": self.options.name,
            "n_steps": self.options.n_steps,
            "quadrature": self.options.method,
            "include_end": int(self.options.include_end),
            "objective": describe(self.options.objective),
            "across_images": self.options.across_images,
            "baselines": describe(self.reference),
            "model": type(self.model).__name__,
            "model_sha256": hash_parameters(self.model),
            "dtype": str(torch.get_autocast_dtype(parameter.device.type) if low else parameter.dtype),
            "device": parameter.device.type,
            "macattr": importlib.metadata.version("macattr"),
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        }

    def mask_provenance(self) -> dict[str, str | int | float]:
        """The options of the mask path alone."""
        options = self.options
        return {
            "r": options.r,
            "gate": options.gate,
            "delta": options.delta if options.gate != "fade" else "",
            "groups": options.n_groups if options.gate == "fade" else "",
            "patch_size": self.patch_size,
            "seed": self.seed if isinstance(self.orders, int) else "orders were given",
        }
