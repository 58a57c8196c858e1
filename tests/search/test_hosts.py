"""The file that names hosts, and what is made of it; what needs real machines is in tests/remote."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from experiments import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cifar.errors import RequestError
from cifar.search import forecast
from cifar.search.forecast import Throughput
from cifar.search.remote import host, hosts
from cifar.search.remote.host import Host
from cifar.search.remote.hosts import with_environment
from cifar.search.remote.install import install

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
names = st.sampled_from(["host", "user", "key", "python", "port"])
entries = st.dictionaries(names | st.text(max_size=3), values, max_size=6)
any_path = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def entry(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "key").touch()
    return {"host": "gpu1", "user": "me", "key": str(tmp_path / "key"), "python": "/opt/cifar/bin"}


def read(tmp_path: Path, content: object) -> list[Host]:
    path = tmp_path / "hosts.yml"
    path.write_text(yaml.safe_dump(content))
    return host.read(path)


def test_hosts_are_read_and_named(tmp_path: Path, entry: dict[str, Any]) -> None:
    first, second = read(tmp_path, [entry, entry | {"port": 2222}])
    assert (first.name, second.name) == ("gpu1:22", "gpu1:2222")
    assert second.machine() == {
        "host": "gpu1",
        "port": 2222,
        "user": "me",
        "ssh_key_file": entry["key"],
        "python_path": "/opt/cifar/bin",
    }


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"port": 0}, "host 'gpu1': port must be from 1 to 65535, got 0"),
        ({"port": True}, "host 'gpu1': port must be from 1 to 65535, got True"),
        ({"user": "-oProxyCommand=owned"}, "host 'gpu1': user must be a text, got '-oProxyCommand=owned'"),
        ({"host": "-oProxyCommand=owned"}, "host '-oProxyCommand=owned': host must be a text"),
        ({"python": ""}, "host 'gpu1': python must be a text, got ''"),
        ({"key": "/nowhere/key"}, "host 'gpu1': there is no key file /nowhere/key"),
        ({"key": "~nobody-has-this-name/key"}, "host 'gpu1': there is no key file ~nobody-has-this-name/key"),
        ({"password": "x"}, "a host must have host, user, key, python, port (port may be left out), got "),
    ],
)
def test_what_is_wrong_with_a_host_is_said(
    tmp_path: Path, entry: dict[str, Any], change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RequestError) as refusal:
        read(tmp_path, [entry | change])
    assert str(refusal.value).startswith(sentence)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path, entry: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as refusal:
        read(tmp_path, [entry, entry, entry | {"port": -1}, "gpu2"])
    first, second, third = str(refusal.value).splitlines()
    assert "port must be from 1 to 65535, got -1" in first
    assert "got 'gpu2'" in second
    assert third == "hosts must differ, got gpu1:22 more than once"


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"- [", b"\xff\xfe\0", b"a: &a [*a]"])
def test_what_is_no_list_of_hosts_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "hosts.yml"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=r"--hosts .*hosts\.yml"):
        host.read(path)
    with pytest.raises(RequestError, match="No such file"):
        host.read(tmp_path / "nowhere.yml")


@given(content=st.binary(max_size=60) | st.lists(entries | values, max_size=3))
@any_path
def test_any_file_gives_hosts_or_a_sentence(tmp_path: Path, content: bytes | list[Any]) -> None:
    path = tmp_path / "hosts.yml"
    path.write_bytes(content if isinstance(content, bytes) else yaml.safe_dump(content).encode())
    with contextlib.suppress(RequestError):
        assert host.read(path)


@given(words=st.lists(st.text(min_size=1).filter(lambda word: "=" not in word), min_size=1), value=st.text())
def test_a_command_gets_its_variables_once(words: list[str], value: str) -> None:
    command = shlex.join(["python", *words])
    first = with_environment(command, {"A": "old", "B": "old"})
    again = with_environment(first, {"A": value})
    assert shlex.split(again) == ["env", f"A={value}", "python", *words]


@pytest.mark.parametrize(
    ("trials", "shares"),
    [(1, {"a": 1}), (2, {"a": 1, "b": 1}), (4, {"a": 2, "b": 1, "c": 1}), (6, dict.fromkeys("abc", 2))],
)
def test_trials_are_shared_among_the_hosts(trials: int, shares: dict[str, int]) -> None:
    assert dict(hosts.shares("abc", trials)) == shares


def test_hosts_together_are_as_fast_as_the_sum_of_them() -> None:
    both = forecast.together([Throughput(2, 10.0, 0.1, 500), Throughput(1, 30.0, 0.4, 300)])
    assert both.trials_per_hour == pytest.approx(720 + 120)
    assert (both.concurrency, both.largest_step_seconds, both.largest_bytes) == (3, 0.4, 500)


def test_trials_on_this_machine_have_no_hosts_to_install_on() -> None:
    assert host.of(SimpleNamespace(training_service=SimpleNamespace(platform="local"))) == []
    with pytest.raises(RequestError, match="--install is for hosts, and trials run on this machine"):
        install([])


def fetched(experiment: Path, behaviour: str) -> str:
    """What is said of fetching a trial's files from an SFTP server that behaves so."""
    nni_node = Path(str(files("nni_node")))
    node, script = (
        shutil.which("node", path=str(nni_node)) or nni_node / "node",
        Path(__file__).with_name("lying_host.js"),
    )
    fetch = ROOT / "cifar" / "search" / "nni_patches" / "fetch.js"
    command = [str(node), str(script), str(nni_node), str(fetch), str(experiment), behaviour]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


def test_what_a_host_sends_stays_in_the_experiment(tmp_path: Path) -> None:
    experiment = tmp_path / "a" / "b" / "c" / "experiment"
    experiment.mkdir(parents=True)
    assert fetched(experiment, "climbs") == "fetched"
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {
        "a/b/c/experiment/models/0.9-abcde.safetensors",
        "a/b/c/experiment/trials/abcde/output/tensorboard/events.out.1",
        "a/b/c/experiment/environments/local-env/trials/abcde/result.json",
    }


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("lacks", "fetched"),  # a trial that left nothing
        ("fails", "Error: Failure"),
        ("stalls", "Error: no answer"),
        ("swells", f"Error: /home/nni/EXP/trials/abcde/output/tensorboard/events.out.1 has {2**40} bytes"),
    ],
)
def test_a_host_that_cannot_give_a_trials_files_is_noticed(tmp_path: Path, behaviour: str, said: str) -> None:
    assert fetched(tmp_path, behaviour) == said
    assert not [path for path in tmp_path.rglob("*.*") if not path.name.endswith(".part")]


@pytest.mark.parametrize("python", ["venv/bin", "/opt/venv", "/usr/bin"])
def test_what_is_no_environment_is_not_installed_into(entry: dict[str, Any], python: str) -> None:
    with pytest.raises(RequestError, match="python must be the bin of an environment of its own, got"):
        install([Host(**entry | {"python": python})])
