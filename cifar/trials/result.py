"""How a trial ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Status = Literal["ok", "stopped_early", "diverged", "out_of_memory", "interrupted", "error"]


@dataclass(frozen=True)
class Result:
    """How a trial ended and why. `metrics` are what the tuner is told, None where there is nothing to tell.

    Seconds are those of training, `details` say what was run and with what.
    """

    status: Status
    reason: str
    metrics: dict[str, float] | None = None
    epochs: int = 0
    seconds: float = 0.0
    details: dict[str, object] = field(default_factory=dict)
