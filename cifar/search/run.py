"""Run an experiment to its end, watched, and say how it went."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cifar.console import show
from cifar.search.algorithms import resume_problem
from cifar.search.experiment import Experiment, running
from cifar.search.facts import write_facts
from cifar.search.prepare import Prepared
from cifar.search.progress import Progress, ending
from cifar.search.watchdog import Watch
from cifar.system.files import short
from cifar.system.ports import LOOPBACK
from cifar.system.signals import noting_interrupt
from cifar.trials.database import DatabaseHeld
from cifar.trials.leaderboard import leaderboard
from cifar.trials.store import EpochReader, Reader, Trial, best_first, read_trials

_POLL_SECONDS = 0.5
_EXPOSED = (
    "warning: the web page is open to every machine that reaches this one, without a password; whoever opens it can "
    "read each file that you can, and run programs as you. Safer: without --host, and on the other machine\n"
    "ssh -L {port}:127.0.0.1:{port} THIS_MACHINE"
)


def search(prepared: Prepared, keep_open: bool, resume_command: str) -> int:
    """Run an experiment to its end. Returns 0, 1 where it failed or could not go on, 130 where it was interrupted."""
    write_facts(prepared.directory, prepared.facts)
    try:
        with noting_interrupt() as interrupted, _started(prepared) as experiment:
            stop_reason = follow(experiment, interrupted)
            while keep_open and not stop_reason and not interrupted():
                _print_summary(experiment, read_trials(experiment.directory))
                if not _goes_on(experiment, interrupted):
                    return _finished_code(experiment)
                print("a limit was raised in the web page: the search goes on", file=sys.stderr)
                stop_reason = follow(experiment, interrupted)
            if stop_reason or interrupted():
                print(f"{stop_reason or 'interrupted'}; saving the trials that run", file=sys.stderr)
            stopped = interrupted()
    except KeyboardInterrupt:
        _print_how_to_resume(prepared, resume_command)
        raise
    try:
        trials = [trial if trial.ended else trial.interrupted() for trial in read_trials(experiment.directory)]
        _print_summary(experiment, trials)
    except DatabaseHeld as held:
        print(held, file=sys.stderr)
    if stop_reason or stopped:
        _print_how_to_resume(prepared, resume_command)
        return 1 if stop_reason else 130
    return _finished_code(experiment)


def view(prepared: Prepared) -> int:
    """Show a stopped experiment in NNI's web page until interrupted."""
    with noting_interrupt() as interrupted, _started(prepared) as experiment:
        _goes_on(experiment, interrupted)
    return 0


@contextmanager
def _started(prepared: Prepared) -> Iterator[Experiment]:
    config, port, host = prepared.config, prepared.port, prepared.host
    with running(config, prepared.action, prepared.id, prepared.environment, port, host) as experiment:
        if host != LOOPBACK:
            print(_EXPOSED.format(port=port), file=sys.stderr)
        print(f"experiment {experiment.id}, web page {experiment.url}", file=sys.stderr)
        yield experiment


def follow(experiment: Experiment, interrupted: Callable[[], bool]) -> str | None:
    """Show progress until the experiment ends, the user wants no more, or it cannot go on: returns why not."""
    reader, epochs = Reader(experiment.directory), EpochReader(experiment.directory)
    try:
        earlier = reader.trials()
        watch = Watch(experiment, earlier)
        with Progress(experiment, earlier) as progress:
            while not interrupted():
                status = experiment.status()  # asked before the trials are read, so that none is missed
                trials = reader.trials()
                progress.show(trials, epochs.latest())
                for event in watch.host_events():
                    progress.tell(event)
                if stop_reason := watch.stop_reason(status, trials):
                    return stop_reason
                if status == "DONE" or watch.is_exhausted(status, trials):
                    return None
                time.sleep(_POLL_SECONDS)
    except DatabaseHeld as held:
        return str(held)
    return None


def _print_summary(experiment: Experiment, trials: list[Trial]) -> None:
    text = f"{leaderboard(trials, experiment.directory, rows=10)}\nsaved in {short(experiment.directory)}"
    show(text)


def _print_how_to_resume(prepared: Prepared, resume_command: str) -> None:
    try:
        has_begun = bool(read_trials(prepared.directory))  # where none has, there is nothing to resume
    except DatabaseHeld:
        has_begun = True
    if has_begun:
        print(resume_problem(prepared.config.tuner.name) or f"resume with: {resume_command}", file=sys.stderr)


def _goes_on(experiment: Experiment, interrupted: Callable[[], bool]) -> bool:
    """Leave the web page open until an interrupt; True where the user has raised a limit there, and trials start."""
    print("the web page stays open until you press Ctrl-C", file=sys.stderr)
    while not interrupted():
        status = experiment.status()
        if status == "DEAD":
            print("the web page is gone: NNI's manager has ended, stopped or killed from outside", file=sys.stderr)
            return False
        if status in ("RUNNING", "NO_MORE_TRIAL"):
            return True
        time.sleep(_POLL_SECONDS)
    return False


def _finished_code(experiment: Experiment) -> int:
    trials = read_trials(experiment.directory)
    if not trials or best_first(trials):
        return 0
    print(f"no trial succeeded; the last one: {ending(trials[-1])}", file=sys.stderr)
    return 1
