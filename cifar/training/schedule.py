"""The learning rate, from step to step."""

from __future__ import annotations

from cifar.training.hparams import Hparams

# As airbench94's, rounded.
_START, _END = 0.2, 0.05  # of the learning rate
_PEAK = 0.25  # of the steps


def learning_rate(hparams: Hparams, progress: float) -> float:
    """At a step, by the share of all steps that are done with it."""
    if hparams.schedule == "constant":
        return hparams.lr
    if progress < _PEAK:
        return hparams.lr * (_START + (1 - _START) * progress / _PEAK)
    return hparams.lr * (1 - (1 - _END) * (progress - _PEAK) / (1 - _PEAK))
