"""`python -m benchmarks.studies.ingredients`: what each ingredient of fast's recipe is worth, switched off alone.

A small network on a small budget, the five epochs of 15,000 images that searches/fast gives its trials. Nothing is
timed: it may run on a machine that is busy.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import fmean, variance
from typing import Any

from tqdm import tqdm

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report
from cifar.data import datasets
from cifar.data.datasets import Dataset
from cifar.training.hparams import Hparams
from cifar.training.intervals import dunnett
from cifar.training.train import new_model, new_optimizer, train

_RECIPE = Hparams(model="fast", width=16, batch_size=256, lr=0.4, epochs=5, images_per_epoch=15_000)
_SEEDS = 3
WITHOUT: dict[str, dict[str, Any]] = {
    "the triangular learning rate": {"schedule": "constant"},
    "weight decay": {"weight_decay": 0.0},
    "Nesterov's momentum": {"nesterov": False},
    "label smoothing": {"label_smoothing": 0.0},
    "mirrored training images": {"flip": False},
    "shifted training images": {"translate": 0},
    "the average of parameters": {"lookahead_decay": 0.0},
    "mirror images in evaluation": {"tta_flip": False},
    "bfloat16 (float32 instead)": {"precision": "float32"},
}
HEADER = ["without", "flag", "validation accuracy", "the ingredient is worth", "which is"]


@dataclass(frozen=True)
class Compared:
    """Validation accuracies, one per seed, of the whole recipe and of the recipe without one ingredient."""

    name: str
    without: dict[str, Any]
    recipe: list[float]
    accuracies: list[float]
    margin: float  # of the difference, that all intervals hold together with a chance of 95 %

    def cells(self) -> list[str]:
        worth = fmean(self.recipe) - fmean(self.accuracies)
        shown = "beyond chance" if abs(worth) > self.margin else "may be chance"
        return [
            self.name,
            " ".join(map(_flag, self.without.items())),
            f"{fmean(self.accuracies):.1%}",
            *([f"{100 * worth:+.1f} ± {100 * self.margin:.1f} points", shown] if self.without else ["", ""]),
        ]


def common_margin(groups: list[list[float]]) -> float:
    """Of each difference from the recipe, where what seeds do is pooled over all groups (Dunnett)."""
    seeds = len(groups[0])
    spread = fmean(variance(group) for group in groups)
    return dunnett(len(groups) - 1, len(groups) * (seeds - 1)) * math.sqrt(2 * spread / seeds)


def main() -> int:
    data_name = machine.choose_data()
    dataset = datasets.load(data_name)
    facts = machine.describe("python -m benchmarks.studies.ingredients", data_name)
    report = Report(RESULTS / "ingredients", "What each ingredient of the network fast is worth", facts)
    title = (
        f"Width {_RECIPE.width}, batch {_RECIPE.batch_size}, {_RECIPE.epochs} epochs of "
        f"{_RECIPE.images_per_epoch:,} images, {_SEEDS} seeds; all intervals together hold in 95 % (Dunnett)"
    )
    report.table(title, "ingredients", HEADER, compare(dataset))
    return 0


def compare(dataset: Dataset) -> Iterator[Compared]:
    recipe = _accuracies(_RECIPE, dataset, "recipe")
    others = {name: _accuracies(replace(_RECIPE, **changes), dataset, name) for name, changes in WITHOUT.items()}
    margin = common_margin([recipe, *others.values()])
    yield Compared("nothing: the whole recipe", {}, recipe, recipe, margin)
    for name, accuracies in others.items():
        yield Compared(name, WITHOUT[name], recipe, accuracies, margin)


def _accuracies(hparams: Hparams, dataset: Dataset, name: str) -> list[float]:
    splits, accuracies = datasets.split(dataset), list[float]()
    for seed in tqdm(range(_SEEDS), name, file=sys.stderr, disable=None):
        seeded = replace(hparams, seed=seed)
        model = new_model(seeded, dataset)
        *_, last = train(model, new_optimizer(model, seeded), seeded, dataset, splits)
        accuracies.append(last.metrics.accuracy)
    return accuracies


def _flag(value: tuple[str, Any]) -> str:
    name = value[0].replace("_", "-")
    return f"`--no-{name}`" if value[1] is False else f"`--{name} {value[1]}`"


if __name__ == "__main__":
    sys.exit(main())
