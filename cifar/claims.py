"""Claims on what a machine has only once, GPUs and ports: lock files, free again when their process ends however."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout


def directory() -> Path:
    """Where this user's claims lie, the same for all experiments on this machine."""
    path = Path(tempfile.gettempdir()) / f"cifar-nni-claims-{os.getuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def try_claim(path: Path) -> BaseFileLock | None:
    """The lock, held while the object lives, or None where another process holds it."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock
