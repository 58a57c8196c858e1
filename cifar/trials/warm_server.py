"""The warm process of an experiment: it has imported what trials need, and forks a trial for each client.

It has no tensors, no CUDA and one thread, so that its copies are as good as new processes. It ends with NNI's manager.
See warm_start.py for its clients.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar.trials.warm_wire import ACCEPTED, OUTDATED, REFUSED, Request, user_of

# What trial.py imports, and what a trial imports on its way.
_IMPORTED = (
    "cifar.data.datasets",
    "cifar.training.device",
    "cifar.training.evaluation",
    "cifar.trials.launch",
    "cifar.trials.run",
    "numpy.ma",
    "requests",
    "torch.utils.serialization",
    "torch.utils.tensorboard",
)
_IDLE_SECONDS = 600.0
_REQUEST_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1


def serve() -> None:
    """Fork trials until the manager ends; returns in each trial, as the process that its client asked for."""
    began = time.time_ns()
    _, path, manager, listener = sys.argv
    for name in _IMPORTED:
        with contextlib.suppress(ModuleNotFoundError):  # TensorBoard may be absent
            importlib.import_module(name)
    gc.freeze()  # the memory that all trials share stays as it is
    request = _Server(Path(path), int(manager), socket.socket(fileno=int(listener)), _code(began)).run()
    if request is None:
        sys.exit()
    request.become()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()  # from the system, as in a new process


@dataclass(frozen=True, eq=False)
class _Trial:
    pid: int
    ended: int  # a descriptor that can be read when the process has ended
    connection: socket.socket  # to its client


class _Server:
    def __init__(self, path: Path, manager: int, listener: socket.socket, code: _Code | None) -> None:
        self.path, self.listener, self.code = path, listener, code
        self.inode = path.stat().st_ino
        self.trials = set[_Trial]()
        self.accepts = True
        self.selector = selectors.DefaultSelector()
        self._watch(listener, self._accept)
        self.manager = os.pidfd_open(manager)
        self._watch(self.manager, self._retire)

    def run(self) -> Request | None:
        """None when all is over; in a trial's process, the trial."""
        while self.accepts or self.trials:
            ready = self.selector.select(_IDLE_SECONDS)
            if not ready and not self.trials:
                self._retire()
            for key, _ in ready:
                if request := key.data():
                    return request  # type: ignore[no-any-return]
        return None

    def _watch(self, file: Any, react: Callable[[], Request | None]) -> None:
        self.selector.register(file, selectors.EVENT_READ, react)

    def _retire(self) -> None:
        """Take no more trials; those that run may end."""
        if not self.accepts:
            return
        self.accepts = False
        self.selector.unregister(self.listener)
        self.selector.unregister(self.manager)
        self.listener.close()
        os.close(self.manager)
        if self.path.exists() and self.path.stat().st_ino == self.inode:
            self.path.unlink()

    def _accept(self) -> Request | None:
        if not self.accepts:
            return None
        connection, _ = self.listener.accept()
        try:
            connection.settimeout(_REQUEST_SECONDS)
            if user_of(connection) == os.getuid():
                return self._fork(Request.receive(connection), connection)
        except (OSError, ValueError, TypeError):  # its client has gone, or was none
            pass
        connection.close()
        return None

    def _fork(self, request: Request, connection: socket.socket) -> Request | None:
        outdated = _code() != self.code
        alone = len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208
        if outdated or not alone:
            connection.send(OUTDATED if outdated else REFUSED)
            connection.close()
            if outdated:
                self._retire()
        elif (pid := os.fork()) == 0:
            self._forget(connection)
            return request
        else:
            self._begin(_Trial(pid, _end_of(pid), connection))
        for file in request.files:
            os.close(file)
        return None

    def _forget(self, connection: socket.socket) -> None:
        """In the trial's process: keep nothing of the warm process's, and die with it."""
        server = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        for key in list(self.selector.get_map().values()):
            os.close(key.fileobj) if isinstance(key.fileobj, int) else key.fileobj.close()  # type: ignore[attr-defined]
        self.selector.close()
        connection.close()
        if os.getppid() != server:
            os._exit(1)

    def _begin(self, trial: _Trial) -> None:
        trial.connection.settimeout(None)
        self.trials.add(trial)
        self._watch(trial.connection, lambda: self._pass_on(trial))
        self._watch(trial.ended, lambda: self._end(trial))
        with contextlib.suppress(OSError):  # its client is gone, which the connection tells too
            trial.connection.send(ACCEPTED)

    def _pass_on(self, trial: _Trial) -> None:
        """The signals that the client got; where it is gone, the trial is to go too."""
        if trial not in self.trials:
            return
        try:
            numbers = trial.connection.recv(64)
        except OSError:
            numbers = b""
        for number in numbers or [signal.SIGKILL]:
            os.kill(trial.pid, number)  # not yet waited for, so no other process has its number
        if not numbers:
            self.selector.unregister(trial.connection)

    def _end(self, trial: _Trial) -> None:
        _, status = os.waitpid(trial.pid, 0)
        self.trials.remove(trial)
        self.selector.unregister(trial.ended)
        os.close(trial.ended)
        with contextlib.suppress(KeyError):
            self.selector.unregister(trial.connection)
        with contextlib.suppress(OSError):
            trial.connection.send(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        trial.connection.close()


def _end_of(pid: int) -> int:
    """A descriptor that can be read when this child has ended. OSError where there is none: the child is killed then,
    since its client will run the trial itself."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


_Code = dict[str, tuple[int, int]]


def _code(since: int | None = None) -> _Code | None:
    """When each file of the loaded modules was written, and its length; None where one was written after `since`."""
    paths = {path for module in list(sys.modules.values()) if (path := getattr(module, "__file__", None))}
    facts = {path: os.stat(path) for path in paths if os.path.exists(path)}  # noqa: PTH110, PTH116  # of thousands
    if since is not None and any(since <= fact.st_mtime_ns <= time.time_ns() for fact in facts.values()):
        return None
    return {path: (fact.st_mtime_ns, fact.st_size) for path, fact in facts.items()}
