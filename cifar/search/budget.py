"""How large the trials of a search are that has so much time: many enough to learn from, large enough to tell."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

from cifar.errors import RequestError
from cifar.search import config
from cifar.search.concurrency import Choice
from cifar.search.forecast import Throughput
from cifar.search.trial_command import with_options
from cifar.system.durations import duration_text
from cifar.training.defaults import for_data
from cifar.training.hparams import command_hparams, command_model

# Of the time of a fit, and the most where there would be too few trials otherwise. For fast it is short: its recipe is
# good (a search of 300 s finds nothing better on 2,000 images, results/leader.md), what small trials find of it hardly
# lasts in long trainings (results/README.md), and these are sure to gain by more time (results/colours/2000.md).
_SEARCH_SHARES, _SEARCH_SHARE = {"fast": (0.1, 0.2)}, (0.4, 0.4)
_TRIALS = 30  # for which there is to be time
_COST = 1.5  # of a trial, in whole random ones: most are ended early, but a search comes to like wide networks
_EPOCHS = 4  # as in the tables from which the rules of the search come
_MOST_EPOCHS = 16  # longer trials teach less than more of them
_FEWEST_IMAGES = 500  # of an epoch: of fewer its accuracy says nothing
_LEAST_TRIALS = 8  # below which a search is none


@dataclass(frozen=True)
class TrialBudget:
    """What each trial trains; images_per_epoch 0 is all."""

    epochs: int
    images_per_epoch: int

    def text(self, images: int) -> str:
        return f"{self.epochs} epochs of {self.images_per_epoch or images:,} images"


def search_shares(model: str) -> tuple[float, float]:
    """How much of the time of a fit goes into its search, usually and at most."""
    return _SEARCH_SHARES.get(model, _SEARCH_SHARE)


def fitted(ready: Any, choice: Choice, time_limit: float, used: float, images: int) -> Any:
    """A config whose trials fit into the search of a fit of so many seconds, of which some are used.

    RequestError where too few would.
    """
    if choice.throughput is None:
        raise RequestError("a time limit needs trials of one process, whose speed is measured")
    given, _ = command_hparams(ready.trial_command)
    nominal = for_data(given, images)
    measured_images = nominal.epochs * nominal.epoch_images(images)
    for share in search_shares(command_model(ready.trial_command)):
        seconds = share * max(0.0, time_limit - used)
        trial, trials = of_trial(seconds, choice.throughput, measured_images, images)
        if trials >= _LEAST_TRIALS:
            break
    else:
        each = _seconds_of_trial(trial, choice.throughput, measured_images, images)
        needed = duration_text(60 * math.ceil((_LEAST_TRIALS * each / share + used) / 60))
        raise RequestError(
            f"{duration_text(seconds)} of search are too few: there would be {trials} trials of {trial.text(images)}, "
            f"and fewer than {_LEAST_TRIALS} teach nothing; {needed} in all would do"
        )
    print(
        f"searching for {duration_text(seconds)}: about {trials} trials of {trial.text(images)}, "
        f"{choice.concurrency} at once",
        file=sys.stderr,
    )
    ready = config.changed(ready, trial_command=with_options(ready.trial_command, vars(trial)))
    ready.max_trial_number, ready.max_experiment_duration = None, f"{seconds:.0f}s"
    return ready


def of_trial(seconds: float, measured: Throughput, measured_images: int, images: int) -> tuple[TrialBudget, int]:
    """The budget of a trial, and how many trials there will be, about.

    `measured` are trials that show so many images in all their epochs.
    """
    image_seconds = _image_seconds(measured, measured_images)
    each = seconds * measured.concurrency / _TRIALS - measured.beside_seconds
    shown = max(0.0, each) / (_COST * image_seconds)
    least = min(_FEWEST_IMAGES, images)
    budget = TrialBudget(_EPOCHS, int(min(max(shown / _EPOCHS, least), images)))
    if budget.images_per_epoch == images:
        budget = TrialBudget(int(min(max(shown / images, _EPOCHS), _MOST_EPOCHS)), 0)
    return budget, int(seconds / _seconds_of_trial(budget, measured, measured_images, images))


def _image_seconds(measured: Throughput, measured_images: int) -> float:
    return (measured.trial_seconds - measured.beside_seconds) / measured_images


def _seconds_of_trial(budget: TrialBudget, measured: Throughput, measured_images: int, images: int) -> float:
    """By which a trial more makes a search longer."""
    trained = budget.epochs * (budget.images_per_epoch or images) * _image_seconds(measured, measured_images)
    return (_COST * trained + measured.beside_seconds) / measured.concurrency
