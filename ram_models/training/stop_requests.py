"""SIGTERM and Ctrl-C as requests that a training loop answers after the current step."""

__all__ = ["ignore_stop_requests", "stop_requests"]

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """The SIGTERM and Ctrl-C that arrive meanwhile, instead of their effect; a second one acts at once."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, _: object) -> None:
        received.append(number)
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_stop_requests(_: int) -> None:
    """In a loading process: a signal to the whole group is for the training process, which ends the others."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
