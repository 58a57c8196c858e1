"""What the tables hold, as results/table.md: `python -m benchmarks.table --summary`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from scipy.stats import spearmanr

from benchmarks.table import rows
from benchmarks.table.plan import PLANS, Plan
from benchmarks.table.rows import Row
from cifar.analysis.growth import growth_of

_ALL = 45_000  # images of CIFAR-10, without those to validate on
HEADER = [
    "table",
    "configurations",
    "trainings",
    "epochs",
    "hours of a core",
    "best accuracy",
    "median",
    "rank correlation of each epoch with the last",
    "the same among the better half",
    "standard deviation over seeds, better half",
]
HEADER_OF_BUDGETS = [
    "smaller budget",
    "larger budget",
    "configurations",
    "rank correlation",
    "the same among the better half",
    "rank correlation of what the rule of growth foresees",
    "the same among the better half",
    "best on the larger",
    "its place on the smaller",
    "best on the smaller, on the larger",
]


@dataclass(frozen=True)
class Summary:
    """Of one table; accuracies are of the last epoch, the deviation is in accuracy too."""

    table: str
    configurations: int
    trainings: int
    epochs: str
    hours: float
    best: float
    median: float
    ranks: list[float]
    ranks_of_better: list[float]
    seed_deviation: float | None

    def cells(self) -> list[str]:
        ranks, better = (" ".join(f"{rank:.2f}" for rank in some) for some in (self.ranks, self.ranks_of_better))
        seeds = "" if self.seed_deviation is None else f"{100 * self.seed_deviation:.2f} points"
        counts = [str(self.configurations), str(self.trainings), self.epochs, f"{self.hours:.1f}"]
        return [self.table, *counts, f"{self.best:.1%}", f"{self.median:.1%}", ranks, better, seeds]


@dataclass(frozen=True)
class Budgets:
    """The same configurations on two budgets. The better half is that of the smaller one; place 1 is the best.

    What results/growth.md knows of widths and images foresees the larger budget from the smaller one.
    """

    smaller: str
    larger: str
    configurations: int
    rank: float
    rank_of_better: float
    rank_foreseen: float
    rank_foreseen_of_better: float
    best: float
    place: int
    leader: float  # what the best of the smaller budget has on the larger one

    def cells(self) -> list[str]:
        of_ranks = (self.rank, self.rank_of_better, self.rank_foreseen, self.rank_foreseen_of_better)
        ranks = [f"{rank:.2f}" for rank in of_ranks]
        told = [f"{self.best:.1%}", str(self.place), f"{self.leader:.1%}"]
        return [self.smaller, self.larger, str(self.configurations), *ranks, *told]


def summaries() -> Iterator[Summary]:
    """One for each table that has been begun."""
    for name, plan in PLANS.items():
        if known := rows.read(name):
            yield summary(plan, known)


def summary(plan: Plan, known: Sequence[Row]) -> Summary:
    curves = defaultdict[tuple[int, int], list[float]](list)
    for row in known:
        curves[int(row["number"]), int(row["seed"])].append(float(row["val_accuracy"]))
    whole = np.array(list(curves.values()))
    last = whole[:, -1]
    better = whole[last >= np.median(last)]
    return Summary(
        plan.name,
        len({number for number, _ in curves}),
        len(curves),
        f"{plan.base.epochs} of {plan.base.images_per_epoch or plan.train_images or _ALL:,} images",
        sum(float(row["seconds"]) for row in known) / 3600,
        float(last.max()),
        float(median(last)),
        _ranks(whole),
        _ranks(better),
        _seed_deviation(curves, float(np.median(last))),
    )


def compared() -> Iterator[Budgets]:
    """One for each table on a larger budget that has been begun."""
    for name, plan in PLANS.items():
        if plan.chosen_from and (known := rows.read(name)):
            yield budgets(PLANS[plan.chosen_from], plan, rows.read(plan.chosen_from), known)


def budgets(smaller: Plan, larger: Plan, rows_of_smaller: Sequence[Row], rows_of_larger: Sequence[Row]) -> Budgets:
    small, large = rows.last_accuracies(rows_of_smaller), rows.last_accuracies(rows_of_larger)
    width = {int(row["number"]): int(float(row["width"])) for row in rows_of_larger}
    before, after = (np.array([some[number] for number in large]) for some in (small, large))
    foreseen = np.array([1 - (1 - small[number]) * _shrinks(smaller, larger, width[number]) for number in large])
    better, best = before >= np.median(before), after.argmax()
    ranks = [
        float(spearmanr(some[which], after[which]).statistic)
        for some in (before, foreseen)
        for which in (slice(None), better)
    ]
    place = 1 + int((before > before[best]).sum())
    told = float(after[best]), place, float(after[before.argmax()])
    return Budgets(smaller.name, larger.name, len(large), ranks[0], ranks[1], ranks[2], ranks[3], *told)


def _shrinks(smaller: Plan, larger: Plan, width: int) -> float:
    """What the larger budget leaves of the error of the smaller one, by the rule of growth."""
    growth = growth_of(larger.base.model)
    before, after = (
        growth.error(width, plan.base.epochs * (plan.base.images_per_epoch or _ALL), _ALL) for plan in (smaller, larger)
    )
    return after / before


def _ranks(curves: np.ndarray) -> list[float]:
    return [float(spearmanr(curves[:, epoch], curves[:, -1]).statistic) for epoch in range(curves.shape[1] - 1)]


def _seed_deviation(curves: dict[tuple[int, int], list[float]], least: float) -> float | None:
    """By the pairs of seeds that both reach `least`; a twin that failed says nothing of ordinary chance."""
    last = defaultdict[int, list[float]](list)
    for (number, _), curve in curves.items():
        last[number].append(curve[-1])
    pairs = [some for some in last.values() if len(some) == 2 and min(some) >= least]
    return float(np.sqrt(np.mean([(one - other) ** 2 / 2 for one, other in pairs]))) if pairs else None
