"""What `cifar fit` confirms and trains to the end: which configuration, how long and how wide, in what time is left.

A search's trials are small. What one promises for a longer training of a wider network follows from a few rules, each
with the measurement that it comes from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cifar.analysis.configurations import DEFAULTS, Configuration, of_defaults, of_trial, recipe_of
from cifar.analysis.expected import Expected, expected
from cifar.analysis.growth import growth_of
from cifar.analysis.retrain import Failed
from cifar.analysis.training_time import ImageSeconds, budget_of, image_seconds, looks, looks_at_tests, makespan
from cifar.data import datasets
from cifar.data.datasets import Dataset
from cifar.search.search_space import Space, fits
from cifar.search.start import SHIPPED_WIDTHS
from cifar.training.hparams import Hparams
from cifar.trials import store
from cifar.trials.store import Trial, best_first

SEEDS = 2
_CPU = torch.device("cpu")
# With which the best learning rate falls, of the images shown, as the error does (results/budgets.md).
_RATE_POWER = 0.25
_WIDER, _WIDEST, _WIDTH_STEP = [2 ** (quarter / 4) for quarter in range(1, 13)], 128, 4
_BATCH_MEMORY = 64 * 1024 * 32**2  # width x images x pixels of a batch: as much as the recipe of fast takes
# A search of a few minutes seldom finds better than good defaults, and its luck says otherwise (results/leader.md).
_SURE = 0.7
# By what share the error may turn out another when a training shows e times the images, or e times the width: twice as
# much as the rule is off by for the trainings to which it is fitted, of up to 48 times the images (results/growth.md).
_DOUBT = 0.03


@dataclass(frozen=True)
class _Start:
    """From where a training grows: a configuration, what its trial showed, and what an image costs from now on."""

    width: int
    batch_size: int
    shown: float  # images, in all epochs
    trial_images: float  # the same, with the looks at validation images
    image_seconds: float


@dataclass(frozen=True)
class _Candidate:
    """A longer training of a trial's configuration at some width."""

    trial: Trial
    width: int
    place: Mapping[str, Any]  # in the search space, at its end where that is not so wide
    falls: float  # its error, beside the one of a trial at that place
    doubt: float  # by what share of it the rule may be off


@dataclass(frozen=True)
class _Promises:
    """Candidates, and what the search knows of their places."""

    candidates: Sequence[_Candidate]
    known: Expected

    def best(self, trial: Trial | None = None) -> int:
        """The number of the one that promises most, less what is unsure, of all or of one trial's."""
        falls, doubts = np.array([(some.falls, some.doubt) for some in self.candidates]).T
        errors = (1 - self.known.accuracies) * falls
        unsure = np.hypot(errors * doubts, falls * np.sqrt(self.known.covariance.diagonal()))
        numbers = [number for number, some in enumerate(self.candidates) if trial is None or some.trial is trial]
        return min(numbers, key=lambda number: float((errors + unsure)[number]))

    def chance_below(self, one: int, other: int) -> float:
        falls, doubts = ([getattr(some, name) for some in self.candidates] for name in ("falls", "doubt"))
        return self.known.chance_below(one, other, falls, doubts)


class Plans:
    """What could train in so many seconds, by the trials of an experiment. Failed where no trial has finished.

    The last networks train on all images, and look at so many test images.
    """

    def __init__(
        self, experiment: Path, dataset: Dataset, tests: int, speed: ImageSeconds, on: torch.device = _CPU
    ) -> None:
        config, splits = store.read_config(experiment), datasets.split(dataset)
        self._experiment, self._data_name = experiment, dataset.name
        self._splits, self._speed = splits, speed
        self._images, self._all_images = len(splits.train), len(splits.train) + len(splits.val)
        self._space: Space = config.get("searchSpace") or {}
        self._at_once = int(config.get("trialConcurrency", 1))
        self._recipe = recipe_of(experiment, self._images)
        self._tested = tests * looks_at_tests(self._recipe, on)
        self._growth = growth_of(self._recipe.model)
        usual = recipe_of(experiment, self._all_images).epochs * self._all_images
        self._enough = max(self._growth.enough(self._all_images), usual)
        ranked = best_first(store.read_trials(experiment))
        if not ranked:
            raise Failed("no trial of the search has finished")
        known = ((config.get("tuner") or {}).get("classArgs") or {}).get("defaults")
        whole = [trial for trial in ranked if trial.status == "ok" and fits(trial.params, self._space)]
        self._whole = whole or ranked[:1]
        self._of_defaults = next((trial for trial in self._whole if trial.params == known), None)

    def rival(self, seconds: float) -> Configuration | None:
        """What of the trials promises most in so many seconds, confirmation included, at the width that pays.

        None where it is the defaults or not likely to be better than they are.
        """
        promises = self._promises(seconds)
        first = promises.best()
        if self._of_defaults is not None:
            defaults = promises.best(self._of_defaults)
            if first == defaults or promises.chance_below(first, defaults) < _SURE:
                return None
        return _as_wide(of_trial(promises.candidates[first].trial), promises.candidates[first].width)

    def defaults(self, seconds: float) -> Configuration:
        """As the search has tried them, if it has, at the width that pays in so many seconds."""
        if self._of_defaults is None:
            found = of_defaults(self._experiment, self._data_name, self._images)
            possible = self._possible(self._start_of_defaults(), seconds, confirms=True)
            width, _ = min(possible, key=lambda some: self._last_error(*some))
        else:
            found, promises = of_trial(self._of_defaults), self._promises(seconds)
            width = promises.candidates[promises.best(self._of_defaults)].width
        name = _name("the defaults", width, self._recipe.width)
        return replace(_as_wide(found, width), id=DEFAULTS, name=name)

    def _promises(self, seconds: float) -> _Promises:
        trials = self._whole
        candidates = [some for trial in trials for some in self._candidates(trial, seconds)]
        known = expected(
            self._space, [trial.params for trial in trials], [trial.accuracy or 0.0 for trial in trials],
            len(self._splits.val), [some.place for some in candidates],
        )  # fmt: skip
        return _Promises(candidates, known)

    def _candidates(self, trial: Trial, seconds: float) -> Iterator[_Candidate]:
        """Of widths in the space the search knows more than the rule, which has to do beyond."""
        start = self._start(trial)
        widest = max(start.width, self._space["width"]["_value"][1]) if self._may_widen else start.width
        for width, shown in self._possible(start, seconds, confirms=trial is not self._of_defaults):
            near = min(width, widest)
            place = {**trial.params, "width": near} if near != start.width else trial.params
            tried = self._growth.error(near, start.shown, self._images)
            falls = self._last_error(width, shown) / tried
            doubt = _DOUBT * math.log(max(1.0, shown / start.shown) * width / near)
            yield _Candidate(trial, width, place, falls, doubt)

    def last(self, winner: Configuration, seconds: float, each: float | None = None) -> Configuration:
        """What trains to the end in so many seconds: the winner or the defaults, longer, as wide as they are.

        It sees no fewer images than its trial did, if need be beyond the time. `each`: seconds of an image, where they
        have been measured for this very training.
        """
        images, width = self._all_images, winner.hparams.width
        if winner.id == DEFAULTS:
            shown = self._shown_in(self._start_of_defaults(), width, seconds, each)
            budget = {**_budget(max(self._start_of_defaults().shown, shown), images), "width": width}
            return replace(of_defaults(self._experiment, self._data_name, images, **budget), name=winner.name)
        trial = next(trial for trial in self._whole if trial.id == winner.id)
        shown = self._shown_in(self._start(trial), width, seconds, each)
        return self._longer(winner, trial, max(self._shown(trial), shown), images)

    def _possible(self, start: _Start, seconds: float, confirms: bool) -> Iterator[tuple[int, float]]:
        """Widths, and how many images they can be shown; wider ones as many as in the trial, at least."""
        for width in self._widths(start):
            left = seconds - (self._confirmation(start, width) if confirms else 0.0)
            shown = self._shown_in(start, width, left)
            if width > start.width and shown < start.shown:
                return  # there is no time for it, nor for a wider one
            yield width, max(start.shown, shown)

    def _shown_in(self, start: _Start, width: int, seconds: float, each: float | None = None) -> float:
        """Images in so many seconds, the looks at the test images included, and no more than are enough."""
        each = each or self._seconds_of_image(start, width)
        left = seconds - self._tested * SEEDS * each / self._at_once
        return min(left / makespan([each], SEEDS, self._at_once), self._enough)

    def _seconds_of_image(self, start: _Start, width: int) -> float:
        """The slower one of two: as in its trial, beside others, and as measured with the steps of this width."""
        alone = self._speed(width, start.batch_size)
        return max(start.image_seconds * alone / self._speed(start.width, start.batch_size), alone)

    def _last_error(self, width: int, shown: float) -> float:
        return self._growth.error(width, shown, self._all_images)

    @property
    def _may_widen(self) -> bool:
        """A range of widths of one's own may be meant as a limit."""
        return (self._space.get("width") or {}).get("_value") in SHIPPED_WIDTHS

    def _widths(self, start: _Start) -> Iterator[int]:
        yield start.width
        most = min(_WIDEST, _BATCH_MEMORY / (start.batch_size * self._recipe.size**2))
        wider = {_WIDTH_STEP * round(some * start.width / _WIDTH_STEP) for some in _WIDER}
        yield from (width for width in sorted(wider) if self._may_widen and start.width < width <= most)

    def _start(self, trial: Trial) -> _Start:
        tried = of_trial(trial).hparams
        if trial is self._of_defaults:
            return self._start_of_defaults()
        images = self._trial_images(tried)
        return _Start(tried.width, tried.batch_size, self._shown(trial), images, self._image_seconds(trial))

    def _start_of_defaults(self) -> _Start:
        """In a longer training they have larger batches than in their trial, if there was one."""
        near = self._of_defaults or self._whole[0]
        tried = of_trial(near).hparams
        width = tried.width if self._of_defaults else self._recipe.width
        slower = self._speed(width, self._recipe.batch_size) / self._speed(tried.width, tried.batch_size)
        seconds = self._image_seconds(near) * slower
        images = self._trial_images(tried)
        return _Start(width, self._recipe.batch_size, self._shown(near), images, seconds)

    def _trial_images(self, hparams: Hparams) -> float:
        return hparams.epochs * (hparams.epoch_images(self._images) + looks(hparams) * len(self._splits.val))

    def _image_seconds(self, trial: Trial) -> float:
        result = trial.result or {}
        return image_seconds(float(result["seconds"]), int(result["epochs"]), of_trial(trial).hparams, self._splits)

    def _confirmation(self, start: _Start, width: int) -> float:
        """Seconds of training it and the defaults as long as a trial; as wide, these take about as long."""
        return makespan([start.trial_images * self._seconds_of_image(start, width)] * 2, SEEDS, self._at_once)

    def _shown(self, trial: Trial) -> float:
        hparams = of_trial(trial).hparams
        return float(hparams.epochs * hparams.epoch_images(self._images))

    def _longer(self, winner: Configuration, trial: Trial, shown: float, images: int) -> Configuration:
        """With smaller steps the longer it trains."""
        budget, lr = _budget(shown, images), winner.hparams.lr * min(1.0, (shown / self._shown(trial)) ** -_RATE_POWER)
        hparams = replace(winner.hparams, **budget, lr=lr)
        if "color_jitter" not in self._space:  # it follows from how often each image is shown
            usual = of_defaults(self._experiment, self._data_name, images, **budget)
            hparams = replace(hparams, color_jitter=usual.hparams.color_jitter)
        params = {name: lr if name == "lr" else value for name, value in winner.params.items()}
        return replace(winner, hparams=hparams, params=params)


def _as_wide(found: Configuration, width: int) -> Configuration:
    """What the search found of another width is not this one's."""
    if width == found.hparams.width:
        return found
    hparams = replace(found.hparams, width=width)
    params = {name: width if name == "width" else value for name, value in found.params.items()}
    return replace(found, name=f"{found.name} at width {width}", hparams=hparams, params=params, found=None)


def _name(name: str, width: int, usual: int) -> str:
    return name if width == usual else f"{name} at width {width}"


def _budget(shown: float, images: int) -> dict[str, Any]:
    epochs, per_epoch = budget_of(shown, images)
    return {"epochs": epochs, "images_per_epoch": per_epoch if per_epoch < images else 0}
