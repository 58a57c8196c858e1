"""Where this user's files lie outside the project: the cache, and the claims on what the machine has only once."""

from __future__ import annotations

import os
import platform
import re
import stat
from pathlib import Path

from platformdirs import user_cache_path

from cifar.errors import RequestError
from cifar.system import environment

_NAME = "cifar-nni"


def home() -> Path:
    """The user's home directory; RequestError where the system knows none."""
    try:
        return Path.home()
    except RuntimeError:
        raise RequestError("this account has no home directory: set HOME to a folder that you may write in") from None


def cache() -> Path:
    """$CIFAR_CACHE, else cifar-nni in the user's cache directory."""
    override = os.environ.get(environment.CACHE)
    return Path(override).absolute() if override else _user_cache()


def claims() -> Path:
    """The directory of claims, the same for all of this user's processes on this machine.

    RequestError where it cannot be made, or is not the user's alone: another account could hold its locks, or lead
    them to other files.
    """
    machine = re.sub(r"[^A-Za-z0-9_-]+", "-", platform.node()) or "machine"  # some homes are on several machines
    path = _user_cache() / f"claims-{machine}"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = path.lstat()
    except OSError as error:
        raise RequestError(
            f"the claims of trials need a folder, and {path} cannot be made: {error.strerror}; set HOME or "
            "XDG_CACHE_HOME to a folder that you may write in"
        ) from None
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise RequestError(f"{path} must be a folder of yours that nobody else may open (chmod 700), and no link")
    return path


def _user_cache() -> Path:
    if not Path(os.environ.get("XDG_CACHE_HOME", "")).is_absolute():  # by its standard, another one does not count
        home()
    return Path(user_cache_path(_NAME))
