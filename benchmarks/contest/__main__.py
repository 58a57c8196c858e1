"""`python -m benchmarks.contest TABLE...`: searches of all contenders, replayed on surrogates of the tables.

Regret against seconds: how far the mean accuracy of a search's leader lies below the best of the table's space. Two
trials at once, each with half a second beside its training; nothing else is counted. Each table has a report of its
own in results/contest/; results/contest.md has all of them. Resumable: each minute the searches are kept beside that
report; without their file all play anew.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from filelock import FileLock
from joblib import delayed
from numpy.typing import NDArray

from benchmarks.contest import kept
from benchmarks.contest import surrogate as surrogates
from benchmarks.contest.kept import Kept
from benchmarks.contest.policies import CONTENDERS, SLOW, defaults_of
from benchmarks.contest.replay import TWO_CORES, Lead, replay, side_by_side
from benchmarks.contest.surrogate import Surrogate
from benchmarks.shared import machine, program
from benchmarks.shared.report import RESULTS, Report
from benchmarks.table.plan import PLANS
from cifar.errors import RequestError

_TRIALS = 240  # whose seconds a search has, of random ones at their mean cost
_MOMENTS = (0.05, 0.1, 0.25, 1.0)  # of these seconds
_CLOSE = 0.01  # of the table's best
_RESAMPLES = 2_000
_MUCH = 0.003  # worse than the defaults
_PEERS = ("optuna", "ray", "syne_tune")
HEADER = [
    "table",
    "contender",
    "searches",
    *(f"after {moment:.0%} of the seconds" for moment in _MOMENTS),
    "seconds to within a point",
    "worse than the defaults",
    "commit",
]
_KNOWN = "What the surrogates know, by cross-validation"
_PLAYED = "Points below the best of the space, and the seconds to come close"
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
    than the defaults by more than 0.3 points. `commit`: which played them.
    """

    table: str
    contender: str
    searches: int
    regrets: list[tuple[float, float]]
    needed: list[float | None]  # with the ends of its 95 % interval
    worse: float
    commit: str

    def cells(self) -> list[str]:
        regrets = [f"{100 * value:.2f} ± {100 * margin:.2f}" for value, margin in self.regrets]
        found = [*regrets, _needed(*self.needed), f"{self.worse:.1%}"]
        return [self.table, self.contender, str(self.searches), *found, self.commit]


def _needed(value: float | None, low: float | None, high: float | None) -> str:
    """Seconds with the ends of their interval; None is more than a search has."""
    if value is None:
        return "not in this time" if low is None else f"not in this time ({low:,.0f} or more)"
    return f"{value:,.0f} ({low:,.0f} to {'more than it has' if high is None else f'{high:,.0f}'})"


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
    if (fewest := min(options.seeds, options.slow_seeds)) < 2:
        parser.error(f"an interval needs at least 2 searches, got {fewest}")
    if missing := [name for name in _PEERS if find_spec(name) is None]:
        raise RequestError(f"no package {', '.join(missing)} to play against: pip install -e '.[peers]'")
    logging.disable(logging.CRITICAL)  # NNI's tuners say each step
    warnings.simplefilter("ignore")  # Optuna's say what is experimental
    seeds = dict.fromkeys(CONTENDERS, options.seeds) | dict.fromkeys(SLOW, options.slow_seeds)
    (RESULTS / "contest").mkdir(exist_ok=True)
    for name in options.tables:
        command = f"python -m benchmarks.contest {name} --seeds {options.seeds} --slow-seeds {options.slow_seeds}"
        with FileLock(RESULTS / "contest" / f"{name}.lock"):
            play_table(surrogates.load(PLANS[name]), seeds, machine.conditions(command))
        sum_up_tables()
    return 0


def play_table(surrogate: Surrogate, seeds: dict[str, int], facts: dict[str, str]) -> None:
    name = surrogate.plan.name
    report = Report(RESULTS / "contest" / name, f"The contest on the table {name}, replayed", facts)
    report.table(_KNOWN, "surrogates", _ERROR_HEADER, [fit_of(name, surrogate)])
    known = kept.read(name)

    def played() -> Iterator[Played]:
        """One contender after the other, each kept as it plays."""
        for who in CONTENDERS:
            before = known.get(who, Kept("", []))
            if len(before.searches) < seeds[who]:
                searches = play(surrogate, who, len(before.searches), seeds[who])
                for so_far in kept.by_the_minute(before, searches, facts["commit"]):
                    known[who] = so_far
                    kept.write(name, known)
            yield summed_up(name, who, surrogate, known[who])

    report.table(_PLAYED, "played", HEADER, played())
    plot({who: known[who].searches for who in CONTENDERS}, surrogate, RESULTS / "contest" / f"{name}.png")


def sum_up_tables() -> None:
    """One report of those of the tables."""
    tables = [json.loads(path.read_text()) for path in sorted((RESULTS / "contest").glob("*.json"))]
    commands = {"commands": "; ".join(some["facts"]["command"] for some in tables)}
    report = Report(RESULTS / "contest", "The contest, replayed", commands)
    fits = [Fitted(**line) for some in tables for line in some["surrogates"]]
    report.table(_KNOWN, "surrogates", _ERROR_HEADER, fits)
    report.table(_PLAYED, "played", HEADER, [Played(**line) for some in tables for line in some["played"]])


def fit_of(name: str, surrogate: Surrogate) -> Fitted:
    error = surrogate.error()
    told = (error.all, error.better_half, error.rank_correlation)
    return Fitted(name, surrogate.trainings, *told, surrogate.best, seconds_of(surrogate))


def seconds_of(surrogate: Surrogate) -> float:
    chance = np.random.default_rng(0)
    costs = [surrogate.epoch_seconds(surrogate.drawn(chance)) for _ in range(500)]
    return _TRIALS * surrogate.plan.base.epochs * float(np.mean(costs)) / TWO_CORES.at_once


def play(surrogate: Surrogate, contender: str, begun: int, seeds: int) -> Iterator[list[Lead]]:
    """The searches from seed `begun` on, each as it ends and in their order."""
    seconds, name = seconds_of(surrogate), f"{surrogate.plan.name}: {contender}"
    searches = (delayed(_played)(surrogate, contender, seconds, seed) for seed in range(begun, seeds))
    return side_by_side(searches, name, seeds - begun)


def _played(surrogate: Surrogate, contender: str, seconds: float, seed: int) -> list[Lead]:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    return replay(CONTENDERS[contender](surrogate.plan, seed), surrogate, seconds, seed)


def summed_up(table: str, contender: str, surrogate: Surrogate, played: Kept) -> Played:
    leads = played.searches
    moments = [share * seconds_of(surrogate) for share in _MOMENTS]
    found = np.array([[regret(surrogate, some, moment) for moment in moments] for some in leads])
    margins = 1.96 * found.std(axis=0, ddof=1) / np.sqrt(len(found))
    close = [first_close(surrogate, some) for some in leads]
    regrets = [(float(value), float(margin)) for value, margin in zip(found.mean(0), margins, strict=True)]
    worse = np.mean([_mean_of_defaults(surrogate) - last_of(some) > _MUCH for some in leads])
    needed = median_with_interval(np.array(close))
    return Played(table, contender, len(leads), regrets, needed, float(worse), played.commit)


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


def plot(leads: dict[str, list[list[Lead]]], surrogate: Surrogate, path: Path) -> None:
    """Mean regret of each contender with its 95 % interval."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import StrMethodFormatter

    figure, axis = pyplot.subplots(figsize=(9, 8), layout="constrained")
    grid = np.geomspace(0.02, 1, 60) * seconds_of(surrogate)
    own, others = iter(pyplot.colormaps["winter"](np.linspace(0, 0.9, 4))), iter(pyplot.colormaps["Dark2"](range(8)))
    most = max(len(searches) for searches in leads.values())
    for who, searches in leads.items():
        curves = 100 * np.array([[regret(surrogate, some, moment) for moment in grid] for some in searches])
        mean, margin = curves.mean(0), 1.96 * curves.std(0, ddof=1) / math.sqrt(len(curves))
        ours, few = "this project" in who, f" ({len(searches)} searches)" if len(searches) < most else ""
        color = next(own if ours else others)
        axis.plot(grid, mean, label=f"{who}{few}", color=color, linestyle="-" if ours else "--")
        axis.fill_between(grid, mean - margin, mean + margin, color=color, alpha=0.12, linewidth=0)
    title = f"{surrogate.plan.name}: means of {most} searches, with 95 % intervals"
    axis.set(xscale="log", yscale="log", title=title, xlabel="seconds of search", ylabel="points below the best")
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.grid(alpha=0.3)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(program.run(main))
