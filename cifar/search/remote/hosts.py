"""The other machines of a search: asked what they are like, and given what trials need there.

Each has this project installed, in an environment that `python` names. What is asked of them is in worker.py.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cifar.data.datasets import PreparedImages
from cifar.errors import Problems, RequestError
from cifar.search.remote import ssh
from cifar.search.remote.host import Host, versions
from cifar.search.remote.ssh import of_each
from cifar.system import environment as names

T = TypeVar("T")

_MOST_CLOCK_SECONDS = 60.0  # by which logs may be off before nobody can read them together
_SMALLEST_FREE_BYTES = 2**30


@dataclass(frozen=True)
class HostInfo:
    """A host, and what it says of itself."""

    host: Host
    facts: dict[str, Any]


def describe(hosts: Sequence[Host]) -> list[HostInfo]:
    """What each host is like. RequestError naming every host that cannot be used, and why."""
    problems = Problems()
    infos = of_each(hosts, lambda host: problems.collect(lambda: _describe(host)))
    problems.raise_if_any()
    return [info for info in infos if info]


def _describe(host: Host) -> HostInfo:
    asked = time.time()
    facts: dict[str, Any] = ssh.ask_with_reverse_tunnel(host, "describe")
    own = versions()
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


def summary(info: HostInfo) -> str:
    facts = info.facts
    gpus = ", ".join(facts["gpus"]) or "no GPU"
    return f"host {info.host.name}: {facts['cores']} cores, {gpus}, {facts['free_bytes'] / 2**30:.0f} GB free"


def send_images(hosts: Sequence[HostInfo], images: PreparedImages) -> PreparedImages:
    """Copy decoded images to each host that lacks them; returns them as they lie there."""
    lacking = without_images(hosts, images)
    size = images.count_bytes()
    problems = Problems()
    for info in lacking:
        problems.collect(lambda info=info: _refuse_full_cache(info, size))  # type: ignore[misc]
    problems.raise_if_any()
    there = images.in_another_cache()

    def send(info: HostInfo) -> None:
        print(f"copying {size / 2**20:.0f} MB of images to {info.host.name}", file=sys.stderr)
        with subprocess.Popen(["tar", "-C", str(images.cache_path), "-c", "."], stdout=subprocess.PIPE) as archive:
            ssh.ask(info.host, "take", archive.stdout, place=str(there.cache_path))

    of_each(lacking, send)
    return there


def without_images(hosts: Sequence[HostInfo], images: PreparedImages) -> list[HostInfo]:
    """The hosts in whose cache these decoded images are not."""
    asked = {"place": str(images.in_another_cache().cache_path), "fingerprint": images.fingerprint}
    there = of_each(hosts, lambda info: ssh.ask(info.host, "has", **asked))
    return [info for info, has in zip(hosts, there, strict=True) if not has]


def _refuse_full_cache(info: HostInfo, size: int) -> None:
    free = info.facts["cache_free_bytes"]
    if free < size + _SMALLEST_FREE_BYTES:
        needed, have = f"{size / 2**20:.0f} MB of images and a GB to spare", f"{free / 2**20:.0f} MB are free"
        raise RequestError(f"host {info.host.name}: its cache has no space for {needed}: {have}")


def with_environment(command: str, environment: dict[str, str]) -> str:
    """A trial command that sets these variables, which it may have set to other values before."""
    own = re.sub(r"^env\s+((?:[A-Za-z_]\w*=(?:'[^']*'|\"[^\"]*\"|[^\s'\"])*|'[A-Za-z_]\w*=[^']*')\s+)+", "", command)
    return f"{shlex.join(['env', *(f'{name}={value}' for name, value in environment.items())])} {own}"


def measure(hosts: Sequence[HostInfo], space: dict[str, Any], command: str, concurrency: int) -> list[dict[str, Any]]:
    """The throughput on each host that has trials, as forecast.Throughput has it; `concurrency` counts over all hosts.

    RequestError where the largest configuration does not fit.
    """

    def ask(share: tuple[HostInfo, int]) -> dict[str, Any]:
        info, number = share
        measured: dict[str, Any] = ssh.ask(info.host, "measure", space=space, command=command, concurrency=number)
        return measured

    return of_each(shares(hosts, concurrency), ask)


def shares(hosts: Sequence[T], trials: int) -> list[tuple[T, int]]:
    """How many trials of so many at once run on each host that has any: each starts where fewest run."""
    each, more = divmod(trials, len(hosts))
    numbers = [each + (place < more) for place in range(len(hosts))]
    return [(host, number) for host, number in zip(hosts, numbers, strict=True) if number]


def environment(hosts: Sequence[HostInfo]) -> dict[str, str]:
    """What NNI's manager must know of them: keys that it may trust, and where our patches lie there."""
    keys = {info.host.name: ssh.known_keys(info.host) for info in hosts}
    patches = {info.host.name: info.facts["patches"] for info in hosts}
    return {names.HOST_KEYS: json.dumps(keys), names.WORKER_PATCHES: json.dumps(patches)}


def end(hosts: Sequence[Host], experiment: str) -> None:
    """End what is left of an experiment on each host that can be reached."""

    def ask(host: Host) -> None:
        try:
            ssh.ask(host, "end", experiment=experiment)
        except RequestError as error:
            print(f"what may still run there could not be ended: {error}", file=sys.stderr)

    of_each(hosts, ask)
