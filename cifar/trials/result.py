"""How a trial ended, and the file that says so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "stopped_early", "diverged", "out_of_memory", "interrupted", "error"]


@dataclass(frozen=True)
class Result:
    """How a trial ended and why. `metrics` go to the tuner, None where it is told nothing.

    Seconds are those of training, `details` say what was run and with what.
    """

    status: Status
    reason: str
    metrics: dict[str, float] | None = None
    epochs: int = 0
    seconds: float = 0.0
    details: dict[str, object] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "reason": self.reason,
            "metrics": self.metrics,
            "epochs": self.epochs,
            "seconds": self.seconds,
            **self.details,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Result:
        """What to_json made, as far as a continued trial needs it: without its details. KeyError where it is not."""
        return cls(*(content[name] for name in ("status", "reason", "metrics", "epochs", "seconds")))


def checked(content: dict[str, Any]) -> dict[str, Any]:
    """A trial's result file, as far as this version needs it; an error where that is not in it, or cannot be."""
    known: dict[str, Any] = {**content, "reason": str(content["reason"]), "status": str(content["status"])}
    if content["metrics"]:
        known["metrics"] = {str(name): float(value) for name, value in content["metrics"].items()}
        known["data"] = {**content["data"], "val_images": int(content["data"]["val_images"])}
        if content.get("hparams", {}).get("metric") == "balanced_accuracy":
            known["data"]["balanced_images"] = max(1.0, float(content["data"]["balanced_images"]))
        accuracy, images = known["metrics"]["default"], known["data"]["val_images"]
        if not all(map(math.isfinite, known["metrics"].values())) or not 0 <= accuracy <= 1 or images < 1:
            raise ValueError(f"no accuracy is {accuracy} of {images} images")
    known |= {"seconds": float(content["seconds"]), "epochs": int(content["epochs"])}
    if not (math.isfinite(known["seconds"]) and min(known["seconds"], known["epochs"]) >= 0):
        raise ValueError(f"no trial takes {known['seconds']} seconds for {known['epochs']} epochs")
    return known
