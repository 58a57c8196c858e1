"""Claims on what a machine has only once, GPUs, cores and ports: lock files, free once their process ends however."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from cifar.system import places

_CHOOSING = "choosing.lock"


def try_claim(name: str) -> BaseFileLock | None:
    """The only claim of this name, held while the object lives, or None where another process holds it."""
    with choosing():
        for path in places.claims().glob("*.lock"):
            if path.name != _CHOOSING:
                _is_dead(path)  # removed, so that the files of ended processes do not gather
        return _try_lock(places.claims() / f"{name}.lock")


def release(claims: Iterable[BaseFileLock]) -> None:
    """Give claims back before this process ends."""
    with choosing():
        for claim in claims:
            Path(claim.lock_file).unlink(missing_ok=True)
            claim.release()


def choosing() -> BaseFileLock:
    """Hold this (`with`) while counting shares and taking one: nobody else takes any meanwhile."""
    return FileLock(places.claims() / _CHOOSING)


def take_share(resource: str) -> BaseFileLock:
    """One of any number of shares in a resource, held while the object lives. The resource has no dot at its end."""
    share = _try_lock(places.claims() / f"{resource}.{uuid.uuid4().hex}.lock")
    assert share is not None  # nobody else knows its name
    return share


def count_shares(resource: str) -> int:
    """Shares that living processes hold in a resource, `a` counting shares in `a.b` too; shares of the dead go.

    Call it under choosing().
    """
    return sum(not _is_dead(path) for path in places.claims().glob(f"{resource}.*.lock"))


def _is_dead(path: Path) -> bool:
    lock = _try_lock(path)
    if lock is None:
        return False
    path.unlink(missing_ok=True)
    lock.release()
    return True


def _try_lock(path: Path) -> BaseFileLock | None:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock
