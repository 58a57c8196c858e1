"""Put this project on other machines, into environments of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cifar.errors import Problems, RequestError
from cifar.search.remote import ssh
from cifar.search.remote.host import Host
from cifar.search.remote.ssh import of_each

_SYSTEMS = (Path("/"), Path("/usr"), Path("/usr/local"))  # Pythons that are not ours to install into
_CHECKOUT = Path(__file__).parents[3]
# In the environment that `python` names, made where it is missing, with the tested versions; $1: its directory, $2: the
# Python's name. Sources come as an archive on standard input.
_INSTALL = """
set -e
test -x "$1/bin/python" || "$(command -v "$2" || command -v python3)" -m venv "$1"
mkdir -p "$1/src"
tar -x -C "$1/src"
project="$1/src[tensorboard]"
exec "$1/bin/python" -m pip install --quiet --disable-pip-version-check -c "$1/src/constraints.txt" "$project"
"""


def install(hosts: Sequence[Host]) -> None:
    """This project and the versions of constraints.txt, on each host. RequestError naming those where that fails."""
    if not hosts:
        raise RequestError("--install is for hosts, and trials run on this machine")
    if not (_CHECKOUT / "constraints.txt").exists():
        raise RequestError(f"--install needs the project's own files, and there are none in {_CHECKOUT}")
    problems = Problems()
    of_each(hosts, lambda host: problems.collect(lambda: _install(host)))
    problems.raise_if_any()


def _install(host: Host) -> None:
    directory = Path(host.python)
    if directory.name != "bin" or not directory.is_absolute() or directory.parent in _SYSTEMS:
        raise RequestError(
            f"host {host.name}: python must be the bin of an environment of its own, got {host.python!r}"
        )
    print(f"installing on {host.name}, which takes minutes the first time", file=sys.stderr)
    sent = ["tar", "-C", str(_CHECKOUT), "--exclude=__pycache__", "-c"]
    sent += ["pyproject.toml", "constraints.txt", "README.md", "cifar"]
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    with subprocess.Popen(sent, stdout=subprocess.PIPE) as archive:
        ssh.run(host, ["sh", "-c", _INSTALL, "sh", str(directory.parent), python], archive.stdout)
