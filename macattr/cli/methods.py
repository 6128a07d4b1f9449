"""``macattr methods``: the list of all methods, or the explanation of some."""

__all__ = ["methods"]

from itertools import groupby

from macattr.methods.catalogue import METHODS, find_methods
from macattr.methods.kinds import Method, PathMethod, needs_images, needs_loss
from macattr.methods.walks import WALKS

PASSES_WIDTH = 22
"""Width of the column of passes."""

NEEDS = (
    "nothing but the network",
    "images",
    "images with a clean version or a label",
    "images with a clean version or a label, and another checkpoint (--start-weights)",
)
"""What methods need, from the least to the most."""

FOOT = """\
passes: forward and backward passes over one image, for all layers together; those along a mask path once for each
pixel order (--orders). Methods on the same path share them: --method mac,drift costs as much as mac alone.
`macattr methods NAME` explains a method."""


def methods(names: list[str]) -> None:
    """List the methods by what they need, with their cost and their score; or explain those that are named.

    Args:
        names: Methods to explain; without any, or with all, every method is listed in a line.
    """
    if names != ["all"]:
        print("\n\n".join(_explain(method) for method in find_methods(names)))
        return
    width = max(map(len, METHODS))
    for needs, group in groupby(sorted(METHODS.values(), key=_needs), _needs):
        print(f"needs {NEEDS[needs]}")
        print(f"  {'method':<{width}}  {'passes':<{PASSES_WIDTH}}  score of a layer")
        for method in group:
            print(f"  {method.name:<{width}}  {_passes(method):<{PASSES_WIDTH}}  {method.summary.partition(': ')[0]}")
        print()
    print(FOOT)


def _needs(method: Method) -> int:
    """What a method needs, as its place in ``NEEDS``."""
    if not needs_images(method):
        return 0
    if not needs_loss(method):
        return 1
    return 3 if not isinstance(method, PathMethod) and "start_weights" in method.options else 2


def _passes(method: Method) -> str:
    """Passes over one image, in words."""
    return method.price.partition(" an image")[0] if needs_images(method) else "none"


def _explain(method: Method) -> str:
    """A method in detail."""
    rows = {"score": method.summary, "source": method.source, "needs": NEEDS[_needs(method)]}
    if isinstance(method, PathMethod):
        rows["path"] = ", and ".join(WALKS[walk].words for walk in method.walks).replace("{r}", "the share r")
    rows["passes"] = method.price if needs_images(method) else "none"
    return "\n".join([method.name, *(f"  {term:<8}{words}" for term, words in rows.items())])
