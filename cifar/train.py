"""Training and evaluation. No NNI, no files: images in, metrics out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from cifar.cpu_step import CpuStep
from cifar.cuda_step import CudaGraphStep
from cifar.data import Dataset, Splits, batches
from cifar.hparams import Hparams
from cifar.models import Net, build_model
from cifar.optimizers import Adam, Optimizer, Sgd

_LOSS_CHECK_STEPS = 64  # reading the loss makes a GPU wait, so not at every step
_EVALUATION_BATCH = 512

Step = Callable[[Tensor, Tensor], Tensor]  # a batch's images and labels -> the sum of their losses


@dataclass(frozen=True)
class EpochMetrics:
    """One epoch's figures; accuracies are fractions, and loss and accuracy are the validation images'."""

    epoch: int  # from 1
    train_loss: float
    loss: float
    accuracy: float
    images_per_second: float  # of training, evaluation not counted
    seconds: float  # of this epoch, evaluation counted


@dataclass(frozen=True)
class Epoch:
    """What an epoch ends with: its figures, and the label that the network now gives each validation image."""

    metrics: EpochMetrics
    predictions: Tensor


class Diverged(Exception):
    """The loss is no longer finite."""


def new_model(hparams: Hparams, dataset: Dataset) -> nn.Module:
    """The network that `hparams` describe, its weights drawn from their seed, where the data set is."""
    # PyTorch's own default lets a GPU round convolutions to TF32 without being asked.
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(hparams.seed)
    return build_model(hparams.model, hparams.width, len(dataset.classes)).to(dataset.images.device)


def new_optimizer(model: nn.Module, hparams: Hparams) -> Optimizer:
    if hparams.optimizer == "adam":
        return Adam(model.parameters(), hparams.lr, hparams.weight_decay)
    return Sgd(model.parameters(), hparams.lr, hparams.momentum, hparams.weight_decay)


def train(
    model: nn.Module,
    optimizer: Optimizer,
    hparams: Hparams,
    dataset: Dataset,
    splits: Splits,
    first_epoch: int = 1,
) -> Iterator[Epoch]:
    """Train `model` in place from `first_epoch` to the last; yields after each epoch.

    Raises Diverged as soon as a loss is not finite.
    """
    step = new_step(model, optimizer, hparams)
    for epoch in range(first_epoch, hparams.epochs + 1):
        began = time.perf_counter()
        model.train()
        train_loss = _train_epoch(step, dataset, _shuffled(splits.train, hparams.seed, epoch), hparams.batch_size)
        images_per_second = len(splits.train) / (time.perf_counter() - began)
        val = evaluate(model, dataset, splits.val)
        if not math.isfinite(val.loss):
            raise Diverged(f"validation loss is {val.loss} after epoch {epoch}")
        seconds = time.perf_counter() - began
        metrics = EpochMetrics(epoch, train_loss, val.loss, val.accuracy, images_per_second, seconds)
        yield Epoch(metrics, val.predictions)


def _shuffled(index: Tensor, seed: int, epoch: int) -> Tensor:
    # Seeded by the epoch too, so that a continued trial sees the order that an uninterrupted one would.
    # The generator keeps 32 bits of its seed; a prime spreads seeds and epochs over them.
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**32)
    return index[torch.randperm(len(index), generator=generator).to(index.device)]


def new_step(model: nn.Module, optimizer: Optimizer, hparams: Hparams) -> Step:
    """train_step for this model, in the form that is fastest where the model is."""
    on_gpu = next(model.parameters()).is_cuda
    if isinstance(model, Net) and not on_gpu and hparams.precision == "float32":
        return CpuStep(model, optimizer, hparams.accumulate)
    step = partial(train_step, model, optimizer, hparams)
    return CudaGraphStep(step, model, optimizer) if on_gpu else step


def _train_epoch(step: Step, dataset: Dataset, order: Tensor, batch_size: int) -> float:
    """One pass over the images in `order`; returns their mean loss."""
    total = torch.zeros((), device=order.device)
    with tqdm(total=len(order), unit=" images", leave=False, disable=None) as progress:
        for number, (images, labels) in enumerate(batches(dataset, order, batch_size), start=1):
            total += step(images, labels)
            if number % _LOSS_CHECK_STEPS == 0:
                _refuse_divergence(total, number)
            progress.update(len(labels))
    _refuse_divergence(total, number)
    return total.item() / len(order)


def train_step(model: nn.Module, optimizer: Optimizer, hparams: Hparams, images: Tensor, labels: Tensor) -> Tensor:
    """One optimizer step on one batch, its gradient summed over micro-batches; returns the sum of its losses."""
    optimizer.zero_grad()
    total = torch.zeros((), device=images.device)
    micro_size = math.ceil(len(labels) / hparams.accumulate)
    for some_images, some_labels in zip(images.split(micro_size), labels.split(micro_size), strict=True):
        with torch.autocast(images.device.type, torch.bfloat16, enabled=hparams.precision == "bfloat16"):
            logits = model(some_images)
        loss = F.cross_entropy(logits.float(), some_labels, reduction="sum")
        (loss / len(labels)).backward()
        total += loss.detach()
    optimizer.step()
    return total


def _refuse_divergence(total: Tensor, step: int) -> None:
    if not math.isfinite(total.item()):
        raise Diverged(f"training loss is {total.item()} at or before step {step}")


@dataclass(frozen=True)
class Evaluation:
    """Mean loss, accuracy as a fraction, and the predicted label of each image."""

    loss: float
    accuracy: float
    predictions: Tensor


@torch.inference_mode()
def evaluate(model: nn.Module, dataset: Dataset, index: Tensor) -> Evaluation:
    model.eval()
    total = torch.zeros((), device=index.device)
    predictions = []
    for images, labels in batches(dataset, index, _EVALUATION_BATCH):
        logits = model(images)
        total += F.cross_entropy(logits, labels, reduction="sum")
        predictions.append(logits.argmax(1))
    predicted = torch.cat(predictions)
    accuracy = (predicted == dataset.labels[index]).double().mean().item()
    return Evaluation(total.item() / len(index), accuracy, predicted.cpu())


def class_accuracies(evaluation: Evaluation, dataset: Dataset, index: Tensor) -> dict[str, float]:
    """Accuracy of each class that has images in `index`, in the data set's order."""
    labels = dataset.labels[index].cpu()
    correct = (evaluation.predictions == labels).double()
    return {
        name: correct[labels == label].mean().item()
        for label, name in enumerate(dataset.classes)
        if (labels == label).any()
    }
