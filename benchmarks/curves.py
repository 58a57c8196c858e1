"""`python -m benchmarks.curves`: accuracy over time of the four networks, each trained with its own recipe.

The last, `fast` on its full budget, takes an hour on two cores; it alone is tested, once, when it has ended.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from benchmarks import machine
from benchmarks.report import RESULTS, Report
from cifar import data
from cifar.data import Dataset
from cifar.hparams import Hparams
from cifar.model_file import SavedModel
from cifar.models import Network, parameter_count
from cifar.train import new_model, new_optimizer, train
from cifar.verdict import read_test_images

# As their tutorials train them, but net for ten epochs where that stops after two.
_CASES = {
    "net": Hparams(epochs=10),
    "lenet": Hparams(model="lenet", optimizer="adam", batch_size=24, epochs=20),
    "wide": Hparams(model="wide"),
    "fast, width 16": Hparams(model="fast", width=16),
    "fast": Hparams(model="fast", width=96, epochs=20),
}
_FULL_BUDGET = "fast"
HEADER = ["network", "weights", "recipe", "epochs", "seconds", "validation accuracy", "test accuracy"]


@dataclass(frozen=True)
class Curve:
    """A training: seconds since its start and validation accuracy after each epoch."""

    name: str
    weights: int
    recipe: str
    seconds: list[float]
    accuracies: list[float]
    quiet: bool
    test_accuracy: float | None  # with an interval of 95 % in the cells
    test_margin: float | None

    def cells(self) -> list[str]:
        return [
            self.name,
            f"{self.weights:,}",
            self.recipe,
            str(len(self.seconds)),
            f"{self.seconds[-1]:,.0f}" + ("" if self.quiet else " (others used the machine)"),
            f"{self.accuracies[-1]:.1%}",
            "" if self.test_accuracy is None else f"{self.test_accuracy:.1%} ± {self.test_margin:.1%}",
        ]


def main() -> int:
    data_name = machine.choose_data()
    dataset = data.load(data_name)
    facts = machine.describe("python -m benchmarks.curves", data_name)
    report = Report(RESULTS / "curves", "Accuracy over time", facts)
    curves = list[Curve]()
    report.table("All cores for one training", "curves", HEADER, _kept(measure(dataset, data_name), curves))
    plot(curves, RESULTS / "curves.png")
    return 0


def measure(dataset: Dataset, data_name: str) -> Iterator[Curve]:
    for name, hparams in _CASES.items():
        quiet = machine.is_quiet()
        seconds, accuracies, model = _trained(name, hparams, dataset)
        quiet = quiet and machine.is_quiet()
        tested = _tested(model, hparams, dataset, data_name) if name == _FULL_BUDGET else (None, None)
        yield Curve(name, parameter_count(model), _recipe(hparams), seconds, accuracies, quiet, *tested)


def _tested(model: Network, hparams: Hparams, dataset: Dataset, data_name: str) -> tuple[float, float]:
    """Accuracy on the test images and half its interval; results/test-readings.jsonl says that they were read."""
    saved = SavedModel(model, hparams, dataset.classes, {}, {})
    accuracy = read_test_images(RESULTS, [saved], data.load_test(data_name), "benchmarks.curves").accuracy
    return accuracy.value, accuracy.margin


def _trained(name: str, hparams: Hparams, dataset: Dataset) -> tuple[list[float], list[float], Network]:
    seconds, accuracies, began = list[float](), list[float](), time.perf_counter()
    model = new_model(hparams, dataset)
    epochs = train(model, new_optimizer(model, hparams), hparams, dataset, data.split(dataset))
    for epoch in tqdm(epochs, name, hparams.epochs, file=sys.stderr, disable=None):
        seconds.append(time.perf_counter() - began)
        accuracies.append(epoch.metrics.accuracy)
    return seconds, accuracies, model


def _recipe(hparams: Hparams) -> str:
    return f"width {hparams.width}, {hparams.optimizer}, lr {hparams.lr:g}, batch {hparams.batch_size}"


def _kept(curves: Iterator[Curve], kept: list[Curve]) -> Iterator[Curve]:
    for curve in curves:
        kept.append(curve)
        yield curve


def plot(curves: list[Curve], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for curve in curves:
        last = f"{curve.name}: {curve.accuracies[-1]:.1%}"
        axis.semilogx(curve.seconds, [100 * value for value in curve.accuracies], "o-", markersize=4, label=last)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_xlabel("seconds of training and validation, two cores")
    axis.set_ylabel("validation accuracy, %")
    axis.legend()
    axis.grid(alpha=0.3, which="both")
    axis.set_title("Accuracy over time, a point per epoch")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
