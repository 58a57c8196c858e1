"""The one error that a user's mistake raises, and several of them at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class RequestError(ValueError):
    """The request was wrong: a line for each problem names value and rule. Commands print it and exit with 2."""


class Problems:
    """Gathers what several checks object to, so that the user hears it all at once."""

    def __init__(self) -> None:
        self.found: list[str] = []  # sentences

    def collect(self, check: Callable[[], T]) -> T | None:
        """What `check` returns; None where it raised a RequestError, which is kept."""
        try:
            return check()
        except RequestError as error:
            self.found += str(error).splitlines()
            return None

    def raise_if_any(self) -> None:
        """Raise a RequestError with a line for each problem, where there is any."""
        if self.found:
            raise RequestError("\n".join(dict.fromkeys(self.found)))
