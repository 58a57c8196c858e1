"""How many trials run at once, and how long all of them will take."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from cifar.errors import RequestError
from cifar.search import forecast
from cifar.search.forecast import Throughput
from cifar.search.remote import hosts
from cifar.search.remote.hosts import HostInfo
from cifar.system import durations, mps
from cifar.system.durations import duration_text
from cifar.system.gpus import list_gpus


@dataclass(frozen=True)
class Choice:
    """How many trials run at once, and the variables by which they find an MPS, {} where it does not pay.

    `throughput` is what was measured, None where nothing was.
    """

    concurrency: int
    mps: dict[str, str]
    throughput: Throughput | None = field(default=None, compare=False)


def choose_concurrency(
    config: Any,
    data: str,
    infos: Sequence[HostInfo],
    auto: bool,
    held: ExitStack,
) -> Choice:
    """Measure how fast trials will be.

    As many are to run at once as the config says, or where `auto` leaves it open, the fewest that pay. Where several
    share a GPU an MPS is tried, and ends with `held` if it pays.
    """
    if (number := forecast.processes_per_trial(config.trial_command)) > 1:
        print(f"trials of {number} processes each are not measured: how long they take will show", file=sys.stderr)
        return Choice(int(config.trial_concurrency), {})
    print(f"measuring how fast {'the hosts are' if infos else 'this machine is'}", file=sys.stderr)
    throughput, variables = _measure(config, data, infos, auto), dict[str, str]()
    if not infos:
        throughput, variables = _better_with_mps(throughput, config, data, auto, held)
    return Choice(throughput.concurrency, variables, throughput)


def tell(config: Any, choice: Choice, trials: int | None, seconds_used: float = 0.0) -> None:
    """Say how long a search of so many trials will take."""
    if choice.throughput is None:
        return
    throughput = choice.throughput
    max_seconds = durations.seconds(config.max_experiment_duration)
    left = None if max_seconds is None else max(0.0, max_seconds - seconds_used)
    most = durations.seconds(config.max_trial_duration)
    if most is not None and throughput.trial_seconds > most:
        needed = duration_text(throughput.trial_seconds)
        print(f"maxTrialDuration will end trials early: a mean one needs {needed}", file=sys.stderr)
    print(forecast_line(throughput.cut_off(most), trials, left), file=sys.stderr)


def _measure(config: Any, data: str, infos: Sequence[HostInfo], auto: bool) -> Throughput:
    if infos:
        measured = hosts.measure(infos, config.search_space, config.trial_command, config.trial_concurrency)
        return forecast.together([Throughput(**numbers) for numbers in measured])
    return _measure_here(config, data, auto, {})


def _measure_here(config: Any, data: str, auto: bool, variables: dict[str, str]) -> Throughput:
    space, command = config.search_space, config.trial_command
    numbers = forecast.concurrencies() if auto else [config.trial_concurrency]
    return forecast.best(list(forecast.throughputs(space, command, data, numbers, variables)))


def _better_with_mps(
    without: Throughput, config: Any, data: str, auto: bool, held: ExitStack
) -> tuple[Throughput, dict[str, str]]:
    """The better of the throughput without an MPS and the one with it, and the variables that it takes."""
    gpus = list_gpus()
    most_at_once = max(forecast.concurrencies()) if auto else config.trial_concurrency
    with ExitStack() as tried:
        variables = tried.enter_context(mps.started(gpus if most_at_once > len(gpus) else []))
        if not variables:
            return without, {}
        try:
            with_it = _measure_here(config, data, auto, variables)
        except RequestError as error:
            print(f"trials do without MPS: {error}", file=sys.stderr)
            return without, {}
        pays = forecast.pays(with_it, without)
        gain = f"{with_it.trials_per_hour / without.trials_per_hour:.1f} times the trials per hour"
        print(f"MPS, by which trials share a GPU, {'is used' if pays else 'is not used'}: {gain}", file=sys.stderr)
        if not pays:
            return without, {}
        held.push(tried.pop_all())
        return with_it, variables


def forecast_line(throughput: Throughput, trials: int | None, max_seconds: float | None) -> str:
    """About how long a search takes; early stopping saves an unknown part of it."""
    bounds = [] if trials is None else [trials * 3600 / throughput.trials_per_hour]
    bounds += [] if max_seconds is None else [max_seconds + throughput.trial_seconds]
    total = f"about {duration_text(min(bounds))} if none is stopped early" if bounds else "without an end"
    count = "trials" if trials is None else f"{trials} trials"
    return f"{count}, {throughput.concurrency} at once, {duration_text(throughput.trial_seconds)} each: {total}"
