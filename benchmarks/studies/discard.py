"""`python -m benchmarks.studies.discard TABLE...`: what it gains and costs to end trials early, replayed on the tables.

This project's tuner with no assessor, with NNI's Medianstop, and with this project's, as shipped and with other
constants.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import delayed
from nni.algorithms.hpo.medianstop_assessor import MedianstopAssessor

from benchmarks.contest import surrogate as surrogates
from benchmarks.contest.__main__ import first_close, median_with_interval, regret, seconds_of
from benchmarks.contest.policies import Nni, defaults_of
from benchmarks.contest.replay import replay, side_by_side
from benchmarks.contest.surrogate import Surrogate
from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report
from benchmarks.table.plan import PLANS
from cifar.search.assessor import EarlyDiscard
from cifar.search.guided_tpe import GuidedTpe

_SEARCHES = 80
_MOMENTS = (0.1, 0.25, 1.0)  # of the seconds of a search
_ASSESSORS: dict[str, Any] = {
    "none": lambda: None,
    "NNI's Medianstop": lambda: MedianstopAssessor("maximize", 0),
    "as shipped": EarlyDiscard,
    "the best fifth": lambda: EarlyDiscard(keep=0.2),
    "the best half": lambda: EarlyDiscard(keep=0.5),
    "without slack": lambda: EarlyDiscard(slack=0.0),
    "after 4 whole trials": lambda: EarlyDiscard(warm_up=4),
}
HEADER = ["table", "assessor", *(f"at {moment:.0%}" for moment in _MOMENTS), "seconds to within a point"]


@dataclass(frozen=True)
class Discarded:
    """Mean regrets at the moments with their 95 % margins, and the seconds that half of the searches needed."""

    table: str
    assessor: str
    regrets: list[tuple[float, float]]
    needed: list[float | None]  # with the ends of its 95 % interval; None: more than the search had

    def cells(self) -> list[str]:
        regrets = [f"{100 * value:.2f} ± {100 * margin:.2f}" for value, margin in self.regrets]
        value, low, high = ("more" if some is None else f"{some:,.0f}" for some in self.needed)
        return [self.table, self.assessor, *regrets, f"{value} ({low} to {high})"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.discard", description=__doc__)
    parser.add_argument("tables", nargs="+", metavar="TABLE", choices=PLANS, help=f"of {', '.join(PLANS)}")
    tables = parser.parse_args().tables
    facts = machine.describe(f"python -m benchmarks.studies.discard {' '.join(tables)}", machine.choose_data())
    report = Report(RESULTS / "discard", "What early discard gains and costs", facts)
    title = f"Points below the best of the space, {_SEARCHES} searches each"
    report.table(title, "discarded", HEADER, (line for table in tables for line in measure(table)))
    return 0


def measure(table: str) -> Iterator[Discarded]:
    surrogate = surrogates.load(PLANS[table])
    for name in _ASSESSORS:
        searches = (delayed(_search)(surrogate, name, seed) for seed in range(_SEARCHES))
        found = np.array([*side_by_side(searches, f"{table}: {name}", _SEARCHES)])
        regrets, needed = found[:, :-1], found[:, -1]
        margins = 1.96 * regrets.std(axis=0, ddof=1) / np.sqrt(len(regrets))
        told = [(float(mean), float(margin)) for mean, margin in zip(regrets.mean(0), margins, strict=True)]
        yield Discarded(table, name, told, median_with_interval(needed))


def _search(surrogate: Surrogate, assessor: str, seed: int) -> list[float]:
    """Its regret at each moment, and when it came close."""
    logging.disable(logging.CRITICAL)
    plan, seconds = surrogate.plan, seconds_of(surrogate)
    policy = Nni(plan.space, GuidedTpe("maximize", seed, None, defaults_of(plan)), _ASSESSORS[assessor]())
    leads = replay(policy, surrogate, seconds, seed)
    return [*(regret(surrogate, leads, moment * seconds) for moment in _MOMENTS), first_close(surrogate, leads)]


if __name__ == "__main__":
    sys.exit(main())
