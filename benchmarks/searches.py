"""`python -m benchmarks.searches`: a whole search here beside Ray Tune and Optuna, from command to end.

NNI's random tuner draws the configurations from search_space.json, the others are given the same ones; each trains two
at a time, for two epochs, on the same images.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from benchmarks import machine
from benchmarks.report import RESULTS, Report
from cifar import data, store

_ROOT = Path(__file__).parents[1]
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
    data.load(data_name)
    report = Report(RESULTS / "searches", "Whole searches", machine.describe("make bench-searches", data_name))
    title = f"{_CONFIGURATIONS} configurations, {_EPOCHS} epochs each, two at a time"
    report.table(title, "searches", HEADER, searches(data_name))
    return 0


def searches(data_name: str) -> Iterator[Search]:
    """NNI comes first and last, so that a machine that has become slower or faster shows."""
    with tempfile.TemporaryDirectory() as directory:
        first, configurations = _with_nni("NNI, cifar's trainer", data_name, Path(directory) / "first")
        yield first
        for tool in ("Ray Tune", "Optuna"):
            for trainer in ("tutorial", "cifar"):
                place = Path(directory) / f"{tool} {trainer}"
                yield _with_peer(tool, trainer, data_name, configurations, place, first.seconds)
        again, same = _with_nni("NNI, cifar's trainer, again", data_name, Path(directory) / "again", first.seconds)
        assert same == configurations
        yield again


def _with_nni(
    name: str, data_name: str, directory: Path, reference_seconds: float | None = None
) -> tuple[Search, list[dict[str, Any]]]:
    directory.mkdir()
    config = directory / "config.yml"
    config.write_text(yaml.safe_dump(_nni_config(directory)))
    command = [sys.executable, "-m", "cifar", "search", "--config", str(config), "--data", data_name]
    seconds, quiet = _time(command)
    (experiment,) = (path.parent.parent for path in directory.glob("*/db/nni.sqlite"))
    trials = sorted(store.read_trials(experiment), key=lambda trial: trial.number)
    accuracies = [trial.accuracy for trial in trials if trial.accuracy is not None]
    assert len(accuracies) == _CONFIGURATIONS
    configurations = [trial.params | {"epochs": _EPOCHS} for trial in trials]
    return Search(name, seconds, accuracies, quiet, reference_seconds or seconds), configurations


def _nni_config(directory: Path) -> dict[str, Any]:
    """The shipped experiment, less what would end trials early or choose by their results."""
    config: dict[str, Any] = yaml.safe_load((_ROOT / "config.yml").read_text())
    del config["assessor"]
    return config | {
        "searchSpaceFile": str(_ROOT / "search_space.json"),
        "trialCodeDirectory": str(_ROOT),
        "trialCommand": f"python trial.py --epochs {_EPOCHS}",
        "experimentWorkingDirectory": str(directory),
        "maxTrialNumber": _CONFIGURATIONS,
        "tuner": {"name": "Random", "classArgs": {"seed": 1}},
    }


def _with_peer(
    tool: str,
    trainer: str,
    data_name: str,
    configurations: list[dict[str, Any]],
    directory: Path,
    reference_seconds: float,
) -> Search:
    directory.mkdir()
    tool_argument = {"Ray Tune": "ray", "Optuna": "optuna"}[tool]
    command = [sys.executable, "-m", "benchmarks.peers", tool_argument, trainer, data_name, str(directory)]
    seconds, quiet = _time(command, json.dumps(configurations))
    accuracies = json.loads((directory / "accuracies.json").read_text())
    return Search(f"{tool}, {trainer}'s trainer", seconds, accuracies, quiet, reference_seconds)


def _time(command: list[str], given: str = "") -> tuple[float, bool]:
    """Seconds from a command's start to its end, and whether the machine was quiet before and after."""
    quiet_before = machine.wait_until_quiet()
    began = time.perf_counter()
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    ended = subprocess.run(command, input=given, text=True, capture_output=True, cwd=_ROOT, env=environment)
    seconds = time.perf_counter() - began
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{ended.stdout}{ended.stderr}")
    return seconds, machine.wait_until_quiet() and quiet_before


if __name__ == "__main__":
    sys.exit(main())
