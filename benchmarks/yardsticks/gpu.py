"""`python -m benchmarks.yardsticks.gpu`: what a GPU does for trials, in some ten minutes; it needs one.

Speed beside the tutorial's loop, where the first seconds of a trial go, trials per hour against how many run at once
with MPS and without, and whole searches.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report
from benchmarks.yardsticks import speed
from cifar.data import datasets
from cifar.errors import RequestError
from cifar.search import forecast
from cifar.search.forecast import DoesNotFit, Throughput
from cifar.system import gpus, mps
from cifar.training.hparams import Hparams
from cifar.training.steps import new_step
from cifar.training.train import new_model, new_optimizer, train_batches

_ROOT = Path(__file__).parents[2]
_COMMAND = "python trial.py --epochs 8"
_SPACE: dict[str, Any] = {
    "width": {"_type": "choice", "_value": [16]},
    "batch_size": {"_type": "choice", "_value": [64]},
    "lr": {"_type": "loguniform", "_value": [0.001, 0.1]},
}
_AT_ONCE = (1, 2, 4, 8, 16)
_ROUNDS = 6  # trials of a search: so many times as run at once

FIRST = ["CUDA's context", "the images to the device", "first step", "second step"]
RATES = ["at once", "trials per hour", "seconds of one", "with MPS, trials per hour", "seconds of one"]
SEARCHES = ["search", "trials", "at once", "seconds", "trials per hour"]


@dataclass(frozen=True)
class FirstSeconds:
    """Of a trial of width 16 and batch 64, in a process of its own."""

    context: float
    images: float
    first_step: float
    second_step: float

    def cells(self) -> list[str]:
        return [f"{seconds:.3f} s" for seconds in (self.context, self.images, self.first_step, self.second_step)]


@dataclass(frozen=True)
class Rates:
    """`with_mps` is None where there is no MPS."""

    without: Throughput
    with_mps: Throughput | None

    def cells(self) -> list[str]:
        shown = [self.without, *([self.with_mps] if self.with_mps else [])]
        pairs = [[f"{one.trials_per_hour:,.0f}", f"{one.trial_seconds:.1f}"] for one in shown]
        return [str(self.without.concurrency), *chain.from_iterable(pairs), *([] if self.with_mps else ["no MPS", ""])]


@dataclass(frozen=True)
class Search:
    name: str
    trials: int
    at_once: int
    seconds: float

    def cells(self) -> list[str]:
        per_hour = 3600 * self.trials / self.seconds
        return [self.name, str(self.trials), str(self.at_once), f"{self.seconds:.0f}", f"{per_hour:,.0f}"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.yardsticks.gpu", description=__doc__)
    parser.parse_args()
    if not torch.cuda.is_available():
        print("error: this machine shows no GPU, which make bench-gpu measures", file=sys.stderr)
        return 2
    data_name = machine.choose_data()
    report = Report(RESULTS / "gpu", "One GPU", machine.describe("make bench-gpu", data_name))
    rows = [row for row in speed.rows(quick=False) if row.name.startswith("width 6, batch 64")]
    measured = (speed.measure(row, data_name, pairs=3) for row in rows)
    report.table("Images per second, beside the tutorial's loop", "speed", speed.HEADER, measured)
    first = (first_seconds_alone(data_name) for _ in range(3))
    report.table("The first seconds of a trial on the GPU", "first", FIRST, first)
    found = list(rates(data_name, _AT_ONCE))
    report.table("Trials per hour, width 16, batch 64, 8 epochs, measured by a forecast", "rates", RATES, found)
    best = forecast.best([one for rate in found for one in (rate.without, rate.with_mps) if one])
    report.table("Whole searches, from command to end", "searches", SEARCHES, searches(data_name, best.concurrency))
    return 0


def first_seconds_alone(data_name: str) -> FirstSeconds:
    """In a process that has not woken CUDA."""
    script = "import sys; from benchmarks.yardsticks.gpu import *; print(json.dumps(vars(first_seconds(sys.argv[1]))))"
    run = subprocess.run(
        [sys.executable, "-c", script, data_name], cwd=_ROOT, capture_output=True, text=True, check=True
    )
    return FirstSeconds(**json.loads(run.stdout))


def first_seconds(data_name: str) -> FirstSeconds:
    dataset, on = datasets.load(data_name), machine.device()
    splits, hparams = datasets.split(dataset), Hparams(width=16, batch_size=64)
    seconds, began = list[float](), time.perf_counter()

    def note() -> None:
        nonlocal began
        if on.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()

    torch.zeros(1, device=on)
    note()
    dataset, splits = dataset.to(on), splits.to(on)
    note()
    model = new_model(hparams, dataset)
    step = new_step(model, new_optimizer(model, hparams), hparams)
    batches = train_batches(hparams, dataset, splits.train, epoch=1)
    for _ in range(2):
        step(*next(batches))
        note()
    return FirstSeconds(*seconds)


def rates(data_name: str, at_once: Sequence[int]) -> Iterator[Rates]:
    with mps.started(gpus.list_gpus()) as variables:
        for number in at_once:
            try:
                without = forecast.measure(_SPACE, _COMMAND, data_name, number)
                with_mps = forecast.measure(_SPACE, _COMMAND, data_name, number, variables) if variables else None
            except (DoesNotFit, RequestError) as error:
                print(f"{number} at once: {error}", file=sys.stderr)
                return
            yield Rates(without, with_mps)


def searches(data_name: str, at_once: int) -> Iterator[Search]:
    yield search("width 16, batch 64, 8 epochs", data_name, _net_config(), _ROUNDS * at_once, at_once)
    fast = yaml.safe_load((_ROOT / "searches" / "fast-gpu" / "config.yml").read_text())
    fast["searchSpaceFile"] = str(_ROOT / "searches" / "fast-gpu" / "search_space.json")
    yield search("searches/fast-gpu", data_name, fast, fast["maxTrialNumber"], fast["trialConcurrency"])


def _net_config() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((_ROOT / "config.yml").read_text())
    del config["searchSpaceFile"], config["assessor"]
    return config | {"searchSpace": _SPACE, "trialCommand": _COMMAND, "tuner": {"name": "Random"}}


def search(name: str, data_name: str, config: dict[str, Any], trials: int, at_once: int) -> Search:
    """A search by this config, its experiment not kept."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "config.yml"
        here = {"trialCodeDirectory": str(_ROOT), "experimentWorkingDirectory": directory}
        path.write_text(yaml.safe_dump(config | here))
        command = [sys.executable, "-m", "cifar", "search", "--config", str(path), "--data", data_name]
        command += ["--max-trials", str(trials), "--concurrency", str(at_once)]
        began = time.perf_counter()
        subprocess.run(command, cwd=_ROOT, check=True, stdout=subprocess.DEVNULL)
        return Search(name, trials, at_once, time.perf_counter() - began)


if __name__ == "__main__":
    sys.exit(main())
