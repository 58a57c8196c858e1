"""The processes of one experiment: NNI's manager, its tuner, and trials with all that they started."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import Literal

import psutil

Role = Literal["manager", "tuner", "trial"]

_TRIAL_STOP_SECONDS = 8.0  # what a trial may take to note where it stands; NNI itself gives it 5


def find(experiment: Path, role: Role | None = None) -> list[psutil.Process]:
    """Those of the experiment in this directory, of all roles or of one; found by what NNI tells each, not by parent.

    So a tuner and trials are found whose manager was killed.
    """
    found = ((process, _role(process, experiment)) for process in psutil.process_iter())
    return [process for process, its_role in found if its_role is not None and role in (None, its_role)]


def end(experiment: Path, at_once: bool = False) -> None:
    """End all that is left of an experiment; its trials may first note where they stand, unless it is to be at once."""
    _kill(find(experiment, "manager"))  # first, so that it starts no new trial
    if not at_once:
        trials = find(experiment, "trial")
        for process in trials:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGINT)
        psutil.wait_procs(trials, _TRIAL_STOP_SECONDS)
    _kill(find(experiment))


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, 5)


def _role(process: psutil.Process, experiment: Path) -> Role | None:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        command = process.cmdline()
        if "--experiment-id" in command:
            named = {command[command.index(option) + 1] for option in ("--experiment-id", "--experiments-directory")}
            return "manager" if named == {experiment.name, str(experiment.parent)} else None
        environment = process.environ()
    except (psutil.Error, ValueError, IndexError):  # it has just ended, or is another user's
        return None
    if environment.get("NNI_LOG_DIRECTORY") == str(experiment / "log"):
        return "tuner"
    return "trial" if environment.get("NNI_OUTPUT_DIR", "").startswith(f"{experiment}/") else None
