"""How much the accuracy of one configuration differs from seed to seed: of this experiment, and of recipes like its."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar.trials import layout
from cifar.trials.predictions import Predictions, load_predictions
from cifar.trials.store import Trial

# Standard deviations over seeds that were measured (results/README.md), and for how many trainings they count beside an
# experiment's own: the truth may lie a third away.
_KNOWN_OF_FAST, _KNOWN_OF_ANNEALED, _KNOWN_OF_CONSTANT = 0.004, 0.010, 0.020
_KNOWN_FREEDOM = 8


@dataclass(frozen=True)
class SeedNoise:
    """The variance of a configuration's accuracy over seeds, with what the images add left out.

    `freedom` is how much is known of it, in degrees of freedom; `repeats` are trainings of this experiment behind it.
    """

    variance: float
    freedom: int
    repeats: int

    def __str__(self) -> str:
        sd = f"a standard deviation of {100 * self.variance**0.5:.1f} points"
        if not self.repeats:
            return f"{sd}, as of recipes like this one"
        return f"{sd}, from {self.repeats} trainings repeated here and recipes like this one"


def seed_noise(trials: Sequence[Trial], experiment: Path) -> SeedNoise:
    """From the trainings of this experiment that differ in nothing but their seed, and from what is known besides."""
    known = _known_of(trials)
    groups = [group for group in _repeated(trials, experiment) if len(group) > 1]
    freedom = sum(len(group) - 1 for group in groups)
    own = sum((len(group) - 1) * seed_variance(group) for group in groups)
    variance = max(0.0, own + _KNOWN_FREEDOM * known) / (freedom + _KNOWN_FREEDOM)
    return SeedNoise(variance, freedom + _KNOWN_FREEDOM, sum(map(len, groups)))


def seed_variance(scores: NDArray[np.float64]) -> float:
    """Of seeds x images, without what seeds and images have together; chance may make it negative."""
    seeds, images = scores.shape
    rest = scores - scores.mean(0) - scores.mean(1, keepdims=True) + scores.mean()
    together = (rest**2).sum() / ((seeds - 1) * (images - 1)) if images > 1 else 0.0
    return float(scores.mean(1).var(ddof=1) - together / images)


def _known_of(trials: Sequence[Trial]) -> float:
    known = (trial.result["hparams"] for trial in trials if trial.result and "hparams" in trial.result)
    hparams: dict[str, Any] = next(known, {})
    annealed = hparams.get("schedule", "constant") != "constant"
    sd = _KNOWN_OF_FAST if hparams.get("model") == "fast" else _KNOWN_OF_ANNEALED if annealed else _KNOWN_OF_CONSTANT
    return sd**2


def _repeated(trials: Sequence[Trial], experiment: Path) -> Iterator[NDArray[np.float64]]:
    """Seeds x images of each configuration that was trained more than once."""
    same = defaultdict[str, list[Trial]](list)
    for trial in trials:
        if trial.status == "ok" and trial.result and "hparams" in trial.result:
            same[json.dumps({**trial.result["hparams"], "seed": None}, sort_keys=True)].append(trial)
    for group in same.values():
        if len(group) > 1:
            yield from _scores((layout.trial_directory(experiment, trial.id) for trial in group), metric_of(group[0]))
    confirmed = defaultdict[str, list[Path]](list)
    for directory in sorted(layout.confirmed(experiment).glob("*-seed*")):
        configuration = directory.name.rpartition("-seed")[0]
        if not configuration.endswith(("-long", "-final")):
            confirmed[configuration].append(directory)
    metric = metric_of(trials[0]) if trials else "accuracy"
    for directories in confirmed.values():
        yield from _scores(directories, metric)


def metric_of(trial: Trial) -> str:
    hparams: dict[str, Any] = (trial.result or {}).get("hparams", {})
    return str(hparams.get("metric", "accuracy"))


def _scores(directories: Iterable[Path], metric: str) -> Iterator[NDArray[np.float64]]:
    """Nothing where fewer than two have left predictions of the same images."""
    loaded: list[Predictions] = [found for path in directories if (found := load_predictions(path))]
    same = [some for some in loaded if np.array_equal(some.labels, loaded[0].labels)]
    if len(same) > 1:
        yield np.stack([some.scores(metric) for some in same])
