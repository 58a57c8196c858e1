"""Memory of trials side by side: they share one copy of the images."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

HEADER = ["trials at once", "proportional set per trial", "of it images", "images, all trials together", "resident set"]


@dataclass(frozen=True)
class Memory:
    """Means per trial, in MB; a proportional set counts a page shared by n processes as a n-th."""

    trials: int
    proportional: float
    images: float
    resident: float

    def cells(self) -> list[str]:
        together = self.images * self.trials
        values = (self.proportional, self.images, together, self.resident)
        return [str(self.trials), *(f"{value:,.0f} MB" for value in values)]


def measure(data_name: str, trials: int) -> Memory:
    """Start trials, wait until each has trained an epoch, and read what the system says of them."""
    command = [sys.executable, "trial.py", "--data", data_name, "--batch_size", "64", "--epochs", "1000"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(trials)]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()  # the first epoch's
        everything = [_read(f"/proc/{process.pid}/smaps_rollup", "") for process in processes]
        images = [_read(f"/proc/{process.pid}/smaps", "/images.npy") for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    proportional, resident = (fmean(values) for values in zip(*everything, strict=True))
    return Memory(trials, proportional, fmean(share for share, _ in images), resident)


def _read(path: str, mapped: str) -> tuple[float, float]:
    """Proportional and resident set in MB of all mappings whose name contains `mapped`."""
    totals, counts = {"Pss": 0.0, "Rss": 0.0}, False
    for line in Path(path).read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            counts = mapped in line
        name, _, value = line.partition(":")
        if counts and name in totals:
            totals[name] += float(value.split()[0]) * 1024 / 1e6
    return totals["Pss"], totals["Rss"]
