"""SIGTERM and Ctrl-C as requests that a training loop answers after the current step."""

__all__ = ["ignore_stop_requests", "stop_requests"]

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """The SIGTERM and Ctrl-C that arrive inside the ``with`` statement, without their effect; a second acts at once.

    Whoever answers a request raises the signal again afterwards, so that the process ends as signals end it.
    """
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
    """Ignore both signals in a loading process: the training process answers them and ends its loading processes."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
