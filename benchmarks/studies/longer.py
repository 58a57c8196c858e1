"""`python -m benchmarks.studies.longer`: trainings longer than fast's own, to choose the one of full.py.

In long ones the network comes to know its training images by heart. By how many pixels to move them is asked on a CPU
(half an hour on two cores); on a GPU also which width and epochs the same time should buy (three minutes on an H100;
results/longer-gpu). The validation images judge.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import torch
from tqdm import tqdm

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report
from cifar.analysis.statistics import mean, scores
from cifar.data import datasets
from cifar.data.datasets import Dataset
from cifar.training.hparams import Hparams
from cifar.training.train import new_model, new_optimizer, train
from cifar.trials.predictions import Predictions

_GPU = torch.cuda.is_available()
_OWN = Hparams(model="fast")
_WIDE, _WIDER = replace(_OWN, width=128, epochs=28), replace(_OWN, width=192, epochs=13)
_ON_CPU = [replace(_OWN, epochs=20, translate=translate) for translate in (2, 4)]
_ON_GPU = [
    _OWN,
    *(replace(recipe, translate=translate) for recipe in (_WIDE, _WIDER) for translate in (2, 4)),
    replace(_WIDE, translate=4, seed=1),
    replace(_WIDE, translate=4, batch_size=512, lr=0.75),
    replace(_WIDE, translate=4, weight_decay=0.0026),
]
_RECIPES = _ON_GPU if _GPU else _ON_CPU
HEADER = ["fast, but with", "seconds", "training loss", "validation accuracy"]


@dataclass(frozen=True)
class Trained:
    """Training loss and validation accuracy after the last epoch, with an interval of 95 % over the images."""

    changes: str
    seconds: float | None  # unknown of those that were kept without
    train_loss: float
    accuracy: float
    margin: float

    def cells(self) -> list[str]:
        seconds = "" if self.seconds is None else f"{self.seconds:,.0f}"
        return [self.changes, seconds, f"{self.train_loss:.3f}", f"{self.accuracy:.1%} ± {self.margin:.1%}"]


def main() -> int:
    data_name = machine.choose_data()
    dataset = datasets.load(data_name)
    facts = machine.describe("python -m benchmarks.studies.longer", data_name)
    report = Report(RESULTS / ("longer-gpu" if _GPU else "longer"), "The network fast in a longer training", facts)
    report.table("By the validation images", "longer", HEADER, compare(dataset))
    return 0


def compare(dataset: Dataset) -> Iterator[Trained]:
    splits = datasets.split(dataset)
    labels = dataset.labels[splits.val].numpy()
    dataset, splits = dataset.to(machine.device()), splits.to(machine.device())
    for hparams in _RECIPES:
        changes, began = changes_of(hparams), time.perf_counter()
        model = new_model(hparams, dataset)
        epochs = train(model, new_optimizer(model, hparams), hparams, dataset, splits)
        *_, last = tqdm(epochs, changes, hparams.epochs, file=sys.stderr, disable=None)
        seconds = time.perf_counter() - began
        accuracy = mean(scores([Predictions(last.predictions.cpu().numpy(), labels)]))
        yield Trained(changes, seconds, last.metrics.train_loss, accuracy.value, accuracy.margin)


def changes_of(hparams: Hparams) -> str:
    """What these differ in from fast's own."""
    own = asdict(_OWN)
    changed = [f"{name.replace('_', ' ')} {value}" for name, value in asdict(hparams).items() if value != own[name]]
    return ", ".join(changed) or "nothing else"


if __name__ == "__main__":
    sys.exit(main())
