"""Whole searches in milliseconds: a policy proposes and stops, a surrogate trains."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from joblib import Parallel, parallel_config
from tqdm import tqdm

from benchmarks.contest.surrogate import Params, Surrogate


class Policy(Protocol):
    """What decides in a search. Trials are numbered from 0, epochs from 1."""

    def propose(self, number: int) -> Params: ...

    def goes_on(self, number: int, epoch: int, accuracy: float) -> bool:
        """Asked after each epoch but the last."""

    def hear(self, number: int, accuracy: float) -> None:
        """The last accuracy of a trial that has ended, stopped or not."""


@dataclass(frozen=True)
class Rules:
    """How trials run: so many at once, each with so many seconds beside its training."""

    at_once: int = 2
    beside: float = 0.5
    val_images: int | None = None  # None: as many as the table has


TWO_CORES = Rules()


@dataclass(frozen=True)
class Lead:
    """From these seconds on this trial leads, by what was observed of it; `accuracy` is its configuration's mean."""

    seconds: float
    accuracy: float


def replay(policy: Policy, surrogate: Surrogate, seconds: float, seed: int, rules: Rules = TWO_CORES) -> list[Lead]:
    """The leaders of a search of so many seconds, one after the other."""
    chance = np.random.default_rng(seed)
    leads, best, number = list[Lead](), 0.0, 0
    events: list[tuple[float, int, int]] = []  # when an epoch of a trial ends
    running: dict[int, tuple[Params, list[float], float]] = {}
    free = [0.0] * rules.at_once
    while True:
        while free:
            began = free.pop()
            params = policy.propose(number)
            curve, epoch_seconds = surrogate.training(params, chance, rules.val_images), surrogate.epoch_seconds(params)
            running[number] = params, list(curve), epoch_seconds
            heapq.heappush(events, (began + rules.beside + epoch_seconds, number, 1))
            number += 1
        now, trial, epoch = heapq.heappop(events)
        if now > seconds:
            return leads
        params, accuracies, epoch_seconds = running[trial]
        accuracy, last = accuracies[epoch - 1], epoch == len(accuracies)
        if not last and policy.goes_on(trial, epoch, accuracy):
            heapq.heappush(events, (now + epoch_seconds, trial, epoch + 1))
            continue
        del running[trial]
        policy.hear(trial, accuracy)
        free.append(now)
        if last and accuracy > best:
            best = accuracy
            leads.append(Lead(now, float(surrogate.curves([params])[0][-1])))


def side_by_side(searches: Iterable[Any], name: str, count: int) -> Iterator[Any]:
    """The results of so many of joblib's delayed calls, one per core and in their order, under a bar."""
    with parallel_config("loky", inner_max_num_threads=1):
        yield from tqdm(Parallel(-1, return_as="generator")(searches), name, count, file=sys.stderr)
