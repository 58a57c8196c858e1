"""Processes that are killed: no result is lost, none is wrong, and nothing is left behind."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Literal

import fake_experiments
import psutil
import pytest
import torch
from conftest import Record
from experiments import (
    Search,
    Start,
    assert_numbered_and_paired,
    assert_resumes,
    change_config,
    free_port,
    nothing_is_left,
    wait_until_gone,
)

from cifar.data import datasets
from cifar.system import processes
from cifar.training.hparams import Hparams
from cifar.trials import layout, store
from cifar.trials.run import run_trial
from cifar.trials.store import Trial

DEATHS = [
    "before parameters:SIGKILL",
    "after parameters:SIGKILL",
    "loading data:SIGKILL",
    "mid-epoch:SIGKILL",
    "mid-epoch:SIGTERM",
    "mid-epoch:SIGSEGV",
    "saving:SIGKILL",
    "before the final report:SIGKILL",
    "after the final report:SIGKILL",
]
CPU = torch.device("cpu")


@pytest.fixture
def dying_search(search: Start) -> Start:
    """A search whose trials die as dying/sitecustomize.py says, the first one of the list in trial 0, and so on."""

    def start(deaths: list[str], *arguments: str, **environment: str) -> Search:
        dying = {"PYTHONPATH": str(Path(__file__).with_name("dying")), "CIFAR_TEST_DEATHS": ",".join(deaths)}
        return search("--data", "digits", "--max-trials", str(len(deaths)), *arguments, **dying, **environment)

    return start


@pytest.mark.slow
def test_a_trial_killed_at_any_moment_goes_on_to_the_result_it_would_have_had(
    dying_search: Start, config_path: Path, tmp_path: Path, record: Record
) -> None:
    change_config(config_path, trialCommand="python trial.py --epochs 3")
    one = dying_search(DEATHS)
    assert one.wait(300) == 0, one.err
    assert f"{len(DEATHS)} trials: {len(DEATHS)} ok" in one.out
    trials = one.trials()
    assert all((layout.trial_directory(one.directory, trial.id) / "died").exists() for trial in trials)
    log = (one.directory / "log" / "nnimanager.log").read_text()
    assert log.count("from outside, start 2 follows") == len(DEATHS)
    assert_numbered_and_paired(one)
    curves = store.read_curves(one.directory)
    for trial in trials:
        assert (trial.accuracy, trial.status) == (undisturbed_accuracy(trial), "ok")
        assert len(curves[trial.id]) == 3
        assert not (layout.trial_directory(one.directory, trial.id) / "checkpoint.pt").exists()
    assert nothing_is_left(tmp_path)
    record(len(DEATHS))


def undisturbed_accuracy(trial: Trial) -> float:
    assert trial.result is not None
    dataset = datasets.load("digits")
    hparams = Hparams(**trial.result["hparams"])
    assert {name: getattr(hparams, name) for name in trial.params} == trial.params
    result, _ = run_trial(hparams, dataset, datasets.split(dataset), CPU, lambda history: None)
    assert result.metrics is not None
    return result.metrics["default"]


@pytest.mark.slow
def test_a_trial_that_is_killed_whenever_it_starts_gives_up_and_says_so(
    dying_search: Start, config_path: Path, tmp_path: Path, record: Record
) -> None:
    one = dying_search(["always before training:SIGKILL", "never:"], "--tuner", "Random")
    assert one.wait(120) == 0, one.err
    killed, trained = one.trials()
    assert (killed.status, killed.nni_status) == ("error", "FAILED")
    assert killed.reason == "killed 5 times, the last time by SIGKILL"
    assert trained.status == "ok"
    assert nothing_is_left(tmp_path)
    record(5)


VICTIMS: dict[processes.Role | Literal["search"], int] = {
    "trial": 40,
    "warm": 10,
    "manager": 15,
    "tuner": 15,
    "search": 20,
}
KILLS, TRIALS = 100, 40


@pytest.mark.slow
def test_a_hundred_random_kills_cost_no_result(
    search: Start, config_path: Path, tmp_path: Path, record: Record
) -> None:
    change_config(config_path, trialCommand="python trial.py --epochs 8")
    chance, killed = random.Random(0), Counter[str]()
    one = search("--data", "digits", "--max-trials", str(TRIALS))
    while killed.total() < KILLS:
        one.wait_for("web page http")
        time.sleep(chance.uniform(0, 3))
        killed[kill_one(chance, one)] += 1
        if one.process.poll() is not None:
            one = search("--resume", one.id)
    assert one.wait(600) == 0, one.err
    trials = one.trials()
    assert [trial.status for trial in trials] == ["ok"] * TRIALS
    assert_numbered_and_paired(one)
    accuracies = {trial.id: trial.accuracy for trial in trials}
    assert accuracies == {trial.id: undisturbed_accuracy(trial) for trial in trials}
    assert nothing_is_left(tmp_path)
    record(KILLS, ", ".join(f"{count} of the {victim}" for victim, count in killed.most_common()))


def kill_one(chance: random.Random, search: Search) -> str:
    """A process of the search, or the search itself; returns what it was."""
    (victim,) = chance.choices(list(VICTIMS), list(VICTIMS.values()))
    if victim == "search":
        search.process.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
    else:
        while not (found := processes.find(search.directory, victim)):
            assert search.process.poll() is None, search.err
            time.sleep(0.05)
        with contextlib.suppress(psutil.NoSuchProcess):
            chance.choice(found).send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM]))
    if victim not in ("trial", "warm"):
        search.process.wait(120)
        wait_until_gone(search.experiments.parent)
    return victim


def result_lr(trial: Trial) -> tuple[float | None, float]:
    return trial.accuracy, trial.params["lr"]


@pytest.mark.slow
def test_an_interrupted_search_resumes_where_it_stood(
    search: Start, quick_config_path: Path, tmp_path: Path, record: Record
) -> None:
    first = search("--data", "digits", "--max-trials", "12", CIFAR_TEST_SECONDS="1")
    first.wait_until_ended(5)
    first.process.send_signal(signal.SIGINT)
    assert first.wait(30) == 130, first.err
    assert "Traceback" not in first.err
    assert f"resume with: cifar search --config {quick_config_path} --resume {first.id}" in first.err
    assert "saved in" in first.out
    assert nothing_is_left(tmp_path)
    done = [trial.id for trial in first.trials() if trial.ended]
    begun = len(first.trials())

    resumed = search("--resume", first.id, "--max-trials", "14")
    assert_resumes(resumed, trials=14)
    assert resumed.id == first.id
    assert all(accuracy == lr for accuracy, lr in map(result_lr, resumed.trials()))
    log = (resumed.directory / "log" / "dispatcher.log").read_text()
    assert f"Replayed {len(done)} FINISHED trials" in log  # TPE keeps what it learnt
    seed = store.read_config(resumed.directory)["tuner"]["classArgs"]["seed"]
    assert seed == 1 + begun  # or its random stream would begin once more
    assert nothing_is_left(tmp_path)
    record(1)


@pytest.mark.slow
def test_a_search_whose_manager_is_killed_says_so_and_resumes(
    search: Start, quick_config_path: Path, tmp_path: Path, record: Record
) -> None:
    port = str(free_port())
    first = search("--data", "digits", "--max-trials", "12", "--port", port, CIFAR_TEST_SECONDS="1")
    first.wait_until_ended(4)
    first.manager().kill()
    assert first.wait(30) == 1, first.err
    assert "NNI's manager has ended: stopped or killed from outside (see " in first.err
    assert "resume with: cifar search" in first.err
    assert nothing_is_left(tmp_path)  # neither the tuner nor the trials
    assert_resumes(search("--resume", first.id, "--port", port), trials=12)
    record(1)


@pytest.mark.slow
def test_what_a_killed_search_and_manager_leave_is_ended_by_the_resume(
    search: Start, quick_config_path: Path, tmp_path: Path, record: Record
) -> None:
    port = str(free_port())
    first = search("--data", "digits", "--max-trials", "6", "--port", port, CIFAR_TEST_SECONDS="1")
    first.wait_until_ended(2)
    manager = first.manager()
    first.process.kill()
    manager.kill()
    assert processes.find(first.directory, "tuner") != []  # it would drive the new one out of the port
    assert_resumes(search("--resume", first.id, "--port", port), trials=6)
    assert nothing_is_left(tmp_path)
    record(1)


@pytest.mark.slow
def test_a_second_interrupt_ends_everything_at_once(
    search: Start, quick_config_path: Path, tmp_path: Path, record: Record
) -> None:
    one = search("--data", "digits", "--max-trials", "12", CIFAR_TEST_SECONDS="60", CIFAR_TEST_STUBBORN="1")
    one.wait_until_started(2)
    time.sleep(2)  # until the trials have become stubborn: each would be waited for otherwise
    one.process.send_signal(signal.SIGINT)
    one.wait_for("interrupted; saving the trials that run")
    one.process.send_signal(signal.SIGINT)
    assert one.wait(5) == 130
    assert one.err.endswith(f"--resume {one.id}\ninterrupted\n")
    assert nothing_is_left(tmp_path)
    record(1)


@pytest.mark.slow
def test_a_killed_search_takes_its_experiment_with_it(
    search: Start, quick_config_path: Path, tmp_path: Path, record: Record
) -> None:
    one = search("--data", "digits", "--max-trials", "12", CIFAR_TEST_SECONDS="60")
    one.wait_until_started(2)
    one.process.kill()
    one.wait()
    wait_until_gone(tmp_path)
    assert nothing_is_left(tmp_path)
    record(1)


@pytest.mark.slow
def test_a_tuner_that_raises_is_noticed(search: Start, quick_config_path: Path, tmp_path: Path, record: Record) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "if os.environ.get('SDK_PROCESS') == 'dispatcher':\n"
        "    from nni.algorithms.hpo.tpe_tuner import TpeTuner\n"
        "    suggest = TpeTuner.generate_parameters\n"
        "    def generate_parameters(self, number, **others):\n"
        "        if number == 3:\n"
        "            raise ValueError('made to raise')\n"
        "        return suggest(self, number, **others)\n"
        "    TpeTuner.generate_parameters = generate_parameters\n"
    )
    one = search("--data", "digits", "--max-trials", "12", PYTHONPATH=str(tmp_path))
    assert one.wait() == 1
    log = one.directory / "log" / "dispatcher.log"
    assert f"the tuner or assessor failed: ValueError: made to raise (see {log})" in one.err
    assert "resume with: cifar search" in one.err
    assert nothing_is_left(tmp_path)
    assert_resumes(search("--resume", one.id), trials=12)  # the tuner has been mended
    record(1)


@pytest.mark.slow
def test_a_killed_tuner_is_noticed(search: Start, quick_config_path: Path, tmp_path: Path, record: Record) -> None:
    one = search("--data", "digits", "--max-trials", "12", CIFAR_TEST_SECONDS="60")
    one.wait_until_started(2)
    time.sleep(1)  # until the search has seen its tuner
    processes.find(one.directory, "tuner")[-1].kill()  # before it comes the shell that NNI starts it with
    assert one.wait(40) == 1
    assert "tuner" in one.err.split("; saving the trials that run")[0].splitlines()[-1]
    assert nothing_is_left(tmp_path)
    record(1)


@pytest.mark.slow
def test_trials_of_a_resume_that_is_cut_off_are_resumed_by_the_next(
    search: Start, quick_config_path: Path, tmp_path: Path, record: Record
) -> None:
    one = search("--data", "digits", "--max-trials", "5", "--tuner", "Random", CIFAR_TEST_SECONDS="60")
    one.wait_until_started(2)
    for _ in range(2):  # the second time before NNI has come to run them again
        one.process.kill()
        one.process.wait()
        wait_until_gone(tmp_path)
        one = search("--resume", one.id, CIFAR_TEST_SECONDS="0")
        one.wait_for("web page http")
    one.process.send_signal(signal.SIGINT)
    assert one.wait(60) == 130
    assert_resumes(search("--resume", one.id), trials=5)
    record(2)


HALF_A_TRANSACTION = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("pragma cache_size = 1")  # so that pages reach the file before the end
connection.execute("begin immediate")
for number in range(1000):
    row = (number, f"x{number}", "x" * 99, number)
    connection.execute("insert into TrialJobEvent values (?, ?, 'RUNNING', ?, '', ?, '', '')", row)
os._exit(9)
"""


def test_a_manager_that_is_killed_while_it_writes_leaves_what_it_had_written(tmp_path: Path, record: Record) -> None:
    experiment = fake_experiments.make(tmp_path / "made", [{"accuracy": 0.5}, {"accuracy": 0.7}])
    truth, database = store.read_trials(experiment), experiment / "db" / "nni.sqlite"
    ended = subprocess.run([sys.executable, "-c", HALF_A_TRANSACTION, str(database)])
    assert ended.returncode == 9 and Path(f"{database}-journal").stat().st_size > 0
    assert store.read_trials(experiment) == truth
    record(1)
