"""The processes of one experiment: NNI's manager, its tuner, trials with all that they started, and helpers."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import Literal

import psutil

from cifar.system import environment as names

Role = Literal["manager", "tuner", "trial", "warm"]

_TRIAL_STOP_SECONDS = 8.0  # what a trial may take to note where it stands; NNI itself gives it 5


def find(experiment: Path, role: Role | None = None) -> list[psutil.Process]:
    """Processes of the experiment in this directory, of all roles or of one, found by what NNI tells each.

    So a tuner and trials are found whose manager was killed.
    """
    found = ((process, _role(process, experiment)) for process in psutil.process_iter())
    return [process for process, its_role in found if its_role is not None and role in (None, its_role)]


def end(experiment: Path, at_once: bool = False) -> None:
    """End all that is left of an experiment; its trials may first note where they stand, unless it is to be at once."""
    _send(signal.SIGKILL, find(experiment, "manager"))  # first, so that it starts no new trial
    if not at_once:
        _send(signal.SIGINT, find(experiment, "trial"), wait_seconds=_TRIAL_STOP_SECONDS)
    _send(signal.SIGKILL, find(experiment))


@contextlib.contextmanager
def spawned(
    target: Callable[..., None], arguments: Iterable[tuple[object, ...]], stop_seconds: float
) -> Iterator[list[BaseProcess]]:
    """Processes of this program that run `target` afresh, one for each tuple of arguments.

    At the block's end they are interrupted, and killed where they have not ended within `stop_seconds`.
    """
    started = list[BaseProcess]()
    try:
        for some in arguments:
            process = multiprocessing.get_context("spawn").Process(target=target, args=some, daemon=True)
            process.start()
            started.append(process)
        yield started
    finally:
        for child in started:
            if child.pid is not None and child.is_alive():
                os.kill(child.pid, signal.SIGINT)
        for child in started:
            child.join(stop_seconds)
            child.kill()
            child.join()


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; what has ended may wait for its parent to notice."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end_with(parent: int) -> None:
    """End this process when its parent has ended, killed for instance; it goes on meanwhile."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _send(number: signal.Signals, processes: list[psutil.Process], wait_seconds: float = 5.0) -> None:
    """Send a signal, and wait until the processes have ended of it."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
    deadline = time.monotonic() + wait_seconds
    while any(is_alive(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.02)


def _role(process: psutil.Process, experiment: Path) -> Role | None:
    try:
        if not is_alive(process):
            return None
        command = process.cmdline()
        if "--experiment-id" in command:
            named = {command[command.index(option) + 1] for option in ("--experiment-id", "--experiments-directory")}
            return "manager" if named == {experiment.name, str(experiment.parent)} else None
        if any(word.startswith(f"{experiment}/environments/") for word in command):
            return "manager"  # NNI's keeper, which has its place on another machine
        environment = process.environ()
    except (psutil.Error, ValueError, IndexError):  # it has just ended, or is another user's
        return None
    if environment.get(names.WARM) == str(experiment):
        return "warm"
    if environment.get("NNI_LOG_DIRECTORY") == str(experiment / "log"):
        return "tuner"
    return "trial" if environment.get("NNI_OUTPUT_DIR", "").startswith(f"{experiment}/") else None
