"""GPUs are simulated where they are counted; the claims and the processes that hold them are real."""

from __future__ import annotations

import multiprocessing
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from cifar import device
from cifar.device import Gpu, claim_gpu


def simulated(count: int) -> list[Gpu]:
    return [Gpu(index, f"uuid-{index}", 0) for index in range(count)]


def hold(gpus: list[Gpu], directory: Path, connection: Connection) -> None:
    """A trial: claim a GPU, say which, and keep it until told to end."""
    gpu, _lock = claim_gpu(gpus, directory)
    connection.send(gpu.index)
    connection.recv()


class Trials:
    """Processes that each hold a claim."""

    def __init__(self, gpus: list[Gpu], directory: Path) -> None:
        self.gpus, self.directory = gpus, directory
        self.running: list[tuple[BaseProcess, Connection, int]] = []

    def start(self) -> int:
        here, there = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=hold, args=(self.gpus, self.directory, there))
        process.start()
        index: int = here.recv()
        self.running.append((process, here, index))
        return index

    def kill(self, number: int) -> None:
        process, connection, _ = self.running.pop(number)
        process.kill()
        process.join()
        connection.close()

    def load(self) -> list[int]:
        counts = Counter(index for _, _, index in self.running)
        return [counts[gpu.index] for gpu in self.gpus]


@contextmanager
def trials_on(count: int, directory: Path) -> Iterator[Trials]:
    trials = Trials(simulated(count), directory)
    try:
        yield trials
    finally:
        while trials.running:
            trials.kill(0)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("count", [1, 2, 8])
def test_trials_that_come_and_go_never_share_a_gpu_while_another_is_free(count: int, tmp_path: Path) -> None:
    choose = random.Random(0)
    with trials_on(count, tmp_path) as trials:
        for _ in range(30):
            if trials.running and choose.random() < 0.45:
                trials.kill(choose.randrange(len(trials.running)))
                continue
            before = trials.load()
            assert before[trials.start()] == min(before)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_the_claim_of_a_killed_trial_is_free_at_once(tmp_path: Path) -> None:
    with trials_on(2, tmp_path) as trials:
        assert [trials.start(), trials.start()] == [0, 1]
        trials.kill(1)
        assert trials.start() == 1


def test_among_equals_the_gpu_with_the_least_memory_in_use_is_taken(tmp_path: Path) -> None:
    gpus = [Gpu(0, "a", 5_000), Gpu(1, "b", 100), Gpu(2, "c", 300)]
    claims = [claim_gpu(gpus, tmp_path) for _ in range(4)]
    assert [gpu.index for gpu, _ in claims] == [1, 2, 0, 1]


def test_without_a_gpu_trials_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "list_gpus", list)
    monkeypatch.setattr(device, "cpu_count", lambda: 8)
    assert device.claim(1, batch_size=64) == device.Claim(torch.device("cpu"), 8)
    assert device.claim(3, batch_size=64).threads == 2
    assert device.claim(99, batch_size=64).threads == 1
    assert device.claim(1, batch_size=4).threads == 1  # too few images to share


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_real_gpu_is_claimed() -> None:
    assert device.claim(1, 64).device.type == "cuda"
