"""`python -m benchmarks.contest TABLE...`: searches of all contenders, replayed on surrogates of the tables.

Regret against seconds: how far the mean accuracy of a search's leader lies below the best of the table's space. Two
trials at once, each with half a second beside its training; nothing else is counted.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed, parallel_config
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.contest import surrogate as surrogates
from benchmarks.contest.policies import CONTENDERS, SLOW, defaults_of
from benchmarks.contest.replay import TWO_CORES, Lead, replay
from benchmarks.contest.surrogate import Surrogate
from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report
from benchmarks.table.plan import PLANS

_TRIALS = 240  # whose seconds a search has, of random ones at their mean cost
_MOMENTS = (0.05, 0.1, 0.25, 1.0)  # of these seconds
_CLOSE = 0.01  # of the table's best
_RESAMPLES = 2_000
_MUCH = 0.003  # worse than the defaults
HEADER = [
    "table",
    "contender",
    "searches",
    *(f"at {moment:.0%}" for moment in _MOMENTS),
    "seconds to within a point",
    "worse than the defaults",
]
_ERROR_HEADER = [
    "table",
    "trainings",
    "error",
    "of the better half",
    "rank correlation",
    "best of the space",
    "seconds",
]


@dataclass(frozen=True)
class Played:
    """Searches of one contender: mean regrets at the moments with their 95 % margins, and what half of them needed.

    `needed` is None where fewer than half came so close. `worse` is the share of them whose leader is in the end worse
    than the defaults by more than 0.3 points.
    """

    table: str
    contender: str
    searches: int
    regrets: list[tuple[float, float]]
    needed: list[float | None]  # with the ends of its 95 % interval
    worse: float

    def cells(self) -> list[str]:
        regrets = [f"{100 * value:.2f} ± {100 * margin:.2f}" for value, margin in self.regrets]
        value, low, high = ("more" if some is None else f"{some:,.0f}" for some in self.needed)
        needed = f"{value} ({low} to {high})"
        return [self.table, self.contender, str(self.searches), *regrets, needed, f"{self.worse:.1%}"]


@dataclass(frozen=True)
class Fitted:
    """How well a surrogate knows its table."""

    table: str
    trainings: int
    error: float
    error_of_better: float
    rank_correlation: float
    best: float
    seconds: float  # of a search

    def cells(self) -> list[str]:
        wrong = [f"{100 * some:.1f} points" for some in (self.error, self.error_of_better)]
        rank = f"{self.rank_correlation:.2f}"
        return [self.table, str(self.trainings), *wrong, rank, f"{self.best:.1%}", f"{self.seconds:,.0f}"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contest", description=__doc__)
    parser.add_argument("tables", nargs="+", metavar="TABLE", choices=PLANS, help=f"of {', '.join(PLANS)}")
    parser.add_argument("--seeds", type=int, default=200, metavar="N", help="searches of each contender (default: 200)")
    slow = f"of {' and '.join(SLOW)} (default: 200)"
    parser.add_argument("--slow-seeds", type=int, default=200, metavar="N", help=slow)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # NNI's tuners say each step
    warnings.simplefilter("ignore")  # Optuna's say what is experimental
    fitted = {name: surrogates.load(PLANS[name]) for name in options.tables}
    seeds = dict.fromkeys(CONTENDERS, options.seeds) | dict.fromkeys(SLOW, options.slow_seeds)
    command = f"python -m benchmarks.contest {' '.join(options.tables)} --seeds {options.seeds}"
    command += f" --slow-seeds {options.slow_seeds}"
    report = Report(RESULTS / "contest", "The contest, replayed", machine.describe(command, machine.choose_data()))
    known = [fit_of(name, some) for name, some in fitted.items()]
    report.table("What the surrogates know, by cross-validation", "surrogates", _ERROR_HEADER, known)
    leads = {(name, who): play(some, who, seeds[who]) for name, some in fitted.items() for who in CONTENDERS}
    played = [summed_up(name, who, fitted[name], some) for (name, who), some in leads.items()]
    report.table("Points below the best of the space, and the seconds to come close", "played", HEADER, played)
    plot(leads, fitted, RESULTS / "contest.png")
    return 0


def fit_of(name: str, surrogate: Surrogate) -> Fitted:
    error = surrogate.error()
    told = (error.all, error.better_half, error.rank_correlation)
    return Fitted(name, surrogate.trainings, *told, surrogate.best, seconds_of(surrogate))


def seconds_of(surrogate: Surrogate) -> float:
    chance = np.random.default_rng(0)
    costs = [surrogate.epoch_seconds(surrogate.drawn(chance)) for _ in range(500)]
    return _TRIALS * surrogate.plan.base.epochs * float(np.mean(costs)) / TWO_CORES.at_once


def play(surrogate: Surrogate, contender: str, seeds: int) -> list[list[Lead]]:
    seconds, name = seconds_of(surrogate), f"{surrogate.plan.name}: {contender}"
    searches = (delayed(_played)(surrogate, contender, seconds, seed) for seed in range(seeds))
    with parallel_config("loky", inner_max_num_threads=1):
        return [*tqdm(Parallel(-1, return_as="generator")(searches), name, seeds, file=sys.stderr)]


def _played(surrogate: Surrogate, contender: str, seconds: float, seed: int) -> list[Lead]:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    return replay(CONTENDERS[contender](surrogate.plan, seed), surrogate, seconds, seed)


def summed_up(table: str, contender: str, surrogate: Surrogate, leads: Sequence[Sequence[Lead]]) -> Played:
    moments = [share * seconds_of(surrogate) for share in _MOMENTS]
    found = np.array([[regret(surrogate, some, moment) for moment in moments] for some in leads])
    margins = 1.96 * found.std(axis=0, ddof=1) / np.sqrt(len(found))
    close = [first_close(surrogate, some) for some in leads]
    regrets = [(float(value), float(margin)) for value, margin in zip(found.mean(0), margins, strict=True)]
    worse = np.mean([_mean_of_defaults(surrogate) - last_of(some) > _MUCH for some in leads])
    return Played(table, contender, len(leads), regrets, median_with_interval(np.array(close)), float(worse))


def last_of(leads: Sequence[Lead]) -> float:
    return leads[-1].accuracy if leads else 0.0


def _mean_of_defaults(surrogate: Surrogate) -> float:
    return float(surrogate.curves([defaults_of(surrogate.plan)])[0][-1])


def regret(surrogate: Surrogate, leads: Sequence[Lead], seconds: float) -> float:
    """Before any trial has ended a user would have a network that guesses."""
    accuracy = next((lead.accuracy for lead in reversed(leads) if lead.seconds <= seconds), 0.1)
    return surrogate.best - accuracy


def first_close(surrogate: Surrogate, leads: Sequence[Lead]) -> float:
    return next((lead.seconds for lead in leads if surrogate.best - lead.accuracy <= _CLOSE), np.inf)


def median_with_interval(values: NDArray[np.float64]) -> list[float | None]:
    """The lower median, which is one of the values, and the middle 95 % of those of resampled values."""
    generator, middle = np.random.default_rng(0), (len(values) - 1) // 2
    resampled = np.sort(generator.choice(values, (_RESAMPLES, len(values))), axis=1)[:, middle]
    low, high = np.sort(resampled)[[int(0.025 * _RESAMPLES), int(0.975 * _RESAMPLES) - 1]]
    return [float(some) if np.isfinite(some) else None for some in (np.sort(values)[middle], low, high)]


def plot(leads: dict[tuple[str, str], list[list[Lead]]], fitted: dict[str, Surrogate], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(fitted), figsize=(7 * len(fitted), 6), layout="constrained", squeeze=False)
    for axis, (name, surrogate) in zip(axes[0], fitted.items(), strict=True):
        grid = np.geomspace(0.02, 1, 60) * seconds_of(surrogate)
        for who in CONTENDERS:
            curves = np.array([[regret(surrogate, some, moment) for moment in grid] for some in leads[name, who]])
            axis.plot(grid, 100 * curves.mean(0), label=who)
        axis.set(xscale="log", yscale="log", title=name, xlabel="seconds of search", ylabel="points below the best")
        axis.grid(alpha=0.3)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
