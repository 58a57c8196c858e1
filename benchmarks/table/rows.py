"""The tables as files: a row for each epoch of each training."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.shared.report import RESULTS
from cifar.system.files import new_file

Row = dict[str, str]
FIGURES = ["number", "seed", "epoch", "seconds", "train_loss", "val_loss", "val_accuracy"]


def path(table: str) -> Path:
    return RESULTS / "table" / f"{table}.csv.gz"


def read(table: str) -> list[Row]:
    """All rows that there are so far."""
    if not path(table).exists():
        return []
    with gzip.open(path(table), "rt", newline="") as file:
        return list(csv.DictReader(file))


def write(table: str, names: Sequence[str], rows: Iterable[Row]) -> None:
    """Replace the table by these rows, sorted, so that the same rows are the same file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*FIGURES[:2], *names, *FIGURES[2:]], lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: (int(row["number"]), int(row["seed"]), int(row["epoch"]))))
    path(table).parent.mkdir(parents=True, exist_ok=True)
    with new_file(path(table)) as temporary:
        temporary.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


def ranking(rows: Iterable[Row]) -> list[int]:
    """Numbers of the configurations, the highest last accuracy first."""
    last = last_accuracies(rows)
    return sorted(last, key=lambda number: -last[number])


def last_accuracies(rows: Iterable[Row]) -> dict[int, float]:
    """Of each configuration after its last epoch, by its number; of two seeds the later one."""
    last: dict[int, float] = {}
    for row in sorted(rows, key=lambda row: int(row["epoch"])):
        last[int(row["number"])] = float(row["val_accuracy"])
    return last
