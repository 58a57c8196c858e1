"""`python -m benchmarks.studies.leader TABLE...`: which trial of a search to go on with, replayed on the tables.

With few validation images the highest accuracy is a lucky one. Beside it: the highest that a Gaussian process through
all trials expects, and that one only where it is likely to be better than the defaults. So does `cifar fit`, which also
doubts the more of it the longer the last training is.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from joblib import delayed

from benchmarks.contest import surrogate as surrogates
from benchmarks.contest.policies import defaults_of, ours
from benchmarks.contest.replay import Policy, Rules, replay, side_by_side
from benchmarks.contest.surrogate import Params, Surrogate
from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report
from benchmarks.table.plan import PLANS
from cifar.analysis.expected import expected

_SEARCHES = 100
_SECONDS = (300, 900)
_VAL_IMAGES = (220, 660, 5_000)
_SURE = (0.6, 0.7, 0.85)  # of these it takes the middle one
HEADER = [
    "table", "seconds", "validation images", "the defaults", "highest accuracy", "highest expected",
    *(f"where {chance:.0%} sure" for chance in _SURE), "gain", "best one there",
]  # fmt: skip


class Heard:
    """A policy of which is kept what it proposed, and what came of the trials that ran to their end."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._proposed: dict[int, Params] = {}
        self._stopped = set[int]()
        self.whole: list[tuple[Params, float]] = []

    def propose(self, number: int) -> Params:
        self._proposed[number] = self._policy.propose(number)
        return self._proposed[number]

    def goes_on(self, number: int, epoch: int, accuracy: float) -> bool:
        goes_on = self._policy.goes_on(number, epoch, accuracy)
        self._stopped |= set() if goes_on else {number}
        return goes_on

    def hear(self, number: int, accuracy: float) -> None:
        if number not in self._stopped:
            self.whole.append((self._proposed[number], accuracy))
        self._policy.hear(number, accuracy)


@dataclass(frozen=True)
class Line:
    """Mean accuracies of what the rules choose, by the surrogate.

    `gain` is what that of `cifar fit` has over the highest accuracy, with its 95 % margin.
    """

    table: str
    seconds: int
    val_images: int
    defaults: float
    chosen: list[float]  # by each of the rules
    gain: tuple[float, float]
    best: float

    def cells(self) -> list[str]:
        value, margin = self.gain
        shares = [f"{100 * some:.2f}%" for some in (self.defaults, *self.chosen)]
        gained = f"{100 * value:+.2f} points ± {100 * margin:.2f}"
        return [self.table, str(self.seconds), f"{self.val_images:,}", *shares, gained, f"{self.best:.1%}"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.leader", description=__doc__)
    parser.add_argument("tables", nargs="+", metavar="TABLE", choices=PLANS, help=f"of {', '.join(PLANS)}")
    tables = parser.parse_args().tables
    facts = machine.describe(f"python -m benchmarks.studies.leader {' '.join(tables)}", machine.choose_data())
    report = Report(RESULTS / "leader", "Which trial of a search to go on with", facts)
    title = f"Mean accuracy after a trial's epochs of what is chosen, {_SEARCHES} searches each"
    report.table(title, "leaders", HEADER, (line for table in tables for line in measure(table)))
    return 0


def measure(table: str) -> Iterator[Line]:
    surrogate = surrogates.load(PLANS[table])
    known = _true(surrogate, defaults_of(surrogate.plan))
    for seconds in _SECONDS:
        for val_images in _VAL_IMAGES:
            searches = (delayed(_search)(surrogate, seconds, val_images, seed) for seed in range(_SEARCHES))
            name = f"{table}: {seconds} s, {val_images:,}"
            found = np.array([*side_by_side(searches, name, _SEARCHES)])
            gained = found[:, 2 + _SURE.index(0.7)] - found[:, 0]
            gain = float(gained.mean()), 1.96 * float(gained.std(ddof=1)) / math.sqrt(_SEARCHES)
            *chosen, best = (float(some) for some in found.mean(0))
            yield Line(table, seconds, val_images, known, chosen, gain, best)


def _search(surrogate: Surrogate, seconds: int, val_images: int, seed: int) -> list[float]:
    """What the surrogate knows of the trials that the rules choose, and of the best one."""
    logging.disable(logging.CRITICAL)
    heard = Heard(ours(surrogate.plan, seed))
    replay(heard, surrogate, seconds, seed, Rules(val_images=val_images))
    params, accuracies = zip(*heard.whole, strict=True)
    known = expected(surrogate.plan.space, params, accuracies, val_images)
    true, first = [_true(surrogate, some) for some in params], int(np.argmax(known.accuracies))
    defaults = next((n for n, some in enumerate(params) if some == defaults_of(surrogate.plan)), first)
    chance = known.chance_below(first, defaults, [1.0] * len(params), [0.0] * len(params))
    sure = [true[first if first == defaults or chance >= least else defaults] for least in _SURE]
    return [true[int(np.argmax(accuracies))], true[first], *sure, max(true)]


def _true(surrogate: Surrogate, params: Params) -> float:
    return float(surrogate.curves([{name: params[name] for name in surrogate.plan.space}])[0][-1])


if __name__ == "__main__":
    sys.exit(main())
