"""What changes from step to step: the learning rate, and how firmly the weights are drawn to their average."""

from __future__ import annotations

import torch
from torch import Tensor

from cifar.training.hparams import Hparams

# As airbench94's, rounded.
_START, _END = 0.2, 0.05  # of the learning rate
_PEAK = 0.25  # of the steps
_STEPS_BETWEEN = 5  # returns to the average: each step would cost more and change little


def learning_rate(hparams: Hparams, progress: float) -> float:
    """At a step, by the share of all steps that are done with it."""
    if hparams.schedule == "constant":
        return hparams.lr
    if progress < _PEAK:
        return hparams.lr * (_START + (1 - _START) * progress / _PEAK)
    return hparams.lr * (1 - (1 - _END) * (progress - _PEAK) / (1 - _PEAK))


class Average:
    """The exponential average of weights, to which they return every few steps and at each epoch's end (Lookahead).

    So that an epoch ends with one set of weights, which is evaluated and kept. The average is loose at first and firm
    at the end. Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back" (2019).
    """

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights: list[Tensor] = [value for value in model.state_dict().values() if value.is_floating_point()]
        self.averages = [value.clone() for value in self.weights] if decay else []

    @torch.no_grad()
    def after_step(self, number: int, progress: float, last: bool) -> None:
        """After an epoch's step of that number, `last` at its last."""
        if self.decay and (last or number % _STEPS_BETWEEN == 0):
            new_share = 1 - self.decay**_STEPS_BETWEEN * progress**3  # airbench94's
            torch._foreach_lerp_(self.averages, self.weights, new_share)
            torch._foreach_copy_(self.weights, self.averages)
