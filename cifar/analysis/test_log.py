"""What an experiment has read of the test images, and when: a figure that was read often is no longer a test."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock

from cifar.data.datasets import Dataset
from cifar.errors import RequestError
from cifar.system.files import new_file
from cifar.trials import layout


def append(experiment: Path, trial: str, seeds: Sequence[int], test: Dataset, accuracies: Sequence[float]) -> None:
    """Add a line that says when, which models, which images and which result."""
    path = layout.test_log(experiment)
    reading = {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "trial": trial,
        "seeds": seeds,
        "data": {"name": name_of(test), "fingerprint": test.fingerprint, "images": len(test.labels)},
        "accuracies": accuracies,
    }
    line = json.dumps(reading, allow_nan=False)
    with FileLock(path.with_name(f".{path.name}.lock")):
        earlier = path.read_text(encoding="utf-8") if path.exists() else ""
        with new_file(path) as temporary:
            temporary.write_text(f"{earlier}{line}\n", encoding="utf-8")


def name_of(test: Dataset) -> str:
    """Without the folder's place on somebody's disk."""
    return Path(test.name).resolve().name


def read(experiment: Path) -> list[dict[str, Any]]:
    """All readings so far, the oldest first. RequestError where the file is damaged."""
    path = layout.test_log(experiment)
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise RequestError(f"{path} is damaged: {error}") from None


def summary(experiment: Path) -> str:
    """How often which test images were read."""
    times = Counter(str(reading["data"]["name"]) for reading in read(experiment))
    said = [f"of {name} {'once' if number == 1 else f'{number} times'}" for name, number in times.items()]
    return f"test images read in this experiment: {', '.join(said) or 'never'}"
