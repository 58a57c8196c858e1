"""Nobody gets in, and nothing gets out: NNI's server, foreign files, secrets."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from experiments import Search, Start, free_port

from cifar import store

API = "/api/v1/nni"
ATTACK = {"trialCommand": "touch owned"}
NETWORK = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="a network namespace needs root and Debian's iproute2"
)


@pytest.fixture
def running(search: Start, quick_config_path: Path) -> Iterator[tuple[Search, str]]:
    """A search in the middle of its first trials, and its server's address."""
    port = free_port()
    one = search("--data", "digits", "--max-trials", "12", "--port", str(port), CIFAR_TEST_SECONDS="60")
    one.wait_until_started(2)
    yield one, f"http://127.0.0.1:{port}"
    assert one.process.poll() is None, one.err


def test_the_server_does_only_what_its_page_and_its_trials_ask(running: tuple[Search, str]) -> None:
    one, url = running
    trial = one.trials()[0].id
    name = url.removeprefix("http://")
    foreign = "http://evil.example"
    climb = "..%2f" * 12
    assert asked("GET", f"{url}{API}/trial-jobs", {}) == 200
    assert asked("GET", f"{url}/index.html", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}) == 200
    assert asked("GET", f"{url}{API}/trial-jobs", {"Sec-Fetch-Site": "same-origin"}) == 200
    assert asked("GET", f"{url}{API}/trial-jobs", {"Origin": f"http://{name}"}) == 200
    for method, path, headers in [
        ("GET", f"/trial-file/{trial}/{climb}etc%2fpasswd", {}),
        ("GET", f"/trial-file/{trial}/{climb.replace('.', '%2e')}etc%2fpasswd", {}),
        ("POST", "/experiment", {}),
        ("POST", "/experiment?again=1", {}),
        ("PUT", "/experiment/cluster-metadata", {}),
        ("GET", "/trial-jobs", {"Host": "evil.example"}),  # a name that its owner lets lead here
        ("GET", "/trial-jobs", {"Host": f"127.0.0.1.evil.example:{name.split(':')[1]}"}),
        ("POST", "/trial-jobs", {"Origin": foreign}),
        ("POST", "/trial-jobs", {"Origin": "null"}),
        ("POST", "/trial-jobs", {"Sec-Fetch-Site": "cross-site"}),
        ("POST", "/trial-jobs", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}),
        ("POST", "/trial-jobs", {"Sec-Fetch-Site": "same-site", "Origin": f"http://{name}"}),
        ("DELETE", f"/trial-jobs/{trial}", {"Origin": foreign}),
    ]:
        assert asked(method, f"{url}{API}{path}", headers) == 403, (method, path, headers)
    assert not is_upgraded(name, foreign)
    assert store.read_config(one.directory)["trialCommand"].endswith("quick_trial.py")
    assert [trial.nni_status for trial in one.trials()] == ["RUNNING"] * 2


def asked(method: str, url: str, headers: dict[str, str]) -> int:
    """The answer's status. The path is sent as it is."""
    request = requests.Request(method, url, headers=headers, json=None if method == "GET" else ATTACK).prepare()
    request.url = url
    with requests.Session() as session:
        return session.send(request, timeout=10).status_code


def is_upgraded(name: str, origin: str) -> bool:
    """Whether a page of that origin may take the tuner's place at the manager's web socket."""
    host, port = name.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            f"GET /tuner HTTP/1.1\r\nHost: {name}\r\nOrigin: {origin}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        return connection.recv(100).startswith(b"HTTP/1.1 101")


@pytest.fixture
def neighbour() -> Iterator[tuple[str, list[str]]]:
    """This machine's address for another one beside it, and the words that run a command there."""
    name = f"cifar{os.getpid()}"
    inside = ["ip", "netns", "exec", name]
    commands = [
        ["ip", "netns", "add", name],
        ["ip", "link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name],
        ["ip", "address", "add", "198.18.77.1/30", "dev", f"{name}a"],
        ["ip", "link", "set", f"{name}a", "up"],
        [*inside, "ip", "address", "add", "198.18.77.2/30", "dev", f"{name}b"],
        [*inside, "ip", "link", "set", f"{name}b", "up"],
    ]
    try:
        for command in commands:
            subprocess.run(command, check=True, capture_output=True)
        yield "198.18.77.1", inside
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


@NETWORK
def test_another_machine_reaches_nothing_of_a_search(
    running: tuple[Search, str], neighbour: tuple[str, list[str]]
) -> None:
    address, inside = neighbour
    port = int(running[1].rsplit(":", 1)[1])
    with socket.create_server((address, 0)) as control:  # what listens there is reached
        assert reaches(inside, address, control.getsockname()[1])
    assert not reaches(inside, address, port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, port), timeout=10).close()


def reaches(inside: list[str], address: str, port: int) -> bool:
    connect = f"import socket; socket.create_connection(({address!r}, {port}), timeout=10)"
    run = subprocess.run([*inside, "python3", "-c", connect], capture_output=True, text=True)
    assert run.returncode == 0 or "Error: " in run.stderr, run.stderr
    return run.returncode == 0
