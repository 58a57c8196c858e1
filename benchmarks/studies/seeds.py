"""`python -m benchmarks.studies.seeds`: how much one configuration's accuracy differs from seed to seed, by its recipe.

On the small budget of the published searches; the images' part is left out, as cifar/trials/seed_noise.py does. Nothing
is timed: it may run on a machine that is busy.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import chi2
from tqdm import tqdm

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report
from cifar.data import datasets
from cifar.data.datasets import Dataset
from cifar.training.hparams import Hparams
from cifar.training.train import new_model, new_optimizer, train
from cifar.trials.predictions import Predictions
from cifar.trials.seed_noise import seed_variance

_SEEDS = 8
_BUDGET = {"epochs": 4, "images_per_epoch": 15_000}
RECIPES = {
    "net, constant learning rate": Hparams(width=16, batch_size=16, lr=0.012, **_BUDGET),  # type: ignore[arg-type]
    "net, falling learning rate": Hparams(width=16, batch_size=16, lr=0.024, schedule="triangular", **_BUDGET),  # type: ignore[arg-type]
    "fast": Hparams(model="fast", width=16, batch_size=256, lr=0.4, **_BUDGET),  # type: ignore[arg-type]
}
HEADER = ["recipe", "mean accuracy", "lowest and highest", "standard deviation over seeds", "95 % interval"]


@dataclass(frozen=True)
class Seeds:
    """Validation accuracies, one per seed, and the standard deviation of the seeds alone."""

    recipe: str
    accuracies: list[float]
    sd: float

    def cells(self) -> list[str]:
        freedom = len(self.accuracies) - 1
        low, high = (self.sd * math.sqrt(freedom / chi2.ppf(chance, freedom)) for chance in (0.975, 0.025))
        return [
            self.recipe,
            f"{np.mean(self.accuracies):.1%}",
            f"{min(self.accuracies):.1%}, {max(self.accuracies):.1%}",
            f"{100 * self.sd:.2f} points",
            f"{100 * low:.2f} to {100 * high:.2f}",
        ]


def main() -> int:
    data_name = machine.choose_data()
    dataset = datasets.load(data_name)
    report = Report(
        RESULTS / "seeds", "What seeds do", machine.describe("python -m benchmarks.studies.seeds", data_name)
    )
    title = f"{_SEEDS} seeds, {_BUDGET['epochs']} epochs of {_BUDGET['images_per_epoch']:,} images"
    report.table(title, "seeds", HEADER, measure(dataset))
    return 0


def measure(dataset: Dataset) -> Iterator[Seeds]:
    splits = datasets.split(dataset)
    labels = dataset.labels[splits.val].numpy()
    for recipe, hparams in RECIPES.items():
        found = []
        for seed in tqdm(range(_SEEDS), recipe, file=sys.stderr, disable=None):
            seeded = replace(hparams, seed=seed)
            model = new_model(seeded, dataset)
            *_, last = train(model, new_optimizer(model, seeded), seeded, dataset, splits)
            found.append(Predictions(last.predictions.cpu().numpy(), labels).scores("accuracy"))
        scores = np.stack(found)
        yield Seeds(recipe, scores.mean(1).tolist(), math.sqrt(max(0.0, seed_variance(scores))))


if __name__ == "__main__":
    sys.exit(main())
