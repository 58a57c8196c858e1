"""`python -m benchmarks.studies.growth`: the rule by which `cifar fit` foresees long trainings of wide networks.

It is fitted, in a second, to trainings of other studies: 200 to 45,000 images, widths of 6 to 192, four epochs to 150.
The error of each by the rule stands beside the measured one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report
from benchmarks.table import rows
from benchmarks.table.plan import PLANS
from cifar.analysis.growth import Growth
from cifar.training import defaults
from cifar.training.hparams import Hparams

_ALL_IMAGES = 45_000
_START = Growth(0.5, 0.5, 0.3, 0.4, 12.0)
HEADER = ["network", "images", "width", "images shown", "error", "by the rule"]
RULE_HEADER = ["network", "trainings", *(field.name.replace("_", " ") for field in fields(Growth)), "off by"]


@dataclass(frozen=True)
class Training:
    network: str
    images: int
    width: int
    shown: int
    error: float


@dataclass(frozen=True)
class Line:
    training: Training
    by_rule: float

    def cells(self) -> list[str]:
        known = self.training
        sizes = [f"{known.images:,}", str(known.width), f"{known.shown:,}"]
        return [known.network, *sizes, f"{known.error:.3f}", f"{self.by_rule:.3f}"]


@dataclass(frozen=True)
class Rule:
    network: str
    trainings: int
    growth: Growth
    off: float  # root of the mean square of the logarithm

    def cells(self) -> list[str]:
        return [
            self.network,
            str(self.trainings),
            *(f"{value:.3g}" for value in astuple(self.growth)),
            f"{self.off:.1%}",
        ]


def main() -> int:
    argparse.ArgumentParser(prog="python -m benchmarks.studies.growth", description=__doc__).parse_args()
    facts = machine.describe("python -m benchmarks.studies.growth", machine.choose_data())
    report = Report(RESULTS / "growth", "How errors fall by width and by images shown", facts)
    known = {"net": [*_of_net()], "fast": [*_of_fast()]}
    rules = [fitted(network, trainings) for network, trainings in known.items()]
    report.table("The rule, by least squares of the logarithm", "rules", RULE_HEADER, rules)
    lines = [line for rule in rules for line in beside(rule.growth, known[rule.network])]
    report.table("Measured on validation images, and by the rule", "trainings", HEADER, lines)
    return 0


def beside(growth: Growth, trainings: list[Training]) -> list[Line]:
    return [Line(some, growth.error(some.width, some.shown, some.images)) for some in trainings]


def fitted(network: str, trainings: list[Training]) -> Rule:
    def off(logarithms: NDArray[np.float64]) -> list[float]:
        growth = Growth(*map(float, np.exp(logarithms)))
        return [np.log(line.by_rule / line.training.error) for line in beside(growth, trainings)]

    found = least_squares(off, np.log(astuple(_START)))
    growth = Growth(*(float(f"{value:.3g}") for value in np.exp(found.x)))
    return Rule(network, len(trainings), growth, float(np.sqrt(np.mean(found.fun**2))))


def _of_net() -> Iterator[Training]:
    for line in _lines("budgets", "budgets"):
        yield _training(Hparams(**line["hparams"]), _ALL_IMAGES, [line["accuracy"]])
    yield from _of_widths("net")


def _of_widths(network: str) -> Iterator[Training]:
    for line in _lines("width", "widths"):
        if line["network"] == network:
            images, error = line["images"], 1 - fmean(line["accuracies"])
            yield Training(network, images, line["width"], line["epochs"] * images, error)


def _of_fast() -> Iterator[Training]:
    for images in (200, 2_000):
        for line in _lines(f"colours/{images}", "colours"):
            hparams = Hparams(**line["hparams"])
            asked = {"model": "fast", "epochs": hparams.epochs}
            if hparams.model == "fast" and hparams.color_jitter == defaults.for_budget(asked, images).color_jitter:
                yield _training(hparams, images, line["accuracies"])
    for line in _lines("curves", "curves"):
        if line["name"].startswith("fast"):
            width = 32 if "width 32" in line["name"] else 64
            yield _training(Hparams(model="fast", width=width), _ALL_IMAGES, line["accuracies"][-1:])
    for line in [*_lines("longer", "longer"), *_lines("longer-gpu", "longer")]:
        words = [change.rsplit(" ", 1) for change in line["changes"].split(", ")]
        changes = {name: int(value) for name, value in words if name in ("width", "epochs")}
        yield _training(Hparams.from_params({"model": "fast", **changes}), _ALL_IMAGES, [line["accuracy"]])
    yield from _of_table()


def _of_table() -> Iterator[Training]:
    """The best of some twenty configurations of each width."""
    plan, best = PLANS["fast-2000"], dict[int, float]()
    for row in rows.read(plan.name):
        if int(row["epoch"]) == plan.base.epochs:
            width = int(row["width"])
            best[width] = max(best.get(width, 0.0), float(row["val_accuracy"]))
    for width, accuracy in sorted(best.items()):
        shown = plan.base.epochs * plan.train_images
        yield Training("fast", plan.train_images, width, shown, 1 - accuracy)


def _training(hparams: Hparams, images: int, accuracies: list[float]) -> Training:
    shown = hparams.epochs * hparams.epoch_images(images)
    return Training(hparams.model, images, hparams.width, shown, 1 - fmean(accuracies))


def _lines(name: str, key: str) -> Iterator[dict[str, Any]]:
    yield from json.loads((RESULTS / f"{name}.json").read_text())[key]


if __name__ == "__main__":
    sys.exit(main())
