"""How a long benchmark ends: what is wrong with a request, and an interrupt, are one sentence each."""

from __future__ import annotations

import sys
from collections.abc import Callable

from cifar.errors import RequestError


def run(main: Callable[[], int]) -> int:
    """The exit code; what a resumable benchmark has kept stays where it is."""
    try:
        return main()
    except RequestError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from what is kept", file=sys.stderr)
        return 130
