"""`python -m benchmarks.yardsticks.searches`: a whole search here beside Ray Tune and Optuna, from command to end.

NNI's random tuner draws the configurations from search_space.json, the others are given the same ones; each trains two
at a time, for two epochs, on the same images.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report
from cifar.data import datasets
from cifar.trials import store

_ROOT = Path(__file__).parents[2]
_EXPERIMENTS = _ROOT / "nni-experiments"
_TOOLS = {"Ray Tune": "ray", "Optuna": "optuna"}
_CONFIGURATIONS = 12
_EPOCHS = 2
HEADER = ["search", "seconds", "trials per hour", "NNI with cifar is faster by", "mean accuracy", "machine quiet"]


@dataclass(frozen=True)
class Search:
    """One whole search; accuracies are the validation images', in the order of the configurations."""

    name: str
    seconds: float
    accuracies: list[float]
    quiet: bool
    reference_seconds: float

    def cells(self) -> list[str]:
        return [
            self.name,
            f"{self.seconds:,.0f}",
            f"{3600 * len(self.accuracies) / self.seconds:,.0f}",
            f"{self.seconds / self.reference_seconds:.1f}",
            f"{fmean(self.accuracies):.1%}",
            "yes" if self.quiet else "no",
        ]


def main() -> int:
    data_name = machine.choose_data()
    datasets.load(data_name)
    report = Report(RESULTS / "searches", "Whole searches", machine.describe("make bench-searches", data_name))
    title = f"{_CONFIGURATIONS} configurations, {_EPOCHS} epochs each, two at a time"
    report.table(title, "searches", HEADER, searches(data_name))
    return 0


def searches(data_name: str) -> Iterator[Search]:
    """NNI comes first and last, so that a machine that has become slower or faster shows."""
    first, configurations = _with_nni("NNI, cifar's trainer", data_name)
    yield first
    for tool in _TOOLS:
        for trainer in ("tutorial", "cifar"):
            yield _with_peer(tool, trainer, data_name, configurations, first.seconds)
    again, same = _with_nni("NNI, cifar's trainer, again", data_name, first.seconds)
    assert same == configurations
    yield again


def _with_nni(name: str, data_name: str, reference_seconds: float | None = None) -> tuple[Search, list[dict[str, Any]]]:
    """The shipped experiment, shorter and with the random tuner; and the hyperparameters of its trials."""
    command = [sys.executable, "-m", "cifar", "search", "--data", data_name, "--tuner", "Random", "--seed", "1"]
    command += ["--max-trials", str(_CONFIGURATIONS), "--epochs", str(_EPOCHS)]
    seconds, quiet, output = _time(command)
    found = re.search(r"^experiment (\w+), web page", output, re.MULTILINE)
    assert found, output
    trials = sorted(store.read_trials(store.find(found[1], _EXPERIMENTS)), key=lambda trial: trial.number)
    accuracies = [trial.accuracy for trial in trials if trial.accuracy is not None]
    configurations = [trial.result["hparams"] for trial in trials if trial.result is not None]
    assert len(accuracies) == len(configurations) == _CONFIGURATIONS, output
    return Search(name, seconds, accuracies, quiet, reference_seconds or seconds), configurations


def _with_peer(
    tool: str,
    trainer: str,
    data_name: str,
    configurations: list[dict[str, Any]],
    reference_seconds: float,
) -> Search:
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "benchmarks.yardsticks.peers", _TOOLS[tool], trainer, data_name, directory]
        seconds, quiet, _ = _time(command, json.dumps(configurations))
        accuracies = json.loads((Path(directory) / "accuracies.json").read_text())
    return Search(f"{tool}, {trainer}'s trainer", seconds, accuracies, quiet, reference_seconds)


def _time(command: list[str], given: str = "") -> tuple[float, bool, str]:
    """Seconds from a command's start to its end, whether the machine was quiet, and what the command said."""
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}

    def run() -> tuple[float, str]:
        began = time.perf_counter()
        ended = subprocess.run(command, input=given, text=True, capture_output=True, cwd=_ROOT, env=environment)
        if ended.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{ended.stdout}{ended.stderr}")
        return time.perf_counter() - began, ended.stdout + ended.stderr

    (seconds, output), quiet = machine.when_quiet(run)
    return seconds, quiet, output


if __name__ == "__main__":
    sys.exit(main())
