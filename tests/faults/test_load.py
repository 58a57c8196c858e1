"""Many trials, many experiments, many results: what they take."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import fake_experiments
import psutil
import pytest
from conftest import Record
from experiments import ROOT, Search, Start, assert_numbered_and_paired, change_config, nothing_is_left
from fake_manager import Manager, parameters
from joblib import cpu_count

from cifar.system import processes
from cifar.system.files import read_json
from cifar.trials import layout

MEGABYTE = 2**20
_NNIS_PATIENCE = 5.0  # seconds from the interrupt of a trial to its kill


def run(*arguments: str) -> float:
    """Seconds that a command takes."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "cifar", *arguments], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - began


@pytest.mark.slow
def test_five_hundred_trials_eight_at_once(
    search: Start, quick_config_path: Path, tmp_path: Path, record: Record
) -> None:
    change_config(quick_config_path, trialConcurrency=8)
    one = search("--data", "digits", "--max-trials", "500", CIFAR_TEST_SECONDS="0")
    one.wait_until_started(8)
    began, memory = time.perf_counter(), list[dict[str, float]]()
    while one.process.poll() is None:
        memory.append(resident(one))
        time.sleep(2)
    seconds = time.perf_counter() - began
    assert one.process.returncode == 0, one.err
    assert "500 trials: 500 ok" in one.out
    assert_numbered_and_paired(one)
    assert nothing_is_left(tmp_path)
    listing = run("trials", one.id, "--config", str(quick_config_path))
    report = run("report", one.id, "--config", str(quick_config_path), "--out", str(tmp_path / "report.html"))
    peak = {name: max(sample.get(name, 0) for sample in memory) for name in ("manager", "search")}
    outcome = (
        f"500 ok, {seconds / 500:.1f} s per trial; at most {peak['manager']:.0f} MB in NNI's manager, "
        f"{peak['search']:.0f} in cifar search; cifar trials {listing:.1f} s, cifar report {report:.0f} s"
    )
    record(500, outcome)


def resident(search: Search) -> dict[str, float]:
    """Megabytes in memory, of NNI's manager and of the search's own process."""
    managers = processes.find(search.directory, "manager")
    pids = {"search": search.process.pid} | ({"manager": managers[0].pid} if managers else {})
    found = dict[str, float]()
    for name, pid in pids.items():
        with contextlib.suppress(psutil.NoSuchProcess):
            found[name] = psutil.Process(pid).memory_info().rss / MEGABYTE
    return found


@pytest.mark.slow
def test_eight_experiments_at_once(search: Start, config_path: Path, tmp_path: Path, record: Record) -> None:
    change_config(config_path, trialCommand="python trial.py --epochs 2", trialConcurrency=1)
    searches = [search("--data", "digits", "--max-trials", "4") for _ in range(8)]
    codes = [one.wait(600) for one in searches]
    assert codes == [0] * 8, [one.err for one in searches]
    assert len({one.id for one in searches}) == len({port(one) for one in searches}) == 8
    for one in searches:
        assert "4 trials: 4 ok" in one.out
        assert_numbered_and_paired(one)
    assert nothing_is_left(tmp_path)
    record(8)


def port(search: Search) -> str:
    found = re.search(r"web page http://127.0.0.1:(\d+)", search.err)
    assert found
    return found[1]


@pytest.mark.slow
def test_ten_thousand_trials_are_listed(config_path: Path, tmp_path: Path, record: Record) -> None:
    trials = [{"accuracy": 0.3 + number % 601 / 1000} for number in range(10_000)]
    fake_experiments.make(tmp_path / "experiments" / "many", trials)
    seconds = min(run("trials", "many", "--config", str(config_path)) for _ in range(3))
    record(1, f"cifar trials lists them in {seconds:.1f} s")


@pytest.mark.slow
def test_a_trial_that_is_stopped_on_a_busy_machine_reports_before_nni_kills_it(tmp_path: Path, record: Record) -> None:
    """NNI kills it five seconds after the interrupt. The machine has four times as much to do as it has cores."""
    seconds = list[float]()
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4 * cpu_count())]
    try:
        for number in range(8):
            directory = layout.trial_directory(tmp_path / f"experiment{number}", "TRIAL")
            directory.mkdir(parents=True)
            seconds.append(until_reported(directory))
            result = read_json(directory / "result.json")
            assert result is not None
            assert (result["status"], result["reason"][:13]) == ("stopped_early", "stopped after")
    finally:
        for one in busy:
            one.kill()
            one.wait()
    figures = f"from the interrupt to the final report {median(seconds):.2f} s, at most {max(seconds):.2f} s"
    record(len(seconds), figures)


def until_reported(directory: Path) -> float:
    """Seconds from the interrupt of a trial, wherever in its epoch, to its final result; it is killed as by NNI."""
    manager = StoppingManager(*[parameters(0, lr=0.05)] * 2)
    command = [sys.executable, "trial.py", "--data", "digits", "--batch_size", "32", "--width", "16", "--epochs", "500"]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | manager.environment(directory)) as trial:
        while len(manager.values("PERIODICAL")) < 2:
            assert trial.poll() is None
            time.sleep(0.05)
        trial.send_signal(signal.SIGINT)
        began = time.perf_counter()
        while not manager.values("FINAL"):
            assert time.perf_counter() - began < _NNIS_PATIENCE
            time.sleep(0.01)
        taken = time.perf_counter() - began
        trial.wait(30)
    manager.server.shutdown()
    manager.server.server_close()
    return taken


class StoppingManager(Manager):
    """NNI's manager while its assessor stops a trial: the experiment goes on."""

    def answer(self, path: str) -> Any:
        return {"status": "RUNNING"} if path.endswith("/check-status") else super().answer(path)
