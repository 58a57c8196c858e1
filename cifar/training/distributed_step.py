"""A training step of several processes: each takes its shard of every batch, and all end with the same parameters."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from cifar.training.distributed import Processes
from cifar.training.hparams import Hparams
from cifar.training.models import BatchNorm, Network
from cifar.training.optimizers import Optimizer
from cifar.training.plain_step import batch_loss, micro_batches


class DistributedStep:
    """plain_step.train_step, whose batches all processes have; returns the sum of the losses of this one's shards."""

    def __init__(self, model: Network, optimizer: Optimizer, hparams: Hparams, processes: Processes) -> None:
        self.optimizer, self.hparams, self.processes = optimizer, hparams, processes

        def all_reduce(value: Tensor) -> Tensor:  # a plain function, which copies of the network share
            return processes.all_reduce_with_gradient(value)

        for module in model.modules():
            if isinstance(module, BatchNorm):
                module.all_reduce = all_reduce
        self.model = processes.wrap(model)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        total = torch.zeros((), device=images.device)
        batches = list(micro_batches(images, labels, self.hparams))
        for number, (micro_images, micro_labels) in enumerate(batches, start=1):
            own_images, own_labels = self.processes.shard(micro_images), self.processes.shard(micro_labels)
            is_last = number == len(batches)  # only then are the gradients exchanged
            with contextlib.nullcontext() if is_last else self.model.no_sync():
                loss = batch_loss(self.model, self.hparams, own_images, own_labels)
                (loss * self.processes.world_size / len(labels)).backward()  # the gradients are averaged
            total += loss.detach()
        self.optimizer.step()
        return total
