"""``macattr methods``: the list of all methods."""

__all__ = ["methods"]

from macattr.methods.catalogue import METHODS


def methods() -> None:
    """List all methods, each with its score, its number of evaluations and its source."""
    for method in METHODS.values():
        print(f"{method.name}\n    {method.summary}\n    evaluations: {method.price}; source: {method.source}")
    print(
        "\nAn evaluation is one forward and one backward pass over one image, for all layers together. Methods on the "
        "same path\nshare their evaluations: --method mac,drift,attribution_patching costs as much as mac alone."
    )
