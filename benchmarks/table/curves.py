"""One training of a table, in a process of its own."""

from __future__ import annotations

from dataclasses import replace

import torch

from benchmarks.shared import machine
from benchmarks.table.plan import Training
from cifar.data import datasets
from cifar.data.datasets import Dataset, Splits
from cifar.training.train import Diverged, new_model, new_optimizer, train

_loaded: tuple[Dataset, Splits]


def begin(data_name: str, train_images: int) -> None:
    """Load the images, once per process."""
    global _loaded
    torch.set_num_threads(1)
    dataset = datasets.load(data_name).to(machine.device())
    splits = datasets.split(dataset).to(machine.device())
    if train_images:
        splits = replace(splits, train=evenly(splits.train, dataset, train_images))
    _loaded = dataset, splits


def curve(training: Training) -> list[dict[str, float]]:
    """A training's epochs; one that diverges guesses from then on."""
    (dataset, splits), hparams = _loaded, training.hparams
    model = new_model(hparams, dataset)
    epochs = []
    try:
        for epoch in train(model, new_optimizer(model, hparams), hparams, dataset, splits):
            figures = epoch.metrics
            epochs.append(
                {
                    "epoch": figures.epoch,
                    "seconds": figures.seconds,
                    "train_loss": figures.train_loss,
                    "val_loss": figures.loss,
                    "val_accuracy": figures.accuracy,
                }
            )
    except Diverged:
        guessing = {"seconds": 0.0, "train_loss": 99.0, "val_loss": 99.0, "val_accuracy": 1 / len(dataset.classes)}
        epochs += [{"epoch": epoch, **guessing} for epoch in range(len(epochs) + 1, hparams.epochs + 1)]
    return epochs


def evenly(index: torch.Tensor, dataset: Dataset, images: int) -> torch.Tensor:
    """The first ones of each class, equally many."""
    each, labels = images // len(dataset.classes), dataset.labels[index]
    chosen = [index[labels == label][:each] for label in range(len(dataset.classes))]
    return torch.cat(chosen).sort().values
