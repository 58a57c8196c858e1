"""`python -m benchmarks.yardsticks.faults FILE`: what `make test-faults` injected, from its tests' notes in FILE.

A test notes a fault once all that it asserts has held: no result lost, none wrong, nothing left behind.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report
from cifar.errors import RequestError

HEADER = ["fault", "outcome", "times injected", "lost results", "figures"]


@dataclass(frozen=True)
class Fault:
    """What one test asserts, and how often it injected its fault."""

    group: str
    outcome: str
    times: int
    figures: str

    def cells(self) -> list[str]:
        return [self.group, self.outcome, str(self.times), "0", self.figures]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.yardsticks.faults", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="that $CIFAR_FAULTS named while the tests ran")
    faults = read(parser.parse_args().file)
    facts = machine.describe("make test-faults", "digits")
    Report(RESULTS / "faults", "Faults injected on purpose", facts).table("All of them", "faults", HEADER, faults)
    return 0


def read(path: Path) -> list[Fault]:
    """One for each test, whose runs with several parameters count together."""
    if not path.exists():
        raise RequestError(f"{path}: no such file; make test-faults writes it")
    return list(_together(Fault(**json.loads(line)) for line in path.read_text().splitlines()))


def _together(faults: Iterable[Fault]) -> Iterable[Fault]:
    for (group, outcome), same in groupby(faults, lambda fault: (fault.group, fault.outcome)):
        runs = list(same)
        yield Fault(
            group, outcome, sum(run.times for run in runs), "; ".join(run.figures for run in runs if run.figures)
        )


if __name__ == "__main__":
    sys.exit(main())
