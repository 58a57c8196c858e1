"""How long trainings take, and what they can show in so many seconds."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from cifar.analysis.configurations import recipe_of
from cifar.analysis.retrain import Trainer
from cifar.data import datasets
from cifar.data.datasets import Splits
from cifar.errors import RequestError
from cifar.search.forecast import step_seconds
from cifar.system.processes import spawned
from cifar.training.hparams import Hparams
from cifar.training.steps import precision_on

_FEWEST_PARTS = 4  # epochs of a training that has no time to see all images so often
_PROBED_WIDTHS, _PROBED_BATCHES, _PROBE_SECONDS = (4, 8, 16, 32, 48, 64, 96, 128), (4, 16, 64, 256), 0.4
_PROBED_BATCH = 64
_STOP_SECONDS = 5.0
_FLOAT32 = 2.5  # times as long as `looks` says, at most (docs/fast.md)

ImageSeconds = Callable[[float, float], float]  # of an image to train on, alone on a core; by width and batch size


def makespan(seconds: Sequence[float], seeds: int, at_once: int) -> float:
    """How long trainings of so many seconds take, each with every seed, in this order and so many at once."""
    ends = [0.0] * at_once
    for each in seconds:
        for _ in range(seeds):
            ends[ends.index(min(ends))] += each
    return max(ends)


def budget_of(shown: float, images: int) -> tuple[int, int]:
    """Epochs and images per epoch that show about so many images."""
    epochs = max(_FEWEST_PARTS, math.ceil(shown / images))
    return epochs, max(1, min(images, int(shown / epochs)))


def measured_speed(experiment: Path, trainer: Trainer) -> ImageSeconds:
    """Of the experiment's network, by a few steps on the trainer's device; a power of width and batch between those."""
    recipe, device = recipe_of(experiment, len(trainer.splits.train)), trainer.claim.device
    dataset, splits = trainer.dataset.to(device), trainer.splits.to(device)
    like = replace(recipe, batch_size=_PROBED_BATCH, gradient_accumulation_steps=1)
    torch.set_num_threads(trainer.claim.threads(like))

    def seconds(width: int, batch_size: int) -> float:
        probed = replace(like, width=width, batch_size=batch_size)
        return step_seconds(probed, dataset, splits, _PROBE_SECONDS) / batch_size

    by_width = _power_between({width: seconds(width, _PROBED_BATCH) for width in _PROBED_WIDTHS})
    batches = [batch for batch in _PROBED_BATCHES if batch <= len(splits.train)]
    by_batch = _power_between({batch: seconds(recipe.width, batch) for batch in batches})
    return lambda width, batch_size: by_width(width) * by_batch(batch_size) / by_batch(_PROBED_BATCH)


def beside_each_other(trainer: Trainer, hparams: Hparams, trainings: int, seconds: float) -> float:
    """Seconds of an image to train on where so many such trainings run at once; measured for about `seconds`."""
    here, there = multiprocessing.Pipe()
    others = min(trainer.at_once, trainings) - 1
    arguments = there, trainer.directory, trainer.dataset.name, trainer.at_once, hparams
    with spawned(_train_beside, [arguments] * others, _STOP_SECONDS):
        there.close()
        with contextlib.suppress(EOFError):  # one has ended, for want of memory perhaps
            for _ in range(others):
                here.recv()
        images = min(hparams.batch_size, hparams.epoch_images(len(trainer.splits.train)))
        return _step_seconds(trainer, hparams, seconds) / images


def _train_beside(connection: Connection, directory: Path, data_name: str, at_once: int, hparams: Hparams) -> None:
    """In a process of its own, until it is ended."""
    with contextlib.suppress(RequestError, RuntimeError):  # which the last training itself will meet, and say
        with connection:
            trainer = Trainer(directory, datasets.load(data_name, hparams.size), at_once, 0)
            trainer.progress.disable = True
            connection.send("ready")
        _step_seconds(trainer, hparams, math.inf)


def _step_seconds(trainer: Trainer, hparams: Hparams, seconds: float) -> float:
    torch.set_num_threads(trainer.claim.threads(hparams))
    device = trainer.claim.device
    return step_seconds(hparams, trainer.dataset.to(device), trainer.splits.to(device), seconds)


def _power_between(known: Mapping[int, float]) -> Callable[[float], float]:
    x, y = (np.log([*some]) for some in (known.keys(), known.values()))
    return lambda asked: math.exp(np.interp(math.log(asked), x, y))


def image_seconds(seconds: float, epochs: int, hparams: Hparams, splits: Splits) -> float:
    """Of an image to train on, by a training of so many epochs, each of which ends with the validation images."""
    return seconds / (epochs * (hparams.epoch_images(len(splits.train)) + looks(hparams) * len(splits.val)))


def looks(hparams: Hparams) -> float:
    """How long a network takes for an image at most, beside training on it; with its mirror image twice as long."""
    return 1.0 if hparams.tta_flip else 0.5


def looks_at_tests(hparams: Hparams, on: torch.device) -> float:
    """The same for a test image, which it is shown in float32 also where it was trained in bfloat16."""
    return looks(hparams) * (_FLOAT32 if precision_on(on, hparams) == "bfloat16" else 1.0)
