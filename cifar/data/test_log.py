"""What was read of test images, and when: a figure that was read often is no longer a test.

A set of test images has a log of its own in the user's cache, of all readings on this machine; an experiment has one of
its own readings, which goes where it goes.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock

from cifar.data.datasets import Dataset
from cifar.data.sizes import SIZE
from cifar.errors import RequestError
from cifar.system import places
from cifar.system.files import new_file

logger = logging.getLogger(__name__)


def append(
    test: Dataset, trial: str, seeds: Sequence[int], accuracies: Sequence[float], experiment_log: Path | None = None
) -> None:
    """Add a line that says when, which models, which images and which result."""
    reading = {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "trial": trial,
        "seeds": seeds,
        "data": {"name": name_of(test), "fingerprint": test.fingerprint, "images": len(test.labels)},
        "accuracies": accuracies,
    }
    line = json.dumps(reading, allow_nan=False)
    if experiment_log:
        _append(experiment_log, line)
    try:
        path = of_images(test)
        path.parent.mkdir(parents=True, exist_ok=True)
        _append(path, line)
    except OSError as error:
        logger.warning("this reading of the test images is not entered in %s: %s", path, error)


def of_images(test: Dataset) -> Path:
    """The log of all readings of these test images on this machine."""
    return places.cache() / "test-readings" / f"{test.fingerprint[:16]}.jsonl"


def _append(path: Path, line: str) -> None:
    with FileLock(path.with_name(f".{path.name}.lock")):
        earlier = path.read_text(encoding="utf-8") if path.exists() else ""
        with new_file(path) as temporary:
            temporary.write_text(f"{earlier}{line}\n", encoding="utf-8")


def name_of(test: Dataset) -> str:
    """Without the folder's place on somebody's disk."""
    return Path(test.name).resolve().name


def read(path: Path) -> list[dict[str, Any]]:
    """All readings in a log, the oldest first. RequestError where the file is damaged."""
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise RequestError(f"{path} is damaged: {error}") from None


def summary(experiment_log: Path) -> str:
    """How often an experiment has read which test images."""
    times = Counter(str(reading["data"]["name"]) for reading in read(experiment_log))
    said = [f"{name} {_times(number)}" for name, number in times.items()]
    return f"test images read in this experiment: {', '.join(said) or 'never'}"


def count(test: Dataset) -> str:
    """How often these test images have been read on this machine, in words."""
    try:
        number = len(read(of_images(test)))
    except RequestError as error:  # it comes too late to refuse anything
        return f"how often these test images were read is not known: {error}"
    warning = "; the more often, the less they are a test" if number > 1 else ""
    size = "" if test.size == SIZE else f", at {test.size} x {test.size} pixels,"
    return f"these test images{size} were read {_times(number)} on this machine{warning}"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
