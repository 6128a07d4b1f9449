"""Checkpointed blocks of the user's network, which run as they are inside a guard."""

__all__ = ["RunsAgain", "plain_checkpoints"]

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock, local
from typing import Any

import torch.utils.checkpoint

WITHOUT_REENTRY = "_checkpoint_without_reentrant_generator"
"""Name of what :func:`torch.utils.checkpoint.checkpoint` steps through around a block, if it is not reentrant."""

_GUARD = RLock()


class RunsAgain:
    """Base of functions whose checkpoint is macattr's own, so that it stays a checkpoint."""


class _Plain:
    """Takes the place of torch's checkpoints: threads inside of :func:`plain_checkpoints` run the block as it is."""

    reentrant = torch.utils.checkpoint.CheckpointFunction
    without_reentry = getattr(torch.utils.checkpoint, WITHOUT_REENTRY, None)
    inside = local()
    count = 0

    @classmethod
    def is_inside(cls) -> bool:
        """Whether this thread runs blocks as they are."""
        return getattr(cls.inside, "depth", 0) > 0

    @classmethod
    def apply(cls, function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        """Output of a block, in place of the reentrant kind."""
        if cls.is_inside():
            return function(*args)
        return cls.reentrant.apply(function, preserve, *args)

    @classmethod
    def around(cls, function: Callable[..., Any], *args: Any, **keywords: Any) -> Iterator[None]:
        """What happens before and after a block, in place of the other kind."""
        if cls.without_reentry is None or (cls.is_inside() and not isinstance(function, RunsAgain)):
            return iter(_nothing())
        around: Iterator[None] = cls.without_reentry(function, *args, **keywords)
        return around

    @classmethod
    def enter(cls, change: int) -> None:
        """Enter or leave; the first one takes the place, the last one gives it back."""
        with _GUARD:
            cls.inside.depth = getattr(cls.inside, "depth", 0) + change
            cls.count += change
            reentrant = cls if cls.count else cls.reentrant
            torch.utils.checkpoint.CheckpointFunction = reentrant  # type: ignore[assignment,misc]
            if cls.without_reentry is not None:
                setattr(torch.utils.checkpoint, WITHOUT_REENTRY, cls.around if cls.count else cls.without_reentry)


def _nothing() -> Iterator[None]:
    """Nothing before and after a block."""
    yield


@contextmanager
def plain_checkpoints() -> Iterator[None]:
    """Checkpointed blocks run directly, in this thread alone.

    The backward pass would run them again when hooks and other weights are gone, so that sums would hold other values;
    and the reentrant kind refuses :func:`torch.autograd.grad`.
    """
    _Plain.enter(1)
    try:
        yield
    finally:
        _Plain.enter(-1)
