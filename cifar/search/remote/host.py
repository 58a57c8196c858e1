"""A machine that trials may run on: its address, as hosts.yml or NNI's config has it, and the versions it needs."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from cifar.errors import Problems, RequestError

_COMPARED = ("nni", "torch", "torchvision", "numpy")
_SOURCES = Path(__file__).parents[2]  # all of cifar/


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


def versions() -> dict[str, str]:
    """What must be equal on all machines of a search; of this project, its very sources."""
    sources = [path for path in sorted(_SOURCES.rglob("*")) if path.suffix in (".py", ".js")]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:8]
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {"cifar": digest, "python": python} | {name: version(name) for name in _COMPARED}
