"""Ctrl-C, and the signals with which systems and terminals say the same."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def listen() -> None:
    """Let each of the signals raise KeyboardInterrupt, also where a shell started this process with SIGINT ignored.

    SIGHUP that is ignored stays so: under nohup the search is to outlive its terminal.
    """
    for number in _SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


@contextlib.contextmanager
def noting_interrupt() -> Iterator[Callable[[], bool]]:
    """Whether an interrupt has come; a second one raises KeyboardInterrupt.

    KeyboardInterrupt is lost where it strikes inside a destructor or a callback, so the first one is only noted.
    """
    noted = False

    def note(*_: object) -> None:
        nonlocal noted
        noted = True
        for number in previous:
            signal.signal(number, signal.default_int_handler)

    previous = {number: handler for number in _SIGNALS if (handler := signal.getsignal(number)) is not signal.SIG_IGN}
    for number in previous:
        signal.signal(number, note)
    try:
        yield lambda: noted
    finally:
        for number in previous:
            signal.signal(number, previous[number])
