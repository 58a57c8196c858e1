"""Training, an epoch at a time. No NNI, no files: images in, metrics out."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import current_process

import torch
from torch import Tensor, nn
from tqdm import tqdm

from cifar.data.datasets import Dataset, Splits, batches, epoch_generator, normalise
from cifar.training.augmentation import Augmentation
from cifar.training.distributed import ALONE, Processes
from cifar.training.evaluation import evaluate
from cifar.training.hparams import Hparams
from cifar.training.lookahead import Lookahead
from cifar.training.models import Network, build_model
from cifar.training.optimizers import Adam, Optimizer, Sgd
from cifar.training.schedule import learning_rate
from cifar.training.steps import new_step, precision_on, smallest_numbers_as_zero

_LOSS_CHECK_STEPS = 64  # reading the loss makes a GPU wait, so not at every step
_WHITENING_IMAGES = 5_000


@dataclass(frozen=True)
class EpochMetrics:
    """One epoch's figures; accuracies are fractions, and loss and accuracies are the validation images'."""

    epoch: int  # from 1
    train_loss: float
    loss: float
    accuracy: float
    balanced_accuracy: float
    images_per_second: float  # of training, evaluation not counted
    seconds: float  # of this epoch, evaluation counted

    def of(self, metric: str) -> float:
        """The figure that is tuned, by its name in the hyperparameters."""
        return self.balanced_accuracy if metric == "balanced_accuracy" else self.accuracy


@dataclass(frozen=True)
class Epoch:
    """What an epoch ends with: its figures, and the label that the network now predicts for each validation image."""

    metrics: EpochMetrics
    predictions: Tensor


class Diverged(Exception):
    """The loss is no longer finite."""


def new_model(hparams: Hparams, dataset: Dataset) -> Network:
    """The network that `hparams` describe, its parameters drawn from their seed, where the data set is."""
    # PyTorch's own default lets a GPU round convolutions to TF32 without being asked.
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(hparams.seed)
    return build_model(hparams, len(dataset.classes)).to(dataset.images.device)


def new_optimizer(model: nn.Module, hparams: Hparams) -> Optimizer:
    if hparams.optimizer == "adam":
        return Adam(model.parameters(), hparams.lr, hparams.weight_decay)
    return Sgd(model.parameters(), hparams.lr, hparams.momentum, hparams.weight_decay, hparams.nesterov)


def train(
    model: Network,
    optimizer: Optimizer,
    hparams: Hparams,
    dataset: Dataset,
    splits: Splits,
    first_epoch: int = 1,
    processes: Processes = ALONE,
) -> Iterator[Epoch]:
    """Train `model` in place from `first_epoch` to the last; yields after each epoch.

    Raises Diverged as soon as a loss is not finite.
    """
    if first_epoch == 1:
        some = splits.train[:: max(1, len(splits.train) // _WHITENING_IMAGES)]
        model.init_whitening(normalise(dataset.images[some]))
    training = _Training(model, optimizer, hparams, dataset, splits.train, processes)
    precision = precision_on(splits.val.device, hparams)
    for epoch in range(first_epoch, hparams.epochs + 1):
        began = time.perf_counter()
        model.train()
        with smallest_numbers_as_zero():
            train_loss = training.epoch(epoch)
        images_per_second = training.images / (time.perf_counter() - began)
        val = evaluate(model, dataset, splits.val, processes, precision)
        if not math.isfinite(val.loss):
            raise Diverged(f"validation loss is {val.loss} after epoch {epoch}")
        seconds = time.perf_counter() - began
        accuracies = val.accuracy, val.balanced_accuracy
        metrics = EpochMetrics(epoch, train_loss, val.loss, *accuracies, images_per_second, seconds)
        yield Epoch(metrics, val.predictions)


class _Training:
    """The steps of a training, an epoch at a time."""

    def __init__(
        self,
        model: Network,
        optimizer: Optimizer,
        hparams: Hparams,
        dataset: Dataset,
        index: Tensor,
        processes: Processes,
    ) -> None:
        self.optimizer, self.hparams, self.dataset, self.index = optimizer, hparams, dataset, index
        self.processes = processes
        self.step = new_step(model, optimizer, hparams, processes)
        self.lookahead = Lookahead(model, hparams.lookahead_decay)
        self.images = hparams.epoch_images(len(index))
        self.steps = math.ceil(self.images / hparams.batch_size)

    def epoch(self, epoch: int) -> float:
        """Train for one epoch; returns the mean loss of its images."""
        total = torch.zeros((), device=self.index.device)
        epoch_batches = train_batches(self.hparams, self.dataset, self.index, epoch)
        # None: shown on a terminal. Beside another bar, or in a process that another one started, it would spoil that.
        hidden = None if self.processes.is_main and not _among_other_bars() else True
        with tqdm(total=self.images, unit=" images", leave=False, disable=hidden) as bar:
            for number, (images, labels) in enumerate(epoch_batches, start=1):
                progress = (epoch - 1 + number / self.steps) / self.hparams.epochs
                self.optimizer.set_lr(learning_rate(self.hparams, progress))
                total += self.step(images, labels)
                self.lookahead.after_step(number, progress, last=number == self.steps)
                if number % _LOSS_CHECK_STEPS == 0:
                    _refuse_divergence(self.processes.all_reduce(total), number)
                bar.update(len(labels))
        total = self.processes.all_reduce(total)
        _refuse_divergence(total, self.steps)
        return total.item() / self.images


def _among_other_bars() -> bool:
    return current_process().name != "MainProcess" or bool(getattr(tqdm, "_instances", ()))


def train_batches(hparams: Hparams, dataset: Dataset, index: Tensor, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of an epoch over the images at `index`, in its own order and views.

    A last batch that would be less than half full shares its images and those of the batch before it evenly.
    """
    order, images = _shuffled(index, hparams.seed, epoch), hparams.epoch_images(len(index))
    order = _evenly(order, dataset.labels[order], images) if hparams.balanced else order[:images]
    augmentation = Augmentation(hparams, len(dataset.labels), epoch, index.device) if hparams.augments else None
    for some, batch_size in runs_of_batches(order, hparams.batch_size):
        yield from batches(dataset, some, batch_size, augmentation)


def runs_of_batches(order: Tensor, batch_size: int) -> list[tuple[Tensor, int]]:
    """The images of an epoch, and the batch size of each run of them.

    A step moves the parameters as far for 8 images as for 64. Where every fourth step had 8, of 200 images, fast had
    2.6 points less (results/last-batch.md).
    """
    left_over = len(order) % batch_size
    if len(order) < batch_size or not 0 < left_over < batch_size / 2:
        return [(order, batch_size)]
    shared = batch_size + left_over
    runs = (order[:-shared], batch_size), (order[-shared:], math.ceil(shared / 2))
    return [(some, size) for some, size in runs if len(some)]


def _shuffled(index: Tensor, seed: int, epoch: int) -> Tensor:
    return index[torch.randperm(len(index), generator=epoch_generator(seed, epoch)).to(index.device)]


def _evenly(order: Tensor, labels: Tensor, images: int) -> Tensor:
    """So many images at a shuffled index, of each class as many, in turn; those of small classes again and again."""
    classes = [order[labels == label] for label in labels.unique()]
    each = math.ceil(images / len(classes))
    shown = [of_class.repeat(math.ceil(each / len(of_class)))[:each] for of_class in classes]
    return torch.stack(shown, dim=1).flatten()[:images]


def _refuse_divergence(total: Tensor, step: int) -> None:
    if not math.isfinite(total.item()):
        raise Diverged(f"training loss is {total.item()} at or before step {step}")
