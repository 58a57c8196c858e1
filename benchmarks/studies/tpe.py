"""`python -m benchmarks.studies.tpe`: NNI's TPE with trials side by side, by how it takes running trials.

NNI's own tuner proposes; made landscapes answer at once, with the noise of 5,000 validation images. A trial that runs
has no result yet, so TPE takes one for granted (`constant_liar_type`), with NNI's default the best so far. `gamma` says
how many trials TPE calls good: gamma times the square root of their number.
"""

from __future__ import annotations

import json
import logging
import math
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from nni.algorithms.hpo.random_tuner import RandomTuner
from nni.algorithms.hpo.tpe_tuner import TpeTuner
from tqdm import tqdm

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report, standard_error

Params = Mapping[str, float]

_ROOT = Path(__file__).parents[2]
_NOISE = 0.007
_SEEDS = 40
_STARTUP = 10
_LIARS = ("best", "mean", "worst")
_GAMMAS = (0.25, 0.5, 1.0, 1.5)
HEADER = ["landscape", "trials at once", "tuner", "best", "mean of the last third"]


@dataclass(frozen=True)
class Landscape:
    """A search space and the true accuracy at each of its points."""

    name: str
    space: Path
    accuracy: Callable[[Params], float]
    trials: int


@dataclass(frozen=True)
class Found:
    """Searches of one landscape, one per seed: the best true accuracy of each, and the mean of its last third."""

    landscape: str
    at_once: int
    tuner: str
    best: list[float]
    late: list[float]

    def cells(self) -> list[str]:
        best = f"{fmean(self.best):.1%} ± {standard_error(self.best):.1%}"
        return [self.landscape, str(self.at_once), self.tuner, best, f"{fmean(self.late):.1%}"]


def _distance(params: Params, best: float) -> float:
    """How far the size of steps, per image, lies from the best one, in logarithms."""
    return math.log(params["lr"] / params["batch_size"] / (1 - params["momentum"]) / best)


def _of_net(params: Params) -> float:
    steps = 0.01 * math.log(params["batch_size"] / 24) ** 2
    return 0.6 + 0.08 * math.log(params["width"] / 4) - 0.025 * _distance(params, 0.002) ** 2 - steps


def _of_fast(params: Params) -> float:
    steps = 0.02 * abs(math.log(params["batch_size"] / 128))
    decay = 0.0025 * math.log(params["weight_decay"] / 0.001) ** 2
    return 0.6 + 0.1 * math.log(params["width"] / 8) - 0.02 * _distance(params, 0.03) ** 2 - steps - decay


LANDSCAPES = [
    Landscape("four parameters, 60 trials", _ROOT / "search_space.json", _of_net, 60),
    Landscape("six parameters, 30 trials", _ROOT / "searches" / "fast" / "search_space.json", _of_fast, 30),
]


def main() -> int:
    logging.getLogger("nni").setLevel(logging.ERROR)
    facts = machine.describe("python -m benchmarks.studies.tpe", "digits") | {"data": "none: made landscapes"}
    report = Report(RESULTS / "tpe", "TPE with trials side by side", facts)
    report.table(f"True accuracy found, {_SEEDS} seeds", "tpe", HEADER, compare())
    return 0


def compare() -> Iterator[Found]:
    for landscape in LANDSCAPES:
        for at_once in (1, 2, 4):
            yield searched(landscape, at_once, "random", lambda seed: RandomTuner(seed=seed))
            for liar in _LIARS:
                for gamma in _GAMMAS:
                    name = f"TPE, {liar}, gamma {gamma}"
                    yield searched(landscape, at_once, name, lambda seed: new_tpe(seed, liar, gamma))  # noqa: B023


def new_tpe(seed: int, liar: str, gamma: float) -> TpeTuner:
    arguments = {"n_startup_jobs": _STARTUP, "constant_liar_type": liar, "gamma": gamma}
    return TpeTuner(optimize_mode="maximize", seed=seed, tpe_args=arguments)


def searched(
    landscape: Landscape, at_once: int, name: str, new_tuner: Callable[[int], Any], seeds: int = _SEEDS
) -> Found:
    found = Found(landscape.name, at_once, name, [], [])
    for seed in tqdm(range(seeds), name, file=sys.stderr, leave=False, disable=None):
        accuracies = search(landscape, at_once, new_tuner(seed), random.Random(seed))
        found.best.append(max(accuracies))
        found.late.append(fmean(accuracies[-len(accuracies) // 3 :]))
    return found


def search(landscape: Landscape, at_once: int, tuner: Any, noise: random.Random) -> list[float]:
    """The trials' true accuracies; the trial that has run longest ends when the next one is to start."""
    tuner.update_search_space(json.loads(landscape.space.read_text()))
    running, accuracies = deque[tuple[int, Params]](), list[float]()
    for number in range(landscape.trials + at_once):
        if len(running) == at_once or number >= landscape.trials:
            ended, params = running.popleft()
            accuracies.append(landscape.accuracy(params))
            tuner.receive_trial_result(ended, params, accuracies[-1] + noise.gauss(0, _NOISE))
        if number < landscape.trials:
            running.append((number, tuner.generate_parameters(number)))
    return accuracies


if __name__ == "__main__":
    sys.exit(main())
