"""What another machine of a search is asked over SSH: `python -m cifar.worker QUESTION`, JSON in and out."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import shutil
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from cifar.data import cache
from cifar.search.remote.host import versions
from cifar.system import environment, places, processes
from cifar.system.files import existing, new_directory


def experiments() -> Path:
    """Where NNI keeps what runs here for another machine's manager; it knows no other place."""
    return places.home() / "nni-experiments"


def describe(forwarded_port: int) -> dict[str, Any]:
    """This machine, as a search needs to know it; `forwarded_port` is a port that leads to the one that asks."""
    from joblib import cpu_count

    from cifar.system import gpus

    return {
        "versions": versions(),
        "cores": cpu_count(),
        "gpus": [gpu.name for gpu in gpus.list_gpus()],
        "free_bytes": shutil.disk_usage(existing(experiments())).free,
        "time": time.time(),
        "cache_free_bytes": shutil.disk_usage(existing(places.cache())).free,
        "forwarded_addresses": sorted(
            {one.laddr.ip for one in psutil.net_connections("tcp") if one.laddr and one.laddr.port == forwarded_port}
        ),
        "patches": str(Path(__file__).with_name("search") / "nni_patches"),
    }


def has(place: str, fingerprint: str) -> bool:
    """Whether these decoded images are in this machine's cache, whole."""
    return cache.reopen(places.cache() / place, fingerprint) is not None


def take(place: str) -> None:
    """Put decoded images, a tar archive on standard input, into this machine's cache."""
    cache_path = places.cache() / place
    cache_path.parent.mkdir(parents=True, exist_ok=True)
    with new_directory(cache_path) as new, tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
        archive.extractall(new, filter="data")


def measure(space: dict[str, Any], command: str, concurrency: int) -> dict[str, Any]:
    """How fast trials would be here, side by side, with the variables that their command sets."""
    from cifar.search import forecast

    variables = dict(
        word.split("=", 1) for word in itertools.takewhile(lambda word: "=" in word, shlex.split(command)[1:])
    )
    os.environ.update(variables)
    return asdict(next(forecast.throughputs(space, command, variables[environment.DATA], [concurrency])))


def end(experiment: str) -> None:
    """End what is left here of an experiment."""
    processes.end(experiments() / experiment)


_QUESTIONS: dict[str, Callable[..., Any]] = {"describe": describe, "has": has, "take": take, "end": end}
_QUESTIONS["measure"] = measure


def main() -> None:
    question, arguments = sys.argv[1], json.loads(sys.argv[2])
    print(json.dumps(_QUESTIONS[question](**arguments)))


if __name__ == "__main__":
    main()
