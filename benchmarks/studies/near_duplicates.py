"""`python -m benchmarks.studies.near_duplicates PAIRS.csv LABELS.npz`: how well near-duplicates are found in CIFAR-10.

PAIRS.csv is ciFAIR's list of test images that people judged to be in the training set too (duplicates_cifar10.csv in
its meta/ folder). $CIFAR_IMAGES has the images in class folders; LABELS.npz holds the test labels in their official
order as `test`, which numbers the images as the list does. No network reads the test images.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report
from cifar.data import datasets, near_duplicates
from cifar.data.datasets import Dataset

_SHOWN, _COLUMNS, _SIDE = 60, 10, 64


@dataclass(frozen=True)
class Found:
    what: str
    number: int
    found: int

    def cells(self) -> list[str]:
        return [self.what, f"{self.number:,}", f"{self.found:,}", f"{self.found / max(1, self.number):.0%}"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.near_duplicates", description=__doc__)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("labels", type=Path)
    options = parser.parse_args()
    data_name = machine.choose_data()
    train, test = datasets.load(data_name), datasets.load_test(data_name)
    places = _places(np.load(options.labels)["test"])
    with options.pairs.open() as file:
        known = {places[int(row["TestID"])]: int(row["Judgment"]) for row in csv.DictReader(file)}
    began = time.perf_counter()
    pairs = near_duplicates.across(test.images, train.images).pairs
    seconds = time.perf_counter() - began
    found = set(pairs[:, 0].tolist())
    command = "python -m benchmarks.studies.near_duplicates PAIRS.csv LABELS.npz"
    facts = machine.describe(command, data_name) | {"seconds": f"{seconds:.0f} to compare 10,000 with 50,000"}
    report = Report(
        RESULTS / "near_duplicates", "Near-duplicates of CIFAR-10's training images among its test images", facts
    )
    lines = [
        Found("all test images", len(test.labels), len(found)),
        Found("judged near-duplicates by ciFAIR", *_among(known, found, 1)),
        Found("judged very similar by ciFAIR", *_among(known, found, 2)),
        Found("not in ciFAIR's list", len(test.labels) - len(known), len(found - set(known))),
    ]
    report.table("Found", "found", ["test images", "number", "found", "share"], lines)
    first = {int(a): int(b) for a, b in reversed(pairs.tolist()) if a not in known}
    _sheet(test, train, dict(sorted(first.items())[:_SHOWN])).save(RESULTS / "near_duplicates.png")
    return 0


def _places(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where an image of the official order stands in the class folders, which keep that order in each class."""
    return np.argsort(np.argsort(labels, kind="stable"), kind="stable")


def _among(known: dict[int, int], found: set[int], judgment: int) -> tuple[int, int]:
    some = {image for image, judged in known.items() if judged == judgment}
    return len(some), len(some & found)


def _sheet(test: Dataset, train: Dataset, pairs: dict[int, int]) -> Image.Image:
    """Pairs that ciFAIR does not name, to be judged by eye: each test image and its training image."""
    sheet = Image.new("RGB", (_COLUMNS * (2 * _SIDE + 12), -(-len(pairs) // _COLUMNS) * (_SIDE + 6)), "white")
    for number, (tested, trained) in enumerate(pairs.items()):
        left, top = (number % _COLUMNS) * (2 * _SIDE + 12), (number // _COLUMNS) * (_SIDE + 6)
        for offset, pixels in ((0, test.images[tested]), (_SIDE + 2, train.images[trained])):
            sheet.paste(Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize((_SIDE, _SIDE)), (left + offset, top))
    return sheet


if __name__ == "__main__":
    sys.exit(main())
