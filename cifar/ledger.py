"""Every reading of the test images, kept with the experiment: a figure that was read often is no longer a test."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock

from cifar.files import new_file

_FILE = "test-readings.jsonl"


def append(experiment: Path, reading: dict[str, Any]) -> None:
    """Add a line that says when, which models and which result."""
    path = experiment / _FILE
    line = json.dumps({"when": datetime.now(timezone.utc).isoformat(timespec="seconds")} | reading, allow_nan=False)
    with FileLock(experiment / f".{_FILE}.lock"):
        earlier = path.read_text(encoding="utf-8") if path.exists() else ""
        with new_file(path) as temporary:
            temporary.write_text(f"{earlier}{line}\n", encoding="utf-8")


def read(experiment: Path) -> list[dict[str, Any]]:
    """All readings so far, the oldest first."""
    path = experiment / _FILE
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
