"""A free port for the web page, claimed so that no other search takes it meanwhile."""

from __future__ import annotations

import socket

from filelock import BaseFileLock

from cifar import claims
from cifar.errors import RequestError

_FIRST = 8080  # nnictl's own default


def claim_port(asked: int | None) -> tuple[int, BaseFileLock]:
    """The port asked for, else the first free one from nnictl's default up, and a lock to hold while it is used.

    Without the lock, two searches that start at once would both find the port free, and NNI would then send both
    experiments to the manager that got it. Raises RequestError where the port is taken.
    """
    if asked is not None and not 1 <= asked <= 65535:
        raise RequestError(f"--port must be from 1 to 65535, got {asked}")
    candidates = range(_FIRST, _FIRST + 100) if asked is None else [asked]
    for port in candidates:
        lock = claims.try_claim(f"port-{port}")
        if lock is None:
            continue
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port, lock
        lock.release()
    raise RequestError(f"port {asked or f'{_FIRST} and the 99 after it'} is in use; choose another with --port")
