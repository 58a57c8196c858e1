"""Which configuration is best, and how sure is that.

A trial that leads a search is partly lucky. So the leading trials, which the validation images cannot tell apart, are
trained again with new seeds, and what is said of them rests on those alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cifar.analysis.statistics import Mean, correct, mean
from cifar.errors import RequestError
from cifar.training.hparams import Hparams
from cifar.trials.predictions import Predictions
from cifar.trials.store import Trial, best_first
from cifar.trials.ties import ties

MOST_CANDIDATES = 5
_FIRST_SEED = 1000  # far from the seeds that most searches use
_SAME_COST = 1.1  # seconds that differ by less say more of the machine than of what was trained


@dataclass(frozen=True)
class Candidate:
    """A leading trial's configuration, and how it did with each new seed."""

    trial: Trial
    predictions: list[Predictions]
    seconds: float  # of its quickest training, which was disturbed least

    @property
    def accuracy(self) -> Mean:
        return mean(correct(self.predictions))


def decide(candidates: list[Candidate]) -> tuple[Candidate, list[Candidate]]:
    """The winner, and all candidates that tie with the best. The most accurate of the quickest of these wins."""
    best = max(candidates, key=lambda candidate: candidate.accuracy.value)
    tied = [other for other in candidates if other is best or not _is_worse(other, best)]
    seconds = min(candidate.seconds for candidate in tied)
    quickest = [candidate for candidate in tied if candidate.seconds <= _SAME_COST * seconds]
    return max(quickest, key=lambda candidate: candidate.accuracy.value), tied


def _is_worse(other: Candidate, best: Candidate) -> bool:
    difference = mean(correct(best.predictions) - correct(other.predictions))
    return difference.value > difference.margin


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
