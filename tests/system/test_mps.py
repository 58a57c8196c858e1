"""NVIDIA's MPS, played by a program that takes its commands as the real one does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from experiments import ROOT

from cifar.system import mps
from cifar.system.gpus import Gpu
from cifar.system.processes import is_alive

GPUS = [Gpu("GPU-1", "NVIDIA H200", 0)]

# Like the real one: -f serves in the foreground, otherwise commands are read from standard input. It starts a server
# of its own, and ends with it when it is told to quit.
CONTROL = f"""#!{sys.executable}
import os, pathlib, subprocess, sys, time
pipes = pathlib.Path(os.environ["CUDA_MPS_PIPE_DIRECTORY"])
if sys.argv[1:] == ["-f"]:
    server = subprocess.Popen(["sleep", "600"])
    (pipes / "control").write_text(str(server.pid))
    while not (pipes / "quit").exists():
        time.sleep(0.02)
    server.kill()
    server.wait()
else:
    command = sys.stdin.read()
    if not (pipes / "control").exists():
        sys.exit("Cannot find MPS control daemon process")
    if command == "quit\\n":
        (pipes / "quit").touch()
"""


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    program = tmp_path / "bin" / "nvidia-cuda-mps-control"
    program.parent.mkdir()
    program.write_text(CONTROL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    monkeypatch.setattr(mps, "_USUAL_PIPES", str(tmp_path / "usual"))
    yield program
    assert not list(tmp_path.glob("cifar-mps-*"))
    assert not [one for one in psutil.Process().children(recursive=True) if one.name() == "sleep" and is_alive(one)]


def test_an_mps_is_there_while_the_block_lasts_in_a_directory_of_its_own(control: Path) -> None:
    with mps.started(GPUS) as variables:
        directory = Path(variables["CUDA_MPS_PIPE_DIRECTORY"])
        assert variables == {name: str(directory) for name in ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY")}
        assert directory.stat().st_mode & 0o777 == 0o700
        assert psutil.pid_exists(int((directory / "control").read_text()))
    assert not directory.exists()


@pytest.mark.usefixtures("control")
def test_an_mps_ends_also_where_the_block_is_interrupted() -> None:
    with pytest.raises(KeyboardInterrupt), mps.started(GPUS) as variables:
        server = int((Path(variables["CUDA_MPS_PIPE_DIRECTORY"]) / "control").read_text())
        raise KeyboardInterrupt
    assert not psutil.pid_exists(server)


def test_an_mps_that_will_not_quit_is_killed(control: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control.write_text(CONTROL.replace(".touch()", ".exists()"))
    monkeypatch.setattr(mps, "_QUIT_SECONDS", 0.5)
    with mps.started(GPUS) as variables:
        server = psutil.Process(int((Path(variables["CUDA_MPS_PIPE_DIRECTORY"]) / "control").read_text()))
    assert not is_alive(server)


@pytest.mark.parametrize("broken", ["exit 1", "sleep 600"])
def test_an_mps_that_does_not_start_is_done_without(
    control: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    control.write_text(f"#!/bin/sh\n{broken}\n")
    monkeypatch.setattr(mps, "_START_SECONDS", 0.5)
    monkeypatch.setattr(mps, "_QUIT_SECONDS", 0.5)
    with mps.started(GPUS) as variables:
        assert variables == {}


def test_where_there_can_be_none_it_says_why(control: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mps.why_not(GPUS) is None
    assert mps.why_not([]) == "there is no GPU"
    assert mps.why_not([Gpu("MIG-1", "NVIDIA H200 MIG 1g.18gb", 0)]) == "MIG instances are in use"
    (tmp_path / "usual").mkdir()
    (tmp_path / "usual" / "control").touch()
    assert mps.why_not(GPUS) == "your own MPS is used"
    (tmp_path / "usual" / "control").unlink()
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert mps.why_not(GPUS) == "your own MPS is used"
    with mps.started(GPUS) as variables:
        assert variables == {}
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY")
    control.unlink()
    if not shutil.which("nvidia-cuda-mps-control"):
        assert mps.why_not(GPUS) == "nvidia-cuda-mps-control is not installed"


@pytest.mark.skipif(not shutil.which("setpriv"), reason="only setpriv lets a program die with the one that started it")
def test_an_mps_dies_with_the_command_that_is_killed_and_not_of_its_interrupts(control: Path, tmp_path: Path) -> None:
    script = (
        "import signal, sys; from cifar.system import mps; from cifar.system.gpus import Gpu\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "with mps.started([Gpu('GPU-1', 'NVIDIA H200', 0)]):\n"
        "    print('started', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as command:
        assert command.stdout
        command.stdout.readline()
        [started] = [one for one in psutil.Process(command.pid).children() if str(control) in one.cmdline()]
        os.killpg(command.pid, signal.SIGINT)
        time.sleep(0.3)
        assert started.is_running()
        server = started.children()[0]
        command.send_signal(signal.SIGKILL)
    psutil.wait_procs([started], timeout=5)
    assert not started.is_running()
    server.kill()  # what the real one does with its own server is NVIDIA's
    shutil.rmtree(next(tmp_path.glob("cifar-mps-*")))
