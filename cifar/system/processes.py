"""The processes of one experiment: NNI's manager, its tuner, trials with all that they started, and helpers."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import Any, Literal, NoReturn

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
def spawner(module: str) -> Iterator[None]:
    """While the block lasts, a process that has imported `module` forks what `spawned` starts, in milliseconds.

    It begins to import at once, beside this process.
    """
    if sys.platform != "linux":  # elsewhere the systems' own libraries may not be forked
        yield
        return
    multiprocessing.set_forkserver_preload([module])
    with _uninterrupted(), _one_thread():
        forkserver.ensure_running()
    try:
        yield
    finally:
        os.kill(_server()._forkserver_pid, signal.SIGKILL)  # it would first import all the rest
        _server()._stop()  # or else hold its memory for hours
        multiprocessing.set_forkserver_preload([])


@contextlib.contextmanager
def spawned(
    target: Callable[..., None], arguments: Iterable[tuple[object, ...]], stop_seconds: float
) -> Iterator[list[BaseProcess]]:
    """Processes of this program that run `target` afresh, one for each tuple of arguments; they end with this one.

    At the block's end they are interrupted, and killed where they have not ended within `stop_seconds`.
    """
    context: Any = multiprocessing.get_context("forkserver" if _server()._forkserver_pid else "spawn")
    started = list[BaseProcess]()
    try:
        for some in arguments:
            process: BaseProcess = context.Process(target=_run, args=(target, some), daemon=True)
            with _uninterrupted():
                process.start()
            started.append(process)
        yield started
    finally:
        for child in started:
            with contextlib.suppress(ProcessLookupError):  # it has just ended, which the forkserver has yet to tell
                if child.pid is not None and child.is_alive():
                    os.kill(child.pid, signal.SIGINT)
        for child in started:
            child.join(stop_seconds)
            child.kill()
            child.join()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """What starts meanwhile is not interrupted before it wants to be: in its imports it would print where it was."""
    resource_tracker.ensure_running()  # it would lift the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """What starts meanwhile may fork: numpy's linear algebra would start threads."""
    name = "OPENBLAS_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name) if before is None else os.environ.update({name: before})


def _server() -> Any:
    return forkserver._forkserver


def _run(target: Callable[..., None], arguments: tuple[object, ...]) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        target(*arguments)
    except KeyboardInterrupt:  # the process that started this one says what has come of it
        sys.exit(128 + signal.SIGINT)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def seconds_here() -> float:
    """How long this process has run."""
    return time.time() - psutil.Process().create_time()


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


def leave(code: int) -> NoReturn:
    """End this process without the interpreter's own end, which takes up to a second: all that was imported is taken
    apart. And where several processes train, threads of PyTorch's may abort it."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


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
