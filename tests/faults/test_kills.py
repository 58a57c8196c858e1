"""Processes that are killed: no result is lost, none is wrong, and nothing is left behind."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Literal

import psutil
import pytest
import torch
import yaml
from experiments import Search, Start, assert_numbered_and_paired, nothing_is_left, wait_until_gone

from cifar import data, processes, store
from cifar.hparams import Hparams
from cifar.run import run_trial

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


def test_a_trial_killed_at_any_moment_goes_on_to_the_result_it_would_have_had(
    dying_search: Start, config_path: Path, tmp_path: Path
) -> None:
    config = yaml.safe_load(config_path.read_text())
    del config["assessor"]
    config_path.write_text(yaml.safe_dump(config | {"trialCommand": "python trial.py --epochs 3"}))
    one = dying_search(DEATHS)
    assert one.wait(300) == 0, one.err
    assert f"{len(DEATHS)} trials: {len(DEATHS)} ok" in one.out
    trials = one.trials()
    assert all((store.trial_directory(one.directory, trial.id) / "died").exists() for trial in trials)
    log = (one.directory / "log" / "nnimanager.log").read_text()
    assert log.count("from outside, start 2 follows") == len(DEATHS)
    assert_numbered_and_paired(one)
    curves = store.read_curves(one.directory)
    for trial in trials:
        assert (trial.accuracy, trial.status) == (undisturbed_accuracy(trial), "ok")
        assert len(curves[trial.id]) == 3
        assert not (store.trial_directory(one.directory, trial.id) / "checkpoint.pt").exists()
    assert nothing_is_left(tmp_path)


def undisturbed_accuracy(trial: store.Trial) -> float:
    assert trial.result is not None
    dataset = data.load("digits")
    hparams = Hparams(**trial.result["hparams"])
    assert {name: getattr(hparams, name) for name in trial.params} == trial.params
    result, _ = run_trial(hparams, dataset, data.split(dataset), CPU, lambda history: None)
    assert result.metrics is not None
    return result.metrics["default"]


@pytest.mark.slow
def test_a_trial_that_is_killed_whenever_it_starts_gives_up_and_says_so(
    dying_search: Start, config_path: Path, tmp_path: Path
) -> None:
    one = dying_search(["always before training:SIGKILL", "never:"], "--tuner", "Random")
    assert one.wait(120) == 0, one.err
    killed, trained = one.trials()
    assert (killed.status, killed.nni_status) == ("error", "FAILED")
    assert killed.reason == "killed 5 times, the last time by SIGKILL"
    assert trained.status == "ok"
    assert nothing_is_left(tmp_path)


VICTIMS: dict[processes.Role | Literal["search"], int] = {"trial": 50, "manager": 15, "tuner": 15, "search": 20}
KILLS, TRIALS = 100, 40


@pytest.mark.slow
def test_a_hundred_random_kills_cost_no_result(search: Start, config_path: Path, tmp_path: Path) -> None:
    config = yaml.safe_load(config_path.read_text())
    del config["assessor"]
    config_path.write_text(yaml.safe_dump(config | {"trialCommand": "python trial.py --epochs 8"}))
    chance, killed = random.Random(0), Counter[str]()
    one = search("--data", "digits", "--max-trials", str(TRIALS))
    experiment = ""
    while one.process.poll() is None or killed.total() < KILLS:
        if one.process.poll() is not None:
            one = search("--resume", experiment)
        one.wait_for("web page http")
        experiment = one.id
        time.sleep(chance.uniform(0, 3))
        if killed.total() < KILLS and one.process.poll() is None:
            killed[kill_one(chance, one)] += 1
    assert one.wait(600) == 0, one.err
    print(f"killed: {dict(killed)}")
    assert killed.total() == KILLS
    trials = one.trials()
    assert [trial.status for trial in trials] == ["ok"] * TRIALS
    assert_numbered_and_paired(one)
    accuracies = {trial.id: trial.accuracy for trial in trials}
    assert accuracies == {trial.id: undisturbed_accuracy(trial) for trial in trials}
    assert nothing_is_left(tmp_path)


def kill_one(chance: random.Random, search: Search) -> str:
    """A process of the search, or the search itself; returns what it was."""
    (victim,) = chance.choices(list(VICTIMS), list(VICTIMS.values()))
    if victim == "search":
        search.process.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
    elif found := processes.find(search.directory, victim):
        with contextlib.suppress(psutil.NoSuchProcess):
            chance.choice(found).send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM]))
    else:
        return kill_one(chance, search)
    if victim != "trial":
        search.process.wait(120)
        wait_until_gone(search.experiments.parent)
    return victim
