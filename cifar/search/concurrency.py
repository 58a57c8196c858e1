"""How many trials run at once, and how long all of them will take."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from cifar.search import forecast
from cifar.search.forecast import Throughput
from cifar.search.remote import hosts
from cifar.search.remote.hosts import HostInfo
from cifar.system import durations
from cifar.system.durations import duration_text


def choose_concurrency(
    config: Any, data: str, infos: Sequence[HostInfo], auto: bool, trials: int | None, seconds_used: float = 0.0
) -> int:
    """Measure how fast trials will be and say how long all will take; returns how many are to run at once.

    That is the config's number, or where `auto` leaves it open, the fewest that pay.
    """
    if (number := forecast.processes_per_trial(config.trial_command)) > 1:
        print(f"trials of {number} processes each are not measured: how long they take will show", file=sys.stderr)
        return int(config.trial_concurrency)
    print(f"measuring how fast {'the hosts are' if infos else 'this machine is'}", file=sys.stderr)
    throughput = _measure(config, data, infos, auto)
    max_seconds = durations.seconds(config.max_experiment_duration)
    left = None if max_seconds is None else max(0.0, max_seconds - seconds_used)
    most = durations.seconds(config.max_trial_duration)
    if most is not None and throughput.trial_seconds > most:
        needed = duration_text(throughput.trial_seconds)
        print(f"maxTrialDuration will end trials early: a mean one needs {needed}", file=sys.stderr)
    print(forecast_line(throughput.cut_off(most), trials, left), file=sys.stderr)
    return throughput.concurrency


def _measure(config: Any, data: str, infos: Sequence[HostInfo], auto: bool) -> Throughput:
    space, command, concurrency = config.search_space, config.trial_command, config.trial_concurrency
    if infos:
        measured = hosts.measure(infos, space, command, concurrency)
        return forecast.together([Throughput(**numbers) for numbers in measured])
    if auto:
        return forecast.best(list(forecast.throughputs(space, command, data, forecast.concurrencies())))
    return next(forecast.throughputs(space, command, data, [concurrency]))


def forecast_line(throughput: Throughput, trials: int | None, max_seconds: float | None) -> str:
    """About how long a search takes; early stopping saves an unknown part of it."""
    bounds = [] if trials is None else [trials * 3600 / throughput.trials_per_hour]
    bounds += [] if max_seconds is None else [max_seconds + throughput.trial_seconds]
    total = f"about {duration_text(min(bounds))} if none is stopped early" if bounds else "without an end"
    count = "trials" if trials is None else f"{trials} trials"
    return f"{count}, {throughput.concurrency} at once, {duration_text(throughput.trial_seconds)} each: {total}"
