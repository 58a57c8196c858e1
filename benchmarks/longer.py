"""`python -m benchmarks.longer`: by how many pixels to move the images in a training longer than fast's own.

In long ones the network comes to know its training images by heart, and moving them further is the usual remedy. The
validation images judge. Half an hour on two cores.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tqdm import tqdm

from benchmarks import machine
from benchmarks.report import RESULTS, Report
from cifar import data
from cifar.confirm import correct, mean
from cifar.data import Dataset
from cifar.hparams import Hparams
from cifar.train import new_model, new_optimizer, train
from cifar.validation import Answers

_RECIPE = Hparams(model="fast", epochs=20)
SHIFTS = (2, 4)
HEADER = ["moved by at most", "training loss", "validation accuracy"]


@dataclass(frozen=True)
class Trained:
    """Training loss and validation accuracy after the last epoch, with an interval of 95 % over the images."""

    shift: int
    train_loss: float
    accuracy: float
    margin: float

    def cells(self) -> list[str]:
        return [f"{self.shift} pixels", f"{self.train_loss:.3f}", f"{self.accuracy:.1%} ± {self.margin:.1%}"]


def main() -> int:
    data_name = machine.choose_data()
    dataset = data.load(data_name)
    facts = machine.describe("python -m benchmarks.longer", data_name)
    report = Report(RESULTS / "longer", "The network fast in a longer training", facts)
    report.table(f"Width {_RECIPE.width}, {_RECIPE.epochs} epochs", "longer", HEADER, compare(dataset))
    return 0


def compare(dataset: Dataset) -> Iterator[Trained]:
    splits = data.split(dataset)
    labels = dataset.labels[splits.val].numpy()
    for shift in SHIFTS:
        hparams = replace(_RECIPE, shift=shift)
        model = new_model(hparams, dataset)
        epochs = train(model, new_optimizer(model, hparams), hparams, dataset, splits)
        *_, last = tqdm(epochs, f"{shift} pixels", hparams.epochs, file=sys.stderr, disable=None)
        accuracy = mean(correct([Answers(last.predictions.numpy(), labels)]))
        yield Trained(shift, last.metrics.train_loss, accuracy.value, accuracy.margin)


if __name__ == "__main__":
    sys.exit(main())
