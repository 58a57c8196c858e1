"""Ctrl-C, and the signals with which systems and terminals say the same."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def noting_interrupt() -> Iterator[Callable[[], bool]]:
    """Whether an interrupt has come; a second one interrupts at once, as KeyboardInterrupt.

    KeyboardInterrupt is lost where it strikes inside a destructor or a callback, so the first one is only noted.
    """
    noted = False

    def note(*_: object) -> None:
        nonlocal noted
        noted = True
        for number in previous:
            signal.signal(number, signal.default_int_handler)

    previous = {number: signal.getsignal(number) for number in _SIGNALS}
    if previous[signal.SIGHUP] is signal.SIG_IGN:  # nohup: the search is to outlive its terminal
        del previous[signal.SIGHUP]
    for number in previous:
        signal.signal(number, note)
    try:
        yield lambda: noted
    finally:
        for number in previous:
            signal.signal(number, previous[number])
