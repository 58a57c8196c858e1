"""What a benchmark keeps: tables as Markdown and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Protocol

from cifar.system.files import new_file

RESULTS = Path(__file__).parents[2] / "results"


def mean_and_ends(shares: Sequence[float]) -> list[str]:
    """The mean, the lowest and the highest, in percent: of trainings that are too few for an interval."""
    return [f"{share:.1%}" for share in (fmean(shares), min(shares), max(shares))]


class _Line(Protocol):
    def cells(self) -> list[str]: ...


class Report:
    """Tables, printed and kept line by line, as Markdown and JSON."""

    def __init__(self, stem: Path, title: str, facts: dict[str, str]) -> None:
        self.stem = stem
        self.text = [f"# {title}", "", *(f"- {name}: {fact}" for name, fact in facts.items())]
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


def standard_error(values: Sequence[float]) -> float:
    return stdev(values) / math.sqrt(len(values))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
