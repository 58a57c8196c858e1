"""What the test images say of the final networks. Each reading is written down in test_log.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from joblib import cpu_count
from numpy.typing import NDArray

from cifar.analysis.statistics import Mean, mean, pooled_spread, pooled_with, pooled_with_recipes, scores
from cifar.data import test_log
from cifar.data.balance import is_uneven
from cifar.data.datasets import Dataset
from cifar.errors import RequestError
from cifar.inference.model_file import SavedModel
from cifar.training.evaluation import evaluate
from cifar.training.hparams import Hparams
from cifar.trials import layout
from cifar.trials.predictions import Predictions, confusion_matrix


@dataclass(frozen=True)
class FinalTest:
    """The networks' predictions for one set of test images.

    What seeds do, few final networks alone would say badly. `known` are the confirmed configurations' predictions for
    validation images, which show it; where nothing was confirmed, it is known of recipes like that of these networks.
    """

    name: str
    classes: tuple[str, ...]
    hparams: Hparams
    predictions: list[Predictions]
    known: Sequence[Sequence[Predictions]] = ()

    @property
    def accuracy(self) -> Mean:
        return self._mean("accuracy")

    @property
    def balanced_accuracy(self) -> Mean:
        return self._mean("balanced_accuracy")

    def _mean(self, metric: str) -> Mean:
        values = scores(self.predictions, metric)
        if not self.known:
            return mean(values, pooled_with_recipes([values], self.hparams))
        return mean(values, pooled_with([values], pooled_spread([scores(some, metric) for some in self.known])))

    @property
    def guessing(self) -> float:
        """The accuracy of always naming the largest class."""
        return float(np.bincount(self.predictions[0].labels).max() / self.images)

    @property
    def is_uneven(self) -> bool:
        return is_uneven(self.guessing, len(self.classes))

    @property
    def images(self) -> int:
        return len(self.predictions[0].labels)

    @property
    def confusion(self) -> NDArray[np.int64]:
        """True x predicted class, summed over the networks."""
        return confusion_matrix(self.predictions, len(self.classes))


def read_test_images(
    experiment: Path,
    models: Sequence[SavedModel],
    test: Dataset,
    trial_id: str,
    known: Sequence[Sequence[Predictions]] = (),
) -> FinalTest:
    """One look at the test images, entered in the experiment's log of test readings."""
    torch.set_num_threads(cpu_count())  # nothing trains any more
    everything, labels = torch.arange(len(test.labels)), _labels(test, models[0].classes)
    networks = [model.network for model in models]
    predictions = [evaluate(network, test, everything).predictions.numpy() for network in networks]
    name, of_test = test_log.name_of(test), [Predictions(some, labels) for some in predictions]
    tested = FinalTest(name, models[0].classes, models[0].hparams, of_test, known)
    accuracies = [float(predictions.correct.mean()) for predictions in tested.predictions]
    seeds = [model.hparams.seed for model in models]
    test_log.append(test, trial_id, seeds, accuracies, layout.test_log(experiment))
    return tested


def refuse_unfit(test: Dataset, classes: Sequence[str]) -> None:
    """RequestError for test images that would say nothing. They may lack classes, but have none of their own."""
    strange = sorted(set(test.classes) - set(classes))
    if strange:
        names = ", ".join(" ".join(name.split()) for name in strange)
        raise RequestError(f"{test.name} has classes that the experiment's data lack: {names}")
    if len(test.labels) < 2:
        raise RequestError(f"{test.name} has {len(test.labels)} test images; an interval needs at least 2")


def refuse_known(test: Dataset, train: Dataset) -> None:
    """RequestError for test images that are among the training images: the networks know them."""
    known = set(train.digests())
    shared = sum(digest in known for digest in test.digests())
    if shared:
        raise RequestError(
            f"{shared} of the {len(test.labels)} pictures in {test.name} are among those that the networks are trained "
            "on: their accuracy would flatter"
        )


def _labels(test: Dataset, classes: Sequence[str]) -> NDArray[np.int64]:
    """As the networks number them."""
    numbers = np.asarray([classes.index(name) for name in test.classes], dtype=np.int64)
    labels: NDArray[np.int64] = numbers[test.labels.numpy()]
    return labels
