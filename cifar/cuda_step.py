"""A training step on a GPU, captured once as a CUDA graph and replayed: one launch instead of one per operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

_WARM_UP_STEPS = 3  # libraries choose their algorithms and take their memory before the capture, as PyTorch asks


class CudaGraphStep:
    """`step` for batches of one size, which the first batch sets; others, the last of an epoch, take the plain step.

    The capture leaves weights and optimizer as they were.
    """

    def __init__(
        self, step: Callable[[Tensor, Tensor], Tensor], model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
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
        before = [tensor.clone() for tensor in self._state()]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_STEPS):
                self.step(self.images, self.labels)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = self.step(self.images, self.labels)
        self._restore(before)

    def _state(self) -> Iterator[Tensor]:
        """Weights, then what the optimizer keeps, which a new one does not have yet."""
        yield from self.model.state_dict().values()
        for kept in self.optimizer.state.values():
            yield from (value for value in kept.values() if isinstance(value, Tensor))

    def _restore(self, before: list[Tensor]) -> None:
        for number, tensor in enumerate(self._state()):
            if number < len(before):
                tensor.copy_(before[number])
            else:
                tensor.zero_()  # where a new optimizer begins: with momentum and counts of zero
