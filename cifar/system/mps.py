"""NVIDIA's MPS: with it processes compute on a GPU at the same time, without it they take turns.

A command starts an MPS of its own for the processes that it starts. The user's own one, if there is one, is left alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence

import psutil

from cifar.system.gpus import Gpu

_CONTROL = "nvidia-cuda-mps-control"
_PIPES, _LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
_USUAL_PIPES = "/tmp/nvidia-mps"  # where CUDA looks for an MPS by itself
_START_SECONDS, _QUIT_SECONDS = 5.0, 5.0


def why_not(gpus: Sequence[Gpu]) -> str | None:
    """Why this command starts no MPS for processes on these GPUs, in words; None where it can."""
    if not gpus:
        return "there is no GPU"
    if _PIPES in os.environ or os.path.exists(f"{_USUAL_PIPES}/control"):  # noqa: PTH110
        return "your own MPS is used"
    if any(gpu.uuid.startswith("MIG-") for gpu in gpus):
        return "MIG instances are in use"
    if not shutil.which(_CONTROL):
        return f"{_CONTROL} is not installed"
    return None


@contextlib.contextmanager
def started(gpus: Sequence[Gpu]) -> Iterator[dict[str, str]]:
    """Variables by which CUDA programs find an MPS that ends with the block, {} where there is none.

    CUDA reads them when it wakes. Where it then finds no MPS it works without.
    """
    if why_not(gpus):
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="cifar-mps-", ignore_cleanup_errors=True) as directory:  # mode 0700
        variables = {_PIPES: directory, _LOGS: directory}
        control = _start(variables)
        try:
            yield variables if _answers(control, variables) else {}
        finally:
            _end(control, variables)


def _start(variables: dict[str, str]) -> psutil.Popen:
    # Where this process is killed the kernel ends the MPS.
    dying = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    return psutil.Popen(
        [*dying, _CONTROL, "-f"],
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,  # Ctrl-C is for the trials, which still compute with it
    )


def _answers(control: psutil.Popen, variables: dict[str, str]) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and control.poll() is None:
        if _tell("get_server_list", variables):
            return True
        time.sleep(0.1)
    return False


def _tell(words: str, variables: dict[str, str]) -> bool:
    """Whether the MPS took a command."""
    try:
        run = subprocess.run(
            [_CONTROL],
            input=f"{words}\n",
            text=True,
            env=os.environ | variables,
            capture_output=True,
            timeout=_QUIT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return False
    return run.returncode == 0


def _end(control: psutil.Popen, variables: dict[str, str]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        parts = [*control.children(recursive=True), control]
        _tell("quit", variables)
        _, left = psutil.wait_procs(parts, timeout=_QUIT_SECONDS)
        for part in left:
            part.kill()
        psutil.wait_procs(left, timeout=_QUIT_SECONDS)
    control.wait()
