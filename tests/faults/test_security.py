"""Nobody gets in, and nothing gets out: NNI's server, foreign files, secrets."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from urllib.parse import urlsplit

import pytest
from conftest import MakeFolder, Record
from experiments import ROOT, Search, Start, change_config, free_port
from playwright.sync_api import sync_playwright

from cifar.data import datasets
from cifar.trials import store

CHROMIUM = shutil.which("chromium")
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


def test_the_server_does_only_what_its_page_and_its_trials_ask(running: tuple[Search, str], record: Record) -> None:
    one, url = running
    trial = one.trials()[0].id
    name = url.removeprefix("http://")
    foreign = "http://evil.example"
    climb = "..%2f" * 12
    assert asked("GET", f"{url}{API}/trial-jobs", {}) == 200
    assert asked("GET", f"{url}/index.html", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}) == 200
    assert asked("GET", f"{url}{API}/trial-jobs", {"Sec-Fetch-Site": "same-origin"}) == 200
    assert asked("GET", f"{url}{API}/trial-jobs", {"Origin": f"http://{name}"}) == 200
    attacks: list[tuple[str, str, dict[str, str]]] = [
        ("GET", f"/trial-file/{trial}/{climb}etc%2fpasswd", {}),
        ("GET", f"/trial-file/{trial}/{climb.replace('.', '%2e')}etc%2fpasswd", {}),
        ("GET", f"/trial-file/{trial}/%3f%2f{climb}etc%2fpasswd", {}),  # a question mark that begins no query
        ("POST", "/experiment", {}),
        ("POST", "/experiment/", {}),  # the same to the server
        ("POST", "/Experiment", {}),
        ("PUT", "/experiment/Cluster-Metadata/", {}),
        ("POST", "/experiment?again=1", {}),
        ("PUT", "/experiment/cluster-metadata", {}),
        ("POST", "/experiment#x", {}),  # where the server's own reading of a path ends
        ("PUT", "/experiment/cluster-metadata#x", {}),
        ("PUT", "/experiment/cluster-metadata\xa0", {}),
        ("PUT", "/experiment/cluster-metadata\x0c", {}),
        ("GET", "/trial-jobs", {"Host": "evil.example"}),  # a name that its owner lets lead here
        ("GET", "/trial-jobs", {"Host": f"127.0.0.1.evil.example:{name.split(':')[1]}"}),
        ("POST", "/trial-jobs", {"Origin": foreign}),
        ("POST", "/trial-jobs", {"Origin": "null"}),
        ("POST", "/trial-jobs", {"Sec-Fetch-Site": "cross-site"}),
        ("POST", "/trial-jobs", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}),
        ("POST", "/trial-jobs", {"Sec-Fetch-Site": "same-site", "Origin": f"http://{name}"}),
        ("DELETE", f"/trial-jobs/{trial}", {"Origin": foreign}),
    ]
    for method, path, headers in attacks:
        assert asked(method, f"{url}{API}{path}", headers) == 403, (method, path, headers)
    assert not is_upgraded(name, foreign)
    assert asked("POST", f"{url}{API}/tensorboard", {}, {"trials": "../../../climbed"}) == 400
    assert asked("GET", f"{url}{API}/tensorboard-tasks", {}) == 200
    assert not list(one.directory.parents[1].glob("**/climbed"))
    assert store.read_config(one.directory)["trialCommand"].endswith("quick_trial.py")
    assert [trial.nni_status for trial in one.trials()] == ["RUNNING"] * 2
    record(len(attacks) + 2)


def asked(method: str, url: str, headers: dict[str, str], body: object = ATTACK) -> int:
    """The answer's status. The path is sent as it is, of whatever bytes."""
    _, _, name, path = url.split("/", 3)
    content = b"" if method == "GET" else json.dumps(body).encode()
    sent = {"Host": name, "Content-Type": "application/json", "Content-Length": str(len(content))} | headers
    lines = [f"{method} /{path} HTTP/1.0", *(f"{key}: {value}" for key, value in sent.items()), "", ""]
    host, port = name.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall("\r\n".join(lines).encode("latin-1") + content)
        answer = connection.makefile("rb").readline()
    return int(answer.split()[1])


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
@pytest.mark.slow
def test_another_machine_reaches_nothing_of_a_search(
    running: tuple[Search, str], neighbour: tuple[str, list[str]], record: Record
) -> None:
    address, inside = neighbour
    port = int(running[1].rsplit(":", 1)[1])
    with socket.create_server((address, 0)) as control:  # what listens there is reached
        assert reaches(inside, address, control.getsockname()[1])
    assert not reaches(inside, address, port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, port), timeout=10).close()
    record(2)


def reaches(inside: list[str], address: str, port: int) -> bool:
    connect = f"import socket; socket.create_connection(({address!r}, {port}), timeout=10)"
    run = subprocess.run([*inside, "python3", "-c", connect], capture_output=True, text=True)
    assert run.returncode == 0 or "Error: " in run.stderr, run.stderr
    return run.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("fails", [False, True], ids=["trials end well", "trials fail"])
def test_no_secret_of_the_environment_reaches_a_file(
    search: Start, config_path: Path, tmp_path: Path, record: Record, fails: bool
) -> None:
    """Of trials that fail, reports quote the last words."""
    secret, report = "hunter2-is-not-for-anybodys-eyes", tmp_path / "report.html"
    if fails:
        (tmp_path / "code").mkdir()
        (tmp_path / "code" / "failing.py").write_text("raise LookupError('these are its last words')")
        change_config(config_path, trialCommand="python failing.py", trialCodeDirectory=str(tmp_path / "code"))
    one = search("--data", "digits", "--max-trials", "3", "--tuner", "Random", CLOUD_TOKEN=secret)
    assert one.wait(120) == int(fails), one.err
    assert ("these are its last words" in one.err) == fails
    command = [sys.executable, "-m", "cifar", "report", one.id, "--config", str(config_path), "--out", str(report)]
    run = subprocess.run(command, cwd=ROOT, env=os.environ | {"CLOUD_TOKEN": secret}, capture_output=True)
    assert report.exists() != fails, run.stderr  # of trials that all failed there is none
    said = [one.out.encode(), one.err.encode(), run.stdout, run.stderr]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"trial.stderr", "nnimanager.log", "nni.sqlite", "search.json"} <= {path.name for path in written}
    assert len(written) > (15 if fails else 20)  # trials that fail at once leave less
    assert not [path for path in written if secret.encode() in path.read_bytes()]
    assert not [text for text in said if secret.encode() in text]
    record(1)


STRANGE = ["...", "~", "$HOME", "a\\..\\b", "%2e%2e", "..\n", "-rf", "x" * 250]


@pytest.mark.parametrize("name", STRANGE)
def test_a_folder_is_only_read_and_what_is_decoded_stays_in_the_cache(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, record: Record
) -> None:
    folder, cache = make_folder({f"class {name[:99]}": 5, "dog": 5}, name=name), tmp_path / "cache"
    before = files(tmp_path)
    monkeypatch.setenv("CIFAR_CACHE", str(cache))
    datasets.load(str(folder))
    assert {path: size for path, size in files(tmp_path).items() if cache not in path.parents} == before
    (entry,) = cache.glob("*/train-*/images.npy")
    assert re.fullmatch(r"folder-[A-Za-z0-9_-]*-[0-9a-f]{8}", entry.parent.parent.name)
    record(1)


def files(directory: Path) -> dict[Path, int]:
    return {path: path.stat().st_size for path in directory.rglob("*") if path.is_file()}


SSH = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("/usr/sbin/sshd") is None, reason="needs root and Debian's openssh-server"
)
PROXY = pytest.mark.skipif(shutil.which("/usr/sbin/nginx") is None, reason="needs nginx (Debian's package nginx-light)")


@contextmanager
def server(command: list[str], port: int) -> Iterator[None]:
    """A server in the foreground, while the block lasts."""
    with TemporaryFile("w+") as said, subprocess.Popen(command, stdout=said, stderr=said) as process:
        try:
            deadline = time.monotonic() + 20
            while not listens(port):
                said.seek(0)
                assert process.poll() is None and time.monotonic() < deadline, said.read()
                time.sleep(0.1)
            yield
        finally:
            process.terminate()


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@SSH
@pytest.mark.slow
def test_the_page_is_reached_through_an_ssh_tunnel_alone(
    running: tuple[Search, str], tmp_path: Path, record: Record
) -> None:
    key, host_key, known = tmp_path / "key", tmp_path / "host_key", tmp_path / "known_hosts"
    for path in (key, host_key):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    (tmp_path / "authorized_keys").write_bytes(key.with_suffix(".pub").read_bytes())
    Path("/run/sshd").mkdir(exist_ok=True)
    door, port = free_port(), free_port()
    options = {
        "HostKey": host_key, "AuthorizedKeysFile": tmp_path / "authorized_keys", "StrictModes": "no", "PidFile": "none",
        "PasswordAuthentication": "no", "ListenAddress": f"127.0.0.1:{door}", "UsePAM": "no",
    }  # fmt: skip
    sshd = ["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", *(f"-o{name}={value}" for name, value in options.items())]
    tunnel = ["ssh", "-N", "-F", "none", "-i", str(key), "-o", f"UserKnownHostsFile={known}"]
    tunnel += ["-o", "StrictHostKeyChecking=accept-new", "-p", str(door)]
    tunnel += ["-L", f"{port}:{running[1].removeprefix('http://')}", "root@127.0.0.1"]
    with server(sshd, door), server(tunnel, port):
        assert asked("GET", f"http://127.0.0.1:{port}{API}/check-status", {}) == 200
        assert asked("GET", f"http://localhost:{port}/oview", {}) == 200
        assert asked("POST", f"http://127.0.0.1:{port}{API}/experiment", {}) == 403
    record(1)


NGINX = """
daemon off; user root; pid {home}/nginx.pid; error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  server {{
    listen 127.0.0.1:{port};
{location}
  }}
}}
"""


@PROXY
@pytest.mark.slow
def test_the_page_is_shown_behind_a_password_under_a_prefix(
    running: tuple[Search, str], tmp_path: Path, record: Record
) -> None:
    """With the lines that SECURITY.md gives."""
    one, url = running
    port, home = free_port(), tmp_path / "nginx"
    home.mkdir(mode=0o755)
    found = re.search(r"```nginx\n(.*?)```", (ROOT / "SECURITY.md").read_text(), re.DOTALL)
    assert found
    location = found[1].replace("/etc/nginx/nni.password", str(home / "password"))
    location = location.replace("127.0.0.1:8080", url.removeprefix("http://"))
    hashed = subprocess.run(["openssl", "passwd", "-apr1", "secret"], check=True, capture_output=True, text=True)
    (home / "password").write_text(f"me:{hashed.stdout}")
    (home / "nginx.conf").write_text(NGINX.format(home=home, port=port, location=location))
    proxied = f"http://127.0.0.1:{port}/nni"
    with server(["/usr/sbin/nginx", "-c", str(home / "nginx.conf"), "-p", str(home)], port):
        assert asked("GET", f"{proxied}/", {}) == 401
        password = {"Authorization": "Basic " + base64.b64encode(b"me:secret").decode()}
        assert asked("GET", f"{proxied}{API}/check-status", password) == 200
        foreign = {"Sec-Fetch-Site": "cross-site", "Origin": "http://evil.example"}
        assert asked("POST", f"{proxied}{API}/trial-jobs", password | foreign) == 403
        assert asked("PUT", f"{proxied}{API}/experiment/cluster-metadata", password) == 403
        if CHROMIUM:
            assert rows_shown(f"{proxied}/detail", tmp_path / "proxied.png") == len(one.trials())
    record(1)


def rows_shown(url: str, picture: Path) -> int:
    """How many trials NNI's page lists there."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(http_credentials={"username": "me", "password": "secret"})
        page.route(lambda address: urlsplit(address).hostname != "127.0.0.1", lambda route: route.abort())
        page.goto(url)
        page.wait_for_selector(".ms-DetailsRow")
        page.screenshot(path=picture)
        rows = page.locator(".ms-DetailsRow").count()
        browser.close()
    return rows
