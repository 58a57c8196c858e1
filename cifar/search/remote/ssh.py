"""Questions and commands to a host, through OpenSSH: by its keys and known hosts, and never by a password.

Without the user's configuration of OpenSSH: NNI's own client, which runs the trials, would not read it.
"""

from __future__ import annotations

import json
import secrets
import shlex
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from cifar.errors import RequestError
from cifar.search.remote.host import Host

T = TypeVar("T")

_CONNECT_SECONDS = 10
_TUNNEL_TRIES = 3  # a port may be taken
_GLOBAL_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"


def ask(host: Host, question: str, stdin: Any = subprocess.DEVNULL, **arguments: object) -> Any:
    """A question of worker.py's. RequestError where the host cannot be reached, or has no answer."""
    return _answer(host, run(host, _words(host, question, arguments), stdin))


def ask_with_reverse_tunnel(host: Host, question: str, **arguments: object) -> Any:
    """ask(), while a port of the host leads back to this machine; the question is told it as `forwarded_port`."""
    for _ in range(_TUNNEL_TRIES):
        forwarded_port = secrets.choice(range(20000, 60000))
        options = ["-o", "ExitOnForwardFailure=yes", "-R", f"127.0.0.1:{forwarded_port}:127.0.0.1:9"]
        try:
            words = _words(host, question, {**arguments, "forwarded_port": forwarded_port})
            return _answer(host, run(host, words, options=options))
        except RequestError as error:
            if "remote port forwarding failed" not in str(error):
                raise
    raise RequestError(f"host {host.name}: its sshd forwards no port (AllowTcpForwarding), by which trials reach NNI")


def run(host: Host, words: Sequence[str], stdin: Any = subprocess.DEVNULL, options: Sequence[str] = ()) -> str:
    """What a command says there. RequestError with its last words where it fails."""
    command = [*_ssh(host, options), shlex.join(words)]
    ended = subprocess.run(command, stdin=stdin, capture_output=True, text=True, errors="replace")
    if ended.returncode:
        said = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
        why = said[-1] if said else f"exit code {ended.returncode}"
        raise RequestError(f"host {host.name}: {_explained(why, host, words)}")
    return ended.stdout


def check_files(host: Host) -> None:
    """RequestError where NNI's own client cannot use the key, or the host sends no files."""
    opened = ["ssh-keygen", "-y", "-P", "", "-f", str(Path(host.key).expanduser())]
    if subprocess.run(opened, stdin=subprocess.DEVNULL, capture_output=True).returncode:
        raise RequestError(f"host {host.name}: {host.key} is no private key without a passphrase, which NNI needs")
    if not known_keys(host):
        raise RequestError(f"host {host.name}: known_hosts has no key of its own, which NNI needs")
    ended = subprocess.run([*_ssh(host, ["-s"]), "sftp"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if ended.returncode:
        raise RequestError(f"host {host.name}: its sshd has no sftp, by which the trials' files come back")


def _words(host: Host, question: str, arguments: dict[str, object]) -> list[str]:
    return [f"{host.python}/python", "-m", "cifar.worker", question, json.dumps(arguments)]


def _answer(host: Host, said: str) -> Any:
    lines = said.splitlines()
    try:
        return json.loads(lines[-1])
    except (IndexError, ValueError):
        raise RequestError(f"host {host.name}: {host.python}/python says {said[-80:]!r} where JSON is due") from None


def _ssh(host: Host, more: Sequence[str]) -> list[str]:
    options = ["BatchMode=yes", f"ConnectTimeout={_CONNECT_SECONDS}", "ServerAliveInterval=5", "ServerAliveCountMax=3"]
    options += ["StrictHostKeyChecking=yes", "IdentitiesOnly=yes"]
    flags = [word for option in options for word in ("-o", option)]
    key = str(Path(host.key).expanduser())
    return ["ssh", "-F", "none", *flags, *more, "-p", str(host.port), "-i", key, "--", f"{host.user}@{host.host}"]


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
    files = [[], ["-f", _GLOBAL_KNOWN_HOSTS]]  # without a name: the user's
    commands = [["ssh-keygen", "-F", name, *file] for file in files]
    found = "".join(subprocess.run(command, capture_output=True, text=True).stdout for command in commands)
    lines = [line.split() for line in found.splitlines() if line and line[0] not in "#@"]  # @: revoked, or an authority
    return [f"{words[1]} {words[2]}" for words in lines]


def of_each(hosts: Sequence[Any], ask: Callable[[Any], T]) -> list[T]:
    """What `ask` returns for each host; all are asked at once."""
    with ThreadPoolExecutor(max(1, len(hosts))) as pool:
        return list(pool.map(ask, hosts))
