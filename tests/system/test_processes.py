"""Processes that a command starts, and ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection

import psutil
import pytest
from experiments import ROOT

from cifar.system.processes import spawned, spawner

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")

_SLEEP = (
    "import sys, time; from cifar.system.processes import spawned, spawner\n"
    "with spawner('json'), spawned(time.sleep, [(600,)], 1.0) as [child]:\n"
    "    print(child.pid, flush=True); sys.stdin.read()"
)


def tell(connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    connection.send(("colorsys" in sys.modules, signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])))
    signal.pause()


def told() -> tuple[bool, bool]:
    here, there = multiprocessing.Pipe()
    with spawned(tell, [(there,)], stop_seconds=5.0):
        return here.recv()  # type: ignore[no-any-return]


def test_what_is_spawned_has_imported_what_its_spawner_has_and_can_be_interrupted() -> None:
    with spawner("colorsys"):
        assert told() == (True, False)
    assert told() == (False, False)


def test_what_is_spawned_says_nothing_when_it_is_interrupted(capfd: pytest.CaptureFixture[str]) -> None:
    with spawned(time.sleep, [(600,)], stop_seconds=5.0) as [child]:
        assert child.pid
        time.sleep(1.0)
        os.kill(child.pid, signal.SIGINT)
        child.join(10)
    assert child.exitcode == 128 + signal.SIGINT
    assert "Traceback" not in capfd.readouterr().err


def test_what_is_spawned_may_end_before_its_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with spawner("colorsys"), spawned(time.sleep, [(0,)], stop_seconds=5.0) as [child]:
        child.join(10)
        monkeypatch.setattr(type(child), "is_alive", lambda _: True)  # as between its end and the forkserver's word
    assert child.exitcode == 0


def test_a_spawner_that_nobody_needs_costs_no_time_and_leaves_no_process() -> None:
    with spawner("cifar.search.forecast"):  # which takes seconds to import
        began = time.monotonic()
    assert time.monotonic() - began < 1.0
    assert not [child for child in psutil.Process().children() if "forkserver" in " ".join(child.cmdline())]


def test_what_is_spawned_ends_with_the_command_that_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _SLEEP], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout
        child = psutil.Process(int(command.stdout.readline()))
        command.send_signal(signal.SIGKILL)
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_an_interrupt_while_the_spawner_imports_says_nothing() -> None:
    script = (
        "import sys, time; from cifar.system.processes import spawner\n"
        "with spawner('cifar.search.forecast'):\n"
        "    print('importing', flush=True)\n"
        "    try: sys.stdin.read()\n"
        "    except KeyboardInterrupt: time.sleep(1)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as command:
        assert command.stdout and command.stderr
        command.stdout.readline()
        time.sleep(0.5)  # the spawner's own interpreter has begun by then
        os.killpg(command.pid, signal.SIGINT)
        assert command.stderr.read() == ""
