"""`python -m benchmarks.studies.tuners OUT DIRECTORY...`: stopped experiments over one space, tuner by tuner.

What each found, after how many trials, in what time; OUT is the table's and the plot's name. An experiment that is gone
keeps the line that OUT has of it.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import fmean

from benchmarks.shared import machine
from benchmarks.shared.report import Report
from cifar.errors import RequestError
from cifar.trials import store
from cifar.trials.leaderboard import params_text
from cifar.trials.store import best_first

HEADER = [
    "search",
    "experiment",
    "trials",
    "minutes",
    "best",
    "its configuration",
    "mean",
    "best of the first third, two thirds, all",
]


@dataclass(frozen=True)
class Search:
    """A stopped experiment; accuracies are the validation images', in the order of the trials."""

    name: str
    experiment: str
    minutes: float
    accuracies: list[float]
    configuration: str
    margin: float  # of the best accuracy, as one network's: 95 %, from the validation images alone

    @property
    def best_so_far(self) -> list[float]:
        return list(accumulate(self.accuracies, max))

    def cells(self) -> list[str]:
        count = len(self.accuracies)
        steps = [self.best_so_far[part * count // 3 - 1] for part in (1, 2, 3)]
        return [
            self.name,
            self.experiment,
            str(count),
            f"{self.minutes:.0f}",
            f"{max(self.accuracies):.1%} ± {self.margin:.1%}",
            self.configuration,
            f"{fmean(self.accuracies):.1%}",
            ", ".join(f"{value:.1%}" for value in steps),
        ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.tuners", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="without an ending")
    parser.add_argument("experiments", nargs="+", type=Path, metavar="DIRECTORY", help="of a stopped experiment")
    options = parser.parse_args()
    kept = read_kept(options.out.with_suffix(".json"))
    for path in options.experiments:
        if not path.is_dir() and path.name not in kept:
            parser.error(f"{path} is no experiment's directory, and {options.out}.json has no line of it")
    searches = [
        kept[path.name] if path.name in kept and not path.exists() else read(path) for path in options.experiments
    ]
    command = f"python -m benchmarks.studies.tuners {options.out} {' '.join(search.experiment for search in searches)}"
    facts = machine.describe(command, machine.choose_data())
    facts["commit"] += ", of this table; the searches had their own"
    report = Report(options.out, "The tuner beside random search", facts)
    report.table("One space, one budget", "searches", HEADER, searches)
    plot(searches, options.out.with_suffix(".png"))
    return 0


def read(experiment: Path) -> Search:
    trials = store.read_trials(experiment)
    if not (ranked := best_first(trials)):
        raise RequestError(f"no trial of experiment {experiment.name} has finished")
    return Search(
        tuner_of(experiment),
        experiment.name,
        store.read_seconds(experiment) / 60,
        [trial.accuracy for trial in trials if trial.accuracy is not None],
        params_text(ranked[0]),
        ranked[0].interval.margin if ranked[0].interval else 0.0,
    )


def read_kept(path: Path) -> dict[str, Search]:
    """The searches of an earlier table, by experiment."""
    records = json.loads(path.read_text())["searches"] if path.exists() else []
    return {record["experiment"]: Search(**record) for record in records}


def tuner_of(experiment: Path) -> str:
    tuner = store.read_config(experiment)["tuner"]
    seed = (tuner.get("classArgs") or {}).get("seed")
    return str(tuner["name"]) + ("" if seed is None else f", seed {seed}")


def plot(searches: list[Search], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for search in searches:
        numbers, label = range(1, len(search.accuracies) + 1), f"{search.name} ({search.experiment})"
        (line,) = axis.step(numbers, [100 * value for value in search.best_so_far], where="post", label=label)
        axis.plot(numbers, [100 * value for value in search.accuracies], ".", color=line.get_color(), alpha=0.4)
    leading = sorted(value for search in searches for value in search.accuracies)
    axis.set_ylim(bottom=100 * leading[len(leading) // 4])  # the worst quarter would flatten the rest
    axis.set_xlabel("trials")
    axis.set_ylabel("validation accuracy, %")
    axis.set_title("Best so far (lines) and each trial (points; the worst quarter lies below)")
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
