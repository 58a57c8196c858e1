"""A training step on a GPU, captured once as a CUDA graph and replayed: one launch instead of one per operator."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from cifar.training.optimizers import Optimizer

logger = logging.getLogger(__name__)

_ALIKE = 0.5  # of a step's length: roundings make a hundredth of it, and an empty graph all of it
_WARM_UP_STEPS = 3  # libraries choose their algorithms and take their memory before the capture, as PyTorch asks


class CudaGraphStep:
    """`step` for batches of one size, which the first batch sets; others, an epoch's last, take the plain step.

    The capture leaves parameters and optimizer as they were. Where its first replay does not move them as the plain
    step does, every batch takes the plain step.
    """

    def __init__(self, step: Callable[[Tensor, Tensor], Tensor], model: nn.Module, optimizer: Optimizer) -> None:
        self.step = step
        self.model = model
        self.optimizer = optimizer
        self.graph: torch.cuda.CUDAGraph | None = None
        self.is_proven = False

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        if self.graph is None:
            self._capture(images, labels)
        if not self.is_proven or len(labels) != len(self.labels):
            return self.step(images, labels)
        return self._replay(images, labels)

    def _replay(self, images: Tensor, labels: Tensor) -> Tensor:
        self.images.copy_(images)
        self.labels.copy_(labels)
        assert self.graph is not None
        self.graph.replay()
        return self.loss

    def _capture(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images.clone(), labels.clone()
        state = [*self.model.state_dict().values(), *chain.from_iterable(self.optimizer.state.values())]
        before = _copies(state)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_STEPS):
                self.step(self.images, self.labels)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = self.step(self.images, self.labels)
        self._prove(images, labels, state, before)
        _restore(state, before)

    def _prove(self, images: Tensor, labels: Tensor, state: Sequence[Tensor], before: Sequence[Tensor]) -> None:
        """Compare a replay with the plain step, from the same state: a capture can come out empty, and say nothing."""
        parameters = [parameter.detach() for parameter in self.model.parameters()]
        losses, after = list[Tensor](), list[list[Tensor]]()
        for step in (self.step, self._replay):
            _restore(state, before)
            start = _copies(parameters)
            losses.append(step(images, labels).clone())
            after.append(_copies(parameters))
        nothing = [torch.zeros_like(losses[0])]
        self.is_proven = moved_alike(start, *after) and moved_alike(nothing, *([loss] for loss in losses))
        if not self.is_proven:
            logger.warning("a captured training step does not train as the plain one does: the plain one is used")


def _copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.clone() for tensor in tensors]


def _restore(state: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for tensor, value in zip(state, values, strict=True):
        tensor.copy_(value)


def moved_alike(before: Sequence[Tensor], first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    """Whether two steps that begin `before` lead to nearly the same place, by the length of the first one.

    A step that diverges leads nowhere that could be compared: it passes.
    """
    start, one, other = (torch.cat([tensor.double().flatten() for tensor in some]) for some in (before, first, second))
    length = float((one - start).norm())
    return not math.isfinite(length) or float((other - one).norm()) <= _ALIKE * length
