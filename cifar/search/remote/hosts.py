"""The other machines of a search, reached by SSH: read from hosts.yml, checked, and given what trials need there.

Each has this project installed, in an environment that `python` names. What is asked of them is in worker.py.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from cifar.errors import Problems, RequestError
from cifar.search.remote import ssh

if TYPE_CHECKING:
    from cifar.search.forecast import Throughput  # takes seconds, with PyTorch

T = TypeVar("T")

_MOST_CLOCK_SECONDS = 60.0  # by which logs may be off before nobody can read them together
_SMALLEST_FREE_BYTES = 2**30
_SYSTEMS = (Path("/"), Path("/usr"), Path("/usr/local"))  # Pythons that are not ours to install into
_CHECKOUT = Path(__file__).parents[3]
# In the environment that `python` names, made where it is missing, with the tested versions; $1: its directory, $2: the
# Python's name. Sources come as an archive on standard input.
_INSTALL = """
set -e
test -x "$1/bin/python" || "$(command -v "$2" || command -v python3)" -m venv "$1"
mkdir -p "$1/src"
tar -x -C "$1/src"
exec "$1/bin/python" -m pip install --quiet --disable-pip-version-check -c "$1/src/constraints.txt" "$1/src[board]"
"""


@dataclass(frozen=True)
class Host:
    """A machine: its address, who logs in with which key, and the directory of the Python that trials run with."""

    host: str
    user: str
    key: str
    python: str
    port: int = 22

    @property
    def name(self) -> str:
        return f"{self.host}:{self.port}"

    def machine(self) -> dict[str, Any]:
        """As NNI's config names it."""
        key = str(Path(self.key).expanduser())
        return {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "ssh_key_file": key,
            "python_path": self.python,
        }


@dataclass(frozen=True)
class HostInfo:
    """A host, and what it says of itself."""

    host: Host
    facts: dict[str, Any]


def read(path: Path) -> list[Host]:
    """The hosts of a YAML file: a list, each with host, user, key, python and, if it is not 22, port."""
    try:
        listed = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise RequestError(f"--hosts {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise RequestError(f"--hosts {path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(listed, list) or not listed:
        raise RequestError(f"--hosts {path} must hold a list of hosts, got {listed!r}")
    return checked(listed)


def checked(entries: Sequence[Any]) -> list[Host]:
    """The hosts that these entries describe. RequestError with a line for each problem."""
    problems = Problems()
    hosts = [problems.collect(lambda entry=entry: _host(entry)) for entry in entries]  # type: ignore[misc]
    problems.collect(lambda: _refuse_doubles([host for host in hosts if host]))
    problems.raise_if_any()
    return [host for host in hosts if host]


def _host(entry: Any) -> Host:
    names = [spec.name for spec in fields(Host)]
    if not isinstance(entry, dict) or not set(names) - {"port"} <= set(entry) <= set(names):
        raise RequestError(f"a host must have {', '.join(names)} (port may be left out), got {entry!r}")
    for name in names[:-1]:
        if not isinstance(entry[name], str) or not entry[name].strip() or entry[name].startswith("-"):
            raise RequestError(f"host {entry['host']!r}: {name} must be a text, got {entry[name]!r}")
    port = entry.get("port", 22)
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
        raise RequestError(f"host {entry['host']!r}: port must be from 1 to 65535, got {port!r}")
    with contextlib.suppress(RuntimeError):  # "~nobody"
        if Path(entry["key"]).expanduser().is_file():
            return Host(**entry)
    raise RequestError(f"host {entry['host']!r}: there is no key file {entry['key']}")


def _refuse_doubles(hosts: Sequence[Host]) -> None:
    names = [host.name for host in hosts]
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise RequestError(f"hosts must differ, got {', '.join(doubles)} more than once")


def of(config: Any) -> list[Host]:
    """The hosts of an NNI ExperimentConfig; [] where trials run on this machine."""
    service = config.training_service
    if getattr(service, "platform", None) != "remote":
        return []
    return [Host(**entry(machine)) for machine in service.machine_list]


def entry(machine: Any) -> dict[str, Any]:
    """A machine of NNI's config as hosts.yml would have it."""
    key, python = str(machine.ssh_key_file), machine.python_path or ""
    return {"host": machine.host, "user": machine.user, "key": key, "python": python, "port": machine.port}


def install(hosts: Sequence[Host]) -> None:
    """This project and the versions of constraints.txt, on each host. RequestError naming those where that fails."""
    if not hosts:
        raise RequestError("--install is for hosts, and trials run on this machine")
    if not (_CHECKOUT / "constraints.txt").exists():
        raise RequestError(f"--install needs the project's own files, and there are none in {_CHECKOUT}")
    problems = Problems()
    _of_each(hosts, lambda host: problems.collect(lambda: _install(host)))
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


def describe(hosts: Sequence[Host]) -> list[HostInfo]:
    """What each host is like. RequestError naming every host that cannot be used, and why."""
    problems = Problems()
    answers = _of_each(hosts, lambda host: problems.collect(lambda: _described(host)))
    problems.raise_if_any()
    return [answer for answer in answers if answer]


def _described(host: Host) -> HostInfo:
    from cifar import worker  # not before hosts are asked

    asked = time.time()
    facts: dict[str, Any] = ssh.ask_with_reverse_tunnel(host, "describe")
    own = worker.versions()
    if differing := [name for name, version in own.items() if facts["versions"].get(name) != version]:
        pairs = ", ".join(f"{name} {facts['versions'].get(name)} (here {own[name]})" for name in differing)
        raise RequestError(f"host {host.name} has other versions: {pairs}; --install brings those of this machine")
    off = max(asked - facts["time"], facts["time"] - time.time())
    if off > _MOST_CLOCK_SECONDS:
        raise RequestError(f"host {host.name}: its clock is off by {off:.0f} seconds")
    if facts["free_bytes"] < _SMALLEST_FREE_BYTES:
        raise RequestError(f"host {host.name}: only {facts['free_bytes'] / 2**20:.0f} MB of disk are free")
    if opened := set(facts["forwarded_addresses"]) - {"127.0.0.1", "::1"}:
        ways = ", ".join(sorted(opened))
        raise RequestError(
            f"host {host.name}: its sshd opens forwarded ports to the network ({ways}): GatewayPorts must be no"
        )
    ssh.check_files(host)
    return HostInfo(host, facts)


def summary(described: HostInfo) -> str:
    facts = described.facts
    gpus = ", ".join(facts["gpus"]) or "no GPU"
    return f"host {described.host.name}: {facts['cores']} cores, {gpus}, {facts['free_bytes'] / 2**30:.0f} GB free"


def send_data(hosts: Sequence[HostInfo], entry: Path, fingerprint: str) -> str:
    """Copy decoded images to each host that lacks them; returns their place below its cache's directory."""
    lacking = without_data(hosts, entry, fingerprint)
    size = data_bytes(entry)
    problems = Problems()
    for described in lacking:
        problems.collect(lambda described=described: _refuse_full_cache(described, size))  # type: ignore[misc]
    problems.raise_if_any()

    def send(described: HostInfo) -> None:
        print(f"copying {size / 2**20:.0f} MB of images to {described.host.name}", file=sys.stderr)
        with subprocess.Popen(["tar", "-C", str(entry), "-c", "."], stdout=subprocess.PIPE) as archive:
            ssh.ask(described.host, "take", archive.stdout, place=_place(entry))

    _of_each(lacking, send)
    return _place(entry)


def without_data(hosts: Sequence[HostInfo], entry: Path, fingerprint: str) -> list[HostInfo]:
    """The hosts in whose cache these decoded images are not."""
    there = _of_each(hosts, lambda one: ssh.ask(one.host, "has", place=_place(entry), fingerprint=fingerprint))
    return [described for described, has in zip(hosts, there, strict=True) if not has]


def data_bytes(entry: Path) -> int:
    return sum(path.stat().st_size for path in entry.iterdir())


def _place(entry: Path) -> str:
    return f"{entry.parent.name}/{entry.name}"


def _refuse_full_cache(described: HostInfo, size: int) -> None:
    free = described.facts["cache_free_bytes"]
    if free < size + _SMALLEST_FREE_BYTES:
        needed, have = f"{size / 2**20:.0f} MB of images and a GB to spare", f"{free / 2**20:.0f} MB are free"
        raise RequestError(f"host {described.host.name}: its cache has no space for {needed}: {have}")


def with_environment(command: str, environment: dict[str, str]) -> str:
    """A trial command that sets these variables, which it may have set to other values before."""
    own = re.sub(r"^env\s+((?:[A-Za-z_]\w*=(?:'[^']*'|\"[^\"]*\"|[^\s'\"])*|'[A-Za-z_]\w*=[^']*')\s+)+", "", command)
    return f"{shlex.join(['env', *(f'{name}={value}' for name, value in environment.items())])} {own}"


def measure(hosts: Sequence[HostInfo], space: dict[str, Any], command: str, concurrency: int) -> Throughput:
    """How fast trials are on all hosts together, `concurrency` in all; RequestError where the largest does not fit."""
    from cifar.search import forecast

    def ask(share: tuple[HostInfo, int]) -> Throughput:
        info, number = share
        asked = {"space": space, "command": command, "concurrency": number}
        return forecast.Throughput(**ssh.ask(info.host, "measure", **asked))

    return forecast.together(_of_each(shares(hosts, concurrency), ask))


def shares(hosts: Sequence[T], trials: int) -> list[tuple[T, int]]:
    """How many trials of so many at once run on each host that has any: each starts where fewest run."""
    each, more = divmod(trials, len(hosts))
    numbers = [each + (place < more) for place in range(len(hosts))]
    return [(host, number) for host, number in zip(hosts, numbers, strict=True) if number]


def environment(hosts: Sequence[HostInfo]) -> dict[str, str]:
    """What NNI's manager must know of them, see nni_patches/remote.js."""
    keys = {described.host.name: ssh.known_keys(described.host) for described in hosts}
    preloads = {described.host.name: described.facts["preloads"] for described in hosts}
    return {"CIFAR_HOST_KEYS": json.dumps(keys), "CIFAR_WORKER_PRELOADS": json.dumps(preloads)}


def end(hosts: Sequence[Host], experiment: str) -> None:
    """End what is left of an experiment on each host that can be reached."""

    def ask(host: Host) -> None:
        try:
            ssh.ask(host, "end", experiment=experiment)
        except RequestError as error:
            print(f"what may still run there could not be ended: {error}", file=sys.stderr)

    _of_each(hosts, ask)


def _of_each(hosts: Sequence[Any], ask: Callable[[Any], T]) -> list[T]:
    """Asked all at once."""
    with ThreadPoolExecutor(max(1, len(hosts))) as pool:
        return list(pool.map(ask, hosts))
