"""`python -m benchmarks.studies.full`: the network `fast` on its full budget and all training images, tested once.

It takes between one and two hours on two cores. What was interrupted goes on at the next call.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report
from cifar.analysis.final_test import read_test_images
from cifar.data import datasets
from cifar.data.datasets import Dataset
from cifar.inference.model_file import SavedModel
from cifar.training.hparams import Hparams
from cifar.training.models import Network, parameter_count
from cifar.training.train import EpochMetrics
from cifar.trials.run import run_trial

# The defaults of `fast` but for its size, its epochs, and images that move by 4 pixels, chosen by validation images
# alone (results/README.md). The fourth such training; that file tells of all.
_HPARAMS = Hparams(model="fast", width=128, epochs=28, translate=4)
_CHECKPOINT = Path(__file__).parents[2] / "nni-experiments" / "full" / "checkpoint.pt"
HEADER = [
    "width",
    "parameters",
    "images moved by at most",
    "epochs",
    "minutes of training",
    "training loss",
    "test accuracy",
]


@dataclass(frozen=True)
class FullRun:
    """Seconds of training and training loss of each epoch; test accuracy with an interval of 95 % over the images."""

    width: int
    parameters: int
    translate: int
    seconds: list[float]
    losses: list[float]
    test_accuracy: float
    test_margin: float

    def cells(self) -> list[str]:
        return [
            str(self.width),
            f"{self.parameters:,}",
            f"{self.translate} pixels",
            str(len(self.losses)),
            f"{sum(self.seconds) / 60:.0f}",
            f"{self.losses[-1]:.3f}",
            f"{self.test_accuracy:.1%} ± {self.test_margin:.1%}",
        ]


def main() -> int:
    data_name = machine.choose_data()
    dataset = datasets.load(data_name)
    facts = machine.describe("python -m benchmarks.studies.full", data_name)
    run = train(dataset, data_name)
    Report(RESULTS / "full", "The network fast on its full budget", facts).table(
        "All training images, none held out", "runs", HEADER, [run]
    )
    _CHECKPOINT.unlink(missing_ok=True)
    return 0


def train(dataset: Dataset, data_name: str) -> FullRun:
    test = datasets.load_test(data_name)  # first, so that nothing is missing at the end
    splits = datasets.split(dataset).all_trained_on()
    _CHECKPOINT.parent.mkdir(parents=True, exist_ok=True)
    with tqdm(total=_HPARAMS.epochs, unit=" epochs", file=sys.stderr, disable=None) as progress:

        def show(history: list[EpochMetrics]) -> None:
            progress.update(len(history) - progress.n)

        result, trained = run_trial(_HPARAMS, dataset, splits, torch.device("cpu"), show, _CHECKPOINT)
    if trained is None or result.status != "ok":
        raise SystemExit(f"the training ended {result.status}: {result.reason}")
    assert isinstance(trained.model, Network)
    model = SavedModel(trained.model, _HPARAMS, dataset.classes, {}, {})
    accuracy = read_test_images(RESULTS, [model], test, "benchmarks.studies.full").accuracy
    seconds = [epoch.seconds for epoch in trained.history]
    losses = [epoch.train_loss for epoch in trained.history]
    return FullRun(
        width=_HPARAMS.width,
        parameters=parameter_count(trained.model),
        translate=_HPARAMS.translate,
        seconds=seconds,
        losses=losses,
        test_accuracy=accuracy.value,
        test_margin=accuracy.margin,
    )


if __name__ == "__main__":
    sys.exit(main())
