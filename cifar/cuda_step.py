"""A training step on a GPU, captured once as a CUDA graph and replayed: one launch instead of one per operator."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn

from cifar.optimizers import Optimizer

_WARM_UP_STEPS = 3  # libraries choose their algorithms and take their memory before the capture, as PyTorch asks


class CudaGraphStep:
    """`step` for batches of one size, which the first batch sets; others, the last of an epoch, take the plain step.

    The capture leaves weights and optimizer as they were.
    """

    def __init__(self, step: Callable[[Tensor, Tensor], Tensor], model: nn.Module, optimizer: Optimizer) -> None:
        self.step = step
        self.model = model
        self.optimizer = optimizer
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        if self.graph is None:
            self._capture(images, labels)
        if len(labels) != len(self.labels):
            return self.step(images, labels)
        self.images.copy_(images)
        self.labels.copy_(labels)
        assert self.graph is not None
        self.graph.replay()
        return self.loss

    def _capture(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images.clone(), labels.clone()
        state = [*self.model.state_dict().values(), *chain.from_iterable(self.optimizer.kept.values())]
        before = [tensor.clone() for tensor in state]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_STEPS):
                self.step(self.images, self.labels)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = self.step(self.images, self.labels)
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)
