"""A free port for the web page, claimed so that no other search takes it meanwhile."""

from __future__ import annotations

import errno
import socket

from filelock import BaseFileLock

from cifar.errors import RequestError
from cifar.system import locks

LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"
_IN_USE = "is in use"
_FIRST = 8080  # nnictl's own default


def claim_port(asked: int | None, host: str, with_next: bool = False) -> tuple[int, BaseFileLock]:
    """The port asked for, else the first free one from nnictl's default up, and a lock to hold while it is used.

    Without the lock, two searches that start at once would both find the port free, and NNI would then send both
    experiments to the manager that got it. Raises RequestError where the port is taken. `with_next`: the one after it
    is to be free too, as NNI wants where trials run on other machines.
    """
    _refuse_strange_localhost()
    if asked is not None and not 1 <= asked <= 65535:
        raise RequestError(f"--port must be from 1 to 65535, got {asked}")
    problem = ""
    for port in range(_FIRST, _FIRST + 100) if asked is None else [asked]:
        problem = _problem(port, host) or (with_next and _problem(port + 1, host)) or ""
        lock = None if problem else locks.try_claim(f"port-{port}")
        if lock is not None:
            return port, lock
    name = asked or f"{_FIRST} and the 99 after it"
    raise RequestError(f"port {name} {problem or _IN_USE}; choose another with --port")


def _refuse_strange_localhost() -> None:
    """NNI's programs reach each other by that name, and would wait in vain."""
    found = _addresses("localhost", socket.AF_INET)
    if LOOPBACK not in found:
        other = ", ".join(sorted(found | _addresses("localhost", socket.AF_INET6))) or "nowhere"
        raise RequestError(
            f"localhost must lead to {LOOPBACK}, as NNI's programs take it to; here it leads to {other}: see /etc/hosts"
        )


def _addresses(name: str, family: socket.AddressFamily) -> set[str]:
    try:
        return {str(address[0]) for *_, address in socket.getaddrinfo(name, None, family)}
    except OSError:
        return set()


def _problem(port: int, host: str) -> str:
    """Why nobody can listen there, "" where one can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as NNI's manager listens
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as error:
            return _IN_USE if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
    return ""
