"""How each contender of a live contest spends its time."""

from __future__ import annotations

import math
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks.contest.replay import Policy
from cifar.analysis import answer, fit, training_time
from cifar.analysis.configurations import Configuration
from cifar.analysis.final_test import read_test_images
from cifar.analysis.retrain import Failed, Trainer
from cifar.data import datasets
from cifar.data.datasets import Dataset, Splits
from cifar.inference import model_file
from cifar.search import budget, forecast
from cifar.search.search_space import Space
from cifar.system.processes import spawned
from cifar.training import augmentation, defaults
from cifar.training.hparams import Hparams, option
from cifar.training.train import Diverged, new_model, new_optimizer, train
from cifar.trials import layout

AT_ONCE = 2
MOST_EPOCHS = 200  # of last networks: more hardly teach anything
_ROOT = Path(__file__).parents[2]
_FIRST_SEED = 1000  # of the last networks
_PROBED_EPOCHS, _PROBED_IMAGES = 4, 2_000  # of which the last tells how fast the defaults train
_FINDS_ID = re.compile(r"experiment (\w{8}), web page")


@dataclass(frozen=True)
class Outcome:
    """Means over a contender's last networks, what they were, and how many trials came before."""

    seconds: float
    test_accuracy: float
    trials: int
    hparams: dict[str, Any]


@dataclass(frozen=True)
class Tried:
    """A trial that ran to its end; seconds are those of an image to train on."""

    params: dict[str, Any]
    accuracy: float
    image_seconds: float


def run_fit(model: str, data_name: str, seconds: float, seed: int) -> Outcome:
    """`cifar fit` as a user types it."""
    command = [sys.executable, "-m", "cifar", "fit", "--data", data_name, "--time-limit", f"{seconds:.0f}s"]
    began = time.monotonic()
    ran = subprocess.run(
        [*command, "--model", model, "--seed", str(seed), "--name", f"contest {seed}"],
        cwd=_ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    took = time.monotonic() - began
    found = _FINDS_ID.search(ran.stderr)
    assert found, ran.stderr
    experiment = _ROOT / "nni-experiments" / found[1]
    known = answer.read(experiment)
    assert known is not None
    hparams = model_file.load(layout.best_model(experiment)).hparams
    trials = len(list(layout.trial_directory(experiment, "x").parent.iterdir()))
    return Outcome(took, known["tests"][0]["mean"], trials, asdict(hparams))


class Room:
    """Where a contender trains that is not this project's: `seconds` in all, counted from now on."""

    def __init__(self, base: Hparams, space: Space, data_name: str, seconds: float, scratch: Path) -> None:
        self._began, self._seconds = time.monotonic(), seconds
        self._base, self._space, self._data_name, self._scratch = base, space, data_name, scratch
        self.dataset = datasets.load(data_name)
        self._images = len(datasets.split(self.dataset).train)

    def of_policy(self, policy: Policy) -> Outcome:
        """Search for as long as `cifar fit` does, then train what came out best."""
        fixed = {name: value for name, value in vars(self._base).items() if name not in self._space}
        command = "python trial.py " + " ".join(option(name, value) for name, value in fixed.items())
        measured = forecast.measure(dict(self._space), command, self._data_name, AT_ONCE)
        search_seconds = budget.search_shares(self._base.model)[0] * (self._seconds - self._used())
        trial, _ = budget.of_trial(
            search_seconds, measured, self._base.epochs * self._base.epoch_images(self._images), self._images
        )
        fixed |= {"epochs": trial.epochs, "images_per_epoch": trial.images_per_epoch}
        tried = [*self._search(policy, lambda params: self._fitting({**fixed, **params}), search_seconds)]
        if not tried:
            raise Failed("no trial has run to its end")
        best = max(tried, key=lambda one: one.accuracy)
        return self._last_networks({**fixed, **best.params}, best.image_seconds, len(tried))

    def of_defaults(self, wider: int) -> Outcome:
        """The recipe for the whole time."""
        fixed = {name: value for name, value in vars(self._base).items() if name not in self._space}
        width = Hparams(model=self._base.model).width * wider
        probe = self._fitting({**fixed, "width": width, "epochs": _PROBED_EPOCHS, "images_per_epoch": _PROBED_IMAGES})
        with _workers(self._data_name) as connections:
            for connection in connections:
                for message in [probe, *[True] * (_PROBED_EPOCHS - 1)]:
                    connection.send(message)
            heard = [[connection.recv() for _ in range(_PROBED_EPOCHS)] for connection in connections]
        of_image = fmean(epochs[-1][2] for epochs in heard)
        return self._last_networks({**fixed, "width": width}, of_image, 0)

    def _used(self) -> float:
        return time.monotonic() - self._began

    def _fitting(self, params: dict[str, Any]) -> Hparams:
        return augmentation.fitting(Hparams.from_params(params), self._data_name)

    def _search(self, policy: Policy, hparams: Callable[[dict[str, Any]], Hparams], seconds: float) -> Iterator[Tried]:
        ends = time.monotonic() + seconds
        running: dict[Connection, tuple[int, dict[str, Any], Hparams]] = {}
        proposed = 0
        with _workers(self._data_name) as free:
            while True:
                for connection in free:
                    params = dict(policy.propose(proposed))
                    running[connection] = proposed, params, hparams(params)
                    connection.send(running[connection][2])
                    proposed += 1
                free = []
                heard = wait(list(running), max(0.0, ends - time.monotonic()))
                if not heard:
                    return
                for ready in heard:
                    assert isinstance(ready, Connection)
                    number, params, trained = running[ready]
                    epoch, accuracy, of_image = ready.recv()
                    last = epoch == trained.epochs
                    if not last and policy.goes_on(number, epoch, accuracy):
                        ready.send(True)
                        continue
                    if not last:
                        ready.send(False)
                    policy.hear(number, accuracy)
                    free.append(ready)
                    if last and math.isfinite(of_image):
                        yield Tried(params, accuracy, of_image)

    def _last_networks(self, params: dict[str, Any], image_seconds: float, trials: int) -> Outcome:
        test = datasets.load_test(self._data_name)
        # As `cifar fit` reckons with.
        tested = training_time.looks_at_tests(self._base, torch.device("cpu")) * len(test.labels)
        left = self._seconds * (1 - fit.SPARE) - self._used() - tested * image_seconds
        images = len(self.dataset.labels)  # those to validate on are no longer held out
        shown = min(left / image_seconds, MOST_EPOCHS * images)
        epochs, per_epoch = training_time.budget_of(shown, images)
        longer = {**params, "epochs": epochs, "images_per_epoch": per_epoch}
        known = defaults.for_budget({name: longer[name] for name in ("model", "epochs", "images_per_epoch")}, images)
        longer["color_jitter"] = known.color_jitter  # as the recipe has it for so long a training
        hparams = self._fitting(longer) if trials else augmentation.fitting(
            defaults.for_budget(longer, images), self._data_name
        )  # fmt: skip
        seeds = [_FIRST_SEED, _FIRST_SEED + 1]
        directory = layout.confirmed(self._scratch)
        directory.mkdir()
        configuration = Configuration("last", "the last networks", hparams, {})
        trainer = Trainer(directory, self.dataset, AT_ONCE, len(seeds))
        models = trainer.final_models(configuration, seeds)
        trainer.progress.close()
        found = read_test_images(self._scratch, models, test, "contest")
        return Outcome(self._used(), found.accuracy.value, trials, asdict(replace(hparams, seed=seeds[0])))


@contextmanager
def _workers(data_name: str) -> Iterator[list[Connection]]:
    """Processes that train what they are sent, and ask after each epoch but the last whether to go on."""
    pipes = [multiprocessing.Pipe() for _ in range(AT_ONCE)]
    with spawned(_work, [(there, data_name) for _, there in pipes], 1.0):
        for _, there in pipes:
            there.close()
        yield [here for here, _ in pipes]


def _work(connection: Connection, data_name: str) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // AT_ONCE))
    dataset = datasets.load(data_name)
    splits = datasets.split(dataset)
    with suppress(KeyboardInterrupt):  # the search is over
        while True:
            _train(connection, connection.recv(), dataset, splits)


def _train(connection: Connection, hparams: Hparams, dataset: Dataset, splits: Splits) -> None:
    model = new_model(hparams, dataset)
    try:
        for epoch in train(model, new_optimizer(model, hparams), hparams, dataset, splits):
            metrics = epoch.metrics
            connection.send((metrics.epoch, metrics.accuracy, 1 / metrics.images_per_second))
            if metrics.epoch < hparams.epochs and not connection.recv():
                break
    except Diverged:
        connection.send((hparams.epochs, 1 / len(dataset.classes), math.inf))
