"""`python -m benchmarks`: measures, prints and keeps tables under results/."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from benchmarks import accuracy, growth, machine, memory, speed, startup
from cifar import data
from cifar.files import new_file


class _Line(Protocol):
    def cells(self) -> list[str]: ...


class Report:
    """Tables, printed line by line and kept, each as soon as it is whole, as Markdown and JSON."""

    def __init__(self, stem: Path, facts: dict[str, str]) -> None:
        self.stem = stem
        self.text = ["# Benchmarks", "", *(f"- {name}: {fact}" for name, fact in facts.items())]
        self.figures: dict[str, Any] = {"facts": facts}

    def table(self, title: str, name: str, header: Sequence[str], lines: Iterable[_Line]) -> None:
        self._write("", f"## {title}", "", _row(header), _row(["---"] * len(header)))
        self.figures[name] = []
        for line in lines:
            self._write(_row(line.cells()))
            self.figures[name].append(asdict(line))  # type: ignore[call-overload]
        self._save()

    def _save(self) -> None:
        for suffix, content in ((".md", "\n".join(self.text)), (".json", json.dumps(self.figures, indent=1))):
            with new_file(self.stem.with_suffix(suffix)) as temporary:
                temporary.write_text(content + "\n")

    def _write(self, *lines: str) -> None:
        self.text += lines
        print("\n".join(lines), flush=True)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything, within 5 minutes")
    parser.add_argument(
        "--data", default=machine.choose_data(), help="default: $CIFAR_IMAGES, else cifar10, else digits"
    )
    options = parser.parse_args()
    quick, data_name = options.quick, options.data or machine.choose_data()
    data.load(data_name)
    stem = Path(__file__).parents[1] / "results" / ("benchmarks-quick" if quick else "benchmarks")
    report = Report(stem, machine.describe("make bench-quick" if quick else "make bench", data_name))

    measured = (speed.measure(row, data_name, pairs=3 if quick else 5) for row in speed.rows(quick))
    report.table("Images per second, beside the tutorial's loop", "speed", speed.HEADER, measured)
    started = startup.measure(data_name, rounds=3 if quick else 9)
    report.table("Start-up", "startup", startup.HEADER, started)
    memories = (memory.measure(data_name, trials) for trials in (1, 2, 4))
    report.table("Memory", "memory", memory.HEADER, memories)
    points = list(growth.measure(data_name, quick))
    report.table("Growth", "growth", growth.HEADER, points)
    growth.plot(points, stem.with_name(f"{stem.name}-growth.png"))
    if not quick:
        compared = (accuracy.compare(case, data_name, seeds=5) for case in accuracy.CASES)
        report.table("Validation accuracy after two epochs, five seeds", "accuracy", accuracy.HEADER, compared)
    return 0


if __name__ == "__main__":
    sys.exit(main())
