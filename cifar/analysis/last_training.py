"""What `cifar fit` trains to the end: which configurations, how long and how wide, in the time that is left.

A search's trials are small. What one promises for a longer training of a wider network follows from a few rules, each
with the measurement that it comes from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cifar.analysis.configurations import RESIZED, Configuration, of_defaults, of_trial
from cifar.analysis.expected import expected
from cifar.analysis.retrain import Failed, Trainer
from cifar.data import datasets
from cifar.data.datasets import Dataset, Splits
from cifar.search.forecast import step_seconds
from cifar.search.search_space import Space, fits
from cifar.search.start import SHIPPED_WIDTHS
from cifar.training.defaults import for_data
from cifar.training.hparams import Hparams, command_hparams
from cifar.trials import store
from cifar.trials.store import Trial, best_first

SEEDS = 2
_FEWEST_PARTS = 4  # epochs of a training that has no time to see all images so often
# The error falls with this power of the images shown, as a wide network's does that has 39 % wrong after 40,000 of them
# (results/table.md) and 21 % after 360,000 (results/README.md); the learning rate that is best falls about as much.
_ERROR_POWER = _RATE_POWER = 0.25
# More epochs than are enough hardly pay for the tutorial's networks (results/width.md). For fast they pay about as a
# wider network does: of 2,000 images twice the epochs have 25.5 % wrong and not 26.8, twice the width 24.9
# (results/colours/2000.md), and of all of CIFAR-10 2.8 times the epochs 7.8 and not 8.3 (results/README.md).
_EPOCHS_ENOUGH = 48  # of the tutorial's networks; the recipe of fast has enough
_LONGER_POWER, _LONGEST = {"fast": 0.07}, {"fast": 2.0}  # of the images shown beyond, and up to how many times
_WIDER, _WIDEST, _WIDTH_STEP = [2 ** (quarter / 4) for quarter in range(1, 13)], 128, 4
_WIDTH_POWER = 0.07  # of the width, with which the error falls at least
_PROBED_WIDTHS, _PROBED_BATCHES, _PROBED_BATCH, _PROBE_SECONDS = (4, 8, 16, 32, 64, 128), (4, 16, 64, 256), 64, 0.4
_BATCH_MEMORY = 64 * 1024 * 32**2  # width x images x pixels of a batch: as much as the recipe of fast takes
# A search of a few minutes seldom finds better than good defaults, and its luck says otherwise (results/leader.md).
_SURE = 0.7
# What is best for a short training need not be for a long one. In three fits on folders of 2,000 pictures the logarithm
# of the error was off by 0.06 to 0.2 after five times the images.
_DOUBT = 0.06  # by which it may be off when it shows e times the images


@dataclass(frozen=True)
class Candidate:
    """A trial's configuration at some width, and what it would come to."""

    trial: Trial
    width: int
    shown: float  # images, in all epochs
    growth: float  # of the error, a factor
    shown_of_defaults: float


ImageSeconds = Callable[[float, float], float]  # by width and batch size, of which the ratios count


def planned(experiment: Path, dataset: Dataset, tests: int, seconds: float, speed: ImageSeconds) -> list[Configuration]:
    """The configuration that promises most if it and the defaults train for so many seconds, and the defaults.

    Of that time some is for the better one to look at so many test images. The defaults train on as many images, if
    they do not take longer for that. The other one sees no fewer images than its trial did, if need be beyond the time.
    Where nothing is likely to be better it is the defaults alone, at a width that suits the time, on the validation
    images too. Failed where no trial has finished.
    """
    plans = _Plans(experiment, dataset, tests, seconds, speed)
    chosen = plans.chosen()
    if plans.are_defaults(chosen):
        return [plans.alone()]
    return plans.beside(chosen)


class _Plans:
    """What could train in so many seconds, by the trials of an experiment."""

    def __init__(self, experiment: Path, dataset: Dataset, tests: int, seconds: float, speed: ImageSeconds) -> None:
        config, splits = store.read_config(experiment), datasets.split(dataset)
        self._experiment, self._data_name = experiment, dataset.name
        self._seconds, self._tests, self._splits = seconds, tests, splits
        self._images, self._val_images = len(splits.train), len(splits.val)
        self._space: Space = config.get("searchSpace") or {}
        self._at_once = int(config.get("trialConcurrency", 1))
        recipe = _recipe(experiment, self._images)
        self._enough = self._images * (recipe.epochs if recipe.model == "fast" else _EPOCHS_ENOUGH)
        self._most = self._enough * _LONGEST.get(recipe.model, 1.0)
        self._longer_power = _LONGER_POWER.get(recipe.model, 0.0)
        ranked = best_first(store.read_trials(experiment))
        if not ranked:
            raise Failed("no trial of the search has finished")
        known = ((config.get("tuner") or {}).get("classArgs") or {}).get("defaults")
        whole = [trial for trial in ranked if trial.status == "ok" and fits(trial.params, self._space)]
        self._whole = whole or ranked[:1]
        self._of_defaults = next((trial for trial in self._whole if trial.params == known), None)
        near = self._of_defaults or self._whole[0]
        self._speed, self._recipe_width, self._recipe_batch = speed, recipe.width, recipe.batch_size
        self._defaults_seconds = self._seconds_at(near, recipe.width)

    def chosen(self) -> Candidate:
        """What promises most; the defaults' trial unless another one is likely to be better."""
        if len(self._whole) == 1:
            return min(self._grown(self._whole[0]), key=lambda some: some.growth)
        known = expected(
            self._space, [trial.params for trial in self._whole], [trial.accuracy or 0.0 for trial in self._whole],
            self._val_images,
        )  # fmt: skip
        best = [min(self._grown(trial), key=lambda some: some.growth) for trial in self._whole]
        errors = [float(1 - accuracy) * some.growth for accuracy, some in zip(known.accuracies, best, strict=True)]
        first = errors.index(min(errors))
        if self._of_defaults is None:
            return best[first]
        defaults = self._whole.index(self._of_defaults)
        growth = [some.growth for some in best]
        doubt = [_DOUBT * math.log(max(1.0, some.shown / _shown(some.trial, self._images))) for some in best]
        chance = known.chance_below(first, defaults, growth, doubt)
        return best[first] if first != defaults and chance >= _SURE else best[defaults]

    def _grown(self, trial: Trial, alone: bool = False) -> Iterator[Candidate]:
        """The trial's configuration at the widths that it may have, beside the defaults or alone."""
        narrow, planned_images = of_trial(trial).hparams.width, _shown(trial, self._images)
        for width in self._widths(of_trial(trial).hparams):
            mine = self._seconds_at(trial, width)
            together = makespan((mine,) if alone else (mine, min(mine, self._defaults_seconds)), self._at_once)
            left = self._seconds - self._seconds_of_tests(trial, mine)
            if width > narrow and left / together < planned_images:
                return  # there is no time for it, nor for a wider one
            shown = max(planned_images, min(left / together, self._most))
            growth = self._falls(planned_images, shown) * (width / narrow) ** -_WIDTH_POWER
            yield Candidate(trial, width, shown, growth, self._shown_beside(mine * shown, shown, left))

    def _falls(self, planned: float, shown: float) -> float:
        """By which factor the error falls from so many images shown to as many or more."""
        enough = max(planned, min(shown, self._enough))
        return float((enough / planned) ** -_ERROR_POWER * (shown / enough) ** -self._longer_power)

    def _shown_beside(self, mine: float, shown: float, seconds: float) -> float:
        """How many images the defaults see beside a training of `mine` seconds, at most `shown`."""
        left = (seconds - makespan((mine,), self._at_once)) * min(self._at_once, SEEDS) / SEEDS
        return min(shown, max(mine, left) / self._defaults_seconds)

    def _seconds_of_tests(self, trial: Trial, seconds: float) -> float:
        """Of looking at the test images, on all cores, each at most as long as at one to train on."""
        return self._tests * SEEDS * looks(of_trial(trial).hparams) * seconds / self._at_once

    def _image_seconds(self, trial: Trial) -> float:
        result = trial.result or {}
        return image_seconds(float(result["seconds"]), int(result["epochs"]), of_trial(trial).hparams, self._splits)

    def _seconds_at(self, trial: Trial, width: int) -> float:
        """Seconds of an image in a long training like this trial at that width; the defaults' batches grow with it."""
        tried = of_trial(trial).hparams
        batch_size = self._recipe_batch if trial is self._of_defaults else tried.batch_size
        slower = self._speed(width, batch_size) / self._speed(tried.width, tried.batch_size)
        return self._image_seconds(trial) * slower

    def _widths(self, hparams: Hparams) -> Iterator[int]:
        """A range of widths of one's own may be meant as a limit."""
        yield hparams.width
        is_free = (self._space.get("width") or {}).get("_value") in SHIPPED_WIDTHS
        most = min(_WIDEST, _BATCH_MEMORY / (hparams.batch_size * hparams.size**2))
        wider = {_WIDTH_STEP * round(some * hparams.width / _WIDTH_STEP) for some in _WIDER}
        yield from (width for width in sorted(wider) if is_free and hparams.width < width <= most)

    def are_defaults(self, chosen: Candidate) -> bool:
        return chosen.trial is self._of_defaults

    def alone(self) -> Configuration:
        """The defaults in all of the time and on all images."""
        assert self._of_defaults is not None
        best = min(self._grown(self._of_defaults, alone=True), key=lambda some: some.growth)
        return self.defaults(best.shown, best.width, self._images + self._val_images)

    def defaults(self, shown: float, width: int, images: int) -> Configuration:
        found = of_defaults(self._experiment, self._data_name, images, **_budget(shown, images), width=width)
        if width == self._recipe_width:
            return found
        return replace(found, id=RESIZED, name=f"the defaults at width {width}")

    def beside(self, chosen: Candidate) -> list[Configuration]:
        """The configuration, and the defaults that it is to beat."""
        return [self._longer(chosen), self.defaults(chosen.shown_of_defaults, self._recipe_width, self._images)]

    def _longer(self, chosen: Candidate) -> Configuration:
        """Longer and wider than in the search, and with smaller steps the longer it trains."""
        budget, found, width = _budget(chosen.shown, self._images), of_trial(chosen.trial), chosen.width
        lr = found.hparams.lr * min(1.0, (chosen.shown / _shown(chosen.trial, self._images)) ** -_RATE_POWER)
        hparams = replace(found.hparams, **budget, lr=lr, width=width)
        if "color_jitter" not in self._space:  # it follows from how often each image is shown
            usual = of_defaults(self._experiment, self._data_name, self._images, **budget)
            hparams = replace(hparams, color_jitter=usual.hparams.color_jitter)
        changed: dict[str, Any] = {"lr": lr, "width": width}
        params = {name: changed.get(name, value) for name, value in found.params.items()}
        name = f"{found.name} at width {width}" if width > found.hparams.width else found.name
        return replace(found, name=name, hparams=hparams, params=params)


def _budget(shown: float, images: int) -> dict[str, Any]:
    epochs, per_epoch = budget_of(shown, images)
    return {"epochs": epochs, "images_per_epoch": per_epoch if per_epoch < images else 0}


def makespan(seconds: Sequence[float], at_once: int) -> float:
    """How long trainings of so many seconds take, each with every seed, in this order and so many at once."""
    ends = [0.0] * at_once
    for each in seconds:
        for _ in range(SEEDS):
            ends[ends.index(min(ends))] += each
    return max(ends)


def budget_of(shown: float, images: int) -> tuple[int, int]:
    """Epochs and images per epoch that show about so many images."""
    epochs = max(_FEWEST_PARTS, math.ceil(shown / images))
    return epochs, max(1, min(images, int(shown / epochs)))


def measured_speed(experiment: Path, trainer: Trainer) -> ImageSeconds:
    """Of the experiment's network, by a few steps on the trainer's device; a power of width and batch between those."""
    recipe, device = _recipe(experiment, len(trainer.splits.train)), trainer.claim.device
    dataset, splits = trainer.dataset.to(device), trainer.splits.to(device)
    like = replace(recipe, batch_size=_PROBED_BATCH, gradient_accumulation_steps=1)
    torch.set_num_threads(trainer.claim.threads(like))

    def seconds(width: int, batch_size: int) -> float:
        probed = replace(like, width=width, batch_size=batch_size)
        return step_seconds(probed, dataset, splits, _PROBE_SECONDS) / batch_size

    by_width = _power_between({width: seconds(width, _PROBED_BATCH) for width in _PROBED_WIDTHS})
    batches = [batch for batch in _PROBED_BATCHES if batch <= len(splits.train)]
    by_batch = _power_between({batch: seconds(recipe.width, batch) for batch in batches})
    return lambda width, batch_size: by_width(width) * by_batch(batch_size)


def _power_between(known: Mapping[int, float]) -> Callable[[float], float]:
    x, y = (np.log([*some]) for some in (known.keys(), known.values()))
    return lambda asked: math.exp(np.interp(math.log(asked), x, y))


def _recipe(experiment: Path, images: int) -> Hparams:
    """What would be trained without a search, and without the budget of its trials."""
    given, _ = command_hparams(str(store.read_config(experiment).get("trialCommand", "")))
    return for_data(
        {name: value for name, value in given.items() if name not in ("epochs", "images_per_epoch")}, images
    )


def image_seconds(seconds: float, epochs: int, hparams: Hparams, splits: Splits) -> float:
    """Of a training that shows all images in each epoch, by one of so many epochs that may have shown fewer.

    The validation images, which each epoch ends with, count as what they cost beside images to train on.
    """
    images, judged = len(splits.train), looks(hparams) * len(splits.val)
    alone = seconds / (epochs * (hparams.epoch_images(images) + judged))
    return alone * (1 + judged / images)


def looks(hparams: Hparams) -> float:
    """How long a network takes for an image at most, beside training on it; with its mirror image twice as long."""
    return 1.0 if hparams.tta_flip else 0.5


def _shown(trial: Trial, images: int) -> float:
    hparams = of_trial(trial).hparams
    return float(hparams.epochs * hparams.epoch_images(images))
