"""Durations: as NNI writes them, a number with a unit (90s, 30m, 2h, 1d) or seconds alone, and as people say them."""

from __future__ import annotations

import re

RULE = "must be a number above 0 with a unit, as 90s, 30m, 2h or 1d"
_WRITTEN = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def is_duration(value: object) -> bool:
    """Whether it is what RULE asks for, or a number of seconds."""
    if isinstance(value, str):
        match = _WRITTEN.fullmatch(value)
        return match is not None and float(match[1]) > 0
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def seconds(duration: str | int | None) -> float | None:
    """A duration in seconds; None stays None."""
    if not isinstance(duration, str):
        return duration
    match = _WRITTEN.fullmatch(duration)
    if match is None:
        raise ValueError(f"a duration {RULE}, got {duration!r}")
    return float(match[1]) * _UNITS[match[2]]


def duration_text(seconds: float) -> str:
    """As people say it: 80 s, 12 min, 2 h 5 min."""
    if seconds <= 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
