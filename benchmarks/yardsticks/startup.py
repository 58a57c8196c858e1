"""From a process's start to its first training step, beside the bare import of torch and nni."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from statistics import median

from benchmarks.shared import machine

_BARE = "import torch, nni"
# The trial as it is, ended after its first step; under an experiment it imports nni at the same point.
_FIRST_STEP = """
import os, sys
import cifar.training.train, trial
from cifar.trials import nni_client
from cifar.trials.nni_trial import NniTrial
new_step = cifar.training.train.new_step
def first_step(*arguments):
    step = new_step(*arguments)
    def once(images, labels):
        step(images, labels)
        os._exit(0)
    return once
cifar.training.train.new_step = first_step
if os.environ.get("WITH_NNI"):
    def next_params(self):
        import requests
        nni_client.module()
        return {}
    NniTrial.next_params = next_params
trial.launch(trial.main)
"""
HEADER = ["process", "seconds", "from, to", "ratio to the bare import", "machine quiet"]


@dataclass(frozen=True)
class Started:
    name: str
    seconds: list[float]
    bare: list[float]
    quiet: bool

    def cells(self) -> list[str]:
        ratio = median(ours / bare for ours, bare in zip(self.seconds, self.bare, strict=True))
        return [
            self.name,
            f"{median(self.seconds):.2f}",
            f"{min(self.seconds):.2f} to {max(self.seconds):.2f}",
            f"{ratio:.2f}",
            "yes" if self.quiet else "no",
        ]


def measure(data_name: str, rounds: int) -> list[Started]:
    def one_round() -> tuple[float, float, float]:
        bare = _seconds([sys.executable, "-c", _BARE])
        return bare, _first_step(data_name, with_nni=False), _first_step(data_name, with_nni=True)

    _first_step(data_name, with_nni=True)  # the caches are warm from here on
    measured, were_quiet = zip(*(machine.when_quiet(one_round) for _ in range(rounds)), strict=True)
    bare, alone, under_nni = ([*seconds] for seconds in zip(*measured, strict=True))
    quiet = all(were_quiet)
    return [
        Started('python -c "import torch, nni"', bare, bare, quiet),
        Started("trial.py alone, to its first step", alone, bare, quiet),
        Started("trial.py with nni, as under an experiment, to its first step", under_nni, bare, quiet),
    ]


def _first_step(data_name: str, with_nni: bool) -> float:
    command = [sys.executable, "-c", _FIRST_STEP, "--data", data_name]
    return _seconds(command, {"WITH_NNI": "1"} if with_nni else {})


def _seconds(command: list[str], environment: dict[str, str] | None = None) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began
