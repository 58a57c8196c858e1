"""Which configuration is best, and how sure is that.

A trial that leads a search is partly lucky. So the leading trials, which the validation images cannot tell apart, are
trained again with new seeds, and what is said of them rests on those alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cifar.analysis.statistics import Mean, correct, difference, mean, pooled_spread
from cifar.errors import RequestError
from cifar.training.hparams import Hparams
from cifar.trials.predictions import Predictions
from cifar.trials.store import Trial, best_first
from cifar.trials.ties import ties

MOST_CANDIDATES = 5
_FIRST_SEED = 1000  # far from the seeds that most searches use


@dataclass(frozen=True)
class Candidate:
    """A leading trial's configuration, and how it did with each new seed."""

    trial: Trial
    predictions: list[Predictions]
    seconds: float  # of its quickest training, which was disturbed least

    @property
    def correct(self) -> NDArray[np.float64]:
        """Seeds x images, 1 where right."""
        return correct(self.predictions)


Prefer = Literal["accuracy", "speed"]


@dataclass(frozen=True)
class Confirmed:
    """What the new seeds say: each candidate's accuracy, those that tie with the best, and the winner."""

    candidates: list[Candidate]
    accuracies: list[Mean]
    tied: list[Candidate]
    winner: Candidate

    def accuracy(self, candidate: Candidate) -> Mean:
        return self.accuracies[self.candidates.index(candidate)]


def decide(candidates: list[Candidate], margin: float, prefer: Prefer) -> Confirmed:
    """The highest mean wins; for speed the quickest of the candidates that are shown not to be worse by `margin`.

    How much seeds differ is pooled over the candidates. Each is compared with the best at a level that keeps the chance
    of any false "worse" at 5 % (Bonferroni).
    """
    spread = pooled_spread([candidate.correct for candidate in candidates])
    accuracies = [mean(candidate.correct, spread) for candidate in candidates]
    best = candidates[int(np.argmax([accuracy.value for accuracy in accuracies]))]
    others = [candidate for candidate in candidates if candidate is not best]
    level = 0.05 / max(len(others), 1)
    tied, as_good = [best], [best]
    for other in others:
        # One-sided, since the best is the best: each side of an interval of 1 - 2 level leaves out a chance of `level`.
        behind = difference(best.correct, other.correct, spread, 1 - 2 * level)
        if behind.value <= behind.margin:
            tied.append(other)
        if behind.value + behind.margin <= margin:
            as_good.append(other)
    winner = min(as_good, key=lambda candidate: candidate.seconds) if prefer == "speed" else best
    return Confirmed(candidates, accuracies, tied, winner)


def leading(trials: list[Trial], experiment: Path) -> list[Trial]:
    """The best trial and all trials that tie with it. RequestError where none has finished."""
    ranked = best_first(trials)
    if not ranked:
        raise RequestError(f"no trial of experiment {experiment.name} has finished: there is nothing to confirm")
    tied = ties(trials, experiment)
    return [trial for trial in ranked if trial.id in tied] or ranked[:1]


def new_seeds(trials: Sequence[Trial], count: int) -> list[int]:
    """Seeds that none of a search's trials has used: being chosen is luck in the old ones."""
    used = {(trial.result or {}).get("hparams", {}).get("seed") for trial in trials}
    return list(itertools.islice((seed for seed in itertools.count(_FIRST_SEED) if seed not in used), count))


def with_seeds(trial: Trial, seeds: Sequence[int]) -> Iterator[Hparams]:
    """The trial's hyperparameters with each of the seeds."""
    try:
        hparams = Hparams.from_params((trial.result or {})["hparams"])
    except (RequestError, KeyError, TypeError) as error:
        raise RequestError(
            f"trial {trial.number} was run by another version, which this one cannot repeat: {error}"
        ) from None
    for seed in seeds:
        yield replace(hparams, seed=seed)
