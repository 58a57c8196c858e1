"""`python -m benchmarks.contest.promising TABLE`: adds to a table what its surrogate thinks best.

Few quasi-random points of a large space lie near its best, and beyond the points that it knows a surrogate may promise
what nobody can reach. So the points that it promises most of are trained, it is fitted again, and so on. Resumable:
what is trained stands in the table.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from benchmarks.contest.surrogate import Params, Surrogate
from benchmarks.shared import machine, program
from benchmarks.table import curves, rows
from benchmarks.table.__main__ import row_of, summarise
from benchmarks.table.plan import PLANS, Plan, Training
from cifar.data import datasets
from cifar.errors import RequestError
from cifar.training.hparams import Hparams

_TRAININGS = 32
_DRAWN = 20_000  # points, of which the best are looked for
_APART = 0.2  # at least, in each round, as the share of the ranges' diagonal


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contest.promising", description=__doc__)
    parser.add_argument("table", metavar="TABLE", choices=PLANS, help=f"of {', '.join(PLANS)}")
    plan = PLANS[parser.parse_args().table]
    data_name = machine.real_images()
    datasets.load(data_name)  # decoded once, by this process
    with FileLock(rows.path(plan.name).with_suffix(".lock")):
        add(plan, data_name, os.cpu_count() or 1)
    return summarise()


def add(plan: Plan, data_name: str, at_once: int) -> None:
    """Rounds of as many trainings as run at once; each round is kept as it ends."""
    known = rows.read(plan.name)
    if not known:
        raise RequestError(f"the table {plan.name} is empty: first python -m benchmarks.table {plan.name}")
    number = max(plan.configurations, 1 + max(int(row["number"]) for row in known))
    last = plan.configurations + _TRAININGS
    begun = (data_name, plan.train_images)
    with (
        ProcessPoolExecutor(at_once, get_context("spawn"), curves.begin, begun) as pool,
        tqdm(total=_TRAININGS, initial=number - plan.configurations, desc=plan.name, file=sys.stderr) as bar,
    ):
        while number < last:
            surrogate = Surrogate(plan, known)
            some = promising(surrogate, min(at_once, last - number), seed=number)
            trainings = [
                Training(number + place, _hparams(plan, params, number + place)) for place, params in enumerate(some)
            ]
            for training, epochs in zip(trainings, pool.map(curves.curve, trainings), strict=True):
                known += [row_of(plan, training, epoch) for epoch in epochs]
                bar.set_postfix_str(f"promised {surrogate.best:.1%}, found {epochs[-1]['val_accuracy']:.1%}")
            rows.write(plan.name, list(plan.space), known)
            number += len(trainings)
            bar.update(len(trainings))


def promising(surrogate: Surrogate, count: int, seed: int) -> list[Params]:
    """The points with the highest expected last accuracy, none near another one."""
    chance = np.random.default_rng(seed)
    drawn = [surrogate.drawn(chance) for _ in range(_DRAWN)]
    places = np.array([surrogate.features(params) for params in drawn])
    spread, chosen = np.ptp(places, axis=0), list[int]()
    for point in np.argsort(-surrogate.curves(drawn)[:, -1]):
        far = [np.sqrt(np.mean(((places[point] - places[other]) / spread) ** 2)) for other in chosen]
        if all(distance >= _APART for distance in far):
            chosen.append(int(point))
        if len(chosen) == count:
            break
    return [drawn[point] for point in chosen]


def _hparams(plan: Plan, params: Params, number: int) -> Hparams:
    """With chance of its own, like all configurations of the table."""
    return Hparams.from_params({**vars(plan.base), **params, "seed": 2 * number})


if __name__ == "__main__":
    sys.exit(program.run(main))
