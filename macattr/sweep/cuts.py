"""Cuts of the graph: layers that every connection from the inputs to the objective runs through."""

__all__ = ["find_cuts"]

from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from macattr.sweep.probes import Site


def find_cuts(root: Tensor, inputs: Sequence[Tensor], edges: Mapping[Site, GradientEdge]) -> set[Site]:
    """Tensors through which every connection from the inputs runs: they carry all paths of the graph.

    The number of paths through a tensor is (paths from the root to it) x (paths from its node to the inputs); exact
    integers. A node with several outputs has several tensors.

    Args:
        root: The objective.
        inputs: Inputs of the model.
        edges: Graph edges of the tensors to test.
    """
    start = root.grad_fn
    order: list[Node] = []
    visited: set[Node | None] = set()
    stack: list[tuple[Node, bool]] = [(start, False)] if start is not None else []
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in visited:
            visited.add(node)
            stack.append((node, True))
            stack.extend((child, False) for child, _ in node.next_functions if child is not None)
    to_inputs: dict[Node, int] = {get_gradient_edge(tensor).node: 1 for tensor in inputs}
    for node in order:
        if node not in to_inputs:
            to_inputs[node] = sum(to_inputs[child] for child, _ in node.next_functions if child is not None)
    from_root = dict.fromkeys(order, 0)
    from_root_to: dict[tuple[Node, int], int] = {}
    if start is not None:
        from_root[start] = from_root_to[start, root.output_nr] = 1
    for node in reversed(order):
        for child, output in node.next_functions:
            if child is not None:
                from_root[child] += from_root[node]
                from_root_to[child, output] = from_root_to.get((child, output), 0) + from_root[node]
    total = to_inputs.get(start, 0) if start is not None else 0
    return {
        site
        for site, edge in edges.items()
        if total and from_root_to.get((edge.node, edge.output_nr), 0) * to_inputs.get(edge.node, 0) == total
    }
