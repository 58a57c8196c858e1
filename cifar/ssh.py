"""Questions and commands to a host, through OpenSSH: by its keys and known hosts, and never by a password."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar.errors import RequestError

if TYPE_CHECKING:
    from cifar.hosts import Host

_CONNECT_SECONDS = 10


def ask(host: Host, question: str, stdin: Any = subprocess.DEVNULL, **arguments: object) -> Any:
    """A question of worker.py's. RequestError where the host cannot be reached, or has no answer."""
    words = [f"{host.python}/python", "-m", "cifar.worker", question, json.dumps(arguments)]
    return json.loads(run(host, words, stdin).splitlines()[-1])


def run(host: Host, words: Sequence[str], stdin: Any) -> str:
    """What a command says there. RequestError with its last words where it fails."""
    ended = subprocess.run([*_ssh(host), shlex.join(words)], stdin=stdin, capture_output=True, text=True)
    if ended.returncode:
        said = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
        why = said[-1] if said else f"exit code {ended.returncode}"
        raise RequestError(f"host {host.name}: {_explained(why, host, words)}")
    return ended.stdout


def _ssh(host: Host) -> list[str]:
    options = ["BatchMode=yes", f"ConnectTimeout={_CONNECT_SECONDS}", "ServerAliveInterval=5", "ServerAliveCountMax=3"]
    options += ["StrictHostKeyChecking=yes", "IdentitiesOnly=yes"]
    flags = [word for option in options for word in ("-o", option)]
    key = str(Path(host.key).expanduser())
    return ["ssh", *flags, "-p", str(host.port), "-i", key, f"{host.user}@{host.host}"]


def _explained(why: str, host: Host, words: Sequence[str]) -> str:
    if "Host key verification failed" in why:
        return f"its key is not known here; compare it and accept it once: ssh -p {host.port} {host.user}@{host.host}"
    missing = any(text in why for text in ("No module named", "not found", "No such file"))
    if missing and words[0] == f"{host.python}/python":
        return f"this project is not installed for {host.python}/python, which --install does ({why})"
    return why


def known_keys(host: Host) -> list[str]:
    """The keys that OpenSSH trusts for it, as "type key"; NNI's own client would trust any."""
    name = host.host if host.port == 22 else f"[{host.host}]:{host.port}"
    found = subprocess.run(["ssh-keygen", "-F", name], capture_output=True, text=True).stdout
    lines = [line.split() for line in found.splitlines() if line and not line.startswith("#")]
    return [f"{words[1]} {words[2]}" for words in lines]
