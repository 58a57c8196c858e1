"""Which configuration is best, and how sure is that.

A trial that leads a search is partly lucky. So the leading trials, which the validation images cannot tell apart, and
the recipe's defaults are trained again with new seeds, and what is said of them rests on those alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cifar.analysis.configurations import DEFAULTS, Configuration
from cifar.analysis.statistics import Mean, difference, mean, pooled_with_recipes, scores
from cifar.errors import RequestError
from cifar.trials.predictions import Predictions

Prefer = Literal["accuracy", "speed"]


@dataclass(frozen=True)
class Rule:
    """What wins: the highest mean, or the quickest that is not worse by `margin`, a fraction."""

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

    `gain` is by how much the winner, or where the defaults win the best of the others, is better than the defaults,
    without the luck of having been chosen. Its interval holds for all of the others at once. None where one is missing.
    `out` are configurations that could not be trained with each seed.
    """

    candidates: list[Candidate]
    accuracies: list[Mean]
    tied: list[Candidate]
    winner: Candidate
    gain: Mean | None
    out: list[Configuration] = field(default_factory=list)

    def accuracy(self, candidate: Candidate) -> Mean:
        return self.accuracies[self.candidates.index(candidate)]

    @property
    def budgets(self) -> set[str]:
        """Of its trainings, each once."""
        return {some.configuration.budget_text for some in self.candidates}

    @property
    def ranked(self) -> list[Candidate]:
        """The best first."""
        return sorted(self.candidates, key=lambda candidate: -self.accuracy(candidate).value)


def decide(candidates: list[Candidate], rule: Rule = MOST_ACCURATE) -> Confirmed:
    """The highest mean wins; for speed the quickest of the candidates that are shown not to be worse by the margin.

    The defaults win where nothing is better than they are by more than its luck. How much seeds differ is pooled over
    the candidates, and where two have two seeds each, with what is known of recipes like theirs. All have equally many
    seeds and images, so that shrinking their means would not change their order. Each is compared with the best at a
    level at which the one that is truly best is left out in 5 % of cases at most.
    """
    best = _highest(candidates)
    spread = pooled_with_recipes([candidate.scores for candidate in candidates], best.configuration.hparams)
    accuracies = [mean(candidate.scores, spread) for candidate in candidates]
    tied, as_good = [best], [best]
    for other in candidates:
        if other is best:
            continue
        behind = difference(best.scores, other.scores, spread, len(candidates) - 1, "one")
        if behind.value <= behind.margin:
            tied.append(other)
        if behind.value + behind.margin <= rule.margin:
            as_good.append(other)
    searched = [candidate for candidate in candidates if candidate.id != DEFAULTS]
    defaults = next((candidate for candidate in candidates if candidate.id == DEFAULTS), None)
    if defaults is None or not searched:
        winner = _quickest(as_good) if rule.prefer == "speed" else best
        return Confirmed(candidates, accuracies, tied, winner, None)
    leader = _highest(searched)
    raw = difference(leader.scores, defaults.scores, spread, len(searched))
    gain = replace(raw, value=raw.value - _luck(searched))
    if rule.prefer == "accuracy":
        return Confirmed(candidates, accuracies, tied, leader if gain.value > 0 else defaults, gain)
    winner = _quickest(as_good)
    if winner.id not in (leader.id, defaults.id):  # it was not chosen for its accuracy, so that there is no luck in it
        gain = difference(winner.scores, defaults.scores, spread, len(searched))
    return Confirmed(candidates, accuracies, tied, winner, gain)


def _highest(candidates: Sequence[Candidate]) -> Candidate:
    return max(candidates, key=lambda candidate: float(candidate.scores.mean()))


def _quickest(candidates: Sequence[Candidate]) -> Candidate:
    return min(candidates, key=lambda candidate: candidate.seconds)


def _luck(candidates: Sequence[Candidate]) -> float:
    """By how much the highest mean of several flatters because it is the highest.

    Each seed judges, by one half of the images, which candidate the other seeds would have chosen by the other half.
    """
    values = np.stack([candidate.scores for candidate in candidates])  # candidates x seeds x images
    judged = list[float]()
    for seed in range(values.shape[1]):
        for half in (0, 1):
            other_seeds = np.delete(values, seed, axis=1)
            chosen = int(other_seeds[:, :, 1 - half :: 2].mean((1, 2)).argmax())
            judged.append(float(values[chosen, seed, half::2].mean()))
    return max(0.0, float(values.mean((1, 2)).max() - np.mean(judged)))


def finalists(confirmed: Confirmed, leaders: int) -> list[Configuration]:
    """The best of the searched configurations and the defaults, which meet again at the final budget."""
    ranked = [candidate.configuration for candidate in confirmed.ranked]
    best = [some.id for some in ranked if some.id != DEFAULTS][:leaders]
    return [some for some in ranked if some.id in (*best, DEFAULTS)]
