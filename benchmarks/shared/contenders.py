"""Trials in processes of their own that train when told to, so that neither way of training disturbs the other's."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from benchmarks.shared.tutorial import Tutorial
from cifar.data import datasets
from cifar.data.datasets import Dataset, Splits, batches
from cifar.training import device
from cifar.training.hparams import Hparams
from cifar.training.steps import Step, new_step
from cifar.training.train import new_model, new_optimizer


@dataclass(frozen=True)
class Work:
    """What is trained: both ways take the same steps on the same images."""

    data_name: str
    hparams: Hparams
    steps: int


class Contender:
    """One of several trials at once, `cifar`'s or the tutorial's, in a process of its own; ready to train once entered.

    It is a plain script's process: in children of multiprocessing the tutorial's loop is a third slower.
    """

    def __init__(self, way: str, work: Work, at_once: int = 1) -> None:
        arguments = [way, work.data_name, json.dumps(asdict(work.hparams)), str(work.steps), str(at_once)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.shared.contenders", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("train\n")
        self._process.stdin.flush()

    def images_per_second(self) -> float:
        """Of the training that start() began."""
        return float(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def __enter__(self) -> Contender:
        self._line()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # the end of its input ends it


def _serve(way: str, data_name: str, hparams: str, steps: str, at_once: str) -> None:
    work = Work(data_name, Hparams.from_params(json.loads(hparams)), int(steps))
    train = {"tutorial": tutorial, "cifar": ours}[way](work, int(at_once))
    train()  # what happens once, loading of libraries among it, is no part of the speed
    print("ready", flush=True)
    for _ in sys.stdin:
        print(train(), flush=True)


def tutorial(work: Work, at_once: int) -> Callable[[], float]:
    """The tutorial as it stands: as many threads as PyTorch takes by itself."""
    images, splits = _load(work)
    trial = Tutorial(work.hparams, images, _some(splits, work), _device())

    def train() -> float:
        clock = Clock(work)
        trial.train_epoch(clock.step_done)
        return clock.images_per_second()

    return train


def ours(work: Work, at_once: int) -> Callable[[], float]:
    """A trial of `cifar` where `at_once` trials share the cores."""
    torch.set_num_threads(device.Claim(_device(), at_once, 1, ()).threads(work.hparams))
    images, splits = _load(work)
    images, order = images.to(_device()), _some(splits, work).to(_device())
    model = new_model(work.hparams, images).train()
    step = new_step(model, new_optimizer(model, work.hparams), work.hparams)

    def train() -> float:
        clock = Clock(work)
        _take_steps(step, images, order, work, clock)
        return clock.images_per_second()

    return train


def _take_steps(step: Step, images: Dataset, order: Tensor, work: Work, clock: Clock) -> None:
    total = torch.zeros((), device=order.device)
    for some_images, labels in batches(images, order, work.hparams.batch_size):
        total += step(some_images, labels)
        clock.step_done()
    total.item()  # waits for a GPU


class Clock:
    """Starts with the end of the first step, before which loader processes start."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.began: float | None = None

    def step_done(self) -> None:
        if self.began is None:
            self.began = time.perf_counter()

    def images_per_second(self) -> float:
        assert self.began is not None
        return (self.work.steps - 1) * self.work.hparams.batch_size / (time.perf_counter() - self.began)


def _load(work: Work) -> tuple[Dataset, Splits]:
    images = datasets.load(work.data_name)
    return images, datasets.split(images)


def _some(splits: Splits, work: Work) -> Tensor:
    """As many images as the steps take, one over and over where there are too few."""
    order = torch.randperm(len(splits.train), generator=torch.Generator().manual_seed(0))
    wanted = work.steps * work.hparams.batch_size
    return splits.train[order.repeat(-(-wanted // len(order)))[:wanted]]


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


if __name__ == "__main__":
    _serve(*sys.argv[1:])
