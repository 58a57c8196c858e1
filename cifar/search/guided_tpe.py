"""TPE that begins with what is known, and judges hyperparameters together.

NNI's TPE draws at random for a while and then looks at each hyperparameter alone. This one begins with the defaults,
draws first near them, and compares whole configurations.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from nni import NoMoreTrialError
from nni.common.hpo_utils import deformat_parameters, format_parameters

from cifar.search.algorithms import GUIDED_STARTUP_JOBS
from cifar.search.coordinates import Coordinates, Floats, Params
from cifar.search.search_space import Space, nearest_value
from cifar.search.tuner import RepeatingTpe, point_key

_log = logging.getLogger(__name__)

_TPE_ARGS = {"n_startup_jobs": GUIDED_STARTUP_JOBS, "gamma": 0.5, "n_ei_candidates": 96}
_AT_START = 0.85  # of the random phase's proposals, near the start
_CANDIDATES_ANYWHERE, _CANDIDATES_AROUND_START = 0.2, 0.1  # the others are neighbours of good ones
_START_WIDTH = 0.15  # of the learning rate's range: the defaults are off by a factor of three or so
_WIDEST, _NARROWEST = 0.3, 0.08  # kernels of good configurations, of few and of many
_NARROWEST_OF_BAD = 0.1


class GuidedTpe(RepeatingTpe):
    """RepeatingTpe that begins with `defaults`, and with the points of `start_from`, and learns jointly.

    What a point leaves open is as in the defaults. Of `tpe_args` it takes n_startup_jobs: so many proposals are drawn;
    gamma: good are so many times the root of all trials; n_ei_candidates: of so many the most promising is proposed.
    `begun` are trials of an earlier run that go on without being proposed.
    """

    def __init__(
        self,
        optimize_mode: Literal["minimize", "maximize"] = "maximize",
        seed: int | None = None,
        tpe_args: dict[str, Any] | None = None,
        defaults: Mapping[str, Any] | None = None,
        start_from: Sequence[Mapping[str, Any]] = (),
        begun: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(optimize_mode, seed, {**_TPE_ARGS, **(tpe_args or {})})
        self._begun = {point_key(params) for params in begun}
        known = dict(defaults or {})
        self._known = [point for point in (known, *({**known, **some} for some in start_from)) if point]

    def update_search_space(self, space: Any) -> None:
        """NNI calls it at the start, and when somebody changes the space in its page."""
        super().update_search_space(space)
        self._space: Space = space
        self._coordinates = Coordinates(space, self.rng)
        self._left = [*self._known]  # to begin with
        self._start_from: list[Params] = []  # of which these have been taken, as points of the space

    def _propose(self, parameter_id: int) -> Params:
        try:
            params = self._next_start() or self._suggested()
            formatted = format_parameters(params, self.space)
            deduplicated = self.dedup(formatted)
        except NoMoreTrialError:  # a finite space, of which every point has been proposed
            raise
        except Exception:  # after any, NNI would wait for ever
            _log.exception("NNI's own TPE proposes instead")
            return super()._propose(parameter_id)
        self._params[parameter_id] = self._running_params[parameter_id] = deduplicated
        return params if deduplicated is formatted else deformat_parameters(deduplicated, self.space)

    def _next_start(self) -> Params | None:
        """The next of the points to start from that no earlier run of the experiment has trained."""
        while self._left:
            point, drawn = self._left.pop(0), self._coordinates.anywhere()
            start = {name: nearest_value(point.get(name, drawn[name]), some) for name, some in self._space.items()}
            self._start_from.append(start)
            if point_key(start) not in {*self._points, *self._begun}:
                return start
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
        """The candidate at which good configurations are densest beside all others, running ones included."""
        ranked = [point.params for point in self._ranked()]
        good = ranked[: max(2, math.ceil(self.args.gamma * math.sqrt(len(ranked))))]
        others = [
            *ranked[len(good) :],
            *(deformat_parameters(some, self.space) for some in self._running_params.values()),
        ]
        shrunk = len(ranked) ** (-1 / (len(self._coordinates.ranges) + 4))
        width, width_of_bad = max(_NARROWEST, _WIDEST * shrunk), max(_NARROWEST_OF_BAD, _WIDEST * shrunk)
        candidates = [self._candidate(good, width) for _ in range(self.args.n_ei_candidates)]
        promise = self._density(candidates, good, width) / self._density(candidates, others, width_of_bad)
        return candidates[int(np.argmax(promise))]

    def _candidate(self, good: list[Params], width: float) -> Params:
        kind = self.rng.random()
        if kind < _CANDIDATES_ANYWHERE:
            return self._coordinates.anywhere()
        if kind < _CANDIDATES_ANYWHERE + _CANDIDATES_AROUND_START and self._start_from:
            return self._around_start()
        return self._coordinates.near(good[int(self.rng.integers(len(good)))], width)

    def _density(self, candidates: list[Params], known: list[Params], width: float) -> Floats:
        """At each of the candidates, with one more that is spread evenly over the space."""
        near = self._coordinates.likeness(candidates, known, width).sum(1) if known else 0.0
        density: Floats = (near + np.ones(len(candidates))) / (len(known) + 1)
        return density
