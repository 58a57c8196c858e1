"""What a figure must name, the machine, the commit and the data, and whether the machine was quiet."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TypeVar

import psutil
import torch

from cifar.data import datasets
from cifar.errors import RequestError

T = TypeVar("T")

_QUIET_PERCENT = 15.0  # of one core, in use by others
_WITHHELD_SHARE = 0.1

patience_left = 600.0  # seconds that this run will wait in all for others to leave the machine alone


def choose_data() -> str:
    """The real images as a folder ($CIFAR_IMAGES) where there is one, else CIFAR-10, else the digits."""
    if (name := _images()) is None:
        print("no images: $CIFAR_IMAGES is not set and CIFAR-10 not there; measuring on the digits", file=sys.stderr)
    return name or "digits"


def real_images() -> str:
    """As choose_data, but never the digits, whose figures would stand in one table with those of CIFAR-10."""
    name = _images()
    if name is None or name == "digits":
        raise RequestError("this table is of CIFAR-10: set CIFAR_IMAGES to its folder of pictures")
    return name


def _images() -> str | None:
    if folder := os.environ.get("CIFAR_IMAGES"):
        return folder
    try:
        datasets.load("cifar10")
    except RequestError:
        return None
    return "cifar10"


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def describe(command: str, data_name: str) -> dict[str, str]:
    return {**conditions(command), "data": _describe_data(data_name)}


def conditions(command: str) -> dict[str, str]:
    """What a figure names that comes of no images."""
    return {
        "command": command,
        "commit": _commit(),
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores of {_processor()}, {_memory_gb():.0f} GB, {_gpu()}",
        "software": f"Python {platform.python_version()}, torch {version('torch')}, {platform.system()}",
    }


def when_quiet(measure: Callable[[], T]) -> tuple[T, bool]:
    """What `measure` returns, measured again, once, where others used the machine; and whether it was quiet at last."""
    for _ in range(2):
        quiet_before = _wait_until_quiet()
        measured = measure()
        quiet = is_quiet() and quiet_before
        if quiet or patience_left <= 0:
            break
    return measured, quiet


def _wait_until_quiet() -> bool:
    """Wait while others use the machine, as long as patience lasts; returns whether it is quiet."""
    global patience_left
    quiet = is_quiet()
    if not quiet and patience_left > 0:
        print(f"others use this machine, waiting {patience_left:.0f} s at most", file=sys.stderr)
    while not quiet and patience_left > 0:
        began = time.monotonic()
        quiet = is_quiet()
        patience_left -= time.monotonic() - began
    return quiet


def _describe_data(name: str) -> str:
    """Without the folder's place on somebody's disk."""
    dataset = datasets.load(name)
    kind = name if name in ("cifar10", "digits") else "a folder of pictures"
    return f"{kind}: {len(dataset.labels):,} to train and validate on, {len(dataset.classes)} classes"


def is_quiet() -> bool:
    """Whether hardly anything else runs at this moment; call it while the benchmark itself does nothing."""
    used_by_others = psutil.cpu_percent(interval=0.5) * (os.cpu_count() or 1)
    return used_by_others < _QUIET_PERCENT and _withheld_share() < _WITHHELD_SHARE


def _withheld_share() -> float:
    """How much of its cores' time this machine does not get: a virtual one shares them with others, unseen."""
    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        return max(pool.map(_interrupted_share, range(cores)))


def _interrupted_share(_: int) -> float:
    """Of a core that computes the same again and again, what it takes longer than it usually does."""
    block, took = bytes(2**20), list[float]()
    for _ in range(400):
        began = time.perf_counter()
        hashlib.sha256(block)  # lets the other threads run meanwhile
        took.append(time.perf_counter() - began)
    return 1 - median(took) * len(took) / sum(took)


def _commit() -> str:
    """What is measured; results that an earlier benchmark left are no change of it."""
    changes = _git("status", "--porcelain", "--", ".", ":!results")
    return _git("rev-parse", "--short", "HEAD") + (" and changes" if changes else "")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True).stdout.strip()


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory_gb() -> float:
    total: int = psutil.virtual_memory().total
    return total / 2**30


def _gpu() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
