"""Which configuration is best, and how sure is that.

A trial that leads a search is partly lucky. So the leading trials, which the validation images cannot tell apart, and
the recipe's defaults are trained again with new seeds, and what is said of them rests on those alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cifar.analysis.configurations import DEFAULTS, Configuration
from cifar.analysis.statistics import Mean, SeedSpread, difference, mean, pooled_spread, scores
from cifar.errors import RequestError
from cifar.trials.predictions import Predictions

Prefer = Literal["accuracy", "speed"]


@dataclass(frozen=True)
class Rule:
    """What wins: the highest mean, or the quickest of those that are not worse by `margin`, a fraction."""

    prefer: Prefer = "accuracy"
    margin: float = 0.005

    def __post_init__(self) -> None:
        if not 0 <= self.margin <= 1:
            raise RequestError(f"--margin must be from 0 to 100 points, got {100 * self.margin:g}")


MOST_ACCURATE = Rule()


@dataclass(frozen=True)
class Candidate:
    """A configuration, and how it did with each new seed."""

    configuration: Configuration
    predictions: list[Predictions]
    seconds: float  # of its quickest training, which was disturbed least

    @property
    def id(self) -> str:
        return self.configuration.id

    @property
    def scores(self) -> NDArray[np.float64]:
        """Seeds x images; their mean is what was tuned."""
        return scores(self.predictions, self.configuration.hparams.metric)


@dataclass(frozen=True)
class Confirmed:
    """What the new seeds say: each candidate's accuracy, those that tie with the best, and the winner.

    `gain` is by how much the winner is better than the defaults; where these win, the best of the others. None where
    one of both is missing.
    """

    candidates: list[Candidate]
    accuracies: list[Mean]
    tied: list[Candidate]
    winner: Candidate
    gain: Mean | None

    def accuracy(self, candidate: Candidate) -> Mean:
        return self.accuracies[self.candidates.index(candidate)]

    @property
    def ranked(self) -> list[Candidate]:
        """The best first."""
        return sorted(self.candidates, key=lambda candidate: -self.accuracy(candidate).value)


def decide(candidates: list[Candidate], rule: Rule = MOST_ACCURATE) -> Confirmed:
    """The highest mean wins; for speed the quickest of the candidates that are shown not to be worse by the margin.

    How much seeds differ is pooled over the candidates. All have equally many seeds and images, so that shrinking their
    means would not change their order. Each is compared with the best at a level that keeps the chance of any false
    "worse" at 5 %.
    """
    spread = pooled_spread([candidate.scores for candidate in candidates])
    accuracies = [mean(candidate.scores, spread) for candidate in candidates]
    best = candidates[int(np.argmax([accuracy.value for accuracy in accuracies]))]
    tied, as_good = [best], [best]
    for other in candidates:
        if other is best:
            continue
        behind = difference(best.scores, other.scores, spread, len(candidates) - 1, "one")
        if behind.value <= behind.margin:
            tied.append(other)
        if behind.value + behind.margin <= rule.margin:
            as_good.append(other)
    winner = min(as_good, key=lambda candidate: candidate.seconds) if rule.prefer == "speed" else best
    return Confirmed(candidates, accuracies, tied, winner, _gain(candidates, accuracies, winner, spread))


def _gain(candidates: list[Candidate], accuracies: list[Mean], winner: Candidate, spread: SeedSpread) -> Mean | None:
    """Its interval holds for all of the others at once, thus also for the one that was chosen as the best of them."""
    values = {candidate.id: accuracy.value for candidate, accuracy in zip(candidates, accuracies, strict=True)}
    others = [candidate for candidate in candidates if candidate.id != DEFAULTS]
    defaults = next((candidate for candidate in candidates if candidate.id == DEFAULTS), None)
    if defaults is None or not others:
        return None
    searched = max(others, key=lambda candidate: values[candidate.id]) if winner is defaults else winner
    return difference(searched.scores, defaults.scores, spread, len(others))


def finalists(confirmed: Confirmed, leaders: int) -> list[Configuration]:
    """The best of the searched configurations and the defaults, which meet again at the final budget."""
    ranked = [candidate.configuration for candidate in confirmed.ranked]
    best = [some.id for some in ranked if some.id != DEFAULTS][:leaders]
    return [some for some in ranked if some.id in (*best, DEFAULTS)]
