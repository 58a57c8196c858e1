"""`python -m benchmarks.table [TABLE...]`: learning curves of the search spaces, for searches to be replayed on.

Resumable: what is trained stands in results/table, and the same command goes on from there. Several trainings run at
once, on the cores or on one GPU. Only validation images are looked at; a diverged training ends with the accuracy of
guessing. Seconds are those of a training beside others.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from filelock import FileLock
from tqdm import tqdm

from benchmarks.shared import machine, program
from benchmarks.shared.report import RESULTS, Report
from benchmarks.table import curves, rows
from benchmarks.table.plan import PLANS, Plan, Training, trainings
from benchmarks.table.rows import Row
from benchmarks.table.summary import HEADER, HEADER_OF_BUDGETS, compared, summaries
from cifar.data import datasets
from cifar.errors import RequestError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(PLANS)} (default: all)")
    parser.add_argument("--at-once", type=int, default=os.cpu_count(), metavar="N", help="default: one per core")
    parser.add_argument("--summary", action="store_true", help="only write what the tables hold, results/table.md")
    options = parser.parse_args()
    if options.at_once < 1:
        parser.error(f"--at-once must be at least 1, got {options.at_once}")
    if unknown := set(options.tables) - set(PLANS):
        parser.error(f"no table is called {', '.join(sorted(unknown))}; there are {', '.join(PLANS)}")
    if options.summary:
        return summarise()
    data_name = machine.real_images()
    datasets.load(data_name)  # decoded once, by this process
    for name in options.tables or PLANS:
        rows.path(name).parent.mkdir(parents=True, exist_ok=True)
        with FileLock(rows.path(name).with_suffix(".lock")):
            fill(PLANS[name], data_name, options.at_once)
    return summarise()


def summarise() -> int:
    report = Report(RESULTS / "table", "Tables of learning curves", {"command": "python -m benchmarks.table --summary"})
    report.table("What the tables hold", "tables", HEADER, summaries())
    report.table("The same configurations on two budgets", "budgets", HEADER_OF_BUDGETS, compared())
    return 0


def fill(plan: Plan, data_name: str, at_once: int) -> None:
    """Train what the table lacks; each training is kept as it ends."""
    known = rows.read(plan.name)
    done = {(int(row["number"]), int(row["seed"])) for row in known}
    planned = list(trainings(plan, _ranking(plan)))
    missing = [training for training in planned if (training.number, training.hparams.seed) not in done]
    begun = (data_name, plan.train_images)
    with (
        ProcessPoolExecutor(at_once, get_context("spawn"), curves.begin, begun) as pool,
        tqdm(total=len(planned), initial=len(planned) - len(missing), desc=plan.name, file=sys.stderr) as bar,
    ):
        for training, epochs in zip(missing, pool.map(curves.curve, missing), strict=True):
            known += [row_of(plan, training, epoch) for epoch in epochs]
            rows.write(plan.name, list(plan.space), known)
            bar.update()


def _ranking(plan: Plan) -> list[int]:
    """Of the whole table on the smaller budget, lest it change while this one is made."""
    if plan.chosen_from is None:
        return []
    smaller = PLANS[plan.chosen_from]
    known = [row for row in rows.read(smaller.name) if int(row["number"]) < smaller.configurations]
    if len({row["number"] for row in known}) < smaller.configurations:
        raise RequestError(f"the table {plan.name} needs the whole table {plan.chosen_from} first")
    return rows.ranking(known)


def row_of(plan: Plan, training: Training, epoch: dict[str, float]) -> Row:
    params = {name: f"{getattr(training.hparams, name):.6g}" for name in plan.space}
    figures = {name: f"{value:.5g}" for name, value in epoch.items()}
    return {"number": str(training.number), "seed": str(training.hparams.seed), **params, **figures}


if __name__ == "__main__":
    sys.exit(program.run(main))
