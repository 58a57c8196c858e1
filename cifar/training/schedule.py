"""The learning rate, from step to step."""

from __future__ import annotations

from cifar.training.hparams import Hparams

# As airbench94's, rounded.
_START, _END = 0.2, 0.05  # of the learning rate
_PEAK = 0.25  # of the steps


def learning_rate(hparams: Hparams, progress: float) -> float:
    """The learning rate of a step; `progress` is the share of all steps that are done after it."""
    if hparams.schedule == "constant":
        return hparams.lr
    if progress < _PEAK:
        return hparams.lr * (_START + (1 - _START) * progress / _PEAK)
    return hparams.lr * (1 - (1 - _END) * (progress - _PEAK) / (1 - _PEAK))
