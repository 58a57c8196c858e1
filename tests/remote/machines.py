"""Two machines for the tests: network namespaces of this one, each with an address, an sshd and a home of its own."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from experiments import BIN

_NUMBERS = itertools.count(100 * (os.getpid() % 10**5))  # names of links have 15 characters at most
MISSING = os.geteuid() != 0 or not shutil.which("ip") or not Path("/usr/sbin/sshd").exists()


@dataclass
class Machine:
    """A namespace with an sshd; `address` is its own, reached from outside."""

    name: str
    address: str
    gateway: str
    home: Path
    key: Path
    environment: str = "OMP_NUM_THREADS=1"  # of what is started there
    options: dict[str, str] = field(default_factory=dict)  # of its sshd, instead of those below
    sshd: subprocess.Popen[bytes] | None = None

    @property
    def inside(self) -> list[str]:
        return ["ip", "netns", "exec", self.name]

    def entry(self) -> dict[str, object]:
        """As hosts.yml has it."""
        return {"host": self.address, "port": 22, "user": "root", "key": str(self.key), "python": str(BIN)}

    def start(self) -> None:
        veth = f"{self.name}v"
        for command in [
            ["ip", "netns", "add", self.name],
            ["ip", "link", "add", veth, "type", "veth", "peer", "name", "eth0", "netns", self.name],
            ["ip", "address", "add", f"{self.gateway}/30", "dev", veth],
            ["ip", "link", "set", veth, "up"],
            [*self.inside, "ip", "address", "add", f"{self.address}/30", "dev", "eth0"],
            [*self.inside, "ip", "link", "set", "eth0", "up"],
            [*self.inside, "ip", "link", "set", "lo", "up"],
        ]:
            subprocess.run(command, check=True, capture_output=True)
        self.start_sshd()

    def start_sshd(self) -> None:
        Path("/run/sshd").mkdir(exist_ok=True)
        options = {
            "HostKey": self.home / "host_key", "AuthorizedKeysFile": self.home / "authorized_keys", "StrictModes": "no",
            "PidFile": "none", "PasswordAuthentication": "no", "ListenAddress": f"{self.address}:22", "UsePAM": "no",
            "PermitRootLogin": "yes", "Subsystem": "sftp internal-sftp",
            "SetEnv": f"HOME={self.home} XDG_CACHE_HOME={self.home}/.cache {self.environment}",
        }  # fmt: skip
        flags = [f"-o{name}={value}" for name, value in (options | self.options).items()]
        command = [*self.inside, "/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", *flags]
        with (self.home / "sshd.log").open("ab") as log:
            self.sshd = subprocess.Popen(command, stdout=log, stderr=log)

    def processes(self) -> list[psutil.Process]:
        """All that run in its namespace."""
        listed = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True).stdout
        return [psutil.Process(int(pid)) for pid in listed.split() if psutil.pid_exists(int(pid))]

    def crash(self) -> None:
        """As when its power fails: everything is gone, and nobody has said goodbye."""
        subprocess.run([*self.inside, "ip", "link", "set", "eth0", "down"], check=True)
        self.die()

    def hang_up(self) -> None:
        """Cut all connections; what runs there runs on."""
        assert self.sshd
        for process in psutil.Process(self.sshd.pid).children():
            process.kill()

    def die(self) -> None:
        """Kill all that runs there; its system closes their connections."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def restart_sshd(self) -> None:
        """Connections that are open stay."""
        assert self.sshd
        self.sshd.terminate()
        self.sshd.wait()
        self.start_sshd()

    def stop(self) -> None:
        self.die()
        if self.sshd:
            self.sshd.wait()
        # By name: the namespace itself lives on as long as anything in it does.
        subprocess.run(["ip", "link", "delete", f"{self.name}v"], check=True)
        subprocess.run(["ip", "netns", "delete", self.name], check=True)


@contextmanager
def two_machines(tmp_path: Path) -> Iterator[list[Machine]]:
    known = Path.home() / ".ssh" / "known_hosts"
    known.parent.mkdir(mode=0o700, exist_ok=True)
    before = known.read_text() if known.exists() else None
    key = tmp_path / "key"
    generate(key)
    with ExitStack() as stack:
        started = []
        for number in range(2):
            home = tmp_path / f"machine{number}"
            (home / "tmp").mkdir(parents=True)
            generate(home / "host_key")
            shutil.copy(key.with_suffix(".pub"), home / "authorized_keys")
            network = f"198.18.80.{4 * number}".rsplit(".", 1)[0]
            machine = Machine(
                f"cifar{next(_NUMBERS)}", f"{network}.{4 * number + 2}", f"{network}.{4 * number + 1}", home, key
            )
            stack.callback(machine.stop)
            machine.start()
            with known.open("a") as file:
                kind, text, *_ = (home / "host_key.pub").read_text().split()
                file.write(f"{machine.address} {kind} {text}\n")
            started.append(machine)
        stack.callback(lambda: known.write_text(before) if before is not None else known.unlink())
        wait_for(started)
        yield started


def generate(key: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)


def wait_for(machines: list[Machine]) -> None:
    for machine in machines:
        command = ["ssh", "-o", "BatchMode=yes", "-i", str(machine.key), f"root@{machine.address}", "true"]
        deadline = time.monotonic() + 20
        while subprocess.run(command, capture_output=True).returncode:
            assert time.monotonic() < deadline, (machine.home / "sshd.log").read_text()
            time.sleep(0.2)
