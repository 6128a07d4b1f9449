"""``macattr methods``: what can be measured."""

__all__ = ["methods"]

from macattr.methods.catalogue import METHODS


def methods() -> None:
    """List all methods: what the score is, how many evaluations it costs, where it comes from."""
    for method in METHODS.values():
        print(f"{method.name}\n    {method.summary}\n    evaluations: {method.price}; source: {method.source}")
    print(
        "\nAn evaluation is one forward and one backward pass over one image, for all layers together. Methods that "
        "walk the\nsame path share them: --method mac,drift,attribution_patching costs what mac does alone."
    )
