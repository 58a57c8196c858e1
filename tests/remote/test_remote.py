"""A search on two machines, with real sshd servers: pairs right, results complete, a lost machine survived."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from experiments import (
    BIN,
    Search,
    Start,
    assert_numbered_and_paired,
    change_config,
    nothing_is_left,
    wait_until_gone,
)
from machines import MISSING, Machine, generate, two_machines, wait_for

from cifar.trials import layout, top_models
from cifar.trials.store import best_first

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MISSING, reason="needs root, and Debian's iproute2 and openssh-server"),
]


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Machine]]:
    with two_machines(tmp_path) as started:
        yield started


@pytest.fixture
def hosts_path(machines: list[Machine], tmp_path: Path) -> Path:
    path = tmp_path / "hosts.yml"
    path.write_text(yaml.safe_dump([machine.entry() for machine in machines]))
    return path


@pytest.fixture
def remote_search(search: Start, hosts_path: Path, config_path: Path) -> Start:
    """Four trials at once on the two machines together."""
    change_config(config_path, trialConcurrency=4)
    return lambda *arguments, **environment: search("--hosts", str(hosts_path), *arguments, **environment)


def trials_on(machine: Machine) -> set[str]:
    return {path.name for path in machine.home.glob("nni-experiments/*/environments/*/trials/*")}


def assert_complete(one: Search, trials: int) -> None:
    """All that a trial leaves has come back, whichever machine it ran on."""
    assert f"{trials} trials: {trials} ok" in one.out
    assert_numbered_and_paired(one)
    for trial in one.trials():
        assert trial.result is not None and trial.result["params_are_recorded"]
        assert {name: trial.result["hparams"][name] for name in trial.params} == trial.params
        left = layout.trial_directory(one.directory, trial.id)
        assert (left / "validation.npz").exists() and (left / "trial.log").exists()
        assert list(layout.tensorboard_directory(one.directory, trial.id).iterdir())
    assert len(top_models.best(one.directory)) == min(trials, top_models.KEPT)
    assert top_models.find(one.directory, best_first(one.trials())[0].id)


def wait_until_training(machine: Machine) -> None:
    """Until a trial has begun there that has not ended."""
    deadline = time.monotonic() + 60
    while not [
        path for path in machine.home.glob("**/trials/*/params.json") if not (path.parent / "result.json").exists()
    ]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_until_idle(machines: list[Machine]) -> None:
    """Until nothing runs there but the server that was started with it."""
    deadline = time.monotonic() + 60
    while left := [
        process.cmdline() for machine in machines for process in machine.processes() if "sshd" not in process.name()
    ]:
        assert time.monotonic() < deadline, left
        time.sleep(0.5)


def listening(machine: Machine) -> set[str]:
    """Addresses that something listens at, without the server's."""
    listed = subprocess.run([*machine.inside, "ss", "-Hltn"], capture_output=True, text=True, check=True).stdout
    return {line.split()[3].rsplit(":", 1)[0] for line in listed.splitlines()} - {machine.address}


def test_a_search_on_two_machines(remote_search: Start, machines: list[Machine], tmp_path: Path) -> None:
    one = remote_search("--data", "digits", "--max-trials", "8")
    one.wait_until_started(3)
    port = one.manager().net_connections()[0].laddr.port
    for machine in machines:
        assert listening(machine) <= {"127.0.0.1", "[::1]"}  # the way to the manager, and NNI's keeper
        connect = f"import socket; socket.create_connection(({machine.gateway!r}, {port}), timeout=5)"
        reached = subprocess.run([*machine.inside, sys.executable, "-c", connect], capture_output=True, text=True)
        assert "refused" in reached.stderr
    assert one.wait(300) == 0, one.err
    assert_complete(one, 8)
    assert all(trials_on(machine) for machine in machines)
    code = {path.name for path in machines[0].home.glob("nni-experiments/*/environments/*/upload/trial_code/*")}
    assert code == {"trial.py", "cifar"}
    wait_until_idle(machines)
    assert nothing_is_left(tmp_path)


@pytest.mark.parametrize("lose", [Machine.crash, Machine.die], ids=["power fails", "processes killed"])
def test_a_machine_that_is_lost_costs_no_trial(
    remote_search: Start, machines: list[Machine], config_path: Path, lose: Callable[[Machine], None]
) -> None:
    images = os.environ.get("CIFAR_IMAGES")
    change_config(config_path, trialCommand="python trial.py --epochs 4 --images-per-epoch 1000")
    one = remote_search("--data", images or "digits", "--max-trials", "24")
    one.wait_until_ended(10)
    wait_until_training(machines[0])
    lose(machines[0])
    before = trials_on(machines[1])
    assert one.wait(400) == 0, one.err
    assert_complete(one, 24)
    log = (one.directory / "log" / "nnimanager.log").read_text()
    assert f"host {machines[0].address}:22 is lost" in log
    again = re.findall(r"trial (\w+) runs again on", log)
    assert again and set(again) <= trials_on(machines[0]) & trials_on(machines[1]) - before
    wait_until_idle(machines[1:])


def test_a_search_that_loses_its_last_machine_goes_on_with_another(
    remote_search: Start, search: Start, machines: list[Machine], hosts_path: Path, tmp_path: Path
) -> None:
    hosts_path.write_text(yaml.safe_dump([machines[0].entry()]))
    one = remote_search("--data", "digits", "--max-trials", "6")
    one.wait_until_ended(2)
    machines[0].crash()
    assert one.wait(180) == 1, one.err
    assert f"host {machines[0].address}:22 is lost, with " in one.err
    assert "no host is left" in one.err
    assert nothing_is_left(tmp_path)
    refused = search("--resume", one.id)
    assert refused.wait() == 2
    assert f"error: host {machines[0].address}:22: " in refused.err
    hosts_path.write_text(yaml.safe_dump([machines[1].entry()]))
    resumed = search("--resume", one.id, "--hosts", str(hosts_path))
    assert resumed.wait(300) == 0, resumed.err
    assert_complete(resumed, 6)


def test_a_connection_that_is_cut_costs_no_trial(
    remote_search: Start, machines: list[Machine], hosts_path: Path
) -> None:
    """The same machine takes its trials again, after what still ran there has been ended."""
    hosts_path.write_text(yaml.safe_dump([machines[0].entry()]))
    one = remote_search("--data", "digits", "--max-trials", "6", "--epochs", "20")
    one.wait_until_ended(2)
    machines[0].hang_up()
    assert one.wait(300) == 0, one.err
    assert f"host {machines[0].address}:22 is lost, with " in one.err
    assert_complete(one, 6)
    wait_until_idle(machines)


def test_a_killed_search_leaves_nothing_on_the_machines(
    remote_search: Start, machines: list[Machine], tmp_path: Path
) -> None:
    one = remote_search("--data", "digits", "--max-trials", "8", "--epochs", "1000")
    one.wait_until_started(4)
    one.process.kill()
    one.process.wait()
    wait_until_gone(tmp_path)
    wait_until_idle(machines)


def test_a_search_whose_manager_is_killed_resumes(search: Start, machines: list[Machine], config_path: Path) -> None:
    """Its machines are named in the config, in NNI's own way."""
    listed = [
        {"host": machine.address, "user": "root", "sshKeyFile": str(machine.key), "pythonPath": str(BIN)}
        for machine in machines
    ]
    change_config(config_path, trialConcurrency=4, trainingService={"platform": "remote", "machineList": listed})
    one = search("--data", "digits", "--max-trials", "8")
    one.wait_until_ended(2)
    one.manager().kill()
    assert one.wait(60) == 1, one.err
    wait_until_idle(machines)
    resumed = search("--resume", one.id)
    assert resumed.wait(300) == 0, resumed.err
    assert_complete(resumed, 8)


def test_what_is_wrong_with_the_machines_is_said_before_anything_starts(
    search: Start, machines: list[Machine], hosts_path: Path, tmp_path: Path
) -> None:
    first, second = (machine.entry() for machine in machines)
    known = Path.home() / ".ssh" / "known_hosts"
    lines = known.read_text()
    wrong: dict[str, list[dict[str, object]]] = {
        "this project is not installed for /usr/bin/python, which --install does": [first | {"python": "/usr/bin"}],
        "Permission denied": [first | {"user": "nobody"}, second],
        "timed out": [first | {"host": "198.18.80.10"}],  # nobody's
        "hosts must differ, got 198.18.80.2:22 more than once": [first, first],
    }
    for sentence, entries in wrong.items():
        hosts_path.write_text(yaml.safe_dump(entries))
        refused = search("--data", "digits", "--hosts", str(hosts_path))
        assert refused.wait() == 2, refused.err
        assert sentence in refused.err, refused.err
        assert "Traceback" not in refused.err
    hosts_path.write_text(yaml.safe_dump([first]))
    known.write_text(lines.replace(machines[0].address, "198.18.80.9"))
    refused = search("--data", "digits", "--hosts", str(hosts_path))
    assert refused.wait() == 2
    assert "its key is not known here; compare it and accept it once: ssh -p 22 root@198.18.80.2" in refused.err
    known.write_text(lines)
    assert not (tmp_path / "experiments").exists()


def test_a_machine_without_the_project_is_given_it(
    remote_search: Start, machines: list[Machine], hosts_path: Path
) -> None:
    """But for the packages that it needs, which that machine has: no package index can be reached from there."""
    machine = machines[0]
    packages = Path(torch.__file__).parents[1]
    machine.environment = f"PATH={BIN}:/usr/bin:/bin PYTHONPATH={packages} PIP_NO_INDEX=1 PIP_NO_BUILD_ISOLATION=0"
    machine.restart_sshd()
    wait_for([machine])
    environment = machine.home / "made" / "here"
    hosts_path.write_text(yaml.safe_dump([machine.entry() | {"python": str(environment / "bin")}]))
    refused = remote_search("--data", "digits")
    assert refused.wait() == 2
    assert f"this project is not installed for {environment}/bin/python, which --install does" in refused.err
    one = remote_search("--data", "digits", "--install", "--max-trials", "4")
    assert one.wait(300) == 0, one.err
    assert f"installing on {machine.address}:22" in one.err
    assert_complete(one, 4)
    assert list(environment.glob("lib/python*/site-packages/cifar/search/nni_patches/guard.js"))


def test_what_a_machines_sshd_does_not_offer_is_said_before_anything_starts(
    search: Start, machines: list[Machine], hosts_path: Path, tmp_path: Path
) -> None:
    machine = machines[0]
    hosts_path.write_text(yaml.safe_dump([machine.entry()]))
    offers = {
        "its sshd forwards no port (AllowTcpForwarding)": {"AllowTcpForwarding": "no"},
        "its sshd opens forwarded ports to the network (": {"GatewayPorts": "yes"},
        "its sshd has no sftp": {"Subsystem": "sftp /nowhere"},
    }
    for sentence, options in offers.items():
        machine.options = options
        machine.restart_sshd()
        wait_for([machine])
        refused = search("--data", "digits", "--hosts", str(hosts_path))
        assert refused.wait() == 2, refused.err
        assert sentence in refused.err, refused.err
    assert not (tmp_path / "experiments").exists()


def test_nni_trusts_no_other_key_than_ssh_does(remote_search: Start, machines: list[Machine]) -> None:
    """Between the check and NNI's own connection somebody takes the machine's place."""
    one = remote_search("--data", "digits", "--max-trials", "4")
    one.wait_for("measuring how fast")
    impostor = machines[1]
    (impostor.home / "host_key").unlink()
    generate(impostor.home / "host_key")
    impostor.restart_sshd()
    assert one.wait(120) != 0
    assert "Host denied (verification failed)" in one.err or "Host key verification failed" in one.err, one.err
