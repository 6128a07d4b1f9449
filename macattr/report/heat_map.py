"""Heat map of a report: layers by role and block."""

__all__ = ["Cell", "HeatMap", "arrange_layers"]

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from macattr.plots import block_grid
from macattr.ranking.importance import LayerImportance
from macattr.report.layers import Layer


@dataclass(frozen=True)
class Cell:
    """Cell of the heat map.

    Args:
        layer: The layer; None where a column has none.
        width: Number of columns that it covers.
    """

    layer: Layer | None
    width: int


@dataclass(frozen=True)
class HeatMap:
    """Layers by role and block.

    Args:
        groups: Headings over the columns, with their widths; empty if there is a single group.
        columns: Full and short name of every block.
        rows: Role and cells of every row.
        outside: Layers outside of any block.
    """

    groups: tuple[tuple[str, int], ...]
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    outside: tuple[Layer, ...]


def arrange_layers(importance: LayerImportance, layers: Mapping[str, Layer]) -> HeatMap:
    """Arrange layers by role and block.

    Args:
        importance: The ranking, which holds class, block, role and depth of every layer.
        layers: Layers by name.
    """
    data = importance.dataset
    table = pd.DataFrame({name: data[name].values for name in ("layer", "type", "block", "role", "depth")})
    grid = block_grid(table.sort_values("depth"))
    rows: list[list[Cell]] = []
    for row in range(len(grid.roles)):
        placed = {column: (name, width) for name, (at, column, width) in grid.places.items() if at == row}
        cells, column = [], 0
        while column < len(grid.blocks):
            name, width = placed.get(column, ("", 1))
            cells.append(Cell(layer=layers.get(name), width=width))
            column += width
        rows.append(cells)
    return HeatMap(
        groups=grid.groups if len(grid.groups) > 1 else (),
        columns=tuple((block, block.rpartition(".")[2]) for block in grid.blocks),
        rows=tuple((role, tuple(cells)) for role, cells in zip(grid.roles, rows, strict=True)),
        outside=tuple(layer for name, layer in layers.items() if name not in grid.places),
    )
