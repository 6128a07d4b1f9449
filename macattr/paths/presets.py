"""Presets of mask attribute conductance: ours, the paper's, the authors' scripts'."""

__all__ = ["CAPTUM_ONLY", "DEFAULT", "MOST_STEPS", "OFFICIAL", "PAPER", "RANKING", "MacTag", "Preset", "as_preset"]

from collections.abc import Collection
from dataclasses import dataclass, field, fields, replace
from typing import Literal, get_args

from torch import Tensor

from macattr.arguments import whole_number
from macattr.paths.inputs import Gate, MaskAttributePath, Path, check_masked_fraction, random_order
from macattr.paths.objectives import GradientMagnitude, Objective
from macattr.paths.partitions import Partition, captum_nodes, tagged_partition

AcrossImages = Literal["mean", "sum"]

MacTag = Literal["left", "right", "trapezoid", "riemann_middle", "gausslegendre"]
"""Where the gradient is taken; the last two are Captum's nodes, with the gradient at the left end."""

CAPTUM_ONLY = ("riemann_middle", "gausslegendre")
"""Tags that stand for Captum's nodes."""


MOST_STEPS = 100_000
"""Largest number of steps; a sharper path is refused before it runs for days."""


@dataclass(frozen=True)
class Preset:
    """A bundle of options of mask attribute conductance; each can be overridden by the argument of the same name.

    Args:
        name: How provenance calls it.
        r: Share of pixels hidden at the start of the path, in (0, 1].
        n_steps: Increments of alpha.
        gate: How a pixel changes from hidden to visible; see :class:`macattr.paths.inputs.MaskAttributePath`.
        delta: Sharpness of the ``sigmoid`` and ``one_sided`` gates.
        groups: Groups of pixels of the ``fade`` gate; None: one for every 10 steps of the preset, at most 5. Other
            ``n_steps`` keep them, so that the path stays the same.
        tag: Where the gradient is taken: ``left``, ``right`` or ``trapezoid`` on nodes that include both ends;
            ``riemann_middle`` and ``gausslegendre`` are Captum's nodes, with the gradient at the left end.
        include_end: Whether the whole image is the last node.
        objective: Scalar function of the output whose change is attributed, (B, ...) to (B,).
        across_images: How scores of images are combined, ``mean`` or ``sum``.
    """

    name: str = "default"
    r: float = 0.5
    n_steps: int = 200
    gate: Gate = "fade"
    delta: float = 1e4
    groups: int | None = None
    tag: MacTag = "trapezoid"
    include_end: bool = True
    objective: Objective = field(default_factory=GradientMagnitude)
    across_images: AcrossImages = "mean"

    def override(self, **changes: object) -> "Preset":
        """The same preset with some fields replaced.

        Args:
            **changes: New values by field; None keeps the field as it is.

        Raises:
            ValueError: If a field does not exist, would have no effect, or is out of range.
        """
        if unknown := sorted(changes.keys() - {field.name for field in fields(self)}):
            raise ValueError(f"a preset has no {unknown[0]!r}; it has {', '.join(f.name for f in fields(self))}.")
        given = {name for name, value in changes.items() if value is not None}
        changed = replace(self, **{name: changes[name] for name in given})  # type: ignore[arg-type]
        changed.refuse_idle(given)
        changed.refuse_invalid()
        if "n_steps" in given and changed.groups is None:  # other steps refine the same path
            return replace(changed, groups=min(self.n_groups, changed.n_steps))
        return changed

    def refuse_idle(self, given: Collection[str]) -> None:
        """Raise if one of the fields that were given has no effect with the others: a ValueError.

        Args:
            given: Names of the fields that were given.
        """
        if "delta" in given and self.gate == "fade":
            raise ValueError(
                f"`delta` = {self.delta} has no effect on the 'fade' gate: choose gate='sigmoid' or 'one_sided'."
            )
        if "groups" in given and self.gate != "fade":
            raise ValueError(f"`groups` = {self.groups} has no effect on the {self.gate!r} gate: choose gate='fade'.")
        if "include_end" in given and self.tag in CAPTUM_ONLY:
            raise ValueError(f"`include_end` = {self.include_end} has no effect on the nodes of {self.tag!r}.")

    def refuse_invalid(self) -> None:
        """Raise if a field is out of range: a ValueError."""
        check_masked_fraction(self.r)
        if whole_number("n_steps", self.n_steps) > MOST_STEPS:
            raise ValueError(
                f"`n_steps` must be at most {MOST_STEPS:,}, got {self.n_steps:,}: each takes a forward pass and back."
            )
        if not isinstance(self.include_end, bool):
            raise ValueError(f"`include_end` must be True or False, got {self.include_end!r}.")
        for name, choices in (
            ("tag", get_args(MacTag)),
            ("gate", get_args(Gate)),
            ("across_images", get_args(AcrossImages)),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {getattr(self, name)!r}.")

    @property
    def n_nodes(self) -> int:
        """Number of positions on the path at which the network is evaluated."""
        return self.n_steps + (self.include_end or self.tag in CAPTUM_ONLY)

    @property
    def order_of_convergence(self) -> int:
        """Power of the step with which a sum's error falls on a smooth path."""
        return 2 if self.tag == "trapezoid" else 1

    @property
    def n_groups(self) -> int:
        """Number of groups of the ``fade`` gate."""
        return max(1, min(5, self.n_steps // 10)) if self.groups is None else self.groups

    def path(
        self, inputs: Tensor, baselines: Tensor, order: Tensor | None, seed: int = 0, patch_size: int = 1
    ) -> MaskAttributePath:
        """The mask path of these options from ``baselines`` to ``inputs`` (B, C, H, W).

        Args:
            inputs: Whole images.
            baselines: Values of hidden pixels.
            order: Reveal order, or None for a random one from ``seed``.
            seed: Seed of the random order.
            patch_size: Side of the blocks that are revealed together, in pixels.

        Raises:
            ValueError: If the inputs are not images (B, C, H, W), or as
                :class:`macattr.paths.inputs.MaskAttributePath`.
        """
        if inputs.dim() != 4:
            raise ValueError(
                f"a mask path needs images (B, C, H, W), got inputs of shape {tuple(inputs.shape)}: walk "
                "another path, such as path='line', or path='tokens' over (B, n, D)."
            )
        if order is None:
            count = -(-inputs.shape[-2] // max(1, patch_size)) * -(-inputs.shape[-1] // max(1, patch_size))
            order = random_order(count, seed)
        return MaskAttributePath(
            inputs,
            order.to(inputs.device),
            baselines,
            r=self.r,
            gate=self.gate,
            delta=self.delta,
            groups=self.n_groups if self.gate == "fade" else 1,
            patch_size=patch_size,
        )

    def partition(self, path: Path, *, halved: bool = False) -> Partition:
        """Nodes on the path.

        Args:
            path: The path; its interval and groups place the nodes.
            halved: Whether every group gets an even number of increments, so that every second node is a partition too.
        """
        if self.tag == "riemann_middle" or self.tag == "gausslegendre":
            return captum_nodes(path.interval, self.n_steps + 1, self.tag)
        return tagged_partition(
            path.interval, self.n_steps, self.tag, path.groups, self.include_end, multiple=2 if halved else 1
        )


DEFAULT = Preset()
"""A continuous path, the second-order sum, both ends exact: complete at the input."""

RANKING = Preset("ranking", n_steps=30)
"""For rankings, where images matter more than steps: a seventh of the evaluations of :data:`DEFAULT`."""

PAPER = Preset("paper", gate="sigmoid", tag="left")
"""As printed by Qin et al. 2024 (Eq. 6, 8, 9 with its misprints corrected); the objective is not stated there."""

OFFICIAL = Preset(
    "official",
    gate="one_sided",
    tag="right",
    include_end=False,
    objective=GradientMagnitude(0.0),
    across_images="sum",
)
"""The settings of the authors' scripts. Their reference input is 0 after ImageNet normalisation: the mean colour."""

PRESETS = {preset.name: preset for preset in (DEFAULT, RANKING, PAPER, OFFICIAL)}
"""All presets by name."""


def as_preset(preset: object) -> Preset | None:
    """A preset, also by its name; None stays None.

    Args:
        preset: As a user gave it.

    Raises:
        ValueError: If it is neither.

    Example:
        >>> as_preset("paper").tag
        'left'
    """
    if preset is None or isinstance(preset, Preset):
        return preset
    if not isinstance(preset, str) or preset.lower() not in PRESETS:
        raise ValueError(f"`preset` must be a Preset or one of {', '.join(PRESETS)}, got {preset!r}.")
    return PRESETS[preset.lower()]
