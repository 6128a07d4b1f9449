"""Draw the figures of the theory page: the gates of one pixel, the mask path, and the convergence of sharp gates.

    python docs/figures.py [FOLDER]

writes gates.png, mask-path.png and sharp-gates.png, by default into docs/images. It uses a photograph of scikit-image
and a small random network.
"""

import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from skimage import data, transform
from torch import Tensor, nn

from macattr import GradientMagnitude, LayerConductance, MaskAttributePath
from macattr.paths.inputs import Gate, random_order, reveal_gate

BLUE, ORANGE, GREEN = "#2a78b5", "#d2691e", "#3a8f4d"
COLOURS: dict[Gate, str] = {"fade": BLUE, "sigmoid": ORANGE, "one_sided": GREEN}


def photograph(size: int) -> Tensor:
    """The astronaut's face, (1, 3, size, size) in [0, 1]."""
    face = transform.resize(data.astronaut()[20:220, 120:320], (size, size), anti_aliasing=True)
    return torch.from_numpy(face).permute(2, 0, 1)[None]


def path_to(image: Tensor, gate: Gate) -> MaskAttributePath:
    """Mask path from black, with half of the pixels hidden at its start."""
    order = random_order(image.shape[-1] * image.shape[-2], seed=0)
    return MaskAttributePath(image, order, torch.zeros_like(image), gate=gate)


def draw_gates() -> Figure:
    """Change of one pixel of 8x8 from hidden (0) to visible (1), by gate."""
    rank, count = 45, 64
    alpha = torch.linspace(0.5, 1, 4001, dtype=torch.float64)
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.5), sharey=True, layout="constrained")
    notes = {
        "fade": "its group fades in",
        "sigmoid": r"$(k + \frac{1}{2})/n$",
        "one_sided": r"$\lceil n\alpha\rceil > k$",
    }
    for axis, (gate, colour) in zip(axes, COLOURS.items(), strict=True):
        path = path_to(torch.ones(1, 1, 8, 8, dtype=torch.float64), gate)
        curve = reveal_gate(alpha, torch.arange(count)[None], path)[:, 0, rank]
        axis.plot(alpha, curve, color=colour, lw=2)
        risen = float(alpha[int((curve > 0.3).nonzero()[0])])
        axis.annotate(notes[gate], (risen, 0.3), (10, 0), textcoords="offset points", color=colour)
        axis.set(title=gate, xlabel=r"$\alpha$", xlim=(0.5, 1))
    axes[0].set_ylabel("gate of one pixel")
    return figure


def draw_path() -> Figure:
    """A photograph at several positions of the path."""
    positions = (0.5, 0.55, 0.6, 0.7, 0.85, 1.0)
    figure, axes = plt.subplots(2, len(positions), figsize=(9, 3.3), layout="constrained")
    for row, gate in zip(axes, ("fade", "sigmoid"), strict=True):
        images = path_to(photograph(32), gate).at(torch.tensor(positions, dtype=torch.float64))[0]
        for axis, alpha, image in zip(row, positions, images, strict=True):
            axis.imshow(image.permute(1, 2, 0), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.set_title(rf"$\alpha$ = {alpha:g}" if gate == "fade" else "", fontsize=10)
        row[0].set_ylabel(gate)
    return figure


def draw_convergence() -> Figure:
    """The objective along two paths, and the error of the sum against the number of steps."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(8, 3, 3, padding=1),
    ).double()
    image, objective = photograph(16), GradientMagnitude()
    figure, (curves, errors) = plt.subplots(1, 2, figsize=(9, 3.1), layout="constrained")
    alpha = torch.linspace(0.7, 0.74, 1201, dtype=torch.float64)
    for gate in ("fade", "sigmoid"):
        with torch.no_grad():
            along = objective(network(path_to(image, gate).at(alpha)[0]))
        curves.plot(alpha, along, color=COLOURS[gate], lw=1.8, label=gate)
    curves.set(title="objective on a piece of the path", xlabel=r"$\alpha$", ylabel=r"$F(X(\alpha))$")
    curves.set_xticks([0.70, 0.72, 0.74])
    curves.legend(frameon=False)
    steps = [10, 20, 40, 80, 160, 320, 640]
    rules: list[tuple[Gate, str, str]] = [
        ("sigmoid", "left", "sigmoid, left: as printed"),
        ("one_sided", "right", "one_sided, right: authors' scripts"),
        ("sigmoid", "trapezoid", "sigmoid, trapezoid"),
        ("fade", "trapezoid", "fade, trapezoid: default"),
    ]
    for gate, tag, label in rules:
        residuals = []
        for n_steps in steps:
            path = path_to(image, gate)
            _, delta = LayerConductance(network, network[0]).attribute(
                image, path=path, n_steps=n_steps, method=tag, objective=objective, return_convergence_delta=True
            )
            ends = objective(network(path.at(torch.tensor(path.interval, dtype=torch.float64))[0])).detach()
            residuals.append(abs(float(delta) / float(ends[1] - ends[0])))
        style = "--" if label == "sigmoid, trapezoid" else ":" if gate == "one_sided" else "-"
        errors.loglog(steps, residuals, style, color=COLOURS[gate], marker="o", ms=4, label=label)
    errors.set(title=r"$|\Sigma\,C\,/\,\Delta F - 1|$ at the first layer", xlabel="steps", ylim=(1e-6, 1e2))
    errors.legend(frameon=False, fontsize=8, loc="upper right", ncols=2)
    return figure


def main(folder: Path) -> None:
    """Write all figures."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"gates": draw_gates, "mask-path": draw_path, "sharp-gates": draw_convergence}
    for name, draw in figures.items():
        draw().savefig(folder / f"{name}.png", dpi=150, metadata={"Software": None})
        plt.close()


if __name__ == "__main__":
    mpl.use("Agg")
    mpl.rcParams |= {"axes.spines.top": False, "axes.spines.right": False, "font.size": 10}
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images")
