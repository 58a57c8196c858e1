"""`python -m benchmarks.studies.curves`: accuracy over time of the four networks, each trained with its own recipe.

It takes 20 minutes on two cores. The test images are not read.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report
from cifar.data import datasets
from cifar.data.datasets import Dataset
from cifar.training.hparams import Hparams
from cifar.training.models import parameter_count
from cifar.training.train import new_model, new_optimizer, train

# As their tutorials train them, but net for ten epochs where that stops after two.
_CASES = {
    "net": Hparams(epochs=10),
    "lenet": Hparams(model="lenet", optimizer="adam", batch_size=24, epochs=20),
    "wide": Hparams(model="wide"),
    "fast, width 32": Hparams(model="fast", width=32),
    "fast": Hparams(model="fast"),
}
HEADER = ["network", "parameters", "recipe", "epochs", "seconds", "validation accuracy"]


@dataclass(frozen=True)
class Curve:
    """A training: seconds since its start and validation accuracy after each epoch."""

    name: str
    parameters: int
    recipe: str
    seconds: list[float]
    accuracies: list[float]
    disturbed: int  # of the moments after an epoch, at how many others used the machine

    def cells(self) -> list[str]:
        return [
            self.name,
            f"{self.parameters:,}",
            self.recipe,
            str(len(self.seconds)),
            f"{self.seconds[-1]:,.0f}" + (f" (disturbed in {self.disturbed} epochs)" if self.disturbed else ""),
            f"{self.accuracies[-1]:.1%}",
        ]


def main() -> int:
    data_name = machine.choose_data()
    dataset = datasets.load(data_name)
    facts = machine.describe("python -m benchmarks.studies.curves", data_name)
    report = Report(RESULTS / "curves", "Accuracy over time", facts)
    curves = list[Curve]()
    report.table("All cores for one training", "curves", HEADER, _kept(measure(dataset), curves))
    plot(curves, RESULTS / "curves.png")
    return 0


def measure(dataset: Dataset) -> Iterator[Curve]:
    for name, hparams in _CASES.items():
        yield _trained(name, hparams, dataset)


def _trained(name: str, hparams: Hparams, dataset: Dataset) -> Curve:
    seconds, accuracies, disturbed = [0.0], list[float](), 0
    began = time.perf_counter()
    model = new_model(hparams, dataset)
    epochs = train(model, new_optimizer(model, hparams), hparams, dataset, datasets.split(dataset))
    for epoch in tqdm(epochs, name, hparams.epochs, file=sys.stderr, disable=None):
        seconds.append(seconds[-1] + time.perf_counter() - began)
        accuracies.append(epoch.metrics.accuracy)
        disturbed += not machine.is_quiet()
        began = time.perf_counter()
    return Curve(name, parameter_count(model), _recipe(hparams), seconds[1:], accuracies, disturbed)


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
