"""`python -m benchmarks.studies.folders FOLDER...`: what strangers' folders of pictures come to, by each way to train.

Each folder's line is kept as soon as it is whole. Test images are read by each way once.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report
from benchmarks.shared.tutorial import Tutorial
from cifar.analysis import answer as answers
from cifar.data import datasets, sources
from cifar.data.inspection import understood
from cifar.system import durations
from cifar.training.hparams import Hparams
from cifar.training.intervals import Interval, wilson
from cifar.trials import store

ROOT = Path(__file__).parents[2]
_PATIENCE = 5  # the tutorial trains for a fifth of the time of cifar fit
HEADER = [
    "folder",
    "as read",
    "images to train, validate and test on",
    "guessing",
    "the tutorial's loop",
    "trial.py",
    "trial.py --model fast",
    "cifar fit",
    "its gain over the defaults",
]


@dataclass(frozen=True)
class Line:
    """Test accuracies with 95 % intervals, in percent; `gain` is in points of the validation images."""

    folder: str
    layout: str
    images: tuple[int, int, int]
    guessing: float
    tutorial: str
    net: str
    fast: str
    fit: str
    gain: str

    def cells(self) -> list[str]:
        images = ", ".join(f"{number:,}" for number in self.images)
        found = [self.tutorial, self.net, self.fast, self.fit, self.gain]
        return [self.folder, self.layout, images, f"{self.guessing:.1%}", *found]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.folders", description=__doc__)
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    parser.add_argument("--time-limit", default="10m", metavar="TIME", help="of cifar fit (default: 10m)")
    parser.add_argument("--name", default="folders", help="of the file in results/ (default: folders)")
    options = parser.parse_args()
    facts = machine.describe(f"python -m benchmarks.studies.folders --time-limit {options.time_limit}", "digits")
    facts["data"] = "folders of strangers, each under its name here"
    report = Report(RESULTS / options.name, "Strangers' folders", facts)
    title = f"Test accuracy with 95 % intervals, cifar fit within {options.time_limit}"
    report.table(title, "folders", HEADER, (measure(folder, options.time_limit) for folder in options.folders))
    return 0


def measure(data: str, limit: str) -> Line:
    train, test = datasets.load(data), datasets.load_test(data)
    splits, folder = datasets.split(train), sources.folder_of(data)
    images = len(splits.train), len(splits.val), len(test.labels)
    guessing = float(np.bincount(test.labels.numpy()).max() / len(test.labels))
    layout = understood(folder).split(";")[0] if folder else data
    fitted, gain = fit(data, limit)
    seconds = durations.seconds(limit) or 0.0
    return Line(
        Path(data).name,
        layout,
        images,
        guessing,
        str(tutorial(data, seconds / _PATIENCE)),
        trained(data, "net"),
        trained(data, "fast"),
        fitted,
        gain,
    )


def tutorial(data: str, seconds: float) -> Interval:
    """The tutorial's network by the tutorial's own loop, for so many seconds: what patience alone comes to."""
    train, test = datasets.load(data), datasets.load_test(data)
    trial = Tutorial(Hparams(), train, datasets.split(train).train, torch.device("cpu"))
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        trial.train_epoch()
    return wilson(trial.accuracy(test, torch.arange(len(test.labels))), len(test.labels))


def trained(data: str, model: str) -> str:
    command = [sys.executable, "trial.py", "--data", data, "--model", model]
    said = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return next(_accuracies(said))


def _accuracies(text: str) -> Iterator[str]:
    yield from re.findall(r"^test accuracy (\S+ ± \S+)", text, re.MULTILINE)


def fit(data: str, limit: str) -> tuple[str, str]:
    """Its test accuracy, and its gain over the defaults."""
    command = [sys.executable, "-m", "cifar", "fit", "--data", data, "--time-limit", limit]
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    answer = answers.read(store.find(None, ROOT / "nni-experiments"))
    assert answer is not None
    test, gain = answer["tests"][0], answer["gain"]
    return f"{test['mean']:.1%} ± {test['margin_95']:.1%}", answers.points(gain) if gain else "none"


if __name__ == "__main__":
    sys.exit(main())
