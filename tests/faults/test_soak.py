"""Trials back to back for twenty minutes: nothing grows but what is documented."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import median

import psutil
import pytest
from conftest import Record
from experiments import Search, Start, change_config, nothing_is_left

from cifar.system import processes

SECONDS = float(os.environ.get("CIFAR_SOAK_SECONDS", "1200"))
MEGABYTE = 2**20


@dataclass(frozen=True)
class Sample:
    """What the search's own processes hold: megabytes, open files, and files left in its temporary directory."""

    memory: float
    handles: float
    temporary: float


@pytest.mark.slow
def test_the_manager_keeps_no_file_of_an_ended_trial_open(
    search: Start, quick_config_path: Path, record: Record
) -> None:
    one = search("--data", "digits", "--max-trials", "10", CIFAR_TEST_SECONDS="1")
    one.wait_until_ended(7)
    kept = [file.path for file in one.manager().open_files() if "/trials/" in file.path]
    assert kept == []
    assert one.wait() == 0, one.err
    record(10)


@pytest.mark.slow
def test_nothing_grows_but_the_results(search: Start, config_path: Path, tmp_path: Path, record: Record) -> None:
    change_config(config_path, trialCommand="python trial.py --epochs 1")
    one = search("--data", "digits", "--max-trials", "100000")
    one.wait_until_ended(4)
    samples, disk, began = list[Sample](), list[tuple[int, float]](), time.monotonic()
    while time.monotonic() - began < SECONDS:
        samples.append(sample(one, tmp_path))
        disk.append((sum(trial.ended for trial in one.trials()), megabytes(one.directory)))
        time.sleep(5)
    one.process.send_signal(signal.SIGINT)
    assert one.wait(60) == 130, one.err
    assert nothing_is_left(tmp_path)
    trials = one.trials()
    assert all(trial.status == "ok" for trial in trials if trial.ended)
    third = len(samples) // 3
    first, last = (typical(part) for part in (samples[third : 2 * third], samples[-third:]))
    assert last.handles <= first.handles + 4
    assert last.temporary <= first.temporary + 4
    assert last.memory <= first.memory * 1.15 + 20
    per_trial = (disk[-1][1] - disk[0][1]) / (disk[-1][0] - disk[0][0])
    assert per_trial < 1
    outcome = (
        f"from the second third to the last: memory of search, manager and tuner {first.memory:.0f} MB "
        f"to {last.memory:.0f}, open files {first.handles:.0f} to {last.handles:.0f}, temporary files "
        f"{first.temporary:.0f} to {last.temporary:.0f}; disk {per_trial * 1024:.0f} KB per trial"
    )
    record(len(trials), outcome)


def sample(search: Search, home: Path) -> Sample:
    found = [psutil.Process(search.process.pid)]
    found += [*processes.find(search.directory, "manager"), *processes.find(search.directory, "tuner")]
    memory, handles = 0.0, 0
    for process in found:
        memory += process.memory_info().rss / MEGABYTE
        handles += process.num_fds()
    return Sample(memory, handles, sum(1 for _ in (home / "tmp").rglob("*")))


def typical(samples: list[Sample]) -> Sample:
    return Sample(*(median(values) for values in zip(*map(astuple, samples), strict=True)))


def megabytes(directory: Path) -> float:
    size = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a trial has ended meanwhile, and its checkpoint is gone
            size += path.lstat().st_size if path.is_file() else 0
    return size / MEGABYTE
