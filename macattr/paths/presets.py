"""Presets of mask attribute conductance: ours, the paper's, the authors' scripts'."""

__all__ = ["DEFAULT", "OFFICIAL", "PAPER", "RANKING", "Preset"]

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from torch import Tensor

from macattr.paths.inputs import Gate, MaskAttributePath, Path, random_order
from macattr.paths.objectives import GradientMagnitude, Objective
from macattr.paths.partitions import CaptumMethod, Partition, Tag, captum_nodes, tagged_partition

MacMethod = Literal["riemann_left", "riemann_right", "riemann_trapezoid", "riemann_middle", "gausslegendre"]

CAPTUM_ONLY = ("riemann_middle", "gausslegendre")


@dataclass(frozen=True)
class Preset:
    """A bundle of options of mask attribute conductance; each can be overridden by the argument of the same name.

    Args:
        name: How provenance calls it.
        r: Share of pixels hidden at the start of the path, in (0, 1].
        n_steps: Increments of alpha.
        gate: How a pixel changes from hidden to visible; see :class:`macattr.paths.inputs.MaskAttributePath`.
        delta: Sharpness of the ``sigmoid`` and ``one_sided`` gates.
        groups: Groups of pixels of the ``fade`` gate; None: one for every 10 steps, at most 5.
        method: ``riemann_left | right | trapezoid`` take the gradient there on nodes that include both ends;
            ``riemann_middle`` and ``gausslegendre`` are Captum's nodes, left-tagged.
        include_end: Whether the whole image is the last node.
        objective: What of the output is explained.
        across_images: How scores of images are combined, ``mean`` or ``sum``.
    """

    name: str = "default"
    r: float = 0.5
    n_steps: int = 200
    gate: Gate = "fade"
    delta: float = 1e4
    groups: int | None = None
    method: MacMethod = "riemann_trapezoid"
    include_end: bool = True
    objective: Objective = field(default_factory=GradientMagnitude)
    across_images: Literal["mean", "sum"] = "mean"

    def override(
        self,
        *,
        r: float | None = None,
        n_steps: int | None = None,
        gate: Gate | None = None,
        delta: float | None = None,
        groups: int | None = None,
        method: MacMethod | None = None,
        include_end: bool | None = None,
        objective: Objective | None = None,
    ) -> "Preset":
        """The same with every argument that is not None in place of its own value.

        Args:
            r: Share of pixels hidden at the start of the path.
            n_steps: Increments of alpha.
            gate: How a pixel changes from hidden to visible.
            delta: Sharpness of the ``sigmoid`` and ``one_sided`` gates.
            groups: Groups of pixels of the ``fade`` gate.
            method: Where the gradient is taken.
            include_end: Whether the whole image is the last node.
            objective: What of the output is explained.

        Raises:
            ValueError: If an argument would have no effect, or is out of range.
        """
        given = {
            "r": r, "n_steps": n_steps, "gate": gate, "delta": delta, "groups": groups, "method": method,
            "include_end": include_end, "objective": objective,
        }  # fmt: skip
        options = replace(self, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
        if delta is not None and options.gate == "fade":
            raise ValueError(
                f"`delta` = {delta} has no effect on the 'fade' gate: choose gate='sigmoid' or 'one_sided'."
            )
        if groups is not None and options.gate != "fade":
            raise ValueError(f"`groups` = {groups} has no effect on the {options.gate!r} gate: choose gate='fade'.")
        if include_end is not None and options.method in CAPTUM_ONLY:
            raise ValueError(f"`include_end` = {include_end} has no effect on the nodes of {options.method!r}.")
        if not 0 < options.r <= 1:
            raise ValueError(
                f"`r` must lie in (0, 1], got {options.r}: it is the masked fraction at the start of the path."
            )
        if options.n_steps < 1:
            raise ValueError(f"`n_steps` must be at least 1, got {options.n_steps}.")
        if options.method not in get_args(MacMethod):
            raise ValueError(f"`method` must be one of {', '.join(get_args(MacMethod))}, got {options.method!r}.")
        return options

    @property
    def n_nodes(self) -> int:
        """Number of positions on the path at which the network is evaluated."""
        return self.n_steps + (self.include_end or self.method in CAPTUM_ONLY)

    @property
    def order_of_convergence(self) -> int:
        """Power of the step with which a sum's error falls on a smooth path."""
        return 2 if self.method == "riemann_trapezoid" else 1

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
            baselines: What is seen of hidden pixels.
            order: Reveal order, or None for a random one from ``seed``.
            seed: Seed of the random order.
            patch_size: Side of the blocks that are revealed together, in pixels.

        Raises:
            ValueError: If the inputs are not images (B, C, H, W), or as
                :class:`macattr.paths.inputs.MaskAttributePath`.
        """
        if inputs.dim() != 4:
            raise ValueError(f"a mask path needs images (B, C, H, W), got inputs of shape {tuple(inputs.shape)}.")
        if order is None:
            count = -(-inputs.shape[-2] // max(1, patch_size)) * -(-inputs.shape[-1] // max(1, patch_size))
            order = random_order(count, seed)
        return MaskAttributePath(
            inputs, order.to(inputs.device), baselines, self.r, self.gate, self.delta,
            self.n_groups if self.gate == "fade" else 1, patch_size,
        )  # fmt: skip

    def partition(self, path: Path) -> Partition:
        """Nodes on the path.

        Args:
            path: The path; its interval and groups place the nodes.
        """
        if self.method in CAPTUM_ONLY:
            captum: CaptumMethod = self.method
            return captum_nodes(path.interval, self.n_steps + 1, captum)
        tags: dict[str, Tag] = {"riemann_left": "left", "riemann_right": "right", "riemann_trapezoid": "trapezoid"}
        return tagged_partition(path.interval, self.n_steps, tags[self.method], path.groups, self.include_end)


DEFAULT = Preset()
"""A continuous path, the second-order sum, both ends exact: complete at the input."""

RANKING = Preset("ranking", n_steps=30)
"""For rankings, where images matter more than steps: a seventh of the evaluations of :data:`DEFAULT`."""

PAPER = Preset("paper", gate="sigmoid", method="riemann_left")
"""As printed by Qin et al. 2024 (Eq. 6, 8, 9 with its misprints corrected); the objective is not stated there."""

OFFICIAL = Preset(
    "official", gate="one_sided", method="riemann_right", include_end=False, objective=GradientMagnitude(0.0),
    across_images="sum",
)  # fmt: skip
"""What the authors' scripts compute. Their reference input is 0 after ImageNet normalisation, i.e. the mean colour."""
