"""How much the accuracy of one configuration differs from seed to seed: of this experiment, and of recipes like its."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar.trials import layout
from cifar.trials.predictions import load_predictions
from cifar.trials.store import Trial, best_first

# What standard deviations over seeds are taken to be before an experiment knows its own, and at which accuracy: near
# what was measured of net (results/README.md), and what the published confirmations of fast show.
_KNOWN_OF_FAST, _KNOWN_OF_ANNEALED, _KNOWN_OF_CONSTANT = (0.004, 0.8), (0.010, 0.6), (0.020, 0.6)
_HIGHEST = 0.99  # above it a search of few images would take seeds for equal
_KNOWN_FREEDOM = 8  # degrees of freedom that this counts for: the truth may lie a third away


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
    weights = [_weight(group, known) for group in groups]
    own = sum(weight * seed_variance(group) for weight, group in zip(weights, groups, strict=True))
    freedom = sum(weights) + _KNOWN_FREEDOM
    return SeedNoise(max(0.0, own + _KNOWN_FREEDOM * known) / freedom, int(freedom), sum(map(len, groups)))


def _weight(scores: NDArray[np.float64], known: float) -> float:
    """Degrees of freedom that a repeated configuration counts for: few images leave its seeds' variance uncertain."""
    share = known / (known + interaction(scores) / scores.shape[1])
    return float((len(scores) - 1) * share**2)


def seed_variance(scores: NDArray[np.float64]) -> float:
    """Of seeds x images, without what seeds and images have together; chance may make it negative."""
    return float(scores.mean(1).var(ddof=1) - interaction(scores) / scores.shape[1])


def interaction(scores: NDArray[np.float64]) -> float:
    """The mean square of the interaction of seeds and images, of seeds x images; 0 where one of both is alone."""
    seeds, images = scores.shape
    rest = scores - scores.mean(0) - scores.mean(1, keepdims=True) + scores.mean()
    return float((rest**2).sum() / ((seeds - 1) * (images - 1))) if min(seeds, images) > 1 else 0.0


def _known_of(trials: Sequence[Trial]) -> float:
    """By the leading trial's recipe and accuracy."""
    leader = next(iter(best_first([*trials])), None)
    hparams: dict[str, Any] = ((leader and leader.result) or {}).get("hparams", {})
    return known_variance(hparams, leader.accuracy if leader else None)


def known_variance(hparams: Mapping[str, Any], accuracy: float | None) -> float:
    """That of recipes like this one, in proportion to what images leave to chance at the accuracy."""
    annealed = hparams.get("schedule", "constant") != "constant"
    sd, level = (
        _KNOWN_OF_FAST if hparams.get("model") == "fast" else _KNOWN_OF_ANNEALED if annealed else _KNOWN_OF_CONSTANT
    )
    accuracy = min(accuracy or level, _HIGHEST)
    return sd**2 * min(1.0, accuracy * (1 - accuracy) / (level * (1 - level)))


def _repeated(trials: Sequence[Trial], experiment: Path) -> Iterator[NDArray[np.float64]]:
    """Seeds x images of each configuration that was trained more than once."""
    for trial in best_first([*trials]):
        if trial.repeats:
            yield from _scores(
                [layout.trial_directory(experiment, one.id) for one in trial.trainings], metric_of(trial)
            )
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
    """Nothing where fewer than two have left predictions of the same images.

    Networks that give one class alone are equal without being alike.
    """
    found = [found for path in directories if (found := load_predictions(path))]
    loaded = [some for some in found if len(np.unique(some.predicted)) > 1]
    same = [some for some in loaded if np.array_equal(some.labels, loaded[0].labels)]
    if len(same) > 1:
        yield np.stack([some.scores(metric) for some in same])
