"""`python -m benchmarks`: measures, prints and keeps tables under results/."""

from __future__ import annotations

import argparse
import sys

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report
from benchmarks.yardsticks import growth, memory, speed, startup
from cifar.data import datasets


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything, within 5 minutes")
    parser.add_argument(
        "--data", default=machine.choose_data(), help="default: $CIFAR_IMAGES, else cifar10, else digits"
    )
    options = parser.parse_args()
    quick, data_name = options.quick, options.data or machine.choose_data()
    if quick:
        machine.patience_left = 15.0
    datasets.load(data_name)
    stem = RESULTS / ("benchmarks-quick" if quick else "benchmarks")
    report = Report(stem, "Benchmarks", machine.describe("make bench-quick" if quick else "make bench", data_name))

    measured = (speed.measure(row, data_name, pairs=3 if quick else 5) for row in speed.rows(quick))
    report.table("Images per second, beside the tutorial's loop", "speed", speed.HEADER, measured)
    started = startup.measure(data_name, rounds=1 if quick else 9)
    report.table("Start-up", "startup", startup.HEADER, started)
    memories = (memory.measure(data_name, trials) for trials in ((1, 2) if quick else (1, 2, 4)))
    report.table("Memory", "memory", memory.HEADER, memories)
    points = list(growth.measure(data_name, quick))
    report.table("Growth", "growth", growth.HEADER, points)
    growth.plot(points, stem.with_name(f"{stem.name}-growth.png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
