"""Lookahead: parameters that return to their own exponential average, which evens out single steps."""

from __future__ import annotations

import torch
from torch import Tensor

_STEPS_BETWEEN = 5  # returns to the average: each step would cost more and change little


class Lookahead:
    """The exponential average of parameters, to which they return every few steps and at each epoch's end.

    So that an epoch ends with one set of parameters, which is evaluated and kept. The average is loose at first and
    firm at the end. Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back" (2019).
    """

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self.fast: list[Tensor] = [value for value in model.state_dict().values() if value.is_floating_point()]
        self.slow = [value.clone() for value in self.fast] if decay else []

    @torch.no_grad()
    def after_step(self, number: int, progress: float, last: bool) -> None:
        """After an epoch's step of that number, `last` at its last."""
        if self.decay and (last or number % _STEPS_BETWEEN == 0):
            new_share = 1 - self.decay**_STEPS_BETWEEN * progress**3  # airbench94's
            torch._foreach_lerp_(self.slow, self.fast, new_share)
            torch._foreach_copy_(self.fast, self.slow)
