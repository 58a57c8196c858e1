"""A training step as PyTorch's autograd makes it: the reference of the faster forms."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar.training.hparams import Hparams
from cifar.training.optimizers import Optimizer


def train_step(model: nn.Module, optimizer: Optimizer, hparams: Hparams, images: Tensor, labels: Tensor) -> Tensor:
    """One optimizer step on one batch, its gradient summed over micro-batches; returns the sum of its losses."""
    optimizer.zero_grad()
    total = torch.zeros((), device=images.device)
    for micro_images, micro_labels in micro_batches(images, labels, hparams):
        loss = batch_loss(model, hparams, micro_images, micro_labels)
        (loss / len(labels)).backward()
        total += loss.detach()
    optimizer.step()
    return total


def micro_batches(images: Tensor, labels: Tensor, hparams: Hparams) -> Iterator[tuple[Tensor, Tensor]]:
    size = math.ceil(len(labels) / hparams.gradient_accumulation_steps)
    return zip(images.split(size), labels.split(size), strict=True)


def batch_loss(model: nn.Module, hparams: Hparams, images: Tensor, labels: Tensor) -> Tensor:
    """The sum of the losses of some images."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=hparams.precision == "bfloat16"):
        logits = model(images)
    return F.cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=hparams.label_smoothing)
