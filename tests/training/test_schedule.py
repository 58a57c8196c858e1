from __future__ import annotations

import pytest
import torch
from torch import nn

from cifar.training.hparams import Hparams
from cifar.training.lookahead import Lookahead
from cifar.training.schedule import learning_rate


def test_a_constant_learning_rate_stays() -> None:
    assert {learning_rate(Hparams(lr=0.3), step / 10) for step in range(11)} == {0.3}


def test_a_triangular_one_rises_for_a_quarter_and_falls_to_a_twentieth() -> None:
    hparams = Hparams(lr=2.0, schedule="triangular")
    rates = [learning_rate(hparams, step / 100) for step in range(101)]
    assert rates[:26] == sorted(rates[:26])
    assert rates[25:] == sorted(rates[25:], reverse=True)
    assert (rates[0], rates[25], rates[100]) == pytest.approx((0.4, 2.0, 0.1))


def line(weight: float) -> nn.Linear:
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(weight)
    return model


def test_weights_return_to_their_average_every_fifth_step_and_at_the_end_of_an_epoch() -> None:
    model = line(0.0)
    lookahead = Lookahead(model, decay=0.9)
    seen = []
    for number in range(1, 8):
        model.weight.data.fill_(1.0)
        lookahead.after_step(number, progress=1.0, last=number == 7)
        seen.append(model.weight.item())
    first = 1 - 0.9**5
    assert seen == pytest.approx([1, 1, 1, 1, first, 1, first + (1 - first) * (1 - 0.9**5)])


def test_the_average_is_loose_at_first() -> None:
    early, late = line(0.0), line(0.0)
    for model, progress in ((early, 0.1), (late, 1.0)):
        lookahead = Lookahead(model, decay=0.95)
        model.weight.data.fill_(1.0)
        lookahead.after_step(5, progress, last=False)
    assert early.weight.item() > 0.99
    assert late.weight.item() < 0.3


def test_without_decay_weights_are_left_alone() -> None:
    model = line(0.0)
    lookahead = Lookahead(model, decay=0.0)
    model.weight.data.fill_(1.0)
    lookahead.after_step(5, progress=1.0, last=True)
    assert model.weight.item() == 1.0


def test_buffers_are_averaged_with_the_weights() -> None:
    model = nn.BatchNorm1d(1)
    lookahead = Lookahead(model, decay=0.5)
    model.running_mean = torch.ones(1)
    averaged = {id(tensor) for tensor in lookahead.fast}
    assert len(averaged) == 4  # weight, bias, mean, variance; the number of batches is no average's
