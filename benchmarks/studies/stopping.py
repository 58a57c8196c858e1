"""`python -m benchmarks.studies.stopping DIRECTORY...`: what Medianstop would have saved and cost there.

NNI's own assessor hears the curves of trials that ran to their end, one trial after the other.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nni.algorithms.hpo.medianstop_assessor import MedianstopAssessor
from nni.assessor import AssessResult

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report
from benchmarks.studies.tuners import tuner_of
from cifar.trials import store

HEADER = ["experiment", "start_step", "trials stopped", "epochs run", "best without stopping", "best with it"]


@dataclass(frozen=True)
class Replay:
    """An experiment with Medianstop from an epoch on; accuracies are of trials that were not stopped."""

    experiment: str
    start_step: int
    trials: int
    stopped: int
    epochs_run: int
    epochs_planned: int
    best: float
    best_kept: float

    def cells(self) -> list[str]:
        same = self.best == self.best_kept
        return [
            self.experiment,
            str(self.start_step),
            f"{self.stopped} of {self.trials}",
            f"{self.epochs_run / self.epochs_planned:.0%}",
            f"{self.best:.1%}",
            "the same" if same else f"{self.best_kept:.1%}",
        ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.stopping", description=__doc__)
    parser.add_argument("experiments", nargs="+", type=Path, metavar="DIRECTORY", help="of a stopped experiment")
    options = parser.parse_args()
    for path in options.experiments:
        if not path.is_dir():
            parser.error(f"{path} is no experiment's directory")
    experiments = {_title(directory): curves_of(directory) for directory in options.experiments}
    data_name = machine.choose_data()
    ids = " ".join(directory.name for directory in options.experiments)
    facts = machine.describe(f"python -m benchmarks.studies.stopping {ids}", data_name)
    report = Report(RESULTS / "stopping", "Early stopping, replayed", facts)
    report.table("Medianstop against none", "stopping", HEADER, replays(experiments))
    return 0


def _title(experiment: Path) -> str:
    return f"{store.read_config(experiment)['experimentName']}; {tuner_of(experiment)}"


def curves_of(experiment: Path) -> list[list[float]]:
    """Validation accuracies after each epoch of the trials that ran to their end, in the order of their numbers."""
    curves = store.read_curves(experiment)
    finished = [trial for trial in store.read_trials(experiment) if trial.status == "ok"]
    return [[epoch["default"] for epoch in curves[trial.id]] for trial in finished]


def replays(experiments: dict[str, list[list[float]]]) -> Iterator[Replay]:
    for name, curves in experiments.items():
        for start_step in range(1, max(map(len, curves))):
            yield replay(name, curves, start_step)


def replay(name: str, curves: Sequence[Sequence[float]], start_step: int) -> Replay:
    assessor = MedianstopAssessor(optimize_mode="maximize", start_step=start_step)
    lengths = [_epochs_until_stopped(assessor, number, curve) for number, curve in enumerate(curves)]
    kept = [curve[-1] for curve, length in zip(curves, lengths, strict=True) if length == len(curve)]
    return Replay(
        name,
        start_step,
        len(curves),
        len(curves) - len(kept),
        sum(lengths),
        sum(map(len, curves)),
        max(curve[-1] for curve in curves),
        max(kept),
    )


def _epochs_until_stopped(assessor: MedianstopAssessor, number: int, curve: Sequence[float]) -> int:
    for epochs in range(1, len(curve)):  # after the last there is nothing to stop
        if assessor.assess_trial(number, list(curve[:epochs])) == AssessResult.Bad:
            assessor.trial_end(number, False)
            return epochs
    assessor.assess_trial(number, list(curve))
    assessor.trial_end(number, True)
    return len(curve)


if __name__ == "__main__":
    sys.exit(main())
