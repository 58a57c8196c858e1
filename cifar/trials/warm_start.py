"""A trial that starts in milliseconds: a process of the experiment that has imported what trials need forks it.

Under NNI `python trial.py` is then only the trial's client. It hands over its environment, directory and output, passes
signals on, ends as the trial ends, and takes the trial with it when it is killed. The first client starts the warm
process. Where there can be none (alone, several processes per trial, no Linux) the trial imports everything itself.

Nothing here imports anything that takes time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from cifar.errors import RequestError
from cifar.system import environment, places
from cifar.trials import layout
from cifar.trials.warm_wire import ACCEPTED, REFUSED, Request, user_of

_IMPORT_SECONDS = 120.0
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def hand_over(module: str) -> None:
    """Run this script's trial in the experiment's warm process, and end as it ends. Returns where the script itself is
    to go on: without a warm process, and in the trial that the warm process has forked."""
    if module != "__main__":
        return
    if environment.WARM in os.environ:
        from cifar.trials import warm_server

        warm_server.serve()  # returns in each trial
    elif _can_be_warm():
        try:
            _run_warm()
        except (OSError, RequestError) as error:
            print(f"no warm start, the trial imports everything itself: {error}", file=sys.stderr)


def is_possible() -> bool:
    """Whether trials of one process start warm on this machine: on Linux, unless the user wants them cold."""
    return hasattr(os, "pidfd_open") and environment.COLD not in os.environ


def _can_be_warm() -> bool:
    under_nni = "NNI_TRIAL_JOB_ID" in os.environ and "RANK" not in os.environ
    plainly_started = sys.orig_argv[1:2] == sys.argv[:1]  # options of the interpreter's would be lost
    return is_possible() and under_nni and plainly_started


def _run_warm() -> None:
    """End as the trial ends; returns where no warm process takes it. OSError where that cannot be tried."""
    for _ in range(2):  # the first may have imported code that has changed since, and end
        with _connected() as connection:
            connection.settimeout(_IMPORT_SECONDS)
            answer = _ask(connection)
            if answer == ACCEPTED:
                _follow(connection)
        if answer == REFUSED:
            return
    raise ConnectionError("the warm process ended before it took the trial")


def _ask(connection: socket.socket) -> bytes:
    """What the warm process answers; b"" where it has ended."""
    try:
        Request(sys.argv, dict(os.environ), str(Path.cwd())).send(connection)
        return connection.recv(1)
    except ConnectionError:
        return b""


def _follow(connection: socket.socket) -> NoReturn:
    """Pass signals on until the trial ends, then end as it ended."""

    def pass_on(number: int, _: object) -> None:
        with contextlib.suppress(OSError):  # it has ended, which shows below
            connection.send(bytes([number]))

    connection.settimeout(None)
    for number in _PASSED_ON:
        signal.signal(number, pass_on)
    try:
        ending = connection.makefile().readline()
    except OSError:
        ending = ""
    # Without a word the warm process was killed, and the trial with it: an accident, after which NNI is to restart it.
    code = int(ending) if ending else -signal.SIGKILL
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _connected() -> socket.socket:
    """A connection to the warm process, which is started where there is none. OSError where that fails."""
    directory = places.claims()
    with _short(directory) as short:
        name = f"warm-{_kind()}.socket"
        if connection := _try_connect(short / name):
            return connection
        with (directory / "warm.starting").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _remove_dead(short)
            return _try_connect(short / name) or _started(directory / name, short / name)


def _kind() -> str:
    """A name for what must be the same in the warm process as here: the experiment, this program, its environment."""
    same: list[object] = [str(_experiment()), os.getppid(), sys.executable, sys.path, sys.argv[0], str(Path.cwd())]
    return hashlib.sha256(json.dumps([*same, _lasting_environment()]).encode()).hexdigest()[:16]


def _experiment() -> Path:
    return layout.experiment_of(Path(os.environ["NNI_OUTPUT_DIR"]))


def _lasting_environment() -> dict[str, str]:
    """The environment without what NNI's manager tells one trial alone."""
    passing = (environment.RESTARTS, environment.GIVE_UP)
    return {
        name: value for name, value in sorted(os.environ.items()) if not name.startswith("NNI_") and name not in passing
    }


def _try_connect(path: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    if user_of(connection) != os.getuid():
        connection.close()
        raise PermissionError(f"{path.name} is another user's")
    return connection


def _started(path: Path, short: Path) -> socket.socket:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short))
        short.chmod(0o600)
        listener.listen()
        subprocess.Popen(
            [sys.executable, sys.argv[0], str(path), str(os.getppid()), str(listener.fileno())],
            # One thread, so that it may fork: numpy's linear algebra, which no trial uses, would start others.
            env=_lasting_environment() | {environment.WARM: str(_experiment()), "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=[listener.fileno()],
        )
    connection = _try_connect(short)
    if connection is None:
        raise ConnectionError("it ended at once")
    return connection


def _remove_dead(directory: Path) -> None:
    for path in directory.glob("warm-*.socket"):
        if connection := _try_connect(path):
            connection.close()
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _short(directory: Path) -> Iterator[Path]:
    """The same directory by a path of few characters: a socket's may have 107."""
    opened = os.open(directory, os.O_RDONLY)
    try:
        yield Path(f"/proc/self/fd/{opened}")
    finally:
        os.close(opened)
