"""Training and evaluation. No NNI, no files: images in, metrics out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from cifar.data.datasets import Dataset, Splits, batches, epoch_generator, normalise
from cifar.training import distributed
from cifar.training.augmentation import Augmentation
from cifar.training.cpu_step import CpuStep, keep_freed_memory
from cifar.training.cuda_step import CudaGraphStep
from cifar.training.hparams import Hparams
from cifar.training.lookahead import Lookahead
from cifar.training.models import Net, Network, build_model
from cifar.training.optimizers import Adam, Optimizer, Sgd
from cifar.training.schedule import learning_rate

_LOSS_CHECK_STEPS = 64  # reading the loss makes a GPU wait, so not at every step
_EVALUATION_BATCH = 512
_FIRST_LOOK = 5_000  # training images

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


def new_model(hparams: Hparams, dataset: Dataset) -> Network:
    """The network that `hparams` describe, its weights drawn from their seed, where the data set is."""
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
) -> Iterator[Epoch]:
    """Train `model` in place from `first_epoch` to the last; yields after each epoch.

    Raises Diverged as soon as a loss is not finite.
    """
    if first_epoch == 1:
        some = splits.train[:: max(1, len(splits.train) // _FIRST_LOOK)]
        model.init_whitening(normalise(dataset.images[some]))
    training = _Training(model, optimizer, hparams, dataset, splits.train)
    for epoch in range(first_epoch, hparams.epochs + 1):
        began = time.perf_counter()
        model.train()
        train_loss = training.epoch(epoch)
        images_per_second = training.images / (time.perf_counter() - began)
        val = _evaluate_together(model, dataset, splits.val)
        if not math.isfinite(val.loss):
            raise Diverged(f"validation loss is {val.loss} after epoch {epoch}")
        seconds = time.perf_counter() - began
        metrics = EpochMetrics(epoch, train_loss, val.loss, val.accuracy, images_per_second, seconds)
        yield Epoch(metrics, val.predictions)


def _shuffled(index: Tensor, seed: int, epoch: int) -> Tensor:
    return index[torch.randperm(len(index), generator=epoch_generator(seed, epoch)).to(index.device)]


def new_step(model: nn.Module, optimizer: Optimizer, hparams: Hparams) -> Step:
    """train_step for this model, in the form that is fastest where the model is."""
    device = next(model.parameters()).device
    hparams = replace(hparams, precision=precision_on(device, hparams))
    if device.type == "cpu":
        keep_freed_memory()
    if distributed.size() > 1:
        return partial(train_step, distributed.wrapped(model), optimizer, hparams)
    if (
        isinstance(model, Net)
        and device.type == "cpu"
        and hparams.precision == "float32"
        and not hparams.label_smoothing
    ):
        return CpuStep(model, optimizer, hparams.gradient_accumulation_steps)
    step = partial(train_step, model, optimizer, hparams)
    return CudaGraphStep(step, model, optimizer) if device.type == "cuda" else step


def precision_on(device: torch.device, hparams: Hparams) -> str:
    """What `auto` means there."""
    if hparams.precision != "auto":
        return hparams.precision
    has_bfloat16 = torch.cuda.is_bf16_supported(False) if device.type == "cuda" else _cpu_has_bfloat16()
    return "bfloat16" if has_bfloat16 else "float32"


def _cpu_has_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))


def train_batches(hparams: Hparams, dataset: Dataset, index: Tensor, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of an epoch over the images at `index`, in its own order and views."""
    order = _shuffled(index, hparams.seed, epoch)[: epoch_size(hparams, index)]
    augmentation = Augmentation(hparams, len(dataset.labels), epoch, index.device) if hparams.augments else None
    return batches(dataset, order, hparams.batch_size, augmentation)


def epoch_size(hparams: Hparams, index: Tensor) -> int:
    """How many of the images at `index` an epoch shows."""
    return min(hparams.images_per_epoch or len(index), len(index))


class _Training:
    """The steps of a training, an epoch at a time."""

    def __init__(self, model: Network, optimizer: Optimizer, hparams: Hparams, dataset: Dataset, index: Tensor) -> None:
        self.optimizer, self.hparams, self.dataset, self.index = optimizer, hparams, dataset, index
        self.step = new_step(model, optimizer, hparams)
        self.lookahead = Lookahead(model, hparams.lookahead_decay)
        self.images = epoch_size(hparams, index)
        self.steps = math.ceil(self.images / hparams.batch_size)

    def epoch(self, epoch: int) -> float:
        """Train for one epoch; returns the mean loss of its images."""
        total = torch.zeros((), device=self.index.device)
        epoch_batches = train_batches(self.hparams, self.dataset, self.index, epoch)
        hidden = None if distributed.leads() else True  # None: shown on a terminal
        with tqdm(total=self.images, unit=" images", leave=False, disable=hidden) as bar:
            for number, (images, labels) in enumerate(epoch_batches, start=1):
                progress = (epoch - 1 + number / self.steps) / self.hparams.epochs
                self.optimizer.set_lr(learning_rate(self.hparams, progress))
                total += self.step(images, labels)
                self.lookahead.after_step(number, progress, last=number == self.steps)
                if number % _LOSS_CHECK_STEPS == 0:
                    _refuse_divergence(distributed.total(total), number)
                bar.update(len(labels))
        total = distributed.total(total)
        _refuse_divergence(total, self.steps)
        return total.item() / self.images


def train_step(model: nn.Module, optimizer: Optimizer, hparams: Hparams, images: Tensor, labels: Tensor) -> Tensor:
    """One optimizer step on one batch, its gradient summed over micro-batches; returns the sum of its losses.

    Of several processes each has the whole batch, and returns the sum over its part of it.
    """
    optimizer.zero_grad()
    total = torch.zeros((), device=images.device)
    micro_size = math.ceil(len(labels) / hparams.gradient_accumulation_steps)
    micro_batches = list(zip(images.split(micro_size), labels.split(micro_size), strict=True))
    for number, (some_images, some_labels) in enumerate(micro_batches, start=1):
        own_images, own_labels = distributed.part(some_images), distributed.part(some_labels)
        with distributed.accumulating(model, last=number == len(micro_batches)):
            with torch.autocast(images.device.type, torch.bfloat16, enabled=hparams.precision == "bfloat16"):
                logits = model(own_images)
            loss = F.cross_entropy(logits.float(), own_labels, reduction="sum", label_smoothing=hparams.label_smoothing)
            (loss * distributed.size() / len(labels)).backward()  # the processes' gradients are averaged
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


def evaluate(model: nn.Module, dataset: Dataset, index: Tensor) -> Evaluation:
    total, predictions = _predict(model, dataset, index)
    return _evaluation(total, predictions.cpu(), dataset, index)


def _evaluate_together(model: nn.Module, dataset: Dataset, index: Tensor) -> Evaluation:
    """The same by all processes of a training, each of which evaluates a part."""
    total, predictions = _predict(model, dataset, distributed.part(index))
    return _evaluation(distributed.total(total), distributed.together(predictions), dataset, index)


@torch.inference_mode()
def _predict(model: nn.Module, dataset: Dataset, index: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of the losses of the images at `index`, and the label that the model gives each."""
    model.eval()
    total = torch.zeros((), device=index.device)
    predictions = [index[:0]]
    for images, labels in batches(dataset, index, _EVALUATION_BATCH):
        logits = model(images)
        total += F.cross_entropy(logits, labels, reduction="sum")
        predictions.append(logits.argmax(1))
    return total, torch.cat(predictions)


def _evaluation(total: Tensor, predictions: Tensor, dataset: Dataset, index: Tensor) -> Evaluation:
    accuracy = (predictions == dataset.labels[index].cpu()).double().mean().item()
    return Evaluation(total.item() / len(index), accuracy, predictions)


def class_accuracies(evaluation: Evaluation, dataset: Dataset, index: Tensor) -> dict[str, float]:
    """Accuracy of each class that has images in `index`, in the data set's order."""
    labels = dataset.labels[index].cpu()
    correct = (evaluation.predictions == labels).double()
    return {
        name: correct[labels == label].mean().item()
        for label, name in enumerate(dataset.classes)
        if (labels == label).any()
    }
