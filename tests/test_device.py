"""GPUs are simulated where they are counted; the claims and the processes that hold them are real."""

from __future__ import annotations

import multiprocessing
import random
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from cifar import claims, device
from cifar.device import Gpu
from cifar.hparams import Hparams

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture(autouse=True)
def own_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims apart from those of whatever else runs on this machine, which has 16 cores and no GPU."""
    monkeypatch.setattr(claims, "directory", lambda: tmp_path)
    monkeypatch.setattr(device, "list_gpus", list)
    monkeypatch.setattr(device, "cpu_count", lambda: 16)


def hold(concurrency: int, experiment: str | None, connection: Connection) -> None:
    """A trial: claim a device and cores, say which and how many, and keep them until told to end."""
    claim = device.claim(concurrency, experiment)
    connection.send((claim.device.index, claim.threads(Hparams(batch_size=1000))))
    connection.recv()


class Trials:
    """Processes that each hold a claim."""

    def __init__(self) -> None:
        self.running: list[tuple[BaseProcess, Connection, int]] = []

    def start(self, concurrency: int = 1, experiment: str | None = None) -> tuple[int, int]:
        """Returns the index of its GPU, and how many threads it may use."""
        here, there = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=hold, args=(concurrency, experiment, there))
        process.start()
        index, threads = here.recv()
        self.running.append((process, here, index))
        return index, threads

    def kill(self, number: int) -> None:
        process, connection, _ = self.running.pop(number)
        process.kill()
        process.join()
        connection.close()

    def load(self, gpus: int) -> list[int]:
        counts = Counter(index for _, _, index in self.running)
        return [counts[index] for index in range(gpus)]


@pytest.fixture
def trials() -> Iterator[Trials]:
    started = Trials()
    yield started
    while started.running:
        started.kill(0)


def simulate_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(device, "list_gpus", lambda: [Gpu(index, f"uuid-{index}", 0) for index in range(count)])


@pytest.mark.parametrize("count", [1, 2, 8])
def test_trials_that_come_and_go_never_share_a_gpu_while_another_is_free(
    trials: Trials, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate_gpus(monkeypatch, count)
    choose = random.Random(0)
    for _ in range(30):
        if trials.running and choose.random() < 0.45:
            trials.kill(choose.randrange(len(trials.running)))
            continue
        before = trials.load(count)
        index, _ = trials.start(experiment=choose.choice(["one", "other"]))
        assert before[index] == min(before)


def test_the_claim_of_a_killed_trial_is_free_at_once(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate_gpus(monkeypatch, 2)
    assert [trials.start()[0], trials.start()[0]] == [0, 1]
    trials.kill(1)
    assert trials.start()[0] == 1


def test_among_equals_the_gpu_with_the_least_memory_in_use_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [Gpu(0, "a", 5_000), Gpu(1, "b", 100), Gpu(2, "c", 300)]
    monkeypatch.setattr(device, "list_gpus", lambda: gpus)
    held = [device.claim(1) for _ in range(4)]
    assert [claim.device.index for claim in held] == [1, 2, 0, 1]


def test_the_trials_of_one_experiment_use_the_cores_once(trials: Trials) -> None:
    assert [trials.start(4, "one")[1] for _ in range(4)] == [4, 4, 4, 4]  # also the first, who is alone as yet
    assert device.claim(99, "crowded").threads(Hparams(batch_size=1000)) == 1


def test_a_small_batch_gets_no_more_threads_than_it_can_feed() -> None:
    assert [device.claim(1).threads(Hparams(batch_size=size)) for size in (4, 16, 64, 1000)] == [1, 1, 4, 16]
    assert device.claim(1).threads(Hparams(batch_size=64, accumulate=4)) == 1


def test_experiments_side_by_side_share_the_cores_fairly(trials: Trials) -> None:
    assert [trials.start(2, "one")[1] for _ in range(2)] == [8, 8]
    assert [trials.start(2, "other")[1] for _ in range(2)] == [4, 4]  # 4 trials in all
    trials.kill(0)
    assert trials.start(2, "one")[1] == 4
    for _ in range(2):
        trials.kill(1)  # those of the other experiment
    assert trials.start(2, "one")[1] == 8


def test_the_dead_leave_no_claims_behind(trials: Trials, tmp_path: Path) -> None:
    for _ in range(3):
        trials.start(2, "one")
    while trials.running:
        trials.kill(0)
    with claims.choosing():
        assert claims.count_shares("cores") == 0
    assert list(tmp_path.glob("cores.*")) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_real_gpu_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert device.claim(1).device.type == "cuda"
