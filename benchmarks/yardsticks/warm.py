"""`python -m benchmarks.yardsticks.warm`: trials that a warm process forks beside trials that import everything.

The times come from the trials' files: NNI opens trial.stdout when it starts a trial, params.json appears with the
parameters, result.json with the final report, validation.npz at last.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean, median

import psutil

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report
from cifar.system import environment, processes
from cifar.system.files import read_json
from cifar.trials import layout, store

_ROOT = Path(__file__).parents[2]
_TRIALS, _AT_ONCE, _PAIRS = 16, 2, 3
_SEARCH = [sys.executable, "-m", "cifar", "search", "--data", "digits", "--tuner", "Random", "--seed", "1"]
_SHORT = ["--max-trials", str(_TRIALS), "--epochs", "1", "--no-early-stopping", "--concurrency", str(_AT_ONCE)]
_LONG = ["--max-trials", "8", "--epochs", "500", "--no-early-stopping"]

HEADER = ["trials", "searches", "seconds of a search", "seconds of a trial beside its training", "machine quiet"]
PHASES = ["trials", "until the parameters", "until training", "training", "until all is saved", "until the next starts"]
MEMORY = ["trials", "at once", "a trial", "its client", "the warm process", "all together"]


@dataclass(frozen=True)
class Phases:
    """Where a trial's seconds go: medians."""

    name: str
    parameters: float
    training_begins: float
    training: float
    saved: float
    next_starts: float

    def cells(self) -> list[str]:
        values = (self.parameters, self.training_begins, self.training, self.saved, self.next_starts)
        return [self.name, *(f"{value:.2f}" for value in values)]


@dataclass(frozen=True)
class Searches:
    name: str
    seconds: list[float]
    beside_training: float  # of the median trial
    quiet: bool

    def cells(self) -> list[str]:
        spread = f"{median(self.seconds):.1f} ({min(self.seconds):.1f} to {max(self.seconds):.1f})"
        quiet = "yes" if self.quiet else "no"
        return [self.name, str(len(self.seconds)), spread, f"{self.beside_training:.2f}", quiet]


@dataclass(frozen=True)
class Memory:
    """Proportional sets in MB: a page that n processes share counts as an n-th of each."""

    name: str
    at_once: int
    trial: float
    client: float
    warm_process: float

    @property
    def together(self) -> float:
        return self.at_once * (self.trial + self.client) + self.warm_process

    def cells(self) -> list[str]:
        values = (self.trial, self.client, self.warm_process, self.together)
        return [self.name, str(self.at_once), *(f"{value:,.0f} MB" for value in values)]


@dataclass(frozen=True)
class _Times:
    """When things happened to a trial, in seconds since 1970, and how long it trained."""

    started: float
    parameters: float
    training: float
    reported: float
    saved: float


def main() -> int:
    facts = machine.describe("python -m benchmarks.yardsticks.warm", "digits")
    report = Report(RESULTS / "warm", "Warm and cold trials", facts)
    measured = dict[str, list[tuple[float, bool, list[_Times]]]]({"cold": [], "warm": []})
    for _ in range(_PAIRS):
        for name, runs in measured.items():
            runs.append(_search(name))
    title = f"{_TRIALS} trials of one epoch, {_AT_ONCE} at once"
    report.table(title, "searches", HEADER, (_searches(name, runs) for name, runs in measured.items()))
    phases = (_phases(name, [times for _, _, times in runs]) for name, runs in measured.items())
    report.table("Where a trial's seconds go", "phases", PHASES, phases)
    report.table("Memory", "memory", MEMORY, (_memory(name, trials) for trials in (1, 2, 4) for name in measured))
    return 0


def _environment(name: str) -> dict[str, str]:
    return dict(os.environ) | ({environment.COLD: "1"} if name == "cold" else {})


def _search(name: str) -> tuple[float, bool, list[_Times]]:
    def run() -> tuple[float, str]:
        began = time.perf_counter()
        ended = subprocess.run([*_SEARCH, *_SHORT], capture_output=True, text=True, cwd=_ROOT, env=_environment(name))
        if ended.returncode:
            raise SystemExit(f"the search failed:\n{ended.stdout}{ended.stderr}")
        return time.perf_counter() - began, ended.stderr

    (seconds, output), quiet = machine.when_quiet(run)
    directory = _directory(output)
    trials = [layout.trial_directory(directory, trial.id) for trial in store.read_trials(directory)]
    assert len(trials) == _TRIALS, output
    return seconds, quiet, sorted(map(_times, trials), key=lambda times: times.started)


def _directory(output: str) -> Path:
    found = re.search(r"^experiment (\w+), web page", output, re.MULTILINE)
    assert found, output
    return store.find(found[1], _ROOT / "nni-experiments")


def _times(trial: Path) -> _Times:
    result = read_json(trial / layout.RESULT)
    assert result is not None
    names = ("trial.stdout", layout.PARAMS, layout.RESULT, layout.PREDICTIONS)
    started, parameters, reported, saved = ((trial / name).stat().st_mtime for name in names)
    return _Times(started, parameters, float(result["seconds"]), reported, saved)


def _gaps(times: list[_Times]) -> list[float]:
    """From when a trial had saved all to when the next one started in its place."""
    ends = sorted(one.saved for one in times)
    return [following.started - end for end, following in zip(ends, times[_AT_ONCE:], strict=False)]


def _phases(name: str, searches: list[list[_Times]]) -> Phases:
    every = list(chain(*searches))
    return Phases(
        name,
        median(one.parameters - one.started for one in every),
        median(one.reported - one.training - one.parameters for one in every),
        median(one.training for one in every),
        median(one.saved - one.reported for one in every),
        median(chain(*map(_gaps, searches))),
    )


def _searches(name: str, runs: list[tuple[float, bool, list[_Times]]]) -> Searches:
    beside = [
        one.saved - one.started - one.training + gap
        for _, _, times in runs
        for one, gap in zip(times, _gaps(times), strict=False)
    ]
    return Searches(name, [seconds for seconds, _, _ in runs], median(beside), all(quiet for _, quiet, _ in runs))


def _memory(name: str, at_once: int) -> Memory:
    """Of trials that all train, each after its first epoch."""
    command = [*_SEARCH, *_LONG, "--concurrency", str(at_once)]
    search = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=_ROOT, env=_environment(name)
    )
    try:
        directory = _directory("".join(_lines_until_it_runs(search)))
        while len(list(directory.glob(f"environments/*/trials/*/{layout.CHECKPOINT}"))) < at_once:
            time.sleep(0.5)
        first, warm = processes.find(directory, "trial"), processes.find(directory, "warm")
        servers = [process for process in warm if process.ppid() not in {other.pid for other in warm}]
        trials, clients = ([one for one in warm if one not in servers], first) if warm else (first, [])
        trial, client, server = (_proportional(some) for some in (trials, clients, servers))
        return Memory(name, at_once, trial, client, server)
    finally:
        search.send_signal(2)
        search.communicate()


def _lines_until_it_runs(search: subprocess.Popen[str]) -> Iterator[str]:
    assert search.stderr is not None
    for line in search.stderr:
        yield line
        if line.startswith("experiment "):
            return


def _proportional(some: list[psutil.Process]) -> float:
    """The mean in MB; 0 of none."""
    return fmean(process.memory_full_info().pss / 1e6 for process in some) if some else 0.0


if __name__ == "__main__":
    sys.exit(main())
