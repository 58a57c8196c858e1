"""TPE that begins with what is known, and judges hyperparameters together.

NNI's TPE draws at random for a while and then looks at each hyperparameter alone. This one begins with the defaults,
draws first near them, and compares whole configurations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from nni.common.hpo_utils import deformat_parameters, format_parameters

from cifar.search.coordinates import Coordinates, Params
from cifar.search.tuner import RepeatingTpe, point_key

_AT_START = 0.75  # of the random phase's proposals, near the start
_CANDIDATES_ANYWHERE, _CANDIDATES_AROUND_START = 0.2, 0.1  # the others are neighbours of good ones
_START_WIDTH = 0.35  # of the learning rate's range: the defaults may be off by a factor of ten
_WIDEST, _NARROWEST = 0.3, 0.08  # kernels of good configurations, of few and of many
_NARROWEST_OF_BAD = 0.1


class GuidedTpe(RepeatingTpe):
    """RepeatingTpe that proposes the points of `start_from` first, the defaults for instance, and learns jointly."""

    def __init__(
        self,
        optimize_mode: Literal["minimize", "maximize"] = "maximize",
        seed: int | None = None,
        tpe_args: dict[str, Any] | None = None,
        start_from: Sequence[Params] = (),
    ) -> None:
        super().__init__(optimize_mode, seed, tpe_args)
        self._start_from = [*start_from]
        self._begun = 0  # of these

    def update_search_space(self, space: Any) -> None:
        super().update_search_space(space)
        self._coordinates = Coordinates(space, self.rng)

    def _propose(self, parameter_id: int) -> Params:
        params = self._next_start() or self._suggested()
        self._params[parameter_id] = self._running_params[parameter_id] = format_parameters(params, self.space)
        return params

    def _next_start(self) -> Params | None:
        """The next of the points to start from that no earlier run of the experiment has trained."""
        while self._begun < len(self._start_from):
            self._begun += 1
            start = self._start_from[self._begun - 1]
            if point_key(start) not in self._points:
                return dict(start)
        return None

    def _suggested(self) -> Params:
        if len(self._points) < self.args.n_startup_jobs:
            near = self._start_from and self.rng.random() < _AT_START
            return self._around_start() if near else self._coordinates.anywhere()
        return self._most_promising()

    def _around_start(self) -> Params:
        start = self._start_from[int(self.rng.integers(len(self._start_from)))]
        return self._coordinates.around(start, _START_WIDTH)

    def _most_promising(self) -> Params:
        """Of some candidates the one where good configurations are densest beside all others, those that run too."""
        ranked = [point.params for point in self._ranked()]
        good = ranked[: max(2, math.ceil(self.args.gamma * math.sqrt(len(ranked))))]
        others = [
            *ranked[len(good) :],
            *(deformat_parameters(some, self.space) for some in self._running_params.values()),
        ]
        shrunk = len(ranked) ** (-1 / (len(self._coordinates.ranges) + 4))
        width, width_of_bad = max(_NARROWEST, _WIDEST * shrunk), max(_NARROWEST_OF_BAD, _WIDEST * shrunk)
        candidates = [self._candidate(good, width) for _ in range(self.args.n_ei_candidates)]
        promise = [
            self._density(candidate, good, width) / self._density(candidate, others, width_of_bad)
            for candidate in candidates
        ]
        return candidates[int(np.argmax(promise))]

    def _candidate(self, good: list[Params], width: float) -> Params:
        kind = self.rng.random()
        if kind < _CANDIDATES_ANYWHERE:
            return self._coordinates.anywhere()
        if kind < _CANDIDATES_ANYWHERE + _CANDIDATES_AROUND_START and self._start_from:
            return self._around_start()
        return self._coordinates.near(good[int(self.rng.integers(len(good)))], width)

    def _density(self, some: Params, known: list[Params], width: float) -> float:
        """With one more that is spread evenly over the space."""
        total = float(self._coordinates.likeness(some, known, width).sum()) if known else 0.0
        return (total + 1) / (len(known) + 1)
