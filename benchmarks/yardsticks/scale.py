"""`python -m benchmarks.yardsticks.scale`: the seconds that NNI's manager computes for a trial and a metric.

Two searches of trials that train nothing, with few and with many metrics each; from their difference follows what a
metric costs, and from that how many workers one manager feeds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report
from cifar.system import processes

ROOT = Path(__file__).parents[2]
_TRIALS, _AT_ONCE = 60, 4
_FEW, _MANY = 1, 200  # metrics of each trial
_BUSY = 0.5  # of one core: beyond it answers come late
_EPOCHS = 10  # metrics of the trials in the table
_LENGTHS = {"10 s": 10, "1 min": 60, "1 h": 3600}
_TRIAL = """
import sys
from cifar.trials.nni_trial import NniTrial
from cifar.trials.result import Result
nni = NniTrial()
params = nni.next_params()
for number in range(1, int(sys.argv[1]) + 1):
    nni.report_epoch(number, {"default": number / 1000})
nni.report_final(Result("ok", "reported", {"default": float(str(params["lr"]))}, details={"data": {"val_images": 1}}))
"""


@dataclass(frozen=True)
class Load:
    """A search: computing seconds of the manager with its database, of the tuner, and seconds in all."""

    metrics: int
    trials: int
    manager: float
    tuner: float
    seconds: float

    def cells(self) -> list[str]:
        return [
            str(self.metrics),
            str(self.trials),
            f"{1000 * self.manager / self.trials:.0f}",
            f"{1000 * self.tuner / self.trials:.0f}",
            f"{self.seconds / self.trials:.2f}",
        ]


@dataclass(frozen=True)
class Reach:
    """How many workers keep a manager half busy with trials of this length."""

    length: str
    workers: int

    def cells(self) -> list[str]:
        return [self.length, rounded(self.workers)]


def rounded(workers: int) -> str:
    """To two digits: more would pretend."""
    return f"{int(float(f'{workers:.2g}')):,}"


def main() -> int:
    facts = machine.describe("python -m benchmarks.yardsticks.scale", "digits")
    report = Report(RESULTS / "scale", "What one manager feeds", facts)
    loads = [measure(_FEW), measure(_MANY)]
    header = ["metrics of each trial", "trials", "manager, ms per trial", "tuner, ms per trial", "seconds per trial"]
    report.table(f"{_TRIALS} trials that train nothing, {_AT_ONCE} at once", "loads", header, loads)
    report.table(
        f"Workers that keep a manager busy for {_BUSY:.0%} of a core, with {_EPOCHS} metrics per trial",
        "reach",
        ["trials of", "workers"],
        reaches(*loads),
    )
    return 0


def reaches(few: Load, many: Load) -> Iterator[Reach]:
    per_metric = (many.manager / many.trials - few.manager / few.trials) / (many.metrics - few.metrics)
    per_trial = few.manager / few.trials - few.metrics * per_metric
    for name, length in _LENGTHS.items():
        yield Reach(name, int(_BUSY * length / (per_trial + _EPOCHS * per_metric)))


def measure(metrics: int) -> Load:
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        (home / "trial_that_reports.py").write_text(_TRIAL)
        config = home / "config.yml"
        config.write_text(yaml.safe_dump(_config(home, metrics)))
        command = [sys.executable, "-m", "cifar", "search", "--config", str(config), "--data", "digits"]
        search = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return _watched(search, home / "experiments", metrics)


def _config(home: Path, metrics: int) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "config.yml").read_text())
    del config["searchSpaceFile"], config["assessor"]
    return config | {
        "searchSpace": {"lr": {"_type": "uniform", "_value": [0.1, 0.9]}},
        "trialCommand": f"env PYTHONPATH={ROOT} {sys.executable} {home / 'trial_that_reports.py'} {metrics}",
        "trialCodeDirectory": str(ROOT),
        "experimentWorkingDirectory": str(home / "experiments"),
        "trialConcurrency": _AT_ONCE,
        "maxTrialNumber": _TRIALS,
    }


def _watched(search: subprocess.Popen[bytes], experiments: Path, metrics: int) -> Load:
    used = {"manager": 0.0, "tuner": 0.0}
    began = 0.0
    while search.poll() is None:
        for experiment in experiments.glob("[!_.]*"):
            for role in ("manager", "tuner"):
                found = processes.find(experiment, role)
                used[role] = max(used[role], sum(_seconds(process) for process in found))
            began = began or time.perf_counter()
        time.sleep(0.5)
    if search.returncode:
        raise RuntimeError(f"the search failed: {json.dumps(_config(experiments.parent, metrics))}")
    return Load(metrics, _TRIALS, used["manager"], used["tuner"], time.perf_counter() - began)


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
        return float(times.user + times.system)
    except psutil.NoSuchProcess:
        return 0.0


if __name__ == "__main__":
    sys.exit(main())
